//! A back-end that fails: handshakes are refused in time, and the next ones are asked about.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::program::run_to_end;
use super::webhook::{asking, refused};
use crate::support::back_end::{BackEnd, Reply};
use crate::support::tokens::in_seconds;
use crate::support::{Client, Raw, Server, upgrade_request, wait_until};

#[test]
fn an_answer_that_is_no_decision_is_answered_502() {
    let back_end = BackEnd::new(|asked| match asked.user() {
        "redirect" => Reply::json(302, &json!({"user": "redirect"})),
        "failure" => Reply::json(500, &json!({"user": "failure"})),
        "created" => Reply::json(201, &json!({"user": "created"})),
        "text" => Reply::Answer(200, "application/json", b"welcome".to_vec()),
        "nobody" => Reply::json(200, &json!({})),
        "misspelt" => Reply::json(200, &json!({"user": "misspelt", "room": []})),
        "seconds" => Reply::json(200, &json!({"user": "seconds", "expiresAt": in_seconds(600)})),
        "large" => Reply::json(200, &json!({"user": "large", "name": "x".repeat(70_000)})),
        "endless" => Reply::Bytes([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 1 << 20]].concat()),
        "no-http" => Reply::Bytes(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        other => Reply::user(other),
    });
    let server = asking(&back_end, &[]);
    for user in
        ["redirect", "failure", "created", "text", "nobody", "misspelt", "seconds", "large", "endless", "no-http"]
    {
        let response = refused(&server, user);
        assert_eq!(response.status, 502, "{user}: {response:?}");
        assert!(response.text().contains("has made no decision"), "{response:?}");
    }
    let line = server.wait_for_log("gives no decisions");
    assert!(line.contains("WARN") && line.contains("302; redirects are not followed"), "{line}");
    assert_eq!(server.log_lines("gives no decisions").len(), 1, "the log is not filled");
    assert_eq!(back_end.asked().len(), 10, "a redirect is not followed, and nothing is asked twice");
    Client::connect_as(&server, "alice");
}

#[test]
fn an_answer_that_does_not_come_in_time_is_answered_504() {
    let back_end = BackEnd::new(|asked| match asked.user() {
        "late" => loop {
            std::thread::park();
        },
        other => Reply::user(other),
    });
    let server = asking(&back_end, &["--auth-timeout", "300ms", "--metrics"]);
    let response = refused(&server, "late");
    assert_eq!(response.status, 504, "{response:?}");
    Client::connect_as(&server, "alice");
    let line = server.wait_for_log("gives no decisions");
    assert!(line.contains("has not answered in time"), "{line}");
    wait_until("the request is given up", || {
        let metrics = server.get("/metrics");
        metrics.text().contains("\nroomcast_auth_requests 0\n")
            && metrics.text().contains("\nroomcast_auth_failures_total 1\n")
    });
}

#[test]
fn a_back_end_that_is_away_is_asked_again() {
    // No client of another test gets the port of this address meanwhile.
    let mut back_end = BackEnd::at("127.0.0.77:0".parse().unwrap(), |asked| Reply::user(asked.user()));
    let server = asking(&back_end, &[]);
    Client::connect_as(&server, "alice");
    back_end.stop();
    for _ in 0..3 {
        let response = refused(&server, "bob");
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{response:?}");
        assert!(response.text().contains("cannot be reached"), "{response:?}");
    }
    server.wait_for_log("gives no decisions");
    assert_eq!(server.log_lines("gives no decisions").len(), 1);
    let back_end = BackEnd::at(back_end.address, |asked| Reply::user(asked.user()));
    Client::connect_as(&server, "bob");
    assert_eq!(back_end.asked().len(), 1);
}

#[test]
fn a_kept_connection_that_has_ended_is_not_missed() {
    let back_end = BackEnd::new(|asked| Reply::AnswerAndEnd(json!({"user": asked.user()})));
    let server = asking(&back_end, &[]);
    for number in 0..5 {
        Client::connect_as(&server, &format!("user-{number}"));
    }
    // One that ends when the next question is on its way already.
    let count = AtomicUsize::new(0);
    let back_end = BackEnd::new(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        1 => Reply::Bytes(Vec::new()),
        _ => Reply::user(asked.user()),
    });
    let server = asking(&back_end, &[]);
    Client::connect_as(&server, "alice");
    Client::connect_as(&server, "bob");
    assert_eq!((back_end.asked().len(), back_end.connections()), (3, 2));
}

#[test]
fn a_shutdown_does_not_wait_for_the_back_end() {
    let back_end = BackEnd::new(|_| {
        loop {
            std::thread::park();
        }
    });
    let mut server = asking(&back_end, &["--auth-timeout", "1d"]);
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws?userId=alice", &[]).as_bytes());
    wait_until("the back-end is asked", || back_end.asked().len() == 1);
    server.sigterm();
    assert_eq!(raw.response().status, 503);
    drop(raw);
    assert!(server.wait_exit().success());
}

#[test]
fn a_url_that_cannot_be_asked_is_refused_without_showing_it() {
    let check = |flags: &[&str], words: &str| {
        let output = run_to_end(flags, &[]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words) && !errors.contains("s3cret"), "{errors}");
    };
    for url in ["", "ftp://ann:s3cret@auth.example/", "auth.example/s3cret", "http://", "https://ann:s3cret@[/"] {
        check(&["--auth-url", url], "auth-url: ");
    }
    let both = ["--auth-url", "http://127.0.0.1/s3cret", "--jwks-file", "/nowhere"];
    check(&both, "--auth-url and keys for tokens exclude each other");
    let server = Server::spawn(&["--auth-url", "http://ann:s3cret@auth.example/", "--listen", "0.0.0.0:0"]);
    let line = server.wait_for_log("by http");
    assert!(line.contains("WARN") && !line.contains("s3cret"), "{line}");
    assert_eq!(server.log_lines("is believed"), [] as [String; 0]);
}
