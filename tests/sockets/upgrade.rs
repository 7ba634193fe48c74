//! The WebSocket handshake: the checks, the name of the user, and bytes that arrive in pieces.

use std::net::SocketAddr;

use serde_json::json;
use tungstenite::Error;

use crate::support::{Client, Raw, Server, TEXT, frame, raise_file_limit, upgrade_request};

/// The status that a server answers an upgrade request with.
fn status(server: &Server, headers: &[(&str, &str)]) -> u16 {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", headers).as_bytes());
    raw.response().status
}

/// The status for an upgrade request of a page at `origin` that reached the server as `host`.
fn status_for_origin(server: &Server, host: &str, origin: &str) -> u16 {
    let mut raw = Raw::connect(server.address());
    let upgrade = upgrade_request("/ws", &[("Origin", origin)]);
    raw.send(upgrade.replace("Host: roomcast.test", &format!("Host: {host}")).as_bytes());
    raw.response().status
}

#[track_caller]
fn check_origins(flags: &[&str], let_in: &[&str], kept_out: &[&str]) {
    let server = Server::spawn(flags);
    for origin in let_in {
        assert_eq!(status(&server, &[("Origin", origin)]), 101, "{origin} with {flags:?}");
    }
    for origin in kept_out {
        assert_eq!(status(&server, &[("Origin", origin)]), 403, "{origin} with {flags:?}");
    }
}

#[test]
fn a_client_without_an_origin_is_let_in() {
    let server = Server::spawn(&[]);
    assert_eq!(status(&server, &[]), 101);
}

#[test]
fn a_page_of_the_same_host_is_let_in() {
    let server = Server::spawn(&[]);
    let host = server.address().to_string();
    assert_eq!(status_for_origin(&server, &host, &format!("http://{host}")), 101);
    for host in ["localhost:8080", "LOCALHOST", "192.0.2.7:8080", "[::1]:8080", "[2001:db8::1]"] {
        let origin = format!("http://{}", host.to_lowercase());
        assert_eq!(status_for_origin(&server, host, &origin), 101, "{host}");
    }
}

#[test]
fn a_page_whose_name_was_pointed_at_the_server_is_not_let_in() {
    // DNS rebinding: the browser takes the page of an attacker and the server for one host.
    let server = Server::spawn(&["--allow-origin", "https://chat.example"]);
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil"] {
        assert_eq!(status_for_origin(&server, host, &format!("http://{host}")), 403, "{host}");
    }
    assert_eq!(status_for_origin(&server, "chat.example", "https://chat.example"), 101);
    // What a proxy made of the host does not matter for an origin that is allowed.
    assert_eq!(status_for_origin(&server, "backend:8080", "https://chat.example"), 101);
}

#[test]
fn a_page_of_the_servers_name_is_told_the_flag_that_names_it() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    let upgrade = upgrade_request("/ws", &[("Origin", "https://chat.example")]);
    raw.send(upgrade.replace("Host: roomcast.test", "Host: chat.example").as_bytes());
    let refusal = raw.response();
    assert_eq!(refusal.status, 403, "{refusal:?}");
    assert!(refusal.text().trim().ends_with("--allow-origin https://chat.example"), "{refusal:?}");
    server.wait_for_log("--allow-origin https://chat.example");
}

#[test]
fn a_page_of_another_host_or_port_is_not_let_in() {
    let server = Server::spawn(&[]);
    assert_eq!(status_for_origin(&server, "chat.example:8080", "http://chat.example:9090"), 403);
    assert_eq!(status_for_origin(&server, "chat.example", "http://chat.example.attacker"), 403);
    assert_eq!(status_for_origin(&server, "chat.example", "http://evil.example/chat.example"), 403);
    assert_eq!(status_for_origin(&server, "chat.example", "null"), 403);
}

#[test]
fn an_allowed_origin_is_let_in_exactly() {
    check_origins(
        &["--allow-origin", "https://chat.example", "--allow-origin", "http://localhost:3000"],
        &["https://chat.example", "http://localhost:3000"],
        &["http://chat.example", "https://chat.example:8443", "https://www.chat.example", "http://localhost", "null"],
    );
}

#[test]
fn a_wildcard_stands_for_subdomains_only() {
    check_origins(
        &["--allow-origin", "https://*.example"],
        &["https://chat.example", "https://a.b.example"],
        &[
            "https://example",
            "https://.example",
            "https://evil.example.attacker",
            "https://evilexample",
            "http://chat.example",
        ],
    );
}

#[test]
fn a_star_lets_every_origin_in() {
    check_origins(&["--allow-origin", "*"], &["https://chat.example", "http://localhost:3000", "null"], &[]);
}

#[test]
fn the_same_host_stays_allowed_beside_other_origins() {
    let server = Server::spawn(&["--allow-origin", "https://chat.example"]);
    let host = server.address().to_string();
    assert_eq!(status_for_origin(&server, &host, &format!("http://{host}")), 101);
}

#[track_caller]
fn check_subprotocol(offered: Option<&str>, selected: Option<&str>) {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    let header = offered.map(|offered| ("Sec-WebSocket-Protocol", offered));
    raw.send(upgrade_request("/ws", header.as_slice()).as_bytes());
    let response = raw.upgraded();
    assert_eq!(response.header("sec-websocket-protocol"), selected, "offered {offered:?}");
}

#[test]
fn the_subprotocol_is_selected_where_it_is_offered() {
    check_subprotocol(None, None);
    check_subprotocol(Some("roomcast.v1"), Some("roomcast.v1"));
    check_subprotocol(Some("graphql-ws,roomcast.v1"), Some("roomcast.v1"));
    check_subprotocol(Some("graphql-ws"), None);
}

#[test]
fn a_user_gets_the_id_that_it_asked_for() {
    let server = Server::spawn(&[]);
    let longest = "x".repeat(128);
    for (asked, given) in [
        ("alice", "alice"),
        ("J%C3%BCrgen", "Jürgen"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
        ("a-b_c.d:e@f~g%2Bh%23i=j/k", "a-b_c.d:e@f~g+h#i=j/k"),
        (longest.as_str(), longest.as_str()),
    ] {
        assert_eq!(Client::connect_as(&server, asked).user_id(), given, "asked for {asked}");
    }
}

#[test]
fn guests_get_ids_that_differ() {
    let server = Server::spawn(&[]);
    let guests: Vec<_> = (0..8).map(|_| Client::connect(&server)).collect();
    let mut ids: Vec<_> = guests.iter().map(Client::user_id).collect();
    assert!(ids.iter().all(|id| id.starts_with("guest-")), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), guests.len(), "{ids:?}");
}

#[test]
fn the_welcome_tells_the_limits_in_force() {
    let server = Server::spawn(&[
        "--ping-interval",
        "7s",
        "--message-bytes",
        "2KiB",
        "--data-bytes",
        "1KiB",
        "--message-rate",
        "0",
    ]);
    let welcome = Client::connect(&server).welcome;
    assert_eq!(welcome["pingInterval"], 7000);
    assert_eq!(welcome["limits"]["messageBytes"], 2048);
    assert_eq!(welcome["limits"]["dataBytes"], 1024);
    assert_eq!(welcome["limits"]["messageRate"], 0);
    assert_eq!(welcome["limits"]["dedupeWindowMs"], 120_000);
    let default = Client::connect(&Server::spawn(&[])).welcome;
    let limits = json!({"messageBytes": 16384, "dataBytes": 4096, "roomsPerConnection": 64, "messageRate": 50,
        "messageBurst": 100, "historyMessages": 1000, "historyAgeMs": 3_600_000, "dedupeWindowMs": 120_000});
    assert_eq!((&default["limits"], &default["pingInterval"]), (&limits, &json!(25_000)));
}

/// An upgrade request and, behind it, the frame that joins a room.
fn head_and_join() -> Vec<u8> {
    let join = json!({"type": "join", "room": "lobby"}).to_string();
    [upgrade_request("/ws?userId=alice", &[]).into_bytes(), frame(TEXT, true, join.as_bytes())].concat()
}

/// The answers to [`head_and_join`].
#[track_caller]
fn check_joined(raw: &mut Raw) {
    raw.upgraded();
    assert_eq!(raw.json()["type"], "welcome");
    assert_eq!(raw.json_of("joined")["room"], "lobby");
}

#[test]
fn a_frame_right_behind_the_request_is_answered() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    raw.send(&head_and_join());
    check_joined(&mut raw);
}

/// Opens a connection for every split of `bytes` in two and sends the first parts, then the second ones: between them the
/// server has answered another request, so that it has read what was sent before.
fn split_everywhere(server: &Server, address: SocketAddr, bytes: &[u8]) -> Vec<Raw> {
    let mut connections = Vec::new();
    for at in 1..bytes.len() {
        let mut raw = Raw::connect(address);
        raw.send(&bytes[..at]);
        connections.push(raw);
    }
    assert_eq!(server.get("/healthz").status, 200);
    for (raw, at) in connections.iter_mut().zip(1..) {
        raw.send(&bytes[at..]);
    }
    connections
}

#[test]
fn a_request_and_a_frame_may_be_split_at_any_byte() {
    raise_file_limit();
    let server = Server::spawn(&[]);
    for raw in &mut split_everywhere(&server, server.address(), &head_and_join()) {
        check_joined(raw);
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    for byte in head_and_join() {
        raw.send(&[byte]);
    }
    check_joined(&mut raw);
}

#[test]
fn a_refused_handshake_is_an_http_error_for_a_websocket_library() {
    let server = Server::spawn(&[]);
    let error = *Client::build(&server).header("Origin", "https://evil.example").try_open().unwrap_err();
    let Error::Http(response) = error else { panic!("{error:?}") };
    assert_eq!(response.status(), 403);
}
