//! A server in the loop of the test, and clients in the same thread: each piece is read before the next one is written.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use roomcast::Config;

use crate::support::host::{self, Host, LOOK};
use crate::support::{PATIENCE, TEXT, frame, upgrade_request};

/// Turns without any event, after which nothing more is expected.
const QUIET_TURNS: u32 = 2;

/// A configuration without limits on rates.
pub(crate) fn config() -> Config {
    let mut config = host::config();
    config.notices = false;
    (config.net.connections_per_address_max, config.net.connects_per_address) = (0, 0);
    config.net.requests_per_address = 0;
    (config.net.head_bytes_max, config.net.message_bytes_max) = (1024, 1024);
    (config.hub.message_rate, config.hub.data_bytes_max) = (0, 256);
    config
}

/// What a server has sent to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_closed: bool,
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"{}", self.bytes.escape_ascii(), if self.is_closed { ", then the end" } else { "" })
    }
}

/// A client that never blocks.
pub(crate) struct Peer {
    stream: TcpStream,
    pub(crate) transcript: Transcript,
}

impl Peer {
    /// Reads what has come; says whether there was anything.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let before = self.transcript.bytes.len();
        while !self.transcript.is_closed {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.transcript.is_closed = true,
                Ok(bytes) => self.transcript.bytes.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.transcript.is_closed = true,
            }
        }
        self.transcript.bytes.len() > before
    }

    /// Takes what has come so far.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.transcript.bytes)
    }
}

/// How long a client waits for something more.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// As long as the loop is busy.
    Busy,
    /// So long that a delay within the system does not matter.
    Long,
}

/// A server, and the client that must always be served.
pub(crate) struct Embedded {
    host: Host,
    address: SocketAddr,
    healthy: Option<Peer>,
    wait: Wait,
}

impl Embedded {
    /// Around a host that listens at `address`.
    pub(crate) fn new(host: Host, address: SocketAddr) -> Self {
        Self { host, address, healthy: None, wait: Wait::Busy }
    }

    /// With a configuration, at an address of its own.
    pub(crate) fn with(config: Config) -> Self {
        let mut host = Host::new(config);
        let address = host.listen();
        Self::new(host, address)
    }

    /// A client that has connected.
    pub(crate) fn connect(&mut self) -> Peer {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_nonblocking(true).expect("make the socket non-blocking");
        let accepted = self.host.server.stats().net.accepted;
        self.turn_until("a connection", |host| host.server.stats().net.accepted > accepted);
        Peer { stream, transcript: Transcript::default() }
    }

    /// Sends bytes, waits until the server has read them or has closed the connection, and reads the answer.
    pub(crate) fn send(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let before = self.host.server.stats().net.received_bytes;
        let mut sent = 0;
        let deadline = Instant::now() + PATIENCE;
        while !peer.transcript.is_closed {
            match peer.stream.write(&bytes[sent..]) {
                Ok(written) => sent += written,
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(_) => break,
            }
            if sent == bytes.len() && self.host.server.stats().net.received_bytes - before >= sent as u64 {
                break;
            }
            assert!(Instant::now() < deadline, "not read within {PATIENCE:?}: {:?}", self.host.server);
            self.host.turn(Duration::ZERO);
            peer.read();
        }
        self.settle(peer);
    }

    /// Turns until nothing more comes.
    fn settle(&mut self, peer: &mut Peer) {
        let (timeout, quiet_turns) = match self.wait {
            Wait::Busy => (Duration::ZERO, QUIET_TURNS),
            Wait::Long => (LOOK, 10),
        };
        let mut quiet = 0;
        while quiet < quiet_turns {
            self.host.turn(timeout);
            quiet = if peer.read() { 0 } else { quiet + 1 };
        }
    }

    /// Reads on until `is_done`, for answers that take their time.
    pub(crate) fn read_until(&mut self, peer: &mut Peer, is_done: impl Fn(&Transcript) -> bool) {
        self.turn_until("an answer", |_| {
            peer.read();
            peer.transcript.is_closed || is_done(&peer.transcript)
        });
    }

    fn turn_until(&mut self, what: &str, mut is_done: impl FnMut(&mut Host) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done(&mut self.host) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {:?}", self.host.server);
            self.host.turn(Duration::from_millis(1));
        }
    }

    /// Sends `before` in one piece and then `pieces`, and returns the answer to the pieces.
    pub(crate) fn exchange(&mut self, before: &[u8], pieces: &[&[u8]]) -> Transcript {
        let mut peer = self.connect();
        if !before.is_empty() {
            self.send(&mut peer, before);
            peer.take();
        }
        for piece in pieces {
            self.send(&mut peer, piece);
        }
        peer.transcript
    }

    /// The bytes in one piece and in others are answered alike. Returns the answer to the pieces.
    pub(crate) fn check_split(
        &mut self,
        before: &[u8],
        pieces: &[&[u8]],
        is_alike: impl Fn(&Transcript, &Transcript) -> bool,
    ) -> Transcript {
        let whole = pieces.concat();
        for wait in [Wait::Busy, Wait::Long] {
            // Only what stays different with much time is a fault of the server.
            self.wait = wait;
            let expected = self.exchange(before, &[&whole]);
            let found = self.exchange(before, pieces);
            self.wait = Wait::Busy;
            if is_alike(&expected, &found) {
                return found;
            }
            if matches!(wait, Wait::Long) {
                let lengths: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
                panic!("in one piece {expected}\nin pieces of {lengths:?} bytes {found}");
            }
        }
        unreachable!("the second time returns or panics")
    }

    /// The server still answers a WebSocket that has been there all the time.
    pub(crate) fn check_health(&mut self) {
        let mut peer = self.healthy.take().unwrap_or_else(|| {
            let mut peer = self.connect();
            self.send(&mut peer, upgrade_request("/ws", &[]).as_bytes());
            peer
        });
        peer.take();
        self.send(&mut peer, &frame(TEXT, true, br#"{"type":"ping","id":"healthy"}"#));
        self.read_until(&mut peer, |transcript| transcript.bytes.ends_with(br#""healthy"}"#));
        assert!(!peer.transcript.is_closed, "a connection was closed that did nothing wrong");
        self.healthy = Some(peer);
    }
}
