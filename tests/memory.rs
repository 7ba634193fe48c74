//! What a server says that it holds, against what the allocator has handed out.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use roomcast::bus::{Bus, BusEvent, BusRequest, LocalBus, Outcome, Publication, Ticket};
use roomcast::internals::Owners;
use roomcast::{Config, HostLoop, HostPublication, Now, RoomName, Server, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts all threads, so that tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// What a crowd says.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    messages: usize,
    rooms: usize,
    owners: usize,
    body_bytes: usize,
    name_bytes: usize,
    /// 0: without one.
    id_bytes: usize,
    has_history: bool,
}

/// A crowd of the host, with short names, none of whose messages has an id.
const CROWD: Crowd =
    Crowd { messages: 50_000, rooms: 100, owners: 1, body_bytes: 200, name_bytes: 12, id_bytes: 0, has_history: true };

/// Publishes, and gives what is held besides: as the bus says, and as the allocator has counted.
fn hold(crowd: &Crowd) -> (f64, f64) {
    let mut config = Config::default();
    config.memory.total = 1 << 30;
    if !crowd.has_history {
        config.history.messages_max = 0;
    }
    let (mut bus, owners) = (LocalBus::new(&config, 1), Owners::new(7));
    bus.begin_turn(Now::default());
    while bus.poll_event().is_some() {}
    let region = Region::new(ALLOCATOR);
    for number in 0..crowd.messages {
        let name = |of: usize| format!("{of:0>width$}", width = crowd.name_bytes);
        let publication = Publication {
            room: RoomName::new(&name(number % crowd.rooms)).unwrap(),
            user: UserId::new(&name(number)).unwrap(),
            owner: owners.address(Ipv4Addr::from_bits((number % crowd.owners) as u32).into()),
            id: (crowd.id_bytes > 0).then(|| format!("{number:0>width$}", width = crowd.id_bytes).into()),
            body: vec![b'x'; crowd.body_bytes].into(),
            restriction: None,
        };
        bus.submit(BusRequest::Publish { ticket: Ticket(1), publication });
        while let Some(event) = bus.poll_event() {
            let is_refused = matches!(event, BusEvent::Published { outcome: Outcome::Refused(_), .. });
            assert!(!is_refused, "{event:?}");
        }
    }
    let change = region.change();
    let counted = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    ((bus.stats().history_bytes + bus.stats().dedupe_bytes) as f64, counted)
}

fn check_crowds(crowds: &[Crowd]) {
    let _turn = TURN.lock();
    let mut wrong = Vec::new();
    for crowd in crowds {
        let (said, counted) = hold(crowd);
        let ratio = said / counted;
        println!("{crowd:?}: {said} charged, {counted} held: {ratio:.2}");
        if !(0.85..=1.15).contains(&ratio) {
            wrong.push(format!("{crowd:?}: {said} charged, {counted} held: {ratio:.2}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_charged_is_what_is_held() {
    check_crowds(&[
        CROWD,
        Crowd { rooms: 50_000, ..CROWD },
        Crowd { rooms: 10_000, body_bytes: 100, ..CROWD },
        Crowd { messages: 20_000, rooms: 50, body_bytes: 2000, ..CROWD },
        Crowd { id_bytes: 36, ..CROWD },
        Crowd { rooms: 20_000, id_bytes: 36, ..CROWD },
        Crowd { rooms: 50_000, name_bytes: 128, ..CROWD },
        Crowd { rooms: 50_000, name_bytes: 128, id_bytes: 64, ..CROWD },
    ]);
}

#[test]
fn remembered_ids_are_charged_what_they_take() {
    let ids = Crowd { has_history: false, id_bytes: 36, ..CROWD };
    check_crowds(&[
        ids,
        Crowd { rooms: 1, ..ids },
        Crowd { rooms: 20, ..ids },
        Crowd { rooms: 20_000, ..ids },
        Crowd { rooms: 50_000, ..ids },
        Crowd { rooms: 50_000, name_bytes: 128, id_bytes: 64, ..ids },
        Crowd { rooms: 1, name_bytes: 128, id_bytes: 64, ..ids },
        Crowd { rooms: 1, owners: 50_000, ..ids },
        Crowd { rooms: 50_000, owners: 50_000, ..ids },
        Crowd { rooms: 50_000, owners: 50_000, name_bytes: 128, id_bytes: 64, ..ids },
        Crowd { rooms: 50, owners: 10_000, name_bytes: 128, id_bytes: 64, ..ids },
    ]);
}

/// A server and its peers, in one thread.
struct Peers {
    poll: Poll,
    events: Events,
    server: Server,
    sockets: Vec<UnixStream>,
    _folder: tempfile::TempDir,
}

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Peers {
    /// So many connections, each of which has sent `hello` and read all answers.
    fn new(count: usize, config: Config, hello: &[u8]) -> Self {
        let poll = Poll::new().unwrap();
        let host = HostLoop {
            registry: poll.registry().try_clone().unwrap(),
            tokens: 10..100_000,
            waker: Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()),
            clock: Now::system,
            seed: 7,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut server = Server::builder(config, host).build().unwrap();
        server.listen_unix(&path).unwrap();
        let events = Events::with_capacity(1024);
        let mut peers = Self { poll, events, server, sockets: Vec::with_capacity(count), _folder: folder };
        for _ in 0..count {
            let socket = UnixStream::connect(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            peers.sockets.push(socket);
            let connected = peers.sockets.len();
            peers.send_from(connected - 1, hello);
            peers.turn_while(|server| server.stats().net.sockets < connected);
        }
        peers.turn_for(Duration::from_millis(100));
        for mut socket in &peers.sockets {
            while socket.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
        }
        peers.turn_for(Duration::from_millis(100));
        peers
    }

    fn send_from(&mut self, at: usize, bytes: &[u8]) {
        assert_eq!(self.sockets[at].write(bytes).unwrap(), bytes.len());
    }

    fn turn(&mut self) {
        let timeout = self.server.timeout().unwrap_or_default().min(Duration::from_millis(5));
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        for event in &self.events {
            if self.server.owns(event.token()) {
                self.server.handle_event(event);
            }
        }
        self.server.turn();
    }

    fn turn_while(&mut self, mut goes_on: impl FnMut(&Server) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while goes_on(&self.server) {
            assert!(Instant::now() < deadline, "{:?}", self.server);
            self.turn();
        }
    }

    /// Turns until the server has had nothing to do for so long.
    fn turn_for(&mut self, quiet: Duration) {
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < quiet {
            let before = self.server.stats().net.received_bytes;
            self.turn();
            if self.server.stats().net.received_bytes != before || self.server.timeout() == Some(Duration::ZERO) {
                quiet_since = Instant::now();
            }
        }
    }

    /// All peers send something; gives what is charged and what is held for it.
    fn hold(&mut self, what: &str, bytes: &[u8]) -> (f64, f64) {
        let charged_before = self.server.stats().net.buffer_bytes;
        let region = Region::new(ALLOCATOR);
        for at in 0..self.sockets.len() {
            self.send_from(at, bytes);
            // A socket has space for some of it only.
            self.turn();
        }
        self.turn_for(Duration::from_millis(100));
        let change = region.change();
        let held = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        let charged = (self.server.stats().net.buffer_bytes - charged_before) as f64;
        println!("{what}: {charged} charged, {held} held");
        assert!((0.85..=1.15).contains(&(charged / held)), "{what}: {charged} charged, {held} held");
        (charged, held)
    }
}

fn masked(first: u8, payload_bytes: usize, sent_bytes: usize) -> Vec<u8> {
    let header = [first, 0x80 | 126, (payload_bytes >> 8) as u8, payload_bytes as u8, 0, 0, 0, 0];
    [&header[..], &vec![b'x'; sent_bytes]].concat()
}

#[test]
fn what_connections_are_charged_is_what_they_hold() {
    let _turn = TURN.lock();
    let config = || {
        let mut config = Config::default();
        (config.net.connections_max, config.memory.total) = (1000, 1 << 30);
        config
    };
    for (what, bytes) in [
        ("half a frame", masked(0x81, 12_000, 6000)),
        ("the header of a frame", masked(0x81, 12_000, 0)),
        ("a fragment", masked(0x01, 12_000, 12_000)),
        ("a fragment and half of one", [masked(0x01, 6000, 6000), masked(0x80, 5000, 2000)].concat()),
        ("many fragments", [masked(0x01, 200, 200), masked(0x00, 200, 200).repeat(40)].concat()),
        ("half a header", vec![0x81]),
    ] {
        Peers::new(200, config(), HANDSHAKE).hold(what, &bytes);
    }
    Peers::new(200, config(), b"").hold("half a head", &[b"GET /".to_vec(), vec![b'x'; 5000]].concat());
}

#[test]
fn write_buffers_are_charged_what_they_hold_and_nothing_when_they_are_empty() {
    let _turn = TURN.lock();
    let mut config = Config::default();
    (config.net.connections_max, config.memory.total) = (1000, 1 << 30);
    // So many that the buffers that all share weigh little.
    let mut peers = Peers::new(200, config, HANDSHAKE);
    let (room, user) = (RoomName::new("lobby").unwrap(), UserId::new("host").unwrap());
    for _ in 0..500 {
        let publication = HostPublication::new(room.clone(), user.clone(), "x".repeat(2000));
        peers.server.publish(&publication).unwrap();
        peers.turn();
    }
    let text = br#"{"type":"join","room":"lobby","history":500}"#;
    let join = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat();
    let (charged, _) = peers.hold("pages of history", &join);
    assert!(charged > 1e6, "{charged}");
    let sockets = std::mem::take(&mut peers.sockets);
    peers.turn_while(|server| {
        for mut socket in &sockets {
            while socket.read(&mut [0; 65_536]).is_ok_and(|bytes| bytes > 0) {}
        }
        server.stats().net.buffer_bytes > 0
    });
}
