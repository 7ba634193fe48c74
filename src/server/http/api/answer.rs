//! The answers of the API: JSON, with a code if the request was not carried out.

use http::StatusCode;
use serde::Serialize;

use crate::net::Response;
use crate::protocol::{ErrorCode, append_json};

pub(super) const MEDIA_TYPE: &str = "application/json";

/// How long a client waits before it tries again, in seconds.
const RETRY_AFTER: &str = "1";

/// The status of an error code of the protocol.
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::RateLimited | ErrorCode::RoomBusy => StatusCode::TOO_MANY_REQUESTS,
        code if code.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A refusal with a status of HTTP. Its code is that of the protocol where there is one.
pub(super) fn refuse(status: StatusCode, reason: &str) -> Response {
    let code = match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => ErrorCode::Forbidden.as_str(),
        StatusCode::NOT_FOUND => ErrorCode::NotFound.as_str(),
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::LENGTH_REQUIRED => "length_required",
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge.as_str(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::GATEWAY_TIMEOUT => ErrorCode::Unavailable.as_str(),
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::ServerBusy.as_str(),
        _ => ErrorCode::BadMessage.as_str(),
    };
    let is_temporary =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status);
    error_response(status, code, reason, is_temporary)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

/// Why a request, or a part of it, was not carried out.
#[derive(Serialize)]
pub(super) struct ErrorDetail<'a> {
    code: &'a str,
    message: &'a str,
    temporary: bool,
}

impl<'a> ErrorDetail<'a> {
    pub(super) fn new(code: ErrorCode, message: &'a str) -> Self {
        Self { code: code.as_str(), message, temporary: code.is_temporary() }
    }
}

/// The answer to a request that was not carried out.
pub(super) fn error_response(status: StatusCode, code: &str, message: &str, temporary: bool) -> Response {
    let response = json(status, to_json(&ErrorBody { error: ErrorDetail { code, message, temporary } }));
    if temporary { response.with("Retry-After", RETRY_AFTER) } else { response }
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    Response::new(status, MEDIA_TYPE, body).with("Cache-Control", "no-store")
}

/// The JSON of a value, with a line end for people at a terminal.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    append_json(&mut text, value);
    text.push(b'\n');
    text
}
