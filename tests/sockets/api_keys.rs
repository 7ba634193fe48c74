//! Keys that are limited to commands and rooms, and the lines of the log that name them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::api::{KEY, check_published, check_refused, exchange, json_of, post_with, whole_request};
use crate::support::{Client, Server, request, roomcast, wait_until};

const ALL: &str = "all-0123456789abcdef";
const NEWS: &str = "news-0123456789abcdef";
const SPEAKER: &str = "speaker-0123456789abcdef";
const JANITOR: &str = "janitor-0123456789abcdef";

const KEYS: &str = "\
# the keys of the tests

all-0123456789abcdef name=boss # everything
news-0123456789abcdef rooms=news-*,lobby name=news
  speaker-0123456789abcdef commands=publish,broadcast
janitor-0123456789abcdef name=janitor commands=kick,ban,mute,bans rooms=lobby
";

/// A file of keys.
fn key_file(keys: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, keys).expect("write the keys");
    (folder, path)
}

fn server(path: &std::path::Path, level: &str) -> Server {
    let mut command = roomcast();
    command.env("RUST_LOG", level).args(["--listen", "127.0.0.1:0", "--api-key-file"]).arg(path);
    Server::spawn_command(command, 1)
}

#[test]
fn a_key_may_do_what_its_limits_allow_and_nothing_else() {
    let (_folder, path) = key_file(KEYS);
    let server = server(&path, "info");
    let post = |key: &str, path: &str, body| post_with(key, server.address(), path, &body);
    let allowed = |key: &str, path: &str, body: serde_json::Value| {
        let response = post(key, path, body.clone());
        assert_eq!(response.status, 200, "{key} {path} {body}: {}", response.text());
    };
    let refused = |key: &str, path: &str, body: serde_json::Value, needle: &str| {
        check_refused(&post(key, path, body), 403, "forbidden", &[needle]);
    };
    let say = |room: &str| json!({"room": room, "text": "hello"});
    let user = || json!({"userId": "mallory"});
    let in_room = |room: &str| json!({"userId": "mallory", "room": room});

    allowed(ALL, "/api/publish", say("cellar"));
    allowed(ALL, "/api/disconnect", user());
    allowed(ALL, "/api/bans", json!({}));

    allowed(NEWS, "/api/publish", say("lobby"));
    allowed(NEWS, "/api/publish", say("news-1"));
    allowed(NEWS, "/api/kick", in_room("news-1"));
    allowed(NEWS, "/api/mute", in_room("lobby"));
    allowed(NEWS, "/api/unmute", in_room("lobby"));
    refused(NEWS, "/api/publish", say("cellar"), "the key does not allow room cellar");
    refused(NEWS, "/api/kick", in_room("cellar"), "the key does not allow room cellar");
    refused(NEWS, "/api/mute", in_room("cellar"), "the key does not allow room cellar");
    // What concerns more than rooms is not for a key of rooms, whatever the body says.
    for (path, body) in [
        ("/api/mute", user()),
        ("/api/unmute", json!({"userId": "mallory", "room": null})),
        ("/api/ban", user()),
        ("/api/ban", in_room("lobby")),
        ("/api/unban", user()),
        ("/api/disconnect", in_room("lobby")),
        ("/api/bans", json!({})),
        ("/api/mutes", json!({"room": "lobby"})),
    ] {
        refused(NEWS, path, body, "the key is limited to rooms");
    }
    // A body that names no room properly is not carried out either.
    check_refused(&post(NEWS, "/api/publish", json!({"text": "hello"})), 400, "bad_message", &["without room"]);
    check_refused(&post(NEWS, "/api/publish", json!({"room": ["lobby"], "text": "a"})), 400, "bad_message", &[]);
    let twice = r#"{"room":"lobby","room":"cellar","text":"a"}"#;
    let head = whole_request("/api/publish", &json!({})).replace(KEY, NEWS);
    let head = head.replace("Content-Length: 2", &format!("Content-Length: {}", twice.len())).replace("{}", twice);
    check_refused(&exchange(server.address(), &head, b""), 400, "bad_message", &["duplicate"]);

    allowed(SPEAKER, "/api/publish", say("cellar"));
    allowed(SPEAKER, "/api/broadcast", json!({"rooms": ["cellar"], "text": "a"}));
    refused(SPEAKER, "/api/kick", in_room("cellar"), "the key does not allow kick");
    refused(SPEAKER, "/api/bans", json!({}), "the key does not allow bans");

    allowed(JANITOR, "/api/kick", in_room("lobby"));
    refused(JANITOR, "/api/kick", in_room("news-1"), "room news-1");
    refused(JANITOR, "/api/publish", say("lobby"), "the key does not allow publish");
    refused(JANITOR, "/api/ban", user(), "limited to rooms, and ban");

    let said = post(ALL, "/api/publish", say("cellar"));
    check_published(&said, "cellar", 4, false);
}

#[test]
fn a_key_of_rooms_reads_and_deletes_in_its_rooms_alone() {
    let (_folder, path) = key_file(KEYS);
    let server = server(&path, "info");
    let post = |path: &str, body: &serde_json::Value| post_with(NEWS, server.address(), path, body);
    for room in ["lobby", "cellar"] {
        let body = json!({"room": room, "text": "hello"});
        check_published(&post_with(ALL, server.address(), "/api/publish", &body), room, 1, false);
    }
    for (path, mut body) in [
        ("/api/history", json!({})),
        ("/api/room", json!({})),
        ("/api/members", json!({})),
        ("/api/delete", json!({"seq": 1})),
        ("/api/purge", json!({"userId": "mallory"})),
    ] {
        let response = post(path, &body);
        assert!([400, 403].contains(&response.status), "{path} without a room: {}", response.text());
        body["room"] = json!("cellar");
        check_refused(&post(path, &body), 403, "forbidden", &["the key does not allow room cellar"]);
        body["room"] = json!("lobby");
        assert_eq!(post(path, &body).status, 200, "{path}");
    }
    check_refused(&post("/api/purge", &json!({"userId": "mallory"})), 403, "forbidden", &["purge acts on more"]);
    for path in ["/api/rooms", "/api/stats"] {
        check_refused(&post(path, &json!({"room": "lobby"})), 403, "forbidden", &["the key is limited to rooms"]);
    }
    // Nothing of the other room is gone.
    let page = post_with(ALL, server.address(), "/api/history", &json!({"room": "cellar"}));
    assert!(page.text().contains("hello"), "{}", page.text());
}

#[test]
fn a_request_that_its_key_forbids_need_not_send_a_body() {
    let (_folder, path) = key_file(KEYS);
    let server = server(&path, "info");
    for (key, path) in [(SPEAKER, "/api/kick"), (NEWS, "/api/ban")] {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
            ("Content-Length", "1000"),
            ("Expect", "100-continue"),
        ];
        let response = exchange(server.address(), &request("POST", path, &headers), b"");
        check_refused(&response, 403, "forbidden", &["the key"]);
    }
}

#[test]
fn each_command_is_one_line_of_the_log_that_names_its_key() {
    let (_folder, path) = key_file(KEYS);
    let server = server(&path, "info,roomcast=debug");
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let post = |key: &str, path: &str, body| json_of(&post_with(key, server.address(), path, &body));
    post(NEWS, "/api/kick", json!({"room": "lobby", "userId": "ann"}));
    post(ALL, "/api/ban", json!({"userId": "ann", "reason": "spam"}));
    post(ALL, "/api/bans", json!({}));
    post(SPEAKER, "/api/publish", json!({"room": "lobby", "text": "s3cret text"}));
    post(SPEAKER, "/api/broadcast", json!({"rooms": ["lobby", "cellar"], "text": "s3cret text"}));
    post(NEWS, "/api/publish", json!({"room": "cellar", "text": "s3cret text"}));
    post(NEWS, "/api/broadcast", json!({"rooms": ["cellar", "attic"], "text": "s3cret text"}));
    post(SPEAKER, "/api/kick", json!({"room": "lobby", "userId": "ann"}));
    server.wait_for_log("api: refused kick");
    // A key without a label is called by its SHA-256.
    for (level, line) in [
        ("INFO ", "api: kick ann out of room lobby, asked for by key news"),
        ("INFO ", "api: ban user ann, asked for by key boss"),
        ("DEBUG", "api: bans, asked for by key boss"),
        ("DEBUG", "api: publish into room lobby, asked for by key 4f6ea993"),
        ("INFO ", "api: broadcast into 2 rooms, lobby first, asked for by key 4f6ea993"),
        ("INFO ", "api: refused publish, asked for by key news: the key does not allow room cellar"),
        ("INFO ", "api: refused broadcast, asked for by key news: the key does not allow room cellar"),
        ("INFO ", "api: refused kick, asked for by key 4f6ea993: the key does not allow kick"),
    ] {
        let found = server.log_lines(line);
        assert_eq!(found.len(), 1, "{line}: {:?}", server.log_lines("api: "));
        assert!(found[0].contains(level), "{}", found[0]);
    }
    assert_eq!(server.log_lines("asked for by").len(), 8, "{:?}", server.log_lines("asked for by"));
    for secret in ["0123456789abcdef", "s3cret"] {
        assert_eq!(server.log_lines(secret), [""; 0]);
    }
}

#[test]
fn limits_change_when_the_file_is_read_again_and_a_bad_file_changes_nothing() {
    let (_folder, path) = key_file(KEYS);
    let server = server(&path, "info");
    let status = |key: &str, room: &str| {
        post_with(key, server.address(), "/api/publish", &json!({"room": room, "text": "a"})).status
    };
    assert_eq!((status(NEWS, "lobby"), status(NEWS, "cellar"), status(SPEAKER, "cellar")), (200, 403, 200));
    let mut keys = String::new();
    writeln!(keys, "{NEWS} rooms=cellar").unwrap();
    std::fs::write(&path, &keys).expect("write the keys");
    server.signal(Signal::HUP);
    wait_until("the new keys", || status(NEWS, "cellar") == 200);
    assert_eq!((status(NEWS, "lobby"), status(SPEAKER, "cellar")), (403, 401));
    for (bad, needle) in [
        (format!("{NEWS} room=cellar"), "line 1: word 2"),
        (format!("\n{NEWS} commands=publish,s3cret"), "command 2 of its list does not exist; there are publish"),
        (format!("{NEWS}\n{NEWS} rooms=lobby"), "api-key 2 is api-key 1 with other limits"),
    ] {
        std::fs::write(&path, bad).expect("write the keys");
        server.signal(Signal::HUP);
        let line = server.wait_for_log(needle);
        assert!(line.contains("stay as they were") && !line.contains("s3cret") && !line.contains(NEWS), "{line}");
        assert_eq!((status(NEWS, "cellar"), status(NEWS, "lobby")), (200, 403));
    }
}

#[test]
fn a_key_that_is_limited_to_something_unknown_is_refused_at_the_start() {
    for (line, needle) in [
        (format!("{NEWS} commands=publsh"), "api-key 1: command 1 of its list does not exist; there are publish, "),
        (format!("{NEWS} commands="), "command 1 of its list does not exist"),
        (format!("{NEWS} rooms=a*b"), "line 1: word 2 has rooms"),
        (format!("{NEWS} another-key-0123456789"), "line 1: word 2 is none of name=, commands= and rooms="),
        ("# nothing\n".to_owned(), "no key"),
    ] {
        let (_folder, path) = key_file(&line);
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "10"]).arg(roomcast().get_program());
        command.args(["--listen", "127.0.0.1:0", "--api-key-file"]).arg(&path);
        let output = command.output().expect("run the program");
        let error = String::from_utf8(output.stderr).expect("the message is UTF-8");
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains(needle) && !error.contains("0123456789"), "{line}: {error}");
    }
}
