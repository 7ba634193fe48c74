//! A session against a client of rustls in memory, and against records that no client of rustls would send.

use std::io::{Read, Write};
use std::sync::Arc;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::ring::cipher_suite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, SupportedProtocolVersion};

use super::{Received, Session, SessionEnd};
use crate::net::tls::TlsIdentity;
use crate::net::tls::record::{RECORD_BYTES, SEALED_BYTES_MAX, WIRE_RECORD_BYTES_MAX};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate, and what a client has to know to trust it.
struct Trust {
    identity: TlsIdentity,
    roots: RootCertStore,
}

impl Trust {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let identity = TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
        Self { identity, roots }
    }

    fn client_config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.enable_secret_extraction = true;
        Arc::new(config)
    }

    fn pair(&self, version: &'static SupportedProtocolVersion) -> Pair {
        self.pair_with(&self.client_config(version))
    }

    fn pair_with(&self, config: &Arc<ClientConfig>) -> Pair {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        client.set_buffer_limit(None);
        Pair { client, session: Session::new(self.identity.config()).unwrap(), said: Vec::new() }
    }
}

/// A client and a session.
struct Pair {
    client: ClientConnection,
    session: Session,
    /// The plaintext that the session has received.
    said: Vec<u8>,
}

impl Pair {
    /// What the client wants to send.
    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).unwrap();
        }
        flight
    }

    /// The session receives bytes; the client is given the answer.
    fn give(&mut self, bytes: &[u8]) -> Received {
        let received = self.session.receive(&mut bytes.to_vec(), &mut self.said);
        if received.end.is_none() {
            self.tell(&received.answer);
        }
        assert!(self.session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
        received
    }

    /// The client receives bytes.
    fn tell(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    /// Lets the client send until it has nothing more, in pieces as `cut` says.
    fn exchange(&mut self, cut: &impl Fn(&[u8]) -> Vec<Vec<u8>>) {
        loop {
            let flight = self.flight();
            if flight.is_empty() {
                return;
            }
            for piece in cut(&flight) {
                assert!(self.give(&piece).end.is_none());
            }
        }
    }

    fn shake_hands(&mut self) {
        self.exchange(&|flight| vec![flight.to_vec()]);
        assert!(!self.session.is_handshaking() && !self.client.is_handshaking());
    }

    /// The session says something of any length, and the client has heard it.
    fn answer(&mut self, words: &[u8]) {
        let mut record = vec![0; SEALED_BYTES_MAX];
        let mut heard = Vec::new();
        for piece in words.chunks(RECORD_BYTES) {
            let bytes = self.session.encrypt(piece, &mut record).unwrap();
            self.tell(&record[..bytes]);
            let before = heard.len();
            heard.resize(before + piece.len(), 0);
            self.client.reader().read_exact(&mut heard[before..]).unwrap();
        }
        assert_eq!(heard, words);
    }
}

fn words(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// Talks in both directions, the client's bytes cut as `cut` says.
fn converse(trust: &Trust, version: &'static SupportedProtocolVersion, cut: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let mut pair = trust.pair(version);
    pair.exchange(&cut);
    assert!(!pair.session.is_handshaking() && !pair.client.is_handshaking());
    let mut expected = Vec::new();
    for count in [1, 100, 3 * RECORD_BYTES + 1] {
        pair.client.writer().write_all(&words(count)).unwrap();
        expected.extend(words(count));
        pair.exchange(&cut);
        assert!(pair.said == expected, "{count} bytes");
        assert_eq!(pair.session.unread_capacity(), 0, "nothing is kept of whole records");
        pair.answer(&words(count));
    }
    pair.client.send_close_notify();
    let flight = pair.flight();
    assert!(matches!(pair.give(&flight).end, Some(SessionEnd::Told)));
    // It may still speak.
    pair.answer(b"goodbye");
    let mut record = vec![0; SEALED_BYTES_MAX];
    let bytes = pair.session.say_goodbye(&mut record).unwrap();
    pair.client.read_tls(&mut &record[..bytes]).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn bytes_may_come_in_pieces_of_any_size() {
    let trust = Trust::new();
    for version in VERSIONS {
        for size in (1..40).chain([100, 1000, 5000, WIRE_RECORD_BYTES_MAX, usize::MAX]) {
            converse(&trust, version, |flight| flight.chunks(size).map(<[u8]>::to_vec).collect());
        }
    }
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    let trust = Trust::new();
    for version in VERSIONS {
        let config = trust.client_config(version);
        let mut cut = 0;
        loop {
            let mut pair = trust.pair_with(&config);
            // The longest flight of the client is the first.
            let longest = pair.flight();
            if cut > longest.len() {
                break;
            }
            assert!(pair.give(&longest[..cut]).end.is_none());
            assert!(pair.give(&longest[cut..]).end.is_none());
            pair.exchange(&|flight| {
                let (one, other) = flight.split_at(cut.min(flight.len()));
                vec![one.to_vec(), other.to_vec()]
            });
            assert!(!pair.session.is_handshaking() && !pair.client.is_handshaking(), "cut at {cut}");
            // Every other one resumes what the one before has begun: its hello is longer.
            cut += 1;
        }
        assert!(cut > 150, "{cut}");
    }
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let trust = Trust::new();
    for version in VERSIONS {
        let config = trust.client_config(version);
        let is_resumed = || {
            let mut pair = trust.pair_with(&config);
            pair.shake_hands();
            pair.session.is_resumed()
        };
        assert_eq!([is_resumed(), is_resumed()], [false, true], "{version:?}");
    }
}

/// Makes records of a client by hand.
struct Forger {
    version: &'static SupportedProtocolVersion,
    key: LessSafeKey,
    iv: [u8; 12],
    seq: u64,
}

impl Forger {
    /// Takes the place of a client.
    fn of(client: ClientConnection, version: &'static SupportedProtocolVersion) -> Self {
        let secrets = client.dangerous_extract_secrets().unwrap();
        let (seq, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else { panic!("another cipher") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
        Self { version, key, iv: iv.as_ref().try_into().unwrap(), seq }
    }

    /// A record that carries something of a type.
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce.iter_mut().skip(4).zip(self.seq.to_be_bytes()).for_each(|(byte, seq)| *byte ^= seq);
        let is_new = *self.version == TLS13;
        // TLS 1.3 hides the type behind the content (RFC 8446 section 5.2), TLS 1.2 sends half of the nonce (RFC 5288 section 3).
        let (mut sealed, outer, explicit) = match is_new {
            true => ([content, &[kind]].concat(), 23, &[][..]),
            false => (content.to_vec(), kind, &nonce[4..]),
        };
        let length = |bytes: usize| (bytes as u16).to_be_bytes();
        let header = [&[outer, 3, 3][..], &length(explicit.len() + sealed.len() + 16)].concat();
        let additional = match is_new {
            true => header.clone(),
            false => [&self.seq.to_be_bytes()[..], &[kind, 3, 3], &length(sealed.len())].concat(),
        };
        let key_nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(key_nonce, Aad::from(additional), &mut sealed).unwrap();
        self.seq += 1;
        [&header, explicit, &sealed].concat()
    }
}

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A session that has agreed on keys, with somebody who makes records by hand.
fn forged(version: &'static SupportedProtocolVersion) -> (Session, Forger) {
    let mut pair = Trust::new().pair(version);
    pair.shake_hands();
    (pair.session, Forger::of(pair.client, version))
}

fn receive(session: &mut Session, record: &[u8]) -> (Received, Vec<u8>) {
    let mut said = Vec::new();
    let received = session.receive(&mut record.to_vec(), &mut said);
    (received, said)
}

#[test]
fn renegotiation_is_refused_and_ends_the_session_the_second_time() {
    let hello = Trust::new().pair(&TLS12).flight();
    let (mut session, mut forger) = forged(&TLS12);
    let (received, said) = receive(&mut session, &forger.record(DATA, b"hello"));
    assert!(received.end.is_none() && received.answer.is_empty() && said == b"hello");
    let (received, _) = receive(&mut session, &forger.record(HANDSHAKE, &hello[5..]));
    assert!(received.end.is_none() && received.answer[0] == 21, "an alert: {received:?}");
    let (received, said) = receive(&mut session, &forger.record(DATA, b"as before"));
    assert!(received.end.is_none() && said == b"as before");
    let (received, _) = receive(&mut session, &forger.record(HANDSHAKE, &hello[5..]));
    assert!(matches!(received.end, Some(SessionEnd::Failed(_))), "{received:?}");
}

#[test]
fn something_is_said_while_a_message_of_the_handshake_is_not_complete() {
    let (mut session, mut forger) = forged(&TLS13);
    let mut record = vec![0; SEALED_BYTES_MAX];
    let key_update = [24, 0, 0, 1, 0];
    for (from, to) in [(0, 3), (3, 4), (4, 5)] {
        let (received, _) = receive(&mut session, &forger.record(HANDSHAKE, &key_update[from..to]));
        assert!(received.end.is_none(), "{received:?}");
        assert!(session.encrypt(b"hello", &mut record).unwrap() > 5);
        // Not to be mixed with other records, of which this is only a part.
        if to < 5 {
            let (received, _) = receive(&mut session, &[23, 3]);
            assert!(received.end.is_none() && session.encrypt(b"hello", &mut record).is_ok());
            session.unread.truncate(session.unread.len() - 2);
        }
    }
    assert_eq!(session.unread_capacity(), 0);
}

#[test]
fn a_message_of_the_handshake_in_records_without_end_ends_the_session() {
    let (mut session, mut forger) = forged(&TLS13);
    let mut records = 1;
    let mut last = receive(&mut session, &forger.record(HANDSHAKE, &[24, 0, 0xff, 0xff])).0;
    while last.end.is_none() {
        last = receive(&mut session, &forger.record(HANDSHAKE, &[0; 400])).0;
        records += 1;
        assert!(records < 100 && session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
    }
    assert!(records > 30, "{records}");
    // In a hello, which is not encrypted.
    let mut session = Trust::new().pair(&TLS13).session;
    let mut records = 0;
    let hello = |content: &[u8]| [&[HANDSHAKE, 3, 1], &(content.len() as u16).to_be_bytes()[..], content].concat();
    let mut last = receive(&mut session, &hello(&[1, 0, 0xff, 0xff])).0;
    while last.end.is_none() {
        last = receive(&mut session, &hello(&[0])).0;
        records += 1;
        assert!(records < 10_000 && session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
    }
    assert!(records > 3000, "{records}");
}

#[test]
fn broken_records_end_the_session_with_an_alert() {
    for version in VERSIONS {
        let (mut session, mut forger) = forged(version);
        let mut record = forger.record(DATA, b"hello");
        *record.last_mut().unwrap() ^= 1;
        let (received, said) = receive(&mut session, &record);
        assert!(matches!(received.end, Some(SessionEnd::Failed(_))) && said.is_empty(), "{received:?}");
        assert!(!received.answer.is_empty());
    }
    for garbage in [&b"\0\0\0\0\0\0\0\0"[..], &[22, 3, 1, 0xff, 0xff, 0], &[23, 3, 3, 0, 1, 0], &[0xff; 100]] {
        let mut session = Trust::new().pair(&TLS13).session;
        assert!(matches!(receive(&mut session, garbage).0.end, Some(SessionEnd::Failed(_))), "{garbage:?}");
    }
}
