//! Back-ends that publish over HTTP.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Raw, Response, Server, request};

pub const KEY: &str = "key-0123456789abcdef";
const AUTHORIZATION: (&str, &str) = ("Authorization", "Bearer key-0123456789abcdef");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A server with [`KEY`].
pub fn server_with(flags: &[&str]) -> Server {
    Server::spawn(&[&["--api-key", KEY][..], flags].concat())
}

/// The head of a proper request to publish whose body has this length.
pub fn publish_head(body_bytes: usize, headers: &[(&str, &str)]) -> String {
    head("/api/publish", body_bytes, headers)
}

fn head(path: &str, body_bytes: usize, headers: &[(&str, &str)]) -> String {
    let length = body_bytes.to_string();
    let proper = [AUTHORIZATION, JSON, ("Content-Length", &length)];
    request("POST", path, &[&proper, headers].concat())
}

/// Sends a command, and does not stay.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    exchange(address, &whole_request(path, body), b"")
}

/// Sends a command with another key than [`KEY`], and does not stay.
pub fn post_with(key: &str, address: SocketAddr, path: &str, body: &Value) -> Response {
    exchange(address, &whole_request(path, body).replace(KEY, key), b"")
}

/// A request that is the last on its connection.
pub fn whole_request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    head(path, body.len(), &[("Connection", "close")]) + &body
}

/// Sends a command that is carried out, and returns its answer.
#[track_caller]
pub fn command(address: SocketAddr, path: &str, body: &Value) -> Value {
    let response = post(address, path, body);
    assert_eq!(response.status, 200, "{path} {body}: {response:?} {}", response.text());
    json_of(&response)
}

/// A whole request behind which another may follow.
pub fn publish_request(body: &str) -> Vec<u8> {
    [publish_head(body.len(), &[]).as_bytes(), body.as_bytes()].concat()
}

/// Sends any request on a connection of its own, which must end after the answer.
pub fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> Response {
    let mut raw = Raw::connect(address);
    raw.send(&[head.as_bytes(), body].concat());
    let response = raw.response();
    assert!(raw.at_end(), "the connection stays open after {response:?}");
    response
}

/// Publishes something, and does not stay.
pub fn publish_text(address: SocketAddr, body: &str) -> Response {
    exchange(address, &publish_head(body.len(), &[("Connection", "close")]), body.as_bytes())
}

pub fn publish(address: SocketAddr, body: &Value) -> Response {
    publish_text(address, &body.to_string())
}

pub fn json_of(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// An answer 200, whose body has these fields and no others.
#[track_caller]
pub fn check_published(response: &Response, room: &str, seq: u64, duplicate: bool) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(json_of(response), serde_json::json!({"room": room, "seq": seq, "duplicate": duplicate}));
}

/// A refusal with this status and code, whose sentence has all the `needles`.
#[track_caller]
pub fn check_refused(response: &Response, status: u16, code: &str, needles: &[&str]) {
    assert_eq!(response.status, status, "{response:?}");
    let error = &json_of(response)["error"];
    assert_eq!(error["code"], code, "{error}");
    let message = error["message"].as_str().expect("a message");
    for needle in needles {
        assert!(message.contains(needle), "no {needle:?} in {message:?}");
    }
    let is_temporary = error["temporary"].as_bool().expect("whether it is temporary");
    assert_eq!(is_temporary, response.header("retry-after").is_some(), "{response:?}");
    assert_eq!(is_temporary, [408, 429, 503, 504].contains(&status), "{response:?}");
}
