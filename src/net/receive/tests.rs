//! Connections that are read, and written to, when a test says so.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::Poll;
use socket2::SockRef;

use super::*;
use crate::net::Handshake;
use crate::net::connection::Connection;
use crate::net::transport::Transport;
use crate::net::{BodyDecision, Capacity, LISTENERS_MAX};
use crate::settings::Config;

/// Admits everybody, and remembers how many bytes each message had, and which connections have stalled.
#[derive(Default)]
struct Heard {
    texts: Vec<(Slot, usize)>,
    stalled: Vec<Slot>,
}

impl Handler for Heard {
    type Admission = ();
    type Route = ();

    fn on_request(&mut self, _: ConnectionId, request: &http::Request<()>, _: Capacity) -> HeadDecision<(), ()> {
        HeadDecision::Upgrade(Handshake::check(request).unwrap(), ())
    }

    fn on_body(&mut self, _: ConnectionId, (): (), _: &[u8]) -> BodyDecision {
        BodyDecision::Respond(Response::unavailable("not expected"))
    }

    fn on_text(&mut self, id: ConnectionId, text: &str, _: &mut WriteBuffer) -> Verdict {
        self.texts.push((id.slot, text.len()));
        Verdict::Continue
    }

    fn on_binary(&mut self, _: ConnectionId, _: &[u8], _: &mut WriteBuffer) -> Verdict {
        Verdict::Close(CloseReason::BINARY)
    }

    fn on_stalled(&mut self, id: ConnectionId) {
        self.stalled.push(id.slot);
    }

    fn on_open(&mut self, _: ConnectionId, (): ()) {}
    fn on_drained(&mut self, _: ConnectionId) {}
    fn on_closed(&mut self, _: ConnectionId) {}
}

/// A net whose sockets are read when a test says so.
struct Peers {
    net: Net<()>,
    heard: Heard,
    sockets: Vec<UnixStream>,
    _poll: Poll,
}

impl Peers {
    /// So many open WebSockets.
    fn new(count: u32) -> Self {
        let (poll, mut config) = (Poll::new().unwrap(), Config::default());
        config.net.connections_max = count;
        let tokens = 0..LISTENERS_MAX + (count + config.net.connections_reserved) as usize;
        let net = Net::new(&config, poll.registry().try_clone().unwrap(), tokens, 7).unwrap();
        let mut peers = Self { net, heard: Heard::default(), sockets: Vec::new(), _poll: poll };
        for at in 0..count as usize {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            peers.net.insert(Transport::from(mio::net::UnixStream::from_std(ours)), Default::default(), None);
            peers.sockets.push(theirs);
            peers.send(
                at,
                b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            );
            peers.turn();
            assert!(peers.sockets[at].read(&mut [0; 1000]).unwrap() > 0);
        }
        peers
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.sockets[at].write_all(bytes).unwrap();
        self.net.connections[at].set(Flag::Readable);
        self.net.queue_read(Slot(at as u32));
    }

    /// Says how many units the reads were.
    fn turn(&mut self) -> u32 {
        let work = self.net.read(&mut Now::default, &mut self.heard);
        self.net.flush(&mut Now::default, &mut self.heard);
        work
    }

    fn heard(&mut self) -> Vec<(Slot, usize)> {
        std::mem::take(&mut self.heard.texts)
    }
}

/// A frame of a client's text, which `first` begins or goes on with.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// A message of so many fragments of one byte.
fn crumbs(count: usize) -> Vec<u8> {
    let frame = |at: usize| masked(if at + 1 == count { 0x80 } else { u8::from(at == 0) }, b"x");
    (0..count).flat_map(frame).collect()
}

#[test]
fn many_tiny_frames_are_read_over_several_turns() {
    let mut peers = Peers::new(6);
    // As many as fit into one read.
    let count = 64 * 1024 / 7;
    for at in 0..5 {
        peers.send(at, &crumbs(count));
    }
    peers.send(5, &masked(0x81, b"hello"));
    let limits = peers.net.limits.clone();
    let mut turns = 0;
    while peers.net.has_work() {
        let work = peers.turn();
        let share = limits.frames_per_read + 64 + 1;
        assert!(work < limits.work_per_phase + share, "{work} units in a turn");
        turns += 1;
        if turns == 2 {
            assert_eq!(peers.heard(), [(Slot(5), 5)], "the sixth waits for one share of each of the others");
        }
    }
    assert!(turns >= 5 * count / 1400, "{turns} turns");
    let mut heard = peers.heard();
    heard.sort_unstable();
    assert!(heard.into_iter().eq((0..5).map(|slot| (Slot(slot), count))));
    assert_eq!(peers.net.stats().open, 6);
}

#[test]
fn a_connection_is_read_once_a_turn() {
    let mut peers = Peers::new(1);
    let frame = masked(0x81, &[b'x'; 100]);
    // More than two reads take, and fewer messages than a turn takes from one connection.
    peers.net.limits.messages_per_read = 10_000;
    peers.net.limits.frames_per_read = 10_000;
    peers.net.limits.work_per_phase = 100_000;
    let count = 64 * 1024 * 2 / frame.len() + 10;
    peers.send(0, &frame.repeat(count));
    let reads: Vec<u64> = std::iter::from_fn(|| {
        let before = peers.net.stats.received_bytes;
        peers.net.has_work().then(|| {
            peers.turn();
            peers.net.stats.received_bytes - before
        })
    })
    .collect();
    assert_eq!(reads[..2], [64 * 1024, 64 * 1024], "{reads:?}");
    assert_eq!(peers.heard().len(), count);
}

#[test]
fn a_connection_is_charged_only_while_it_is_in_the_middle_of_something() {
    let mut peers = Peers::new(3);
    let frame = masked(0x81, &[b'x'; 100]);
    (0..3).for_each(|at| peers.send(at, &frame));
    peers.turn();
    assert_eq!(peers.net.stats().buffer_bytes, 0);
    peers.send(1, &frame[..50]);
    peers.turn();
    let half = peers.net.stats().buffer_bytes;
    assert!(half > 600, "{half}");
    // Of another peer, that ends meanwhile.
    peers.send(2, &frame[..50]);
    peers.turn();
    assert_eq!(peers.net.stats().buffer_bytes, 2 * half);
    peers.net.end(Slot(2), &mut peers.heard);
    peers.turn();
    assert_eq!(peers.net.stats().buffer_bytes, half);
    peers.send(1, &frame[50..]);
    peers.turn();
    assert_eq!((peers.net.stats().buffer_bytes, peers.net.account.owner(Slot(1))), (0, None));
}

#[test]
fn slow_reads_are_fewer_in_a_turn() {
    let mut peers = Peers::new(60);
    (0..60).for_each(|at| peers.send(at, &masked(0x81, b"hello")));
    let mut millis = 0;
    // At every look a millisecond has gone by.
    let mut clock = || {
        millis += 1;
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    };
    peers.net.read(&mut clock, &mut peers.heard);
    // Two strides of units: a read and a frame each.
    assert_eq!(peers.heard().len(), 16);
    peers.turn();
    assert_eq!(peers.heard().len(), 44, "the rest has been kept");
}

#[test]
fn write_buffers_are_written_over_several_turns() {
    let mut peers = Peers::new(60);
    for at in 0..60 {
        let id = peers.net.connections[at].id(Slot(at as u32));
        peers.net.append_frames(id.slot, &[0; 64 * 1024]);
    }
    // One that ends is freed when no list has it any more.
    peers.net.end(Slot(59), &mut peers.heard);
    let mut turns = 0;
    while peers.net.has_work() {
        let work = peers.net.flush(&mut Now::default, &mut peers.heard);
        assert!(work < peers.net.limits.work_per_phase + 65, "{work} units in a turn");
        peers.net.free(&mut Now::default);
        turns += 1;
        assert_eq!(peers.net.stats().sockets, if turns < 4 { 60 } else { 59 });
    }
    assert_eq!(turns, 4);
    let is_empty = |(_, connection): (usize, &Connection<()>)| connection.write_buffer.is_none();
    assert!(peers.net.connections.iter().all(is_empty));
}

#[test]
fn what_is_left_of_a_share_survives_a_close() {
    let mut peers = Peers::new(1);
    peers.send(0, &[crumbs(5000), vec![0x88, 0x80, 0, 0, 0, 0]].concat());
    peers.turn();
    // The server closes while most of the frames are not followed; the peer's Close is among them.
    let id = peers.net.connections[0].id(Slot(0));
    peers.net.close(id, CloseReason::GOING_AWAY, &mut peers.heard);
    assert!(matches!(peers.net.connections[0].phase, Phase::Flushing), "it is awaited");
}

/// How long a peer that is owed much and takes so many bytes a second is kept, in seconds, and whether it has all by then.
fn seconds_until_stalled_or_done(bytes_a_second: usize) -> (u64, bool) {
    let mut peers = Peers::new(1);
    let Transport::Plain(socket) = &peers.net.connections[0].transport else { panic!("a socket") };
    SockRef::from(socket).set_send_buffer_size(4096).unwrap();
    let second = |second| Now { uptime: Duration::from_secs(second), unix_ms: 0 };
    peers.net.begin_turn(second(0));
    let owed = peers.net.limits.output_bytes_max / 2;
    peers.net.append_frames(Slot(0), &vec![0; owed]);
    let mut buffer = vec![0; bytes_a_second];
    for at in 1.. {
        peers.net.begin_turn(second(at));
        peers.net.flush(&mut Now::default, &mut peers.heard);
        peers.net.handle_deadlines(&mut Now::default, &mut peers.heard);
        let is_done = peers.net.connections[0].write_buffer.is_none();
        if is_done || !peers.heard.stalled.is_empty() {
            return (at, is_done);
        }
        // Any byte that comes is an answer to a ping.
        peers.send(0, &masked(0x8a, b""));
        peers.net.read(&mut Now::default, &mut peers.heard);
        let _ = peers.sockets[0].read(&mut buffer).unwrap();
        peers.net.note_writable(Slot(0));
    }
    unreachable!("seconds do not end")
}

#[test]
fn a_peer_keeps_its_write_buffer_only_if_it_takes_it_at_a_least_speed() {
    let timeout = Config::default().timing.stall_timeout.as_secs();
    let (seconds, is_done) = seconds_until_stalled_or_done(0);
    assert!(seconds <= timeout + 2 && !is_done, "nothing: {seconds} s");
    let (seconds, is_done) = seconds_until_stalled_or_done(427);
    assert!(seconds <= 2 * timeout + 2 && !is_done, "a trickle: {seconds} s");
    let (seconds, is_done) = seconds_until_stalled_or_done(2000);
    assert!(is_done, "slowly: {seconds} s");
}
