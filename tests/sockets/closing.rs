//! The end of connections: the close handshake, peers that vanish, and how other members see it.

use std::{
    net::{Shutdown, SocketAddr},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::support::host::{self, Host};
use crate::support::{CLOSE, Client, Frame, PING, Raw, Server, TEXT, close_frame, frame, upgrade_request};

/// A connection that has been welcomed.
fn open(server: &Server, user_id: &str) -> Raw {
    open_at(server.address(), user_id)
}

fn open_at(address: SocketAddr, user_id: &str) -> Raw {
    let mut raw = Raw::open(address, &format!("/ws?userId={user_id}"));
    assert_eq!(raw.json()["type"], "welcome");
    raw
}

/// A connection that has joined the lobby.
fn open_in_lobby(server: &Server, user_id: &str) -> Raw {
    let mut raw = open(server, user_id);
    raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
    raw.json_of("joined");
    raw
}

/// A Close with `payload` is answered with a Close of code `expected`, and then the stream ends.
#[track_caller]
fn check(server: &Server, payload: &[u8], expected: u16) {
    let mut raw = open(server, "alice");
    raw.send(&frame(CLOSE, true, payload));
    let answer = raw.frame();
    assert_eq!(answer.close_code(), expected, "the answer to a Close with {payload:x?}");
    assert!(raw.at_end(), "something follows the Close");
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    let server = Server::spawn(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999u16] {
        check(&server, &code.to_be_bytes(), code);
    }
    check(&server, &[&1000u16.to_be_bytes()[..], "au revoir, à demain".as_bytes()].concat(), 1000);
    check(&server, &[&1000u16.to_be_bytes()[..], &[b'x'; 123]].concat(), 1000);
}

#[test]
fn a_close_without_a_code_is_answered() {
    let server = Server::spawn(&[]);
    let mut raw = open(&server, "alice");
    raw.send(&frame(CLOSE, true, b""));
    let code = raw.frame().close_code();
    assert!([1000, 1005].contains(&code), "{code}");
    assert!(raw.at_end());
}

#[test]
fn a_close_that_the_protocol_forbids_is_answered_1002() {
    let server = Server::spawn(&[]);
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535u16] {
        check(&server, &code.to_be_bytes(), 1002);
    }
    check(&server, b"\x03", 1002);
}

#[test]
fn a_close_whose_reason_is_not_utf_8_is_refused() {
    let server = Server::spawn(&[]);
    let mut raw = open(&server, "alice");
    raw.send(&frame(CLOSE, true, b"\x03\xe8\xff"));
    let code = raw.frame().close_code();
    assert!([1002, 1007].contains(&code), "{code}");
    assert!(raw.at_end());
}

/// All frames to the end of the stream.
fn frames_to_end(raw: &mut Raw) -> Vec<Frame> {
    std::iter::from_fn(|| raw.frame_or_end()).collect()
}

#[test]
fn no_data_follows_a_close() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut alice = open_in_lobby(&server, "alice");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    for number in 0..50 {
        bob.say("lobby", &format!("before {number}"));
    }
    alice.send(&close_frame(1000));
    for number in 0..50 {
        bob.say("lobby", &format!("after {number}"));
    }
    let frames = frames_to_end(&mut alice);
    let close = frames.iter().position(|frame| frame.opcode == CLOSE).expect("a Close");
    assert_eq!(frames[close + 1..], [], "behind the Close");
}

#[test]
fn bytes_behind_a_close_are_ignored() {
    let server = Server::spawn(&["--presence-grace", "200ms"]);
    let mut alice = open_in_lobby(&server, "alice");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    let late = frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"too late"}"#);
    alice.send(&[close_frame(1000), late, frame(PING, true, b"too late")].concat());
    assert_eq!(alice.expect_close(), 1000);
    assert!(alice.at_end());
    let offline = |message: &Value| message["status"] == "offline" && message["userId"] == "alice";
    let seen = bob.recv_until(offline);
    assert!(seen.iter().all(|message| message["type"] == "presence"), "{seen:?}");
}

/// A connection whose Close is never answered ends within the close timeout.
#[track_caller]
fn check_unanswered(mut raw: Raw, code: u16) {
    let start = Instant::now();
    assert_eq!(raw.expect_close(), code);
    assert!(raw.at_end());
    // The default of 5 s would be too late; the timer wheel is as coarse as a second, and the machine may be busy.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Runs a client against a server that waits for the answer to a Close for a second.
fn with_short_close_timeout(client: impl FnOnce(SocketAddr) + Send) {
    let mut config = host::config();
    config.timing.close_timeout = Duration::from_secs(1);
    let mut host = Host::new(config);
    let address = host.listen();
    host.serve(|| client(address));
}

#[test]
fn a_peer_that_never_answers_a_close_is_cut_off() {
    with_short_close_timeout(|address| {
        let mut raw = open_at(address, "alice");
        raw.send(&frame(crate::support::BINARY, true, b"x"));
        check_unanswered(raw, 1003);
        let mut raw = open_at(address, "alice");
        raw.send(&frame(9, false, b""));
        check_unanswered(raw, 1002);
    });
}

#[test]
fn a_peer_that_sends_on_instead_of_answering_a_close_is_cut_off() {
    with_short_close_timeout(|address| {
        let mut raw = open_at(address, "alice");
        raw.send(&frame(crate::support::BINARY, true, b"x"));
        assert_eq!(raw.expect_close(), 1003);
        let deadline = Instant::now() + crate::support::PATIENCE;
        while raw.try_send(&frame(TEXT, true, br#"{"type":"ping"}"#)).is_ok() {
            assert!(Instant::now() < deadline, "it may send for ever");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// The users that a `joined` tells.
fn names(joined: &Value) -> Vec<&str> {
    let users = joined["users"].as_array().expect("a small room tells its users");
    users.iter().filter_map(|user| user["userId"].as_str()).collect()
}

/// Bob joins the lobby where alice is, she ends as `end` does it, and he sees her go.
#[track_caller]
fn check_leaving(end: impl FnOnce(Raw) -> Option<Raw>) {
    let server = Server::spawn(&["--presence-grace", "200ms"]);
    let alice = open_in_lobby(&server, "alice");
    let mut bob = Client::connect_as(&server, "bob");
    assert!(names(&bob.join("lobby")).contains(&"alice"));
    let ended = end(alice);
    let seen = bob.recv_until(|message| message["status"] == "offline");
    assert_eq!(
        seen.last(),
        Some(&json!({"type": "presence", "room": "lobby", "userId": "alice", "status": "offline"}))
    );
    if let Some(mut alice) = ended {
        frames_to_end(&mut alice);
    }
    let mut carol = Client::connect_as(&server, "carol");
    assert!(!names(&carol.join("lobby")).contains(&"alice"), "alice is still there");
}

#[test]
fn a_peer_that_says_goodbye_leaves() {
    check_leaving(|mut alice| {
        alice.send(&close_frame(1000));
        Some(alice)
    });
}

#[test]
fn a_peer_that_closes_its_half_leaves() {
    check_leaving(|alice| {
        alice.stream.shutdown(Shutdown::Write).expect("shut down");
        Some(alice)
    });
}

#[test]
fn a_peer_that_closes_its_half_within_a_frame_leaves() {
    check_leaving(|mut alice| {
        alice.send(&frame(TEXT, true, b"half of it")[..7]);
        alice.stream.shutdown(Shutdown::Write).expect("shut down");
        Some(alice)
    });
}

#[test]
fn a_peer_that_drops_its_socket_leaves() {
    check_leaving(|alice| {
        drop(alice);
        None
    });
}

#[test]
fn a_peer_that_resets_its_connection_leaves() {
    check_leaving(|alice| {
        SockRef::from(&alice.stream).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
        drop(alice);
        None
    });
}

#[test]
fn a_peer_that_breaks_the_protocol_leaves() {
    check_leaving(|mut alice| {
        alice.send(&frame(crate::support::BINARY, true, b"x"));
        alice.expect_close();
        None
    });
}

#[test]
fn the_last_message_of_a_leaving_peer_is_delivered() {
    let server = Server::spawn(&[]);
    let mut alice = open_in_lobby(&server, "alice");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    alice.send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"last words"}"#));
    alice.stream.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(bob.recv_type("chat")["text"], "last words");
}

#[test]
fn a_request_whose_sender_has_no_more_to_say_is_answered() {
    use std::io::{Read, Write};
    let server = Server::spawn(&[]);
    for round in 0..20 {
        let mut stream = std::net::TcpStream::connect(server.address()).expect("connect");
        stream.write_all(crate::support::request("GET", "/", &[]).as_bytes()).expect("send");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("</html>\n"), "{round}: {} bytes", answer.len());
    }
}

#[test]
fn a_peer_that_stops_reading_for_good_is_gone_though_it_may_still_send() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roomcast.sock");
    let unix = format!("unix:{}", path.display());
    let flags = ["--listen", "127.0.0.1:0", "--listen", &unix, "--presence-grace", "0s", "--ping-interval", "60s"];
    let server = Server::spawn(&flags);
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    let mut bob = Raw::over(UnixStream::connect(&path).expect("connect to the socket"));
    bob.send(upgrade_request("/ws?userId=bob", &[]).as_bytes());
    bob.upgraded();
    bob.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
    bob.json_of("joined");
    // His own coming is the last that he is owed.
    bob.json_of("presence");
    // Neither an end of file nor an event tells the server; only its next write fails.
    bob.stream.shutdown(Shutdown::Read).expect("shut down reading");
    bob.send(&frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"my last words"}"#));
    let seen = alice.recv_until(|message| message["type"] == "presence" && message["status"] == "offline");
    assert!(seen.iter().any(|message| message["text"] == "my last words"), "{seen:?}");
}
