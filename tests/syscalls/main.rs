//! The claims about system calls, counted exactly: one send a member and broadcast, one read a message, and nothing else.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
pub mod support;

mod trace;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use support::{Raw, Stream, close_frame, upgrade_request};
use trace::{Call, Traced, labels, mark, plain_frame};

/// Sends of room logs in a turn, from `HubLimits::sends_per_turn`.
const SENDS_PER_TURN: usize = 64;

const TCP: &str = "127.0.0.1:0";

fn tcp(traced: &Traced) -> Raw<TcpStream> {
    Raw::connect(traced.server.address())
}

fn unix(traced: &Traced) -> Raw<UnixStream> {
    let path = traced.server.listeners()[0].strip_prefix("unix:").expect("a Unix listener");
    Raw::over(UnixStream::connect(path).expect("connect to the server"))
}

/// Upgrades a connection and reads the `welcome`.
fn open<S: Stream>(mut raw: Raw<S>, user: &str) -> Raw<S> {
    raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
    raw.upgraded();
    raw.json_of("welcome");
    raw
}

/// Connects members, all of one user so that nobody's presence has to be awaited, and warms the server up.
fn members<S: Stream>(count: usize, mut connect: impl FnMut() -> Raw<S>) -> Vec<Raw<S>> {
    let mut members: Vec<_> = (0..count).map(|_| open(connect(), "ann")).collect();
    for member in &mut members {
        member.send(&plain_frame(r#"{"type":"join","room":"lobby"}"#));
        member.json_of("joined");
    }
    for _ in 0..20 {
        chat(&mut members, 1);
    }
    members
}

/// The first member says so many things in one write, and all receive them.
fn chat<S: Stream>(members: &mut [Raw<S>], messages: usize) {
    members[0].send(&plain_frame(r#"{"type":"chat","room":"lobby","text":"hello"}"#).repeat(messages));
    for member in members {
        for _ in 0..messages {
            member.json_of("chat");
        }
    }
}

/// How many calls there are of each kind.
fn counts(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for label in labels(calls) {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

/// Each of so many messages, said when all had received the one before, costs one wait, one read and one send a member.
fn check_one_by_one<S: Stream>(traced: Traced, mut members: Vec<Raw<S>>) {
    const MESSAGES: usize = 25;
    mark(&mut members[0], "mark-begin");
    for _ in 0..MESSAGES {
        chat(&mut members, 1);
    }
    mark(&mut members[0], "mark-end");
    let count = members.len();
    drop(members);
    let trace = traced.end();
    let calls = trace.between("mark-begin", "mark-end");
    // A turn of a big room ends after its budget of sends, and the next one does not wait.
    let turns = count.div_ceil(SENDS_PER_TURN);
    let expected = [
        // The last one brings the mark.
        ("epoll_wait".to_owned(), MESSAGES * turns + 1),
        ("recvfrom".to_owned(), MESSAGES),
        ("sendto".to_owned(), MESSAGES * count),
    ];
    assert_eq!(counts(calls), BTreeMap::from(expected), "{:#?}", labels(calls));
    let mut sends = BTreeMap::<_, usize>::new();
    for send in calls.iter().filter(|call| call.name == "sendto") {
        *sends.entry(send.descriptor()).or_default() += 1;
    }
    assert_eq!(sends.len(), count);
    assert!(sends.values().all(|sends| *sends == MESSAGES), "{sends:?}");
}

#[test]
fn a_message_costs_one_wait_one_read_and_one_send_a_member() {
    for count in [1, 10, 100] {
        let traced = Traced::spawn(TCP);
        let members = members(count, || tcp(&traced));
        check_one_by_one(traced, members);
    }
}

#[test]
fn over_unix_sockets_it_costs_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("socket").display());
    for count in [1, 10, 100] {
        let traced = Traced::spawn(&listen);
        let members = members(count, || unix(&traced));
        check_one_by_one(traced, members);
    }
}

#[test]
fn a_unix_socket_is_watched_for_room_only_while_it_refuses_bytes() {
    const MESSAGES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("socket").display());
    let traced = Traced::spawn(&listen);
    let mut members = members(2, || unix(&traced));
    let [talker, reader] = &mut members[..] else { unreachable!("there are two") };
    // More than a socket takes, and less than would have to be read from history again.
    let text = "x".repeat(12 * 1024);
    for number in 0..MESSAGES {
        let message = format!(r#"{{"type":"chat","room":"lobby","id":"{number}","text":"{text}"}}"#);
        talker.send(&plain_frame(&message));
        talker.json_of("chat");
    }
    for number in 0..MESSAGES {
        assert_eq!(reader.json_of("chat")["id"], number.to_string());
    }
    mark(reader, "mark-end");
    drop(members);
    let trace = traced.end();
    let changes: Vec<_> = trace.life(1).into_iter().filter(|call| call.arguments.contains("EPOLL_CTL_MOD")).collect();
    assert!(!changes.is_empty(), "it never refused bytes");
    for pair in changes.chunks(2) {
        let watches: Vec<_> = pair.iter().map(|call| call.arguments.contains("EPOLLOUT")).collect();
        assert_eq!(watches, [true, false], "{changes:#?}");
    }
}

#[test]
fn fifty_messages_in_one_segment_are_one_read_and_one_send_a_member() {
    const MESSAGES: usize = 50;
    const MEMBERS: usize = 10;
    let traced = Traced::spawn(TCP);
    let mut members = members(MEMBERS, || tcp(&traced));
    mark(&mut members[0], "mark-begin");
    chat(&mut members, MESSAGES);
    mark(&mut members[0], "mark-end");
    drop(members);
    let trace = traced.end();
    let calls = trace.between("mark-begin", "mark-end");
    let sends = ["sendto"; MEMBERS];
    assert_eq!(labels(calls), [&["epoll_wait", "recvfrom"], &sends[..], &["epoll_wait"]].concat());
    let bytes: Vec<_> = calls.iter().filter(|call| call.name == "sendto").map(Call::count).collect();
    assert!(bytes[0] > MESSAGES * "hello".len() && bytes.iter().all(|count| *count == bytes[0]), "{bytes:?}");
}

#[test]
fn a_connection_costs_these_calls_and_no_others() {
    let traced = Traced::spawn(TCP);
    // Its first turn looks for who may have come before the listener was polled.
    traced.wait_asleep();
    // Number 0 says goodbye, number 1 joins and hangs up, number 2 asks for a page.
    let mut polite = open(tcp(&traced), "ann");
    polite.send(&close_frame(1000));
    assert_eq!(polite.expect_close(), 1000);
    assert!(polite.at_end());
    let mut member = open(tcp(&traced), "ben");
    member.send(&plain_frame(r#"{"type":"join","room":"lobby"}"#));
    member.json_of("presence");
    drop(member);
    assert_eq!(traced.server.get("/healthz").status, 200);
    traced.wait_for_calls("close", 3);
    let trace = traced.end();
    let open = ["accept4", "epoll_ctl", "recvfrom", "getpeername", "sendto"];
    // Close is answered, and the server hangs up first.
    assert_eq!(labels(trace.life(0)), [&open[..], &["recvfrom", "sendto", "close"]].concat());
    // `joined` is the connection's own, its presence comes from the room's log.
    assert_eq!(labels(trace.life(1)), [&open[..], &["recvfrom", "sendto", "sendto", "recvfrom", "close"]].concat());
    // The client hangs up first; to close with something unread would reset the connection.
    assert_eq!(labels(trace.life(2)), [&open[..], &["shutdown", "recvfrom", "close"]].concat());
    let of_nobody: Vec<_> = trace.calls().iter().filter(|call| call.name != "epoll_wait").collect();
    let lives: usize = (0..3).map(|index| trace.life(index).len()).sum();
    // The rest are accepts that find no connection: one at start, and one after each connection.
    assert_eq!(of_nobody.iter().filter(|call| call.label() == "accept4 EAGAIN").count(), 4);
    assert_eq!(of_nobody.len(), lives + 4, "{of_nobody:#?}");
}

#[test]
fn an_idle_server_sleeps_without_a_timeout() {
    let traced = Traced::spawn(TCP);
    traced.wait_asleep();
    let trace = traced.end();
    let calls = trace.calls();
    // Somebody may have come before the listener was polled.
    assert_eq!(labels(calls), ["epoll_wait", "accept4 EAGAIN", "epoll_wait EINTR"]);
    assert!(calls[2].arguments.ends_with(", -1"), "{:?}", calls[2]);
}
