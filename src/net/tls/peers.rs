//! Clients of sessions, for tests: one of rustls in memory, and one that makes records by hand.

use std::io::{Read, Write};
use std::sync::Arc;

use crossbeam_queue::SegQueue;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, KeyLog, RootCertStore, SupportedCipherSuite};

use super::TlsIdentity;
use super::received::Received;
use super::record::{RECORD_BYTES, SEALED_BYTES_MAX, WIRE_RECORD_BYTES_MAX};
use super::session::Session;

/// One for each way to make records.
pub(super) const SUITES: [SupportedCipherSuite; 6] = [
    TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// One of each version.
pub(super) const SUITE_12: SupportedCipherSuite = TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
pub(super) const SUITE_13: SupportedCipherSuite = TLS13_AES_256_GCM_SHA384;

pub(super) fn is_new(suite: SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// The secrets of the client that has connected last.
#[derive(Debug, Default)]
struct Secrets(SegQueue<(String, Vec<u8>)>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.push((label.to_owned(), secret.to_owned()));
    }
}

/// A certificate, and what a client has to know to trust it.
pub(super) struct Trust {
    identity: TlsIdentity,
    roots: RootCertStore,
    secrets: Arc<Secrets>,
}

impl Trust {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let identity = TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
        Self { identity, roots, secrets: Arc::default() }
    }

    /// A client that offers one suite alone.
    pub(super) fn client_config(&self, suite: SupportedCipherSuite) -> Arc<ClientConfig> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let version = if is_new(suite) { &TLS13 } else { &TLS12 };
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.enable_secret_extraction = true;
        config.key_log = Arc::<Secrets>::clone(&self.secrets);
        Arc::new(config)
    }

    pub(super) fn pair(&self, suite: SupportedCipherSuite) -> Pair {
        self.pair_with(&self.client_config(suite))
    }

    pub(super) fn pair_with(&self, config: &Arc<ClientConfig>) -> Pair {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        client.set_buffer_limit(None);
        Pair { client, session: Session::new(self.identity.config()).unwrap(), said: Vec::new() }
    }

    /// A session that has agreed on keys, with somebody who makes records by hand.
    pub(super) fn forged(&self, suite: SupportedCipherSuite) -> (Session, Forger) {
        while self.secrets.0.pop().is_some() {}
        let mut pair = self.pair(suite);
        pair.shake_hands();
        let mut logged = Vec::new();
        while let Some(secret) = self.secrets.0.pop() {
            logged.push(secret);
        }
        let secret = |label| logged.iter().find(|(name, _)| name == label).map(|(_, secret)| secret.clone());
        let extracted = pair.client.dangerous_extract_secrets().unwrap();
        let forger = Forger {
            speaks: Direction::new(suite, extracted.tx, secret("CLIENT_TRAFFIC_SECRET_0")),
            hears: Direction::new(suite, extracted.rx, secret("SERVER_TRAFFIC_SECRET_0")),
        };
        (pair.session, forger)
    }
}

/// A client and a session.
pub(super) struct Pair {
    pub(super) client: ClientConnection,
    pub(super) session: Session,
    /// The plaintext that the session has received.
    pub(super) said: Vec<u8>,
}

impl Pair {
    /// What the client wants to send.
    pub(super) fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).unwrap();
        }
        flight
    }

    /// The session receives bytes; the client is given the answer.
    pub(super) fn give(&mut self, bytes: &[u8]) -> Received {
        let received = self.session.receive(&mut bytes.to_vec(), &mut self.said);
        if received.end.is_none() {
            self.tell(&received.answer);
        }
        assert!(self.session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
        received
    }

    /// The client receives bytes.
    pub(super) fn tell(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    /// Lets the client send until it has nothing more, in pieces as `cut` says.
    pub(super) fn exchange(&mut self, cut: &impl Fn(&[u8]) -> Vec<Vec<u8>>) {
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

    pub(super) fn shake_hands(&mut self) {
        self.exchange(&|flight| vec![flight.to_vec()]);
        assert!(!self.session.is_handshaking() && !self.client.is_handshaking());
    }

    /// The client says something, and the session has heard it.
    pub(super) fn say(&mut self, words: &[u8]) {
        self.client.writer().write_all(words).unwrap();
        let (flight, before) = (self.flight(), self.said.len());
        let received = self.give(&flight);
        assert!(received.end.is_none() && self.said[before..] == *words, "{received:?}");
    }

    /// The session says something of any length, and the client has heard it. Says how many bytes that took.
    pub(super) fn answer(&mut self, words: &[u8]) -> usize {
        let mut record = vec![0; SEALED_BYTES_MAX];
        let (mut heard, mut sealed) = (Vec::new(), 0);
        for piece in words.chunks(RECORD_BYTES) {
            let bytes = self.session.encrypt(piece, &mut record).unwrap();
            sealed += bytes;
            self.tell(&record[..bytes]);
            let before = heard.len();
            heard.resize(before + piece.len(), 0);
            self.client.reader().read_exact(&mut heard[before..]).unwrap();
        }
        assert_eq!(heard, words);
        sealed
    }
}

pub(super) fn words(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// A client that makes records by hand, and so may say what no client of rustls would.
pub(super) struct Forger {
    pub(super) speaks: Direction,
    pub(super) hears: Direction,
}

impl Forger {
    /// The one alert that a session has answered with: its level, and what it says.
    pub(super) fn alert(&mut self, answer: &[u8]) -> (u8, u8) {
        let (kind, content) = self.hears.open(answer);
        assert!(kind == 21 && content.len() == 2, "an alert: {content:?}");
        (content[0], content[1])
    }
}

/// A key, and the number of the next record.
pub(super) struct Direction {
    suite: SupportedCipherSuite,
    key: LessSafeKey,
    iv: [u8; 12],
    next: u64,
    secret: Option<Vec<u8>>,
}

impl Direction {
    fn new(
        suite: SupportedCipherSuite,
        (next, secrets): (u64, ConnectionTrafficSecrets),
        secret: Option<Vec<u8>>,
    ) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("another cipher"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        Self { suite, key, iv: iv.as_ref().try_into().unwrap(), next, secret }
    }

    /// Takes the next key (RFC 8446 section 7.2).
    pub(super) fn update(&mut self) {
        let secret = self.secret.take().unwrap();
        let next = self.expand(&secret, "traffic upd", secret.len());
        let key = self.expand(&next, "key", self.key.algorithm().key_len());
        self.key = LessSafeKey::new(UnboundKey::new(self.key.algorithm(), &key).unwrap());
        self.iv = self.expand(&next, "iv", 12).try_into().unwrap();
        (self.next, self.secret) = (0, Some(next));
    }

    /// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
    fn expand(&self, secret: &[u8], label: &str, bytes: usize) -> Vec<u8> {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let hash = if secret.len() == 48 { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 };
        let label = format!("tls13 {label}");
        let info = [&(bytes as u16).to_be_bytes()[..], &[label.len() as u8], label.as_bytes(), &[0]].concat();
        let (info, mut out) = ([&*info], vec![0; bytes]);
        hkdf::Prk::new_less_safe(hash, secret).expand(&info, Length(bytes)).unwrap().fill(&mut out).unwrap();
        out
    }

    /// A record that carries something of a type.
    pub(super) fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.padded(kind, content, 0)
    }

    /// With zeros behind the type, which TLS 1.2 knows nothing of.
    pub(super) fn padded(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        // TLS 1.3 hides the type behind the content (RFC 8446 section 5.2).
        match is_new(self.suite) {
            true => self.sealed(23, &[content, &[kind], &vec![0; padding]].concat()),
            false => self.sealed(kind, content),
        }
    }

    /// A record with any text.
    pub(super) fn sealed(&mut self, outer: u8, text: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
        // With AES-GCM TLS 1.2 sends the rest of the nonce (RFC 5288 section 3).
        let explicit = if self.has_explicit_nonce() { &nonce[4..] } else { &[] };
        let length = |bytes: usize| (bytes as u16).to_be_bytes();
        let header = [&[outer, 3, 3][..], &length(explicit.len() + text.len() + 16)].concat();
        let additional = match is_new(self.suite) {
            true => header.clone(),
            false => [&self.next.to_be_bytes()[..], &[outer, 3, 3], &length(text.len())].concat(),
        };
        let mut sealed = text.to_vec();
        let key_nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(key_nonce, Aad::from(additional), &mut sealed).unwrap();
        self.next += 1;
        [&header, explicit, &sealed].concat()
    }

    /// The type and content of one record, and of nothing else.
    pub(super) fn open(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let (header, body) = record.split_at(5);
        assert_eq!(header[1..3], [3, 3]);
        assert_eq!(usize::from(u16::from_be_bytes([header[3], header[4]])), body.len(), "one record");
        let mut nonce = self.nonce();
        let start = if self.has_explicit_nonce() { 8 } else { 0 };
        nonce[4..4 + start].copy_from_slice(&body[..start]);
        let additional = match is_new(self.suite) {
            true => header.to_vec(),
            false => {
                let bytes = ((body.len() - start - 16) as u16).to_be_bytes();
                [&self.next.to_be_bytes()[..], &header[..3], &bytes].concat()
            }
        };
        let mut sealed = body[start..].to_vec();
        let text = self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(additional), &mut sealed);
        self.next += 1;
        match (is_new(self.suite), text.unwrap()) {
            (true, [content @ .., kind]) => (*kind, content.to_vec()),
            (_, content) => (header[0], content.to_vec()),
        }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        nonce.iter_mut().skip(4).zip(self.next.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        nonce
    }

    fn has_explicit_nonce(&self) -> bool {
        !is_new(self.suite) && self.key.algorithm() != &CHACHA20_POLY1305
    }
}
