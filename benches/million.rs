//! A million connections in a hundred thousand rooms, without sockets: the bytes of a connection, and the
//! time of a member in a broadcast to a thousand and to a hundred thousand.
//!
//! `cargo bench --features in-memory --bench million`. The connections, members and rooms are the server's own; only the
//! system calls are left out, and the kernel's memory, for which see docs/benchmarks.md.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use roomcast::internals::frame::{self, Payload};
use roomcast::{Config, HostLoop, HostPublication, Now, RoomName, Server, UserId};

const CONNECTIONS: usize = 1_000_000;
const ROOMS: usize = 100_000;
const BIG: usize = 100_000;
const SMALL: usize = 1000;
const BROADCASTS: u32 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes the flag. `cargo test --benches` only checks that the bench runs.
    let connections = if std::env::args().any(|arg| arg == "--bench") { CONNECTIONS } else { 10_000 };
    let scale = CONNECTIONS / connections;
    let (big, small, rooms) = (BIG / scale, SMALL / scale, ROOMS / scale);
    let poll = Poll::new()?;
    let mut server = new_server(&poll, connections)?;
    let before = resident_bytes()?;
    let began = Instant::now();
    for index in 0..connections {
        connect(&mut server, &format!("room-{}", index % rooms))?;
    }
    rest(&mut server);
    let each = (resident_bytes()? - before) / connections as f64;
    let hub = server.stats().hub;
    println!(
        "{} connections of {} users in {} rooms: {each:.0} bytes resident each; opened in {:.1} s",
        hub.connections,
        hub.users,
        hub.rooms,
        began.elapsed().as_secs_f64()
    );
    assert_eq!((hub.connections, hub.rooms), (connections, rooms));
    drop(server);

    let of_small = member_cost(&poll, small)?;
    let of_big = member_cost(&poll, big)?;
    println!(
        "a member costs {:.1} ns in a broadcast to {small} and {:.1} ns in one to {big}: {:.1} ns more",
        of_small.as_secs_f64() * 1e9,
        of_big.as_secs_f64() * 1e9,
        (of_big.as_secs_f64() - of_small.as_secs_f64()) * 1e9
    );
    Ok(())
}

fn new_server(poll: &Poll, connections: usize) -> Result<Server, Box<dyn Error>> {
    let mut config = Config::default();
    config.net.connections_max = connections as u32;
    config.hub.message_rate = 0;
    let tokens = 1..2 + roomcast::LISTENERS_MAX + connections + config.net.connections_reserved as usize;
    // A poll has one waker. No thread wakes this loop, so any waker will do.
    let other = Poll::new()?;
    let waker = Arc::new(Waker::new(other.registry(), Token(0))?);
    let host = HostLoop { registry: poll.registry().try_clone()?, tokens, waker, clock: Now::system, seed: 1 };
    Ok(Server::builder(config, host).build()?)
}

/// A guest connects and joins a room, as one would over a socket.
fn connect(server: &mut Server, room: &str) -> Result<(), Box<dyn Error>> {
    let mut input = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    input.extend(masked_text(&format!(r#"{{"type":"join","room":"{room}"}}"#)));
    server.connect_in_memory(&input)?;
    server.turn();
    Ok(())
}

/// A text frame under a mask of zeros.
fn masked_text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append_header(&mut out, Payload::Text, text.len());
    out[1] |= 0x80;
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text.as_bytes());
    out
}

/// Turns until there is nothing to do but wait.
fn rest(server: &mut Server) {
    while server.timeout() == Some(Duration::ZERO) {
        server.turn();
    }
}

/// The time that a member takes in a broadcast to so many, the fastest of several.
fn member_cost(poll: &Poll, members: usize) -> Result<Duration, Box<dyn Error>> {
    let mut server = new_server(poll, members)?;
    for _ in 0..members {
        connect(&mut server, "lobby")?;
    }
    rest(&mut server);
    let mut fastest = Duration::MAX;
    for number in 0..BROADCASTS {
        let text = format!("message {number}, of about as many bytes as people write to each other");
        let publication = HostPublication::new(RoomName::new("lobby")?, UserId::new("host")?, text);
        let taken = roomcast::internals::taken_bytes();
        let began = Instant::now();
        server.publish(&publication)?;
        rest(&mut server);
        fastest = fastest.min(began.elapsed());
        assert!(roomcast::internals::taken_bytes() - taken >= 100 * members as u64, "everybody was sent the message");
    }
    Ok(fastest / members as u32)
}

fn resident_bytes() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(kilobytes * 1024.0)
}
