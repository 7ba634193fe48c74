//! What a server says that it holds, against what the allocator has handed out.

#[path = "support/peers.rs"]
pub mod peers;

use std::alloc::System;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use roomcast::bus::{Bus, BusEvent, BusRequest, LocalBus, Outcome, Publication, Ticket};
use roomcast::internals::Owners;
use roomcast::{Config, HostPublication, Now, RoomName, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use peers::{HANDSHAKE, Peers};

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
