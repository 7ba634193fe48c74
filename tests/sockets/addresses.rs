//! What one address may have: connections, connects and requests a second. Others do not notice.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::support::api::{KEY, publish_request, server_with};
use crate::support::chat::frame_of_json;
use crate::support::{Raw, Server, request, upgrade_request, wait_until};

const CROWD: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";

/// A WebSocket from an address.
fn open_from(source: &str, server: SocketAddr) -> Raw {
    let mut raw = Raw::connect_from(source, server);
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    raw.upgraded();
    raw
}

/// Whether a connection from an address is closed before it has asked for anything.
fn is_closed_at_once(source: &str, server: SocketAddr) -> bool {
    let mut raw = Raw::connect_from(source, server);
    // A connection that is kept answers this; the bytes of one that is closed may already meet a reset.
    let _ = raw.try_send(request("GET", "/healthz", &[("Connection", "close")]).as_bytes());
    raw.at_end()
}

fn health_from(source: &str, server: SocketAddr) -> Raw {
    let mut raw = Raw::connect_from(source, server);
    raw.send(request("GET", "/healthz", &[]).as_bytes());
    raw
}

/// A counter of `/metrics`.
fn counter(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&format!("roomcast_{name}_total ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().expect("a number") as u64
}

#[test]
fn an_address_with_as_many_connections_as_it_may_have_gets_no_further_one() {
    let server = Server::spawn(&["--connections-per-address", "3", "--metrics"]);
    let mut open: Vec<_> = (0..3).map(|_| open_from(CROWD, server.address())).collect();
    assert!(is_closed_at_once(CROWD, server.address()));
    let _other = open_from(OTHER, server.address());
    assert_eq!(counter(&server, "address_connections_rejected"), 1);
    let line = server.wait_for_log("--connections-per-address");
    assert!(line.contains(CROWD) && line.contains("--trusted-proxy 127.0.0.2"), "{line}");

    drop(open.pop());
    wait_until("another one gets in", || !is_closed_at_once(CROWD, server.address()));
}

#[test]
fn an_address_that_connects_too_often_is_refused_beyond_its_burst() {
    let server = Server::spawn(&["--connects-per-address", "1", "--metrics"]);
    let closed = (0..30).filter(|_| is_closed_at_once(CROWD, server.address())).count();
    // A slow machine gives back a token or two meanwhile.
    assert!((15..=20).contains(&closed), "{closed} of 30");
    assert!(!is_closed_at_once(OTHER, server.address()));
    assert_eq!(counter(&server, "address_connects_rejected"), closed as u64);
    wait_until("a token comes back", || !is_closed_at_once(CROWD, server.address()));
}

#[test]
fn an_address_that_asks_too_often_is_answered_429() {
    let server = Server::spawn(&["--requests-per-address", "1", "--connects-per-address", "0", "--metrics"]);
    let answers: Vec<_> = (0..30).map(|_| health_from(CROWD, server.address()).response()).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((15..=20).contains(&refused.len()), "{} of 30", refused.len());
    assert!(answers[..10].iter().all(|answer| answer.status == 200));
    assert_eq!(refused[0].header("retry-after"), Some("1"), "{:?}", refused[0]);
    assert_eq!(health_from(OTHER, server.address()).response().status, 200);
    assert_eq!(counter(&server, "address_requests_rejected"), refused.len() as u64);
    // A handshake is a request, too.
    let mut raw = Raw::connect_from(CROWD, server.address());
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    assert_eq!(raw.response().status, 429);
}

#[test]
fn a_back_end_with_a_right_key_is_not_charged_to_its_address() {
    let server = server_with(&["--requests-per-address", "1"]);
    let mut raw = Raw::connect_from(CROWD, server.address());
    for number in 1..=100 {
        raw.send(&publish_request(r#"{"room": "lobby", "user": "bot", "text": "hello"}"#));
        let answer = raw.response();
        assert_eq!(answer.status, 200, "request {number}: {answer:?}");
    }
    assert_eq!(health_from(CROWD, server.address()).response().status, 200, "the address has all its tokens");
    let wrong =
        request("POST", "/api/publish", &[("Authorization", &format!("Bearer {KEY}x")), ("Content-Length", "2")]);
    let statuses: Vec<_> = (0..30)
        .map(|_| {
            let mut raw = Raw::connect_from(CROWD, server.address());
            raw.send(wrong.as_bytes());
            raw.response().status
        })
        .collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[29], 429, "who guesses keys is charged: {statuses:?}");
    raw.send(&publish_request(r#"{"room": "lobby", "user": "bot", "text": "hello"}"#));
    assert_eq!(raw.response().status, 200, "the key counts where the address has nothing left");
}

#[test]
fn zero_turns_a_cap_off() {
    let flags = ["--connections-per-address", "0", "--connects-per-address", "0", "--requests-per-address", "0"];
    let server = Server::spawn(&flags);
    let crowd: Vec<_> = (0..150).map(|_| open_from(CROWD, server.address())).collect();
    drop(crowd);
}

#[test]
fn programs_of_the_same_machine_are_not_capped() {
    let caps = ["--connections-per-address", "1", "--connects-per-address", "1", "--requests-per-address", "1"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listen = format!("--listen=unix:{}", path.display());
    let server = Server::spawn(&[&["--listen=127.0.0.1:0", &listen][..], &caps].concat());
    let tcp: Vec<_> = (0..30).map(|_| open_from("127.0.0.1", server.address())).collect();
    let unix: Vec<_> = (0..30)
        .map(|_| {
            let mut raw = Raw::over(UnixStream::connect(&path).unwrap());
            raw.send(upgrade_request("/ws", &[]).as_bytes());
            raw.upgraded();
            raw
        })
        .collect();
    assert_eq!((tcp.len(), unix.len()), (30, 30));
}

#[test]
fn each_unix_socket_is_an_owner_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| folder.path().join(name));
    let [a, b] = [0, 1].map(|at: usize| format!("--listen=unix:{}", files[at].display()));
    let server = Server::spawn(&["--listen=127.0.0.1:0", &a, &b, "--deliveries-per-owner", "10"]);
    server.wait_for_log(&format!("listening on {}", &b["--listen=".len()..]));
    let mut clients = [(0, "ann"), (0, "bob"), (1, "eve")].map(|(at, user): (usize, _)| {
        let mut raw = Raw::over(UnixStream::connect(&files[at]).unwrap());
        raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
        raw.upgraded();
        raw.send(&frame_of_json(&json!({"type": "join", "room": user})));
        raw.json_of("joined");
        raw
    });
    for _ in 0..30 {
        clients[0].send(&frame_of_json(&json!({"type": "chat", "room": "ann", "text": "x"})));
    }
    assert_eq!(clients[0].json_of("error")["code"], "rate_limited");
    clients[1].send(&frame_of_json(&json!({"type": "chat", "room": "bob", "text": "y"})));
    assert_eq!(clients[1].json_of("error")["code"], "rate_limited", "it came over the same socket");
    clients[2].send(&frame_of_json(&json!({"type": "chat", "room": "eve", "text": "z"})));
    assert_eq!(clients[2].json_of("chat")["text"], "z");
}
