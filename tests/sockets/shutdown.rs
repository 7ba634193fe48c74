//! The shutdown of the program: all clients are told, no client can hold it up, and a second signal ends
//! it at once.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Raw, Server, TEXT, close_frame, frame, raise_file_limit, request, roomcast};

/// So much time for the peers that a test sees when the server waits for nobody.
const UNHURRIED: [&str; 2] = ["--drain-timeout", "1m"];

/// When a peer that does not answer a Close is cut, from `Timing::close_timeout`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The server ends, and nobody had to be cut for it.
#[track_caller]
fn check_ends_at_once(server: &mut Server) {
    let start = Instant::now();
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(start.elapsed() < CLOSE_TIMEOUT, "it waited for somebody: {:?}", start.elapsed());
}

/// A connection that has joined the lobby and answers a Close only when told to.
fn open_in_lobby(server: &Server, user_id: &str) -> Raw {
    let mut raw = Raw::open(server.address(), &format!("/ws?userId={user_id}"));
    raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
    raw.json_of("joined");
    raw
}

/// Asks the server to end and waits until `witness` has been told, which is when the drain has begun.
fn begin_drain(server: &Server, witness: &mut Raw) {
    server.sigterm();
    assert_eq!(witness.expect_close(), 1001);
}

#[test]
fn a_server_of_nohup_outlives_its_terminal() {
    let program = roomcast();
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$0" --listen 127.0.0.1:0"#]).arg(program.get_program());
    let server = Server::spawn_command(command, 1);
    server.signal(Signal::HUP);
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    assert_eq!(server.log_lines("shutting down"), [""; 0]);
}

#[test]
fn a_thousand_clients_are_told_and_the_program_ends_with_0() {
    raise_file_limit();
    let mut server = Server::spawn(&UNHURRIED);
    let mut clients: Vec<_> = (0..1000).map(|_| Client::connect(&server)).collect();
    for (client, room) in clients.iter_mut().zip((0..10).cycle()) {
        client.send_json(&json!({"type": "join", "room": format!("room-{room}")}));
    }
    for client in &mut clients {
        client.recv_type("joined");
    }
    server.sigterm();
    for client in &mut clients {
        assert_eq!(client.expect_close(), 1001);
    }
    check_ends_at_once(&mut server);
}

#[test]
fn an_idle_server_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::spawn(&UNHURRIED);
        server.signal(signal);
        check_ends_at_once(&mut server);
    }
}

#[test]
fn a_connection_that_ends_as_the_shutdown_begins_is_not_waited_for() {
    for _ in 0..20 {
        let mut server = Server::spawn(&UNHURRIED);
        drop(Raw::connect(server.address()));
        server.sigterm();
        check_ends_at_once(&mut server);
    }
}

#[test]
fn an_unfinished_request_does_not_hold_up_the_end() {
    let mut server = Server::spawn(&["--drain-timeout", "1s", "--handshake-timeout", "1m"]);
    let mut silent = Raw::connect(server.address());
    let mut unfinished = Raw::connect(server.address());
    unfinished.send(b"GET /ws HTTP/1.1\r\nHost: ");
    assert_eq!(server.get("/healthz").status, 200);
    server.sigterm();
    assert_eq!(server.wait_exit().code(), Some(0));
    for raw in [&mut silent, &mut unfinished] {
        let rest = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 503 "), "{rest}");
    }
}

#[test]
fn messages_from_before_the_end_are_delivered() {
    let mut server = Server::spawn(&[&UNHURRIED[..], &["--message-rate", "0"]].concat());
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    let mut bob = open_in_lobby(&server, "bob");
    for number in 1..=100 {
        alice.say("lobby", &format!("message {number}"));
    }
    let copies = alice.recv_until(|message| message["seq"] == 100);
    assert_eq!(copies.last().map(|copy| &copy["text"]), Some(&json!("message 100")));
    server.sigterm();
    for number in 1..=100 {
        assert_eq!(bob.json_of("chat")["seq"], number);
    }
    assert_eq!(bob.expect_close(), 1001);
    bob.send(&close_frame(1001));
    assert_eq!(alice.expect_close(), 1001);
    check_ends_at_once(&mut server);
}

#[test]
fn a_publication_during_the_drain_is_not_accepted() {
    let mut server = Server::spawn(&["--drain-timeout", "2s"]);
    let mut alice = open_in_lobby(&server, "alice");
    let mut bob = open_in_lobby(&server, "bob");
    server.sigterm();
    // Read as far as the Close, so that the drain has begun; anything before it is from before.
    assert_eq!(alice.expect_close(), 1001);
    let _ = alice.try_send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"too late","id":"late"}"#));
    for raw in [&mut alice, &mut bob] {
        while let Some(next) = raw.frame_or_end() {
            if next.opcode != TEXT {
                continue;
            }
            let message = next.json();
            assert_ne!(message["type"], "chat", "{message}");
            if message["type"] == "error" {
                assert_eq!(
                    (&message["code"], &message["temporary"]),
                    (&json!("shutting_down"), &json!(true)),
                    "{message}"
                );
            }
        }
    }
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// Asks for `/readyz`: the status, or none where nobody answers.
fn readiness(server: &Server) -> Option<u16> {
    let mut stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("set the read timeout");
    stream.write_all(request("GET", "/readyz", &[("Connection", "close")]).as_bytes()).ok()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => {
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::WouldBlock), "{error}");
            None
        }
        _ => std::str::from_utf8(&answer).ok()?.split(' ').nth(1)?.parse().ok(),
    }
}

#[test]
fn a_draining_server_is_not_ready() {
    let mut server = Server::spawn(&UNHURRIED);
    let mut witness = open_in_lobby(&server, "witness");
    assert_eq!(readiness(&server), Some(200));
    begin_drain(&server, &mut witness);
    let status = readiness(&server);
    assert!(matches!(status, None | Some(503)), "{status:?}");
    assert_eq!(server.exit_status(), None, "it waits for the one who has not answered");
    witness.send(&close_frame(1001));
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn no_new_client_gets_in_during_the_drain() {
    let mut server = Server::spawn(&["--drain-timeout", "2s"]);
    let mut witness = open_in_lobby(&server, "witness");
    begin_drain(&server, &mut witness);
    match *Client::build(&server).try_open().expect_err("a draining server lets nobody in") {
        tungstenite::Error::Http(response) => {
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"), "{response:?}");
        }
        error => assert!(matches!(error, tungstenite::Error::Io(_) | tungstenite::Error::Protocol(_)), "{error:?}"),
    }
    check_ends_at_once(&mut server);
}

#[test]
fn a_client_that_does_not_read_cannot_hold_up_the_end() {
    let mut server = Server::spawn(&["--drain-timeout", "1s", "--message-rate", "0"]);
    let mut slow = Client::build(&server).small_receive_buffer().user("slow").connect();
    slow.join("lobby");
    let mut talker = Client::connect_as(&server, "talker");
    talker.join("lobby");
    let text = "x".repeat(16_000);
    for number in 1..=40 {
        talker.say("lobby", &text);
        assert_eq!(talker.recv_type("chat")["seq"], number);
    }
    let start = Instant::now();
    server.sigterm();
    assert_eq!(talker.expect_close(), 1001);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(500), "it did not wait for the slow one: {:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let mut server = Server::spawn(&UNHURRIED);
    let mut witness = open_in_lobby(&server, "witness");
    begin_drain(&server, &mut witness);
    assert_eq!(server.exit_status(), None, "it waits for the one who has not answered");
    server.sigterm();
    assert_eq!(server.wait_exit().code(), Some(130));
}

#[test]
fn a_unix_socket_of_an_earlier_run_is_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roomcast.sock");
    let listen = format!("unix:{}", path.display());
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let mut server = Server::spawn(&[&UNHURRIED[..], &["--listen", &listen]].concat());
        UnixStream::connect(&path).expect("connect to the socket");
        server.signal(signal);
        server.wait_exit();
    }
}
