//! The back-end, as threads that may wait ask it.

use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use http::uri::{Authority, Parts};
use http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;
use ureq::{Agent, Body, Error};

use super::answer::{self, Failure, FailureKind, Reply};
use crate::server::http_client;

/// Longer answers are no decisions.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Each of the two buffers of a connection. The head of an answer has half of one.
const BUFFER_BYTES: usize = 16 * 1024;

/// Where the back-end is, and the connections to it, which are kept for the next questions.
pub(super) struct BackEnd {
    agent: Agent,
    /// Without a name and password.
    url: Uri,
    /// The value of `Authorization` that the URL asks for.
    authorization: Option<String>,
}

impl BackEnd {
    /// Of a URL, for so many requests at once.
    ///
    /// # Errors
    /// What is wrong with the URL, without the URL.
    pub(super) fn new(url: &str, requests_max: usize) -> Result<Self, String> {
        let (url, authorization) = split_credentials(http_client::read_url(url)?)?;
        if http_client::is_plain(&url) {
            log::warn!("auth-url: by http, everybody on the way can read cookies and decide; use https");
        }
        let settings = http_client::settings()
            // Credentials of people go nowhere else than where the operator says.
            .max_redirects(0)
            .http_status_as_error(false)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_response_header_size(BUFFER_BYTES / 2)
            .max_idle_connections(requests_max)
            .max_idle_connections_per_host(requests_max);
        Ok(Self { agent: http_client::agent(settings), url, authorization })
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, question: &[u8], time: Duration) -> Reply {
        let asked = match self.post(question, time) {
            // A kept connection may have ended at this moment.
            Err(Error::Io(error)) if is_cut(&error) => self.post(question, time),
            asked => asked,
        };
        let mut response = asked.map_err(|error| failure(&error))?;
        let status = response.status();
        match status {
            StatusCode::OK => {
                let body = read(response.body_mut()).map_err(|error| failure(&error))?;
                answer::identity(&body).map(Ok)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let is_plain_text = response.body().mime_type() == Some("text/plain");
                let body = read(response.body_mut()).unwrap_or_default();
                Ok(Err(answer::refusal(status, is_plain_text, &body)))
            }
            status if status.is_redirection() => {
                Err(Failure::no_decision(format!("it has answered {}; redirects are not followed", status.as_u16())))
            }
            status => Err(Failure::no_decision(format!(
                "it has answered {}; 200, 401 and 403 are decisions",
                status.as_u16()
            ))),
        }
    }

    fn post(&self, question: &[u8], time: Duration) -> Result<http::Response<Body>, Error> {
        let request = self.agent.post(&self.url).config().timeout_global(Some(time)).build();
        let request = request.header("Content-Type", "application/json").header("Accept", "application/json");
        match &self.authorization {
            Some(value) => request.header("Authorization", value).send(question),
            None => request.send(question),
        }
    }
}

fn read(body: &mut Body) -> Result<Vec<u8>, Error> {
    body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

fn failure(error: &Error) -> Failure {
    let (kind, problem) = match error {
        Error::Timeout(_) => (FailureKind::Late, "it has not answered in time".to_owned()),
        Error::BodyExceedsLimit(max) => (FailureKind::NoDecision, format!("its answer has more than {max} bytes")),
        Error::Protocol(_) | Error::LargeResponseHeader(..) | Error::BodyStalled => {
            (FailureKind::NoDecision, format!("its answer is not HTTP: {error}"))
        }
        // The others name no more than a host.
        Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed | Error::Rustls(_) | Error::Tls(_) => {
            (FailureKind::Unreachable, format!("it cannot be reached: {error}"))
        }
        _ => (FailureKind::Unreachable, "it cannot be reached".to_owned()),
    };
    Failure { kind, problem }
}

/// Takes name and password out of a URL. Says what `Authorization` says in their place (RFC 7617).
fn split_credentials(url: Uri) -> Result<(Uri, Option<String>), String> {
    let Some((credentials, host)) = url.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
        return Ok((url, None));
    };
    let decoded: Vec<u8> = percent_decode_str(credentials).collect();
    let value = format!("Basic {}", BASE64.encode(&decoded));
    let host: Authority = host.parse().map_err(|_| "the URL has no host".to_owned())?;
    let mut parts: Parts = url.into_parts();
    parts.authority = Some(host);
    let url = Uri::from_parts(parts).map_err(|error| format!("the URL cannot be read: {error}"))?;
    Ok((url, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_password_of_a_url_become_a_header() {
        let check = |url: &str, expected: &str, authorization: Option<&str>| {
            let (url, found) = split_credentials(url.parse().unwrap()).unwrap();
            assert_eq!((url.to_string().as_str(), found.as_deref()), (expected, authorization));
        };
        check("https://id.example:8443/a?b=c", "https://id.example:8443/a?b=c", None);
        check("http://ann:b%40b@id.example/a?b=c", "http://id.example/a?b=c", Some("Basic YW5uOmJAYg=="));
        check("http://ann@[::1]:80/", "http://[::1]:80/", Some("Basic YW5u"));
    }
}
