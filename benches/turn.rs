//! A whole turn over TCP: one chat message comes in, and the turn ends when a hundred members' sockets have it. Beside it the
//! floor: a bare loop that writes the same bytes to as many sockets, which no server can do without. Only the ratio of the
//! two says something about the server; their size is the kernel's.
//!
//! The write of the client that speaks and the reads of the others are not measured.

#[path = "../tests/support/mod.rs"]
pub mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::Config;
use support::host::Host;
use support::{PATIENCE, Raw, TEXT, frame, upgrade_request};

const MEMBERS: u32 = 100;
const CHAT: &[u8] = br#"{"type":"chat","room":"lobby","text":"hello everybody"}"#;

struct Room {
    host: Host,
    members: Vec<TcpStream>,
    chat: Vec<u8>,
}

impl Room {
    fn new() -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        // All members in one turn.
        config.hub.sends_per_turn = MEMBERS;
        let mut host = Host::new(config);
        let address = host.listen();
        let members = host.serve(|| {
            let member = |_| {
                let mut raw = Raw::connect(address);
                raw.send(upgrade_request("/ws?userId=ann", &[]).as_bytes());
                raw.upgraded();
                raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
                // Of one user, so that only the first member's presence is told.
                raw.json_of("joined");
                raw.stream
            };
            (0..MEMBERS).map(member).collect::<Vec<_>>()
        });
        let mut room = Self { host, members, chat: frame(TEXT, true, CHAT) };
        // The presence may come with the first message.
        room.broadcast();
        room.members.iter_mut().for_each(drain);
        room
    }

    /// Has a member send a message. Returns how long the server took to send it to all, and how many bytes
    /// each was sent.
    fn broadcast(&mut self) -> (Duration, usize) {
        let before = self.host.server.stats().hub;
        self.members[0].write_all(&self.chat).expect("the server reads");
        let start = Instant::now();
        while self.host.server.stats().hub.sends < before.sends + u64::from(MEMBERS) {
            self.host.turn(PATIENCE);
        }
        let duration = start.elapsed();
        let sent_bytes = self.host.server.stats().hub.sent_bytes - before.sent_bytes;
        (duration, (sent_bytes / u64::from(MEMBERS)) as usize)
    }
}

/// Reads and drops the bytes that are there: at least one, and fewer than the buffer holds.
fn drain(stream: &mut TcpStream) {
    assert!(stream.read(&mut [0; 4096]).expect("bytes were sent") > 0);
}

fn floor(bencher: &mut Bencher<'_>, bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let pair = |_| {
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        near.set_nodelay(true).expect("set TCP_NODELAY");
        near.set_nonblocking(true).expect("set O_NONBLOCK");
        (near, listener.accept().expect("a connection").0)
    };
    let mut pairs: Vec<_> = (0..MEMBERS).map(pair).collect();
    let frames = vec![b'x'; bytes];
    bencher.iter_custom(|iterations| {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            let start = Instant::now();
            for (near, _) in &mut pairs {
                assert_eq!(near.write(&frames).expect("it takes bytes"), bytes);
            }
            total += start.elapsed();
            pairs.iter_mut().for_each(|(_, far)| drain(far));
        }
        total
    });
}

fn turn(criterion: &mut Criterion) {
    let mut room = Room::new();
    let (_, bytes) = room.broadcast();
    room.members.iter_mut().for_each(drain);
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(MEMBERS.into()));
    group.bench_function(format!("{MEMBERS} members/floor"), |bencher| floor(bencher, bytes));
    group.bench_function(format!("{MEMBERS} members/server"), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                total += room.broadcast().0;
                room.members.iter_mut().for_each(drain);
            }
            total
        });
    });
    group.finish();
}

criterion_group!(benches, turn);
criterion_main!(benches);
