//! A back-end decides whose a connection is: what it is told, and what its answers mean.

use serde_json::{Value, json};

use crate::support::back_end::{BackEnd, Reply};
use crate::support::chat::{settle, texts};
use crate::support::tokens::in_seconds;
use crate::support::{Client, Raw, Response, Server, roomcast, upgrade_request};

/// A server that asks a back-end.
pub(crate) fn asking(back_end: &BackEnd, flags: &[&str]) -> Server {
    Server::spawn(&[&["--auth-url", &back_end.url()], flags].concat())
}

/// The answer to a handshake of a user that is refused.
pub(crate) fn refused(server: &Server, user: &str) -> Response {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
    raw.response()
}

#[test]
fn the_back_end_says_who_a_connection_is() {
    let expires = in_seconds(600) * 1000;
    let back_end = BackEnd::new(move |asked| match asked.user() {
        "alice" => Reply::user("alice"),
        "" => Reply::json(
            200,
            &json!({
                "user": "bob", "name": "Bob", "expiresAt": expires,
                "rooms": [{"match": "team-*", "allow": ["join", "say"]}],
            }),
        ),
        // It knows better.
        other => Reply::user(&format!("{other}-2")),
    });
    let server = asking(&back_end, &[]);
    let alice = Client::connect_as(&server, "alice");
    assert_eq!(
        (alice.user_id(), &alice.welcome["name"], &alice.welcome["expiresAt"]),
        ("alice", &Value::Null, &Value::Null)
    );
    assert_eq!(Client::connect_as(&server, "carol").user_id(), "carol-2");
    let mut bob = Client::connect(&server);
    assert_eq!(
        (bob.user_id(), &bob.welcome["name"], &bob.welcome["expiresAt"]),
        ("bob", &json!("Bob"), &json!(expires))
    );
    bob.join("team-red");
    bob.say("team-red", "hello");
    assert_eq!(texts(&settle(&mut bob)), ["hello"]);
    bob.send_json(&json!({"type": "join", "room": "lobby"}));
    assert_eq!(bob.recv_type("error")["code"], "forbidden");
}

#[test]
fn the_back_end_is_told_what_the_handshake_has() {
    let back_end = BackEnd::new(|_| Reply::user("alice"));
    let url = back_end.url().replace("//", "//roomcast:pass%20word@") + "?key=7";
    let server =
        Server::spawn(&["--auth-url", &url, "--trusted-proxy", "127.0.0.1", "--allow-origin", "https://chat.example"]);
    let client = Client::build(&server)
        .user("Zo%C3%AB")
        .header("Cookie", "session=\"4711\"; theme=dark")
        .header("Origin", "https://chat.example")
        .header("Authorization", "Bearer t0ken")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Secret", "of nobody's concern")
        .connect();
    assert_eq!(client.user_id(), "alice");
    Client::build(&server).protocol("roomcast.v1").protocol("roomcast.token.abc").connect();
    let asked = back_end.asked();
    let [full, other] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(full.head[0], "POST /auth?key=7 HTTP/1.1");
    assert_eq!(full.header("authorization"), Some("Basic cm9vbWNhc3Q6cGFzcyB3b3Jk"));
    assert_eq!((full.header("content-type"), full.header("cookie")), (Some("application/json"), None));
    let expected = json!({
        "user": "Zoë", "address": "203.0.113.9", "origin": "https://chat.example", "cookie": "session=\"4711\"; theme=dark",
        "authorization": "Bearer t0ken", "token": "t0ken",
    });
    assert_eq!(full.body, expected);
    let expected = json!({
        "user": null, "address": "127.0.0.1", "origin": null, "cookie": null, "authorization": null, "token": "abc",
    });
    assert_eq!(other.body, expected);
}

#[test]
fn the_back_end_refuses_with_a_status_and_a_reason() {
    let back_end = BackEnd::new(|asked| match asked.user() {
        "stranger" => Reply::json(401, &json!({"message": "log in first"})),
        "banned" => Reply::Answer(403, "text/plain; charset=utf-8", b"you are\r\nbanned\n".to_vec()),
        _ => Reply::Answer(403, "text/html", b"<h1>Forbidden</h1>".to_vec()),
    });
    let server = asking(&back_end, &[]);
    let response = refused(&server, "stranger");
    assert_eq!((response.status, response.text()), (401, "log in first\n"));
    assert!(response.header("www-authenticate").is_some(), "{response:?}");
    let response = refused(&server, "banned");
    assert_eq!((response.status, response.text()), (403, "you are  banned\n"));
    let response = refused(&server, "other");
    assert_eq!((response.status, response.text()), (403, "the back-end has refused the connection\n"));
    assert_eq!(server.log_lines("WARN"), [] as [String; 0], "that is no failure");
}

#[test]
fn only_handshakes_that_could_become_connections_are_asked_about() {
    let back_end = BackEnd::obliging();
    let server = asking(&back_end, &["--max-connections", "1", "--allow-origin", "https://chat.example"]);
    let status = |path: &str, headers: &[(&str, &str)]| {
        let mut raw = Raw::connect(server.address());
        raw.send(upgrade_request(path, headers).as_bytes());
        raw.response().status
    };
    assert_eq!(status("/ws?userId=a%20b", &[]), 400);
    assert_eq!(status("/ws", &[("Origin", "https://elsewhere.example")]), 403);
    assert_eq!(status("/other", &[]), 404);
    assert_eq!(
        status("/ws", &[("Authorization", "Bearer a"), ("Sec-WebSocket-Protocol", "roomcast.v1, roomcast.token.b")]),
        400
    );
    assert_eq!(status("/ws", &[("Sec-WebSocket-Protocol", "roomcast.token.b")]), 400);
    assert_eq!(server.get("/").status, 200);
    let alice = Client::connect_as(&server, "alice");
    assert_eq!(status("/ws?userId=bob", &[]), 503);
    assert_eq!(back_end.asked().len(), 1, "{:?}", back_end.asked());
    drop(alice);
}

#[test]
fn a_connection_ends_with_its_identity_and_comes_back_through_the_back_end() {
    let back_end = BackEnd::new(|_| Reply::json(200, &json!({"user": "alice", "expiresAt": in_seconds(2) * 1000})));
    let server = asking(&back_end, &[]);
    let mut alice = Client::connect(&server);
    // It has no token that could be replaced, although it expires.
    alice.send_json(&json!({"type": "refresh", "token": "abc", "id": "r"}));
    let error = alice.recv_type("error");
    assert_eq!((&error["code"], &error["id"]), (&json!("invalid_token"), &json!("r")));
    assert!(error["message"].as_str().unwrap().contains("asks a back-end"), "{error}");
    assert_eq!(alice.expect_close(), 4003);
    let again = Client::connect(&server);
    assert_eq!((again.user_id(), back_end.asked().len()), ("alice", 2));
}

#[test]
fn connections_to_the_back_end_are_kept() {
    let back_end = BackEnd::obliging();
    let server = asking(&back_end, &[]);
    for number in 0..10 {
        Client::connect_as(&server, &format!("user-{number}"));
        assert_eq!(refused(&server, "").status, 502, "the back-end names nobody");
    }
    assert_eq!((back_end.asked().len(), back_end.connections()), (20, 1));
}

#[test]
fn nothing_secret_is_logged() {
    let back_end = BackEnd::new(|asked| match asked.user() {
        "garbage" => Reply::json(200, &json!({"user": "alice", "password": "s3cret-answer"})),
        "refused" => Reply::json(403, &json!({"message": "no"})),
        other => Reply::user(other),
    });
    let mut command = roomcast();
    let url = back_end.url().replace("//", "//roomcast:s3cret-pass@") + "/s3cret-path?key=s3cret-query";
    command.env("RUST_LOG", "trace").env("ROOMCAST_AUTH_URL", url).args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn_command(command, 1);
    for user in ["alice", "garbage", "refused"] {
        let headers = [("Cookie", "session=s3cret-cookie"), ("Authorization", "Bearer s3cret-bearer")];
        let mut raw = Raw::connect(server.address());
        raw.send(upgrade_request(&format!("/ws?userId={user}"), &headers).as_bytes());
        raw.response();
    }
    server.wait_for_log("gives no decisions");
    assert_eq!(back_end.asked().len(), 3);
    assert_eq!(server.log_lines("s3cret"), [] as [String; 0]);
}
