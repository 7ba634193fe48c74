//! `--memory`: what connections hold is bounded, and the address that holds the most gives way. Others do not notice.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use roomcast::internals::frame::Head;
use serde_json::json;
use socket2::SockRef;

use crate::support::api::{KEY, check_refused, publish_head, server_with};
use crate::support::chat::{frame_of_json, is};
use crate::support::{
    CLOSE, CONTINUATION, Client, PATIENCE, PING, PONG, Raw, Response, Server, TEXT, frame, upgrade_request, wait_until,
};

/// The address of a crowd; clients without an address of their own come from 127.0.0.1.
const CROWD: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";

/// A total of which the share of buffers is a few mebibytes.
const SMALL: [&str; 7] = [
    "--memory=16MiB",
    "--metrics",
    "--connects-per-address=0",
    "--requests-per-address=0",
    "--message-rate=0",
    "--handshake-timeout=60s",
    "--history-messages=300",
];

/// What the share of buffers may hold, of that total.
const SHARE: f64 = (16 << 20) as f64 / 100.0 * 20.0;

/// A WebSocket from an address.
fn open_from(source: &str, server: SocketAddr) -> Raw {
    let mut raw = Raw::connect_from(source, server);
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    raw.upgraded();
    raw
}

/// A value of `/metrics`.
fn metric(server: &Server, name: &str) -> f64 {
    let metrics = server.get("/metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&format!("roomcast_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

fn closed(server: &Server) -> f64 {
    metric(server, "memory_connections_closed_total")
}

fn held(server: &Server) -> f64 {
    metric(server, "memory_bytes{share=\"buffers\"}")
}

/// Two members that talk to each other, and read each message.
struct Pair {
    ann: Client,
    bob: Client,
    said: u64,
}

impl Pair {
    fn new(server: &Server) -> Self {
        let (mut ann, mut bob) = (Client::connect_as(server, "ann"), Client::connect_as(server, "bob"));
        ann.join("lobby");
        bob.join("lobby");
        Self { ann, bob, said: 0 }
    }

    fn say(&mut self, text: &str) {
        self.ann.say("lobby", text);
        self.said += 1;
        for member in [&mut self.ann, &mut self.bob] {
            let seen = member.recv_until(|message| is(message, "chat"));
            assert_eq!(seen.last().unwrap()["seq"], self.said, "{seen:?}");
        }
    }
}

#[test]
fn readers_that_take_nothing_are_closed_at_the_cost_of_their_address() {
    let server = Server::spawn(&SMALL);
    let mut pair = Pair::new(&server);
    for _ in 0..300 {
        pair.say(&"x".repeat(6 * 1024));
    }
    let join = frame_of_json(&json!({"type": "join", "room": "lobby", "history": 300}));
    let mut crowd: Vec<Raw> = (0..200)
        .map(|_| {
            let mut raw = Raw::connect_from(CROWD, server.address());
            SockRef::from(&raw.stream).set_recv_buffer_size(4096).unwrap();
            raw.send(upgrade_request("/ws", &[]).as_bytes());
            raw.upgraded();
            // Answers of their own wait behind the page.
            raw.send(&join);
            raw.send(&frame_of_json(&json!({"type": "ping", "id": "p".repeat(64)})).repeat(1000));
            raw
        })
        .collect();
    wait_until("some are closed", || closed(&server) > 0.0);
    for _ in 0..100 {
        pair.say("hello");
    }
    wait_until("what is held fits", || held(&server) <= SHARE);
    let line = server.wait_for_log("--memory");
    for needle in ["connections of 127.0.0.2 hold the most", "--trusted-proxy 127.0.0.2"] {
        assert!(line.contains(needle), "{line}");
    }
    // The others are served as soon as they read.
    let closed = closed(&server) as usize;
    let ends = ends(&mut crowd);
    // One that does not read its Close in time is cut.
    let (told, cut) = (count(&ends, End::Told), count(&ends, End::Cut));
    assert!(told > 0 && told + cut >= closed, "{closed} closed, {told} told, {cut} cut");
    pair.say("and we are still here");
}

/// How a connection of the crowd stands when it begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Told,
    Cut,
}

fn count(ends: &[End], wanted: End) -> usize {
    ends.iter().filter(|end| **end == wanted).count()
}

/// Reads all of a crowd at the same time.
fn ends(crowd: &mut [Raw]) -> Vec<End> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = crowd.iter_mut().map(|raw| scope.spawn(|| end_of(raw))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

/// Reads frames up to the Close, the end of the stream, or the answer to a last ping.
fn end_of(raw: &mut Raw) -> End {
    // One that is cut may refuse it.
    let _ = raw.try_send(&frame(PING, true, b"last"));
    raw.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    while let Ok(bytes @ 1..) = raw.stream.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..bytes]);
        let mut read = 0;
        while let Some(head) = Head::parse(&seen[read..]) {
            let end = read + head.header_bytes + head.payload_bytes as usize;
            let Some(payload) = seen.get(read + head.header_bytes..end) else { break };
            match (head.opcode, payload) {
                (CLOSE, _) => {
                    assert_eq!(payload[..2], 4002_u16.to_be_bytes());
                    return End::Told;
                }
                (PONG, b"last") => return End::Open,
                (opcode, _) => assert!([TEXT, PING].contains(&opcode), "opcode {opcode}"),
            }
            read = end;
        }
        seen.drain(..read);
    }
    End::Cut
}

#[test]
fn half_messages_are_closed_at_the_cost_of_their_address() {
    let server = Server::spawn(&SMALL);
    let mut pair = Pair::new(&server);
    // A bystander holds more than each of the crowd, and less than all of them.
    let mut other = open_from(OTHER, server.address());
    other.send(&frame(TEXT, false, &[b'x'; 16_000]));
    let half = frame(TEXT, false, &[b'x'; 12_000]);
    let mut crowd: Vec<Raw> = (0..300)
        .map(|_| {
            let mut raw = open_from(CROWD, server.address());
            raw.send(&half);
            raw
        })
        .collect();
    wait_until("most are closed", || closed(&server) > 100.0);
    wait_until("what is held fits", || held(&server) <= SHARE);
    pair.say("hello");
    other.send(&frame(CONTINUATION, true, b"x"));
    assert_eq!(other.json_of("error")["code"], "bad_json", "it is read to its end");
    let ends = ends(&mut crowd);
    assert_eq!((count(&ends, End::Told), count(&ends, End::Cut)), (closed(&server) as usize, 0));
}

#[test]
fn half_heads_and_bodies_are_answered_503() {
    let server = server_with(&SMALL);
    let mut pair = Pair::new(&server);
    let head = format!("GET /{} HTTP/1.1\r\n", "x".repeat(7000));
    let heads: Vec<Raw> = send_from(CROWD, &server, 700, head.as_bytes());
    wait_until("heads are refused", || closed(&server) > 10.0);
    wait_until("what is held fits", || held(&server) <= SHARE);
    let refused = first_answer(heads);
    assert!(refused.text().contains("short of memory"), "{refused:?}");
    pair.say("hello");

    let before = closed(&server);
    let body = [publish_head(48 * 1024, &[]).as_bytes(), &[b' '; 40 * 1024]].concat();
    let bodies = send_from(OTHER, &server, 120, &body);
    wait_until("bodies are refused", || closed(&server) > before + 10.0);
    let refused = first_answer(bodies);
    check_refused(&refused, 503, "server_busy", &["short of memory"]);
    pair.say("hello again");
    assert!(!server.log().iter().any(|line| line.contains(KEY)));
}

fn send_from(source: &str, server: &Server, count: usize, bytes: &[u8]) -> Vec<Raw> {
    let send = |_| {
        let mut raw = Raw::connect_from(source, server.address());
        raw.send(bytes);
        raw
    };
    (0..count).map(send).collect()
}

/// Waits until a request that is not complete is answered.
fn first_answer(mut crowd: Vec<Raw>) -> Response {
    let mut answered = None;
    wait_until("one is answered", || {
        answered = crowd.iter().position(|raw| is_answered(&raw.stream));
        answered.is_some()
    });
    crowd.swap_remove(answered.unwrap()).response()
}

fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let is_answered = stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    stream.set_nonblocking(false).unwrap();
    is_answered
}

/// What the process has in memory, in bytes.
#[cfg(target_os = "linux")]
fn resident(server: &Server) -> u64 {
    let process = procfs::process::Process::new(server.pid().as_raw_nonzero().get()).expect("the process");
    process.status().expect("its status").vmrss.expect("its memory") * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn memory_of_a_crowd_that_has_left_is_given_back() {
    /// What may remain beside what is held.
    const KEPT_MAX: u64 = 16 << 20;
    let server = Server::spawn(&["--connects-per-address=0", "--message-rate=0", "--history-messages=300"]);
    let mut pair = Pair::new(&server);
    for _ in 0..300 {
        pair.say(&"x".repeat(4 * 1024));
    }
    let before = resident(&server);
    let rooms: Vec<u8> =
        (0..8).flat_map(|_| frame_of_json(&json!({"type": "join", "room": "lobby", "history": 300}))).collect();
    let mut crowd: Vec<Raw> = (0..900)
        .map(|number| {
            let mut raw = Raw::connect_from(CROWD, server.address());
            SockRef::from(&raw.stream).set_recv_buffer_size(4096).unwrap();
            raw.send(upgrade_request("/ws", &[]).as_bytes());
            raw.upgraded();
            raw.send(&rooms);
            raw.send(&frame_of_json(&json!({"type": "ping", "id": "p".repeat(64)})).repeat(1000));
            // Something small that stays behind what the others take.
            if number % 50 == 0 {
                pair.say("hello");
            }
            raw
        })
        .collect();
    wait_until("the crowd takes memory", || resident(&server) > before + 2 * KEPT_MAX);
    let kept = crowd.split_off(890);
    drop(crowd);
    wait_until("it is given back", || resident(&server) < before + KEPT_MAX);
    pair.say("and we are still here");
    drop(kept);
}
