//! What handshakes and unfinished records cost, and who pays.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use mio::Poll;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS12;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::id::ConnectionId;
use crate::net::account::Account;
use crate::net::transport::Transport;
use crate::net::{
    BodyDecision, Capacity, Handshake, HeadDecision, LISTENERS_MAX, ListenerRole, Opening, Security, Verdict,
};
use crate::protocol::CloseReason;
use crate::settings::Config;
use crate::time::Now;

/// Admits everybody, and counts how often somebody would take more.
#[derive(Default)]
struct Everybody {
    drained: u32,
}

impl Handler for Everybody {
    type Admission = ();
    type Route = ();

    fn on_request(&mut self, _: ConnectionId, request: &http::Request<()>, _: Capacity) -> HeadDecision<(), ()> {
        HeadDecision::Upgrade(Handshake::check(request).unwrap(), ())
    }

    fn on_body(&mut self, _: ConnectionId, (): (), _: &[u8]) -> BodyDecision {
        BodyDecision::Respond(Response::unavailable("not expected"))
    }

    fn on_text(&mut self, _: ConnectionId, _: &str, _: &mut WriteBuffer) -> Verdict {
        Verdict::Continue
    }

    fn on_binary(&mut self, _: ConnectionId, _: &[u8], _: &mut WriteBuffer) -> Verdict {
        Verdict::Continue
    }

    fn on_open(&mut self, _: ConnectionId, (): ()) {}
    fn on_drained(&mut self, _: ConnectionId) {
        self.drained += 1;
    }
    fn on_stalled(&mut self, _: ConnectionId) {}
    fn on_closed(&mut self, _: ConnectionId) {}
}

/// A net whose sockets are read when a test says so, and clients that speak TLS.
struct Peers {
    net: Net<()>,
    clients: Vec<(UnixStream, ClientConnection)>,
    handler: Everybody,
    /// The plaintext that clients have heard.
    heard: Vec<u8>,
    _poll: Poll,
}

impl Peers {
    fn new(count: u32) -> Self {
        Self::with_versions(count, rustls::DEFAULT_VERSIONS)
    }

    fn with_versions(count: u32, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let client_config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());

        let (poll, mut config) = (Poll::new().unwrap(), Config::default());
        config.net.connections_max = count;
        let tokens = 0..LISTENERS_MAX + (count + config.net.connections_reserved) as usize;
        let mut net = Net::new(&config, poll.registry().try_clone().unwrap(), tokens, 7).unwrap();
        let identity = TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        net.set_tls_identity(&identity.unwrap());
        let mut clients = Vec::new();
        for _ in 0..count {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            let opening = Opening { security: Security::Tls, ..Opening::default() };
            net.insert(Transport::from(mio::net::UnixStream::from_std(ours)), (ListenerRole::Public, opening), None);
            let name = ServerName::try_from("localhost").unwrap();
            clients.push((theirs, ClientConnection::new(Arc::clone(&client_config), name).unwrap()));
        }
        Self { net, clients, handler: Everybody::default(), heard: Vec::new(), _poll: poll }
    }

    /// What a client wants to send.
    fn flight(&mut self, at: usize) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.clients[at].1.wants_write() {
            self.clients[at].1.write_tls(&mut flight).unwrap();
        }
        flight
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].0.write_all(bytes).unwrap();
        self.net.connections[at].set(Flag::Readable);
        self.net.queue_read(Slot(at as u32));
    }

    fn turn(&mut self) {
        self.net.read(&mut Now::default, &mut self.handler);
        self.net.flush(&mut Now::default, &mut self.handler);
    }

    /// A client reads what has come; says whether there was anything.
    fn hear(&mut self, at: usize) -> bool {
        let (socket, client) = &mut self.clients[at];
        let mut bytes = [0; 16 * 1024];
        let Ok(count) = socket.read(&mut bytes) else { return false };
        let mut bytes = &bytes[..count];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
            let _ = client.reader().read_to_end(&mut self.heard);
        }
        count > 0
    }

    fn shake_hands(&mut self, at: usize) {
        for _ in 0..2 {
            let flight = self.flight(at);
            self.send(at, &flight);
            self.turn();
            assert!(self.hear(at));
        }
        assert!(!self.clients[at].1.is_handshaking());
        assert!(matches!(self.net.connections[at].phase, Phase::Head(None)));
    }

    /// Makes a WebSocket of a connection.
    fn open(&mut self, at: usize) {
        self.shake_hands(at);
        let upgrade = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.clients[at].1.writer().write_all(upgrade).unwrap();
        let request = self.flight(at);
        self.send(at, &request);
        self.turn();
        assert!(self.hear(at) && self.net.connections[at].is_open());
    }

    fn charged(&self) -> usize {
        self.net.stats().buffer_bytes
    }
}

#[test]
fn a_turn_makes_few_handshakes() {
    let mut peers = Peers::new(10);
    for at in 0..10 {
        let hello = peers.flight(at);
        peers.send(at, &hello);
    }
    let mut answered = Vec::new();
    while peers.net.has_work() {
        peers.turn();
        answered.push((0..10).filter(|at| peers.hear(*at)).count());
    }
    // Of 1024 units each takes a quarter, and a little.
    assert_eq!(answered, [4, 4, 2]);
}

#[test]
fn what_is_not_complete_is_charged() {
    let mut peers = Peers::new(2);
    assert!(peers.net.tls.sessions_are_absent() && peers.charged() == 0, "nobody has said anything");
    let hello = peers.flight(0);
    peers.send(0, &hello[..100]);
    peers.turn();
    assert!((3_000..4_000).contains(&peers.charged()), "{}", peers.charged());
    peers.send(0, &hello[100..]);
    peers.turn();
    peers.hear(0);
    let finished = peers.flight(0);
    peers.send(0, &finished);
    peers.turn();
    assert_eq!((peers.charged(), peers.hear(0)), (0, true), "the handshake is complete");
    peers.shake_hands(1);
    // A large record that does not end.
    peers.send(1, &[23, 3, 3, 0x40, 0]);
    peers.send(1, &[0; 4000]);
    peers.turn();
    assert!((4_000..10_000).contains(&peers.charged()), "{}", peers.charged());
    peers.net.end(Slot(1), &mut peers.handler);
    peers.turn();
    assert!(peers.charged() == 0 && !peers.net.tls.has_session(Slot(1)));
    assert_eq!(peers.net.stats().tls_handshakes, 2);
}

#[test]
fn a_handshake_that_does_not_end_gives_way_when_memory_is_short() {
    let mut peers = Peers::new(10);
    peers.net.account = Account::new(20_000);
    for at in 0..10 {
        let hello = peers.flight(at);
        peers.send(at, &hello[..100]);
        peers.turn();
    }
    let stats = peers.net.stats();
    assert!(stats.buffer_bytes <= 20_000 && stats.connections_shed >= 4, "{stats:?}");
}

#[test]
fn what_a_turn_sends_a_member_is_one_record() {
    let mut peers = Peers::new(1);
    peers.open(0);
    let frames = [&[0x81, 126, 0x03, 0xe6][..], &[b'x'; 998]].concat().repeat(16);
    assert_eq!(peers.net.send(Slot(0), &frames), frames.len());
    let mut bytes = vec![0; 2 * RECORD_BYTES];
    let count = peers.clients[0].0.read(&mut bytes).unwrap();
    let in_record = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    assert!(bytes[..3] == [23, 3, 3] && count == 5 + in_record && in_record < frames.len() + 100, "{count} bytes");
    assert!(peers.net.connections[0].write_buffer.is_none() && peers.charged() == 0);
}

#[test]
fn a_long_log_takes_several_turns() {
    let mut peers = Peers::new(1);
    peers.open(0);
    let frames = [&[0x81, 126, 0x03, 0xe6][..], &[b'x'; 998]].concat().repeat(100);
    peers.turn();
    let before = peers.handler.drained;
    let taken = peers.net.send(Slot(0), &frames);
    assert!(taken.is_multiple_of(1002) && (SEND_BYTES_MAX..SEND_BYTES_MAX + 1002).contains(&taken), "{taken}");
    assert!(peers.net.has_work() && peers.net.connections[0].blocked.is_none(), "its socket would take more");
    peers.turn();
    assert_eq!(peers.handler.drained, before + 1);
    assert_eq!(peers.net.send(Slot(0), &frames[taken..]), frames.len() - taken);
    peers.turn();
    assert!(peers.handler.drained == before + 1 && !peers.net.has_work());
}

#[test]
fn records_that_carry_next_to_nothing_are_ignored_as_any_other_bytes() {
    let mut peers = Peers::new(1);
    peers.open(0);
    let id = peers.net.connections[0].id(Slot(0));
    peers.net.close(id, CloseReason::GOING_AWAY, &mut peers.handler);
    let mut records = 0;
    while !peers.net.connections[0].has_ignored_enough() {
        for _ in 0..1000 {
            peers.clients[0].1.writer().write_all(b"\x01").unwrap();
        }
        let flight = peers.flight(0);
        peers.send(0, &flight);
        while peers.net.has_work() {
            peers.turn();
        }
        records += 1000;
        assert!(records <= 12_000, "{records} records of 23 bytes");
    }
    assert!(records >= 11_000, "{records}");
}

#[test]
fn records_that_are_not_taken_are_charged_and_nothing_more_is_taken() {
    let mut peers = Peers::new(1);
    peers.open(0);
    // Frames of 1002 bytes, until the socket takes no more.
    let frames = [&[0x81, 126, 0x03, 0xe6][..], &[b'x'; 998]].concat().repeat(200);
    let (mut cursor, mut sent) = (0, 0);
    loop {
        let taken = peers.net.send(Slot(0), &frames[cursor..]);
        assert_eq!(taken % 1002, 0, "whole frames");
        sent += taken;
        cursor = if cursor + taken == frames.len() { 0 } else { cursor + taken };
        if peers.net.connections[0].write_buffer.is_some() {
            break;
        }
    }
    let unsent = peers.net.connections[0].unsent_bytes();
    assert!(unsent > 0 && unsent < 2 * RECORD_BYTES, "a record, and the rest of a frame: {unsent}");
    assert_eq!(peers.net.send(Slot(0), &frames), 0);
    peers.net.flush(&mut Now::default, &mut peers.handler);
    assert!(peers.charged() >= unsent);
    // The client reads it all, and finds nothing but whole frames.
    while peers.hear(0) {
        peers.net.note_writable(Slot(0));
        peers.net.flush(&mut Now::default, &mut peers.handler);
    }
    let heard = std::mem::take(&mut peers.heard);
    let start = heard.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(heard.len() - start, sent);
    assert!(heard[start..].chunks(1002).all(|frame| frame == &frames[..1002]));
    assert_eq!((peers.charged(), peers.net.connections[0].unsent_bytes()), (0, 0));
}

#[test]
fn a_client_of_tls_1_2_whose_keys_are_used_up_is_told_that_nothing_was_cut_off() {
    for waits in [false, true] {
        let mut peers = Peers::with_versions(1, &[&TLS12]);
        peers.open(0);
        let frame = [0x81, 3, b'o', b'n', b'e'];
        // The handshake and the upgrade took two records.
        peers.net.tls.session(Slot(0)).unwrap().set_records_max(3);
        assert_eq!(peers.net.send(Slot(0), &frame), frame.len());
        if waits {
            peers.net.append_frames(Slot(0), &frame);
        } else {
            peers.net.send(Slot(0), &frame);
        }
        peers.turn();
        while peers.hear(0) {}
        assert!(peers.heard.ends_with(&frame) && peers.clients[0].1.process_new_packets().unwrap().peer_has_closed());
        assert!(matches!(peers.net.connections[0].phase, Phase::Closed));
    }
}
