//! A server and many peers in one thread, whose memory the allocator of the test counts.
#![allow(missing_docs, reason = "public for the sake of the lint on dead code alone")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use roomcast::{Config, HostLoop, Now, Server};
use stats_alloc::Region;
use tempfile::TempDir;

/// A server and its peers, in one thread.
pub struct Peers {
    poll: Poll,
    events: Events,
    pub server: Server,
    pub sockets: Vec<UnixStream>,
    _folder: TempDir,
}

pub const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Peers {
    /// So many connections, each of which has sent `hello` and read all answers.
    pub fn new(count: usize, config: Config, hello: &[u8]) -> Self {
        Self::with_server(count, hello, |host, path| {
            let mut server = Server::builder(config, host).build().unwrap();
            server.listen_unix(path).unwrap();
            server
        })
    }

    /// The same with a server that listens at a path.
    pub fn with_server(count: usize, hello: &[u8], build: impl FnOnce(HostLoop, &Path) -> Server) -> Self {
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
        let server = build(host, &path);
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

    pub fn turn(&mut self) {
        let timeout = self.server.timeout().unwrap_or_default().min(Duration::from_millis(5));
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        for event in &self.events {
            if self.server.owns(event.token()) {
                self.server.handle_event(event);
            }
        }
        self.server.turn();
    }

    pub fn turn_while(&mut self, mut goes_on: impl FnMut(&Server) -> bool) {
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

    /// What is charged for buffers, and for what waits for the bus.
    fn charged(&self) -> usize {
        let stats = self.server.stats();
        stats.net.buffer_bytes + stats.hub.publications_bytes
    }

    /// All peers send something; gives what is charged and what is held for it.
    pub fn hold(&mut self, what: &str, bytes: &[u8]) -> (f64, f64) {
        let charged_before = self.charged();
        let region = Region::new(crate::ALLOCATOR);
        for at in 0..self.sockets.len() {
            self.send_from(at, bytes);
            // A socket has space for some of it only.
            self.turn();
        }
        self.turn_for(Duration::from_millis(100));
        let change = region.change();
        let held = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        let charged = (self.charged() - charged_before) as f64;
        println!("{what}: {charged} charged, {held} held");
        assert!((0.85..=1.15).contains(&(charged / held)), "{what}: {charged} charged, {held} held");
        (charged, held)
    }
}
