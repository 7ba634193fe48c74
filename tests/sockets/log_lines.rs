//! The log of the program, while everybody who can writes into it: no text of a stranger makes a line, moves the cursor or
//! turns the direction of what stands beside it, and no secret is in it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::support::api::{check_refused, exchange, publish, publish_head};
use crate::support::{Client, Raw, Server, TEXT, frame, request, roomcast, upgrade_request, wait_until};

/// What no log may take as it comes.
const FORGED: &str =
    "x\r\n[2026-11-29T00:00:00Z ERROR roomcast] forged \u{1b}[31m\u{202e}\u{2066}\u{200b}\u{2028}\u{85}";

/// More than a line may have.
const LINE_BYTES_MAX: usize = 1200;

/// Every line was begun by the program, ends where the program ended it, and can be read as it stands there.
#[track_caller]
fn check_lines(log: &[String]) {
    for line in log {
        assert!(line.starts_with("[20") && line.contains("Z "), "{line:?}");
        assert!(!line.starts_with("[2026-11-29T00:00:00Z ERROR"), "{line:?}");
        let hidden = ['\r', '\u{1b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{2028}', '\u{85}', '\u{0}'];
        assert!(!line.contains(hidden), "{line:?}");
        assert!(line.len() <= LINE_BYTES_MAX, "a line of {} bytes: {line:?}", line.len());
    }
}

/// A server on any port that answers whatever it is sent, on each connection once, and again as long as it is asked.
fn answering(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok() {
                let _ = stream.write_all(&answer);
                // It stays open until the peer has had enough, or a reset could overtake the answer.
                while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
            }
        }
    });
    address
}

fn traced(flags: &[&str]) -> Command {
    let mut command = roomcast();
    command.env("RUST_LOG", "trace").args(["--listen", "127.0.0.1:0"]).args(flags);
    command
}

#[test]
fn no_request_and_no_frame_makes_a_line() {
    let mut command = traced(&["--api-key", crate::support::api::KEY]);
    command.env(format!("ROOMCAST_{FORGED}"), "1");
    let server = Server::spawn_command(command, 1);
    let long = "a".repeat(6000);
    let percent: String = FORGED.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let raw_text = FORGED.replace(['\r', '\n', '\u{1b}'], "");
    for path in
        [format!("/ws?userId={percent}"), format!("/{raw_text}"), format!("/ws?userId={long}"), format!("/{long}")]
    {
        let mut raw = Raw::connect(server.address());
        raw.send(upgrade_request(&path, &[]).as_bytes());
        raw.response();
    }
    let long_origin = format!("https://{long}.example");
    for name in ["Origin", "Forwarded", "X-Forwarded-For", "Sec-WebSocket-Protocol", "Authorization", "User-Agent"] {
        for value in [raw_text.as_str(), long_origin.as_str(), "for=\"\u{202e}\"", "https://a.example/\tx"] {
            let mut raw = Raw::connect(server.address());
            raw.send(upgrade_request("/ws", &[(name, value)]).as_bytes());
            raw.response();
        }
    }
    let mut alice = Client::connect_as(&server, "alice");
    let rooms = [FORGED.to_owned(), long];
    for room in &rooms {
        for kind in ["join", "leave", "chat", "typing", room] {
            alice.send_json(&json!({"type": kind, "room": room, "text": FORGED}));
            alice.recv_type("error");
        }
        let body = json!({"room": room, "text": "x", "userId": room, "name": FORGED});
        assert_eq!(publish(server.address(), &body).status, 400);
    }
    let mut raw = Raw::open(server.address(), "/ws");
    raw.send(&frame(TEXT, true, &[FORGED.as_bytes(), b"\xff"].concat()));
    raw.expect_close();
    let mut raw = Raw::open(server.address(), "/ws");
    let reason: Vec<u8> = [&4000_u16.to_be_bytes(), FORGED.as_bytes()].concat();
    raw.send(&frame(crate::support::CLOSE, true, &reason));
    raw.expect_close();
    let body = json!({"userId": "alice", "reason": FORGED}).to_string();
    let head = publish_head(body.len(), &[("Connection", "close")]).replace("/api/publish", "/api/disconnect");
    assert_eq!(exchange(server.address(), &head, body.as_bytes()).status, 200);
    alice.expect_close();
    server.wait_for_log("closing with 4500");
    let log = server.log();
    check_lines(&log);
    for needle in ["pages of origin", "is no setting", "not UTF-8", "bad_message"] {
        assert!(log.iter().any(|line| line.contains(needle)), "{needle} is not in the log:\n{}", log.join("\n"));
    }
}

#[cfg(feature = "redis")]
#[test]
fn no_answer_of_redis_makes_a_line_or_shows_the_password() {
    let errors = [
        format!("!{}\r\n{FORGED}\r\n", FORGED.len()),
        format!("-ERR {}\r\n", FORGED.replace(['\r', '\n'], "")),
        "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 's3cret-of-redis' \u{1b}[31m\r\n"
            .to_owned(),
        format!("-{}\r\n", "\u{202e}a".repeat(5000)),
    ];
    for error in errors {
        let address = answering(error.repeat(8).into_bytes());
        let mut command = traced(&[]);
        command.env("ROOMCAST_REDIS", format!("redis://ann:s3cret-of-redis@{address}"));
        let server = Server::spawn_command(command, 1);
        server.wait_for_log("redis at 127.0.0.1:");
        let line = server.wait_for_log("no link for");
        assert!(!line.contains("s3cret"), "{line}");
        assert_eq!(server.get("/readyz").status, 503);
        check_lines(&server.log());
        assert_eq!(server.log_lines("s3cret"), [""; 0]);
    }
}

#[cfg(feature = "tokens")]
#[test]
fn no_answer_of_an_issuer_makes_a_line() {
    for (status, body) in [
        ("200 OK", format!("\"{FORGED}\"")),
        ("200 OK", json!(FORGED).to_string()),
        ("404 \u{202e}\u{1b}[31m", String::new()),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nX-A: \u{202e}\r\n\r\n{body}", body.len());
        let url = format!("http://{}/keys", answering(answer.into_bytes()));
        let mut command = traced(&["--jwks-url", &url]);
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let server = Server::spawn_command(command, 1);
        let line = server.wait_for_log("stay as they were");
        assert!(!line.contains("forged"), "{line}");
        check_lines(&server.log());
    }
}

#[test]
fn keys_of_a_file_are_read_again_and_shown_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let write = |text: &str| std::fs::write(&path, text).expect("write the keys");
    let (old, new) = ("s3cret-key-of-old-days", "s3cret-key-of-new-days");
    write(&format!("\n  {old}  \r\n"));
    let server = Server::spawn_command(traced(&["--metrics", "--api-key-file", path.to_str().unwrap()]), 1);
    let status_with = |key: &str| {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Cookie", "session=s3cret-cookie"),
            ("Content-Type", "application/json"),
            ("Content-Length", "31"),
            ("Connection", "close"),
        ];
        exchange(server.address(), &request("POST", "/api/publish", &headers), br#"{"room":"lobby","text":"hello"}"#)
            .status
    };
    assert_eq!((status_with(old), status_with(new)), (200, 401));

    write(&format!("{new}\n"));
    server.signal(Signal::HUP);
    wait_until("the new key counts", || status_with(new) == 200);
    assert_eq!(status_with(old), 401);

    for (text, problem) in
        [("", "no key"), ("s3cret-short", "api-key 1 has 12 bytes"), ("s3cret key with spaces in it", "api-key 1")]
    {
        write(text);
        server.signal(Signal::HUP);
        let line = server.wait_for_log(problem);
        assert!(line.contains("WARN") && line.contains("stay as they were"), "{line}");
    }
    std::fs::remove_file(&path).expect("remove the keys");
    server.signal(Signal::HUP);
    server.wait_for_log("No such file");
    assert_eq!((status_with(new), status_with(old)), (200, 401));

    assert_eq!(server.log_lines("s3cret"), [""; 0]);
    assert!(!server.get("/metrics").text().contains("s3cret"));
    let arguments =
        std::fs::read(format!("/proc/{}/cmdline", server.pid().as_raw_nonzero())).expect("the command line");
    assert!(!String::from_utf8_lossy(&arguments).contains("s3cret"));
}

#[test]
fn a_file_without_keys_is_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    for (content, words) in
        [(None, "No such file"), (Some(""), "no key"), (Some("s3cret-short"), "api-key 1 has 12 bytes")]
    {
        let path = folder.path().join("keys");
        if let Some(content) = content {
            std::fs::write(&path, content).expect("write the keys");
        }
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "10"]).arg(roomcast().get_program());
        command.args(["--listen", "127.0.0.1:0", "--api-key-file"]).arg(&path);
        let output = command.output().expect("run the program");
        let error = String::from_utf8(output.stderr).expect("the message is UTF-8");
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_server_whose_keys_are_in_a_file_has_an_api() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, "first-key-0123456789\nsecond-key-0123456789").expect("write the keys");
    let server = Server::spawn(&["--api-key", crate::support::api::KEY, "--api-key-file", path.to_str().unwrap()]);
    server.wait_for_log("API on");
    for key in ["first-key-0123456789", "second-key-0123456789", crate::support::api::KEY] {
        let head = publish_head(31, &[("Connection", "close")]).replace(crate::support::api::KEY, key);
        assert_eq!(exchange(server.address(), &head, br#"{"room":"lobby","text":"hello"}"#).status, 200);
    }
    let head = publish_head(31, &[("Connection", "close")]).replace(crate::support::api::KEY, "third-key-0123456789");
    check_refused(&exchange(server.address(), &head, br#"{"room":"lobby","text":"hello"}"#), 401, "unauthorized", &[]);
}
