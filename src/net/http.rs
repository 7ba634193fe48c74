//! HTTP as far as a chat server needs it: request heads, whole answers, and the upgrade (RFC 9112, RFC 6455 section 4.2).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::server::{create_response, write_response};

use super::write_buffer::WriteBuffer;

/// How many header fields a head may have.
const FIELDS_MAX: usize = 64;

/// What was read from the bytes of a head.
#[derive(Debug)]
pub(super) enum Head {
    /// Not complete yet.
    Partial,
    /// Complete; this many bytes belong to it.
    Complete(Request<()>, usize),
    /// It is no request; this is the answer.
    Bad(Response),
}

/// Whether the bytes from `searched` on, which may begin in the middle of it, contain the end of a head.
///
/// Looking for it first means that a head that comes byte by byte is parsed once, not once a byte (CVE-2023-43669).
pub(super) fn contains_end(bytes: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(3);
    bytes[from..].windows(2).any(|pair| pair == b"\n\n") || bytes[from..].windows(3).any(|three| three == b"\n\r\n")
}

/// What follows empty lines, which may stand before a request (RFC 9112 section 2.2).
pub(super) fn without_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")) {
        bytes = rest;
    }
    bytes
}

/// The answer to the first bytes of a head if no request begins like that, for example a TLS hello or the banner of another protocol.
///
/// Of later bytes nothing is said before the head is complete, so that a head that comes byte by byte is not parsed once a byte.
pub(super) fn refuse_beginning(bytes: &[u8], searched: usize) -> Option<Response> {
    const BEGINNING_BYTES: usize = 64;
    if searched >= BEGINNING_BYTES {
        return None;
    }
    match parse_head(bytes, usize::MAX) {
        Head::Bad(response) => Some(response),
        Head::Partial | Head::Complete(..) => None,
    }
}

/// Reads a head of at most `bytes_max`.
pub(super) fn parse_head(bytes: &[u8], bytes_max: usize) -> Head {
    let too_large = |reason: String| Head::Bad(Response::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &reason));
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(used)) if used <= bytes_max => match to_request(&parsed) {
            Ok(request) => Head::Complete(request, used),
            Err(reason) => Head::Bad(Response::text(StatusCode::BAD_REQUEST, &reason)),
        },
        Ok(httparse::Status::Partial) if bytes.len() < bytes_max => Head::Partial,
        Ok(_) => too_large(format!("request head exceeds {bytes_max} bytes")),
        Err(httparse::Error::TooManyHeaders) => too_large(format!("more than {FIELDS_MAX} header fields")),
        Err(error) => {
            let reason = format!("not an HTTP/1.1 request: {error}");
            Head::Bad(Response::text(StatusCode::BAD_REQUEST, &reason))
        }
    }
}

fn to_request(parsed: &httparse::Request<'_, '_>) -> Result<Request<()>, String> {
    let (method, path) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| format!("bad method {method:?}"))?;
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| format!("bad request target: {error}"))?;
    *request.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let headers: &mut HeaderMap = request.headers_mut();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| format!("bad header {:?}", field.name))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| format!("bad value of header {name}"))?;
        headers.append(name, value);
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(format!("{hosts} Host header fields; HTTP/1.1 wants one"));
    }
    Ok(request)
}

/// The `Content-Length` of a request, in digits, if it has one.
///
/// Any other length is an error that the request cannot be read past (RFC 9112 section 6.3), and so are two ways to tell where it
/// ends (section 11.2).
///
/// # Errors
/// What was found and what is allowed.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<&str>, String> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err("Content-Length beside Transfer-Encoding; one is allowed".to_owned());
    }
    let digits = first.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    if digits.is_none() || lengths.any(|other| other != first) {
        let found = headers.get_all(CONTENT_LENGTH).iter().map(|length| String::from_utf8_lossy(length.as_bytes()));
        let found = found.collect::<Vec<_>>().join(", ");
        return Err(format!("Content-Length is {found:?}; one number is allowed"));
    }
    Ok(digits)
}

/// A whole answer. The connection is closed after it, unless it answers a request with a body.
#[derive(Clone, Debug)]
pub struct Response {
    status: StatusCode,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Bytes,
    /// Bytes that the body would have, were the method not HEAD.
    omitted_bytes: usize,
}

impl Response {
    /// An answer with a body of this media type. A large body is sent from where it lies.
    pub fn new(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("Content-Type", media_type.into()), ("X-Content-Type-Options", "nosniff".into())];
        Self { status, headers, body: body.into(), omitted_bytes: 0 }
    }

    /// An answer of one sentence.
    pub fn text(status: StatusCode, sentence: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{sentence}\n").into_bytes())
    }

    /// An answer of one sentence to a request that may be sent again in a second.
    pub fn unavailable(sentence: &str) -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, sentence).with("Retry-After", "1")
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Lets pages of other origins read it: a browser tells them nothing else about a refused WebSocket.
    #[must_use]
    pub fn for_pages(self) -> Self {
        self.with("Access-Control-Allow-Origin", "*").with("Access-Control-Expose-Headers", "Retry-After")
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to a HEAD request: it says how long the body would be.
    pub(super) fn without_body(mut self) -> Self {
        self.omitted_bytes = self.body.len();
        self.body = Bytes::new();
        self
    }

    /// Writes the last answer on a connection.
    pub(super) fn write_last(&self, out: &mut WriteBuffer) {
        self.write(out, "Connection: close\r\n\r\n");
    }

    /// Writes an answer behind which another may follow: HTTP/1.1 needs no field for that.
    pub(super) fn write_kept(&self, out: &mut WriteBuffer) {
        self.write(out, "\r\n");
    }

    fn write(&self, out: &mut WriteBuffer, end: &str) {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_str()).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        // A 304 has no body, and its length would be that of the 200 that it stands for (RFC 9110 section 8.6).
        if self.status != StatusCode::NOT_MODIFIED {
            let body_bytes = self.body.len() + self.omitted_bytes;
            bytes.extend_from_slice(format!("Content-Length: {body_bytes}\r\n").as_bytes());
        }
        bytes.extend_from_slice(end.as_bytes());
        out.append_indivisible(&bytes);
        out.append_shared(&self.body);
    }
}

/// A request that was found to be a proper WebSocket handshake, and its answer; or a question, which has none.
///
/// A question is a plain GET. A page sends it to learn why its handshake was refused, since a browser does not show that. It passes
/// the same checks, and is answered 426 at the end of them.
#[derive(Debug)]
pub struct Handshake {
    /// None to a question.
    response: Option<http::Response<()>>,
    /// What the handler holds for it while it is put off.
    pub(super) handler_bytes: usize,
}

impl Handshake {
    /// Checks a request: GET, HTTP/1.1, `Connection`, `Upgrade`, version 13, a key. Without `Upgrade` it is a question.
    ///
    /// # Errors
    /// The answer that says what is missing.
    pub fn check(request: &Request<()>) -> Result<Self, Response> {
        if request.method() == Method::GET && !request.headers().contains_key(UPGRADE) {
            return Ok(Self { response: None, handler_bytes: 0 });
        }
        let accept = |response| Self { response: Some(response), handler_bytes: 0 };
        create_response(request).map(accept).map_err(|error| match error {
            Error::Protocol(ProtocolError::WrongHttpMethod) => method_not_allowed(request, "GET"),
            Error::Protocol(ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey) => {
                let reason = "Sec-WebSocket-Key is missing or not 16 bytes in base64";
                Response::text(StatusCode::BAD_REQUEST, reason)
            }
            Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
                let found = request.headers().get("Sec-WebSocket-Version").and_then(|value| value.to_str().ok());
                upgrade_required(&format!("Sec-WebSocket-Version is {}; 13 is allowed", found.unwrap_or("missing")))
            }
            Error::Protocol(error) => upgrade_required(&format!("this is a WebSocket, to be opened by one: {error}")),
            error => Response::text(StatusCode::BAD_REQUEST, &error.to_string()),
        })
    }

    /// Selects a subprotocol that the client has offered.
    #[must_use]
    pub fn with_subprotocol(mut self, subprotocol: &'static str) -> Self {
        if let Some(response) = &mut self.response {
            response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
        }
        self
    }

    /// The handler holds so many bytes for it until it decides, which the connection is charged for.
    #[must_use]
    pub fn with_handler_bytes(self, handler_bytes: usize) -> Self {
        Self { handler_bytes, ..self }
    }

    /// The answer that upgrades the connection.
    ///
    /// # Errors
    /// That to a question whose handshake would be admitted.
    #[expect(clippy::expect_used, reason = "writing into memory does not fail")]
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Response> {
        let Some(response) = &self.response else {
            let reason = "this is a WebSocket, to be opened by one: the request has no \"Upgrade: websocket\"";
            return Err(upgrade_required(reason).for_pages());
        };
        let mut bytes = Vec::with_capacity(160);
        write_response(&mut bytes, response).expect("writing into memory does not fail");
        Ok(bytes)
    }
}

fn upgrade_required(reason: &str) -> Response {
    Response::text(StatusCode::UPGRADE_REQUIRED, reason)
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
}

/// The answer to a method that a resource does not have.
pub fn method_not_allowed(request: &Request<()>, allowed: &'static str) -> Response {
    let reason = format!("method {}; {allowed} allowed", request.method());
    Response::text(StatusCode::METHOD_NOT_ALLOWED, &reason).with("Allow", allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_is_sent_from_where_it_lies() {
        let body = Bytes::from(vec![b'x'; 50_000]);
        let response = Response::new(StatusCode::OK, "text/plain", body.clone());
        let mut out = WriteBuffer::default();
        response.write_last(&mut out);
        let head_bytes = out.len() - body.len();
        assert!(head_bytes < 200 && out.capacity() < 1000, "{head_bytes} bytes of head, {} copied", out.capacity());
        out.take(head_bytes);
        assert_eq!(out.waiting().as_ptr_range(), body.as_ptr_range());
        // Whatever follows comes behind it, and what was taken of it is not sent again.
        out.take(10);
        out.append(b"more");
        assert_eq!(out.waiting(), [&body[10..], b"more"].concat());
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..=head.len() {
            let found = contains_end(&head[..cut], 0) || contains_end(head, cut);
            assert!(found, "cut at {cut}");
            assert_eq!(contains_end(&head[..cut], 0), cut == head.len());
        }
        assert!(contains_end(b"GET / HTTP/1.1\n\n", 0));
    }

    #[test]
    fn heads_are_told_apart() {
        let status = |bytes: &[u8]| match parse_head(bytes, 200) {
            Head::Partial => 0,
            Head::Complete(..) => 200,
            Head::Bad(response) => response.status().as_u16(),
        };
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost"), 0);
        assert_eq!(status(b"\x16\x03\x01 hello"), 400);
        assert_eq!(status(b"GET /\xff HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status(&[b"GET /", [b'a'; 300].as_slice()].concat()), 431);
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(parse_head_status(many.as_bytes()), 431);
    }

    fn parse_head_status(bytes: &[u8]) -> u16 {
        match parse_head(bytes, 8192) {
            Head::Bad(response) => response.status().as_u16(),
            _ => 0,
        }
    }
}
