//! Heartbeats: pings of the server, their answers, and a pause of the whole process.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use roomcast::settings::Timing;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::host::{self, Host};
use crate::support::{CLOSE, Client, Connect, PATIENCE, PING, PONG, Raw, Server, TEXT, frame, wait_until};

/// How much later than due a deadline may strike: the wheel is as coarse as a second; the rest is for a busy machine.
const TOLERANCE: Duration = Duration::from_secs(4);

/// A server that pings after half a second and waits half a second for the answer.
fn server() -> Server {
    Server::spawn(&["--ping-interval", "500ms", "--pong-timeout", "500ms"])
}

/// A connection that has been welcomed and answers no pings by itself.
fn open(server: &Server) -> Raw {
    let mut raw = Raw::open(server.address(), "/ws");
    assert_eq!(raw.json()["type"], "welcome");
    raw
}

/// Answers the next `count` pings.
fn answer_pings(raw: &mut Raw, count: usize) {
    for _ in 0..count {
        let ping = raw.frame();
        assert_eq!((ping.fin, ping.opcode), (true, PING), "{ping:?}");
        raw.send(&frame(PONG, true, &ping.payload));
    }
}

#[test]
fn a_client_that_answers_pings_stays() {
    let server = server();
    let mut raw = open(&server);
    // By the fourth ping both deadlines have passed several times.
    answer_pings(&mut raw, 4);
    raw.send(&frame(TEXT, true, br#"{"type":"ping","id":"a"}"#));
    assert_eq!(raw.json(), json!({"type": "pong", "id": "a"}));
}

#[test]
fn a_client_that_does_not_answer_is_closed_4001() {
    let server = server();
    let mut raw = open(&server);
    let start = Instant::now();
    let ping = raw.frame();
    assert_eq!(ping.opcode, PING, "{ping:?}");
    assert!(start.elapsed() >= Duration::from_millis(400), "pinged after {:?}", start.elapsed());
    assert_eq!(raw.expect_close(), 4001);
    let (least, most) = (Duration::from_millis(900), Duration::from_secs(1) + TOLERANCE);
    assert!((least..most).contains(&start.elapsed()), "closed after {:?}", start.elapsed());
    raw.send(&frame(CLOSE, true, &4001u16.to_be_bytes()));
    assert!(raw.at_end());
}

/// A server in this process whose closing connections have half a second to say goodbye.
fn host_with_short_close_timeout(change: impl FnOnce(&mut Timing)) -> (Host, SocketAddr) {
    let mut config = host::config();
    config.hub.message_rate = 0;
    config.timing.close_timeout = Duration::from_millis(500);
    config.timing.presence_grace = Duration::from_millis(200);
    change(&mut config.timing);
    let mut host = Host::new(config);
    let address = host.listen();
    (host, address)
}

#[test]
fn a_client_that_has_fallen_silent_leaves_its_rooms() {
    let (mut host, address) = host_with_short_close_timeout(|timing| {
        timing.ping_interval = Duration::from_millis(500);
        timing.pong_timeout = Duration::from_millis(500);
    });
    host.serve(|| {
        let mut silent = Connect::to(address).user("silent").connect();
        silent.join("lobby");
        let mut bob = Connect::to(address).user("bob").connect();
        bob.join("lobby");
        // The socket stays open, but nothing reads it, so that not even the Close is answered.
        let seen = bob.recv_until(|message| message["status"] == "offline");
        assert_eq!(seen.last().map(|message| &message["userId"]), Some(&json!("silent")));
    });
}

#[test]
fn a_pong_with_another_payload_counts_as_life() {
    let server = server();
    let mut raw = open(&server);
    for _ in 0..3 {
        let ping = raw.frame();
        assert_eq!(ping.opcode, PING, "{ping:?}");
        raw.send(&frame(PONG, true, b"unasked"));
    }
}

/// For a while, nothing that the server sends is a Close; nothing is answered.
#[track_caller]
fn check_open_for(raw: &mut Raw, time: Duration) {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match raw.frame_within(left) {
            Some(next) => assert_ne!(next.opcode, CLOSE, "closed {}", next.close_code()),
            None => return,
        }
    }
}

#[test]
fn messages_count_as_life_where_pings_are_not_answered() {
    let server = server();
    let mut raw = open(&server);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        raw.send(&frame(TEXT, true, br#"{"type":"leave","room":"nowhere"}"#));
        check_open_for(&mut raw, Duration::from_millis(150));
    }
}

#[test]
fn every_byte_of_an_unfinished_frame_counts_as_life() {
    let server = server();
    let mut raw = open(&server);
    let mut message = br#"{"type":"ping","id":"slow"}"#.to_vec();
    message.resize(120, b' ');
    let bytes = frame(TEXT, true, &message);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(3) && sent < bytes.len() - 1 {
        raw.send(&bytes[sent..=sent]);
        sent += 1;
        check_open_for(&mut raw, Duration::from_millis(150));
    }
    raw.send(&bytes[sent..]);
    assert_eq!(raw.json(), json!({"type": "pong", "id": "slow"}));
}

/// A client that answers every ping on a thread of its own.
struct Answering {
    answers: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Raw>,
}

impl Answering {
    fn new(mut raw: Raw) -> Self {
        let (answers, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, asked) = (Arc::clone(&answers), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                let Some(next) = raw.frame_within(Duration::from_millis(50)) else { continue };
                assert_eq!(next.opcode, PING, "{next:?} instead of a ping");
                raw.send(&frame(PONG, true, &next.payload));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            raw
        });
        Self { answers, done, thread }
    }

    /// How many pings have been answered; a connection that was closed fails the test.
    fn answers(&self) -> usize {
        assert!(!self.thread.is_finished(), "a client that answers every ping was closed");
        self.answers.load(Ordering::Relaxed)
    }

    fn stop(self) -> Raw {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client was not closed")
    }
}

#[test]
fn a_pause_of_the_process_closes_no_client_that_answers() {
    let flags = ["--ping-interval", "1s", "--pong-timeout", "1s", "--stall-timeout", "1s", "--handshake-timeout", "1s"];
    let server = Server::spawn(&flags);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Answering::new(open(&server)));
        // So that the pause meets them in different phases.
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut late = open(&server);
    let ping = late.frame();
    assert_eq!(ping.opcode, PING, "{ping:?}");

    // The answer to that ping comes while the server sleeps past the deadline for it.
    server.signal(Signal::STOP);
    late.send(&frame(PONG, true, &ping.payload));
    std::thread::sleep(Duration::from_secs(3));
    server.signal(Signal::CONT);
    let late = Answering::new(late);
    clients.push(late);
    let before: Vec<_> = clients.iter().map(Answering::answers).collect();
    wait_until("two more pings for each", || {
        clients.iter().zip(&before).all(|(client, before)| client.answers() >= before + 2)
    });
    for client in clients {
        let mut raw = client.stop();
        raw.send(&frame(TEXT, true, br#"{"type":"ping","id":"still here"}"#));
        assert_eq!(raw.json(), json!({"type": "pong", "id": "still here"}));
    }
}

/// Stops the process for a while, as a debugger or a laptop's lid does.
fn pause(server: &Server, time: Duration) {
    server.signal(Signal::STOP);
    std::thread::sleep(time);
    server.signal(Signal::CONT);
}

#[test]
fn a_pause_of_the_process_does_not_count_as_a_stall() {
    let flags = ["--stall-timeout", "2s", "--message-rate", "0", "--ping-interval", "1m"];
    let server = Server::spawn(&flags);
    let mut slow = Client::build(&server).small_receive_buffer().user("slow").connect();
    slow.join("lobby");
    let mut talker = Client::connect_as(&server, "talker");
    talker.join("lobby");
    let text = "x".repeat(16_000);
    for number in 1..=40 {
        talker.say("lobby", &text);
        assert_eq!(talker.recv_type("chat")["seq"], number);
    }
    pause(&server, Duration::from_secs(3));
    // Reading again is progress; without the pause it would have come in time.
    let last = |message: &Value| message["type"] == "chat" && message["seq"] == 40;
    let seen = slow.recv_until(last);
    let numbers: Vec<_> =
        seen.iter().filter(|message| message["type"] == "chat").map(|chat| chat["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=40).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_pause_before_the_request_is_complete_does_not_use_up_its_time() {
    let server = Server::spawn(&["--handshake-timeout", "1s"]);
    let upgrade = crate::support::upgrade_request("/ws", &[]);
    let mut raw = Raw::connect(server.address());
    raw.send(&upgrade.as_bytes()[..20]);
    assert_eq!(server.get("/healthz").status, 200);
    pause(&server, Duration::from_secs(3));
    // The server runs again, and would have found the request overdue by now.
    assert_eq!(server.get("/healthz").status, 200);
    raw.send(&upgrade.as_bytes()[20..]);
    raw.upgraded();
}

#[test]
fn a_client_that_makes_no_progress_is_closed_4002() {
    let (mut host, address) = host_with_short_close_timeout(|timing| timing.stall_timeout = Duration::from_secs(1));
    host.serve(|| {
        let mut slow = Connect::to(address).small_receive_buffer().user("slow").connect();
        slow.join("lobby");
        let mut talker = Connect::to(address).user("talker").connect();
        talker.join("lobby");
        let text = "x".repeat(16_000);
        for number in 1..=40 {
            talker.say("lobby", &text);
            assert_eq!(talker.recv_type("chat")["seq"], number);
        }
        let seen = talker.recv_until(|message| message["status"] == "offline");
        assert_eq!(seen.last().map(|message| &message["userId"]), Some(&json!("slow")));
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            match slow.recv_frame(deadline).expect("the end of the connection") {
                Ok(tungstenite::Message::Close(frame)) => break frame.map(|frame| u16::from(frame.code)),
                Ok(_) => {}
                // A peer that reads nothing may be past being told; then the stream just ends.
                Err(_) => break None,
            }
        };
        assert!(matches!(end, None | Some(4002)), "{end:?}");
    });
}
