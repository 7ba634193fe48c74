//! What requests are charged that are not answered yet, against what the allocator has handed out.

#[path = "support/peers.rs"]
pub mod peers;

use std::alloc::System;
use std::sync::Mutex;
use std::time::Duration;

use roomcast::bus::{Bus, BusEvent, BusRequest, LocalBus};
use roomcast::http::Request;
use roomcast::settings::ApiKey;
use roomcast::{AdmissionTicket, Authentication, Authenticator, Config, Now, Server};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use peers::{HANDSHAKE, Peers};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts all threads, so that tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// So many that the buffers that all share weigh little.
const PEERS: usize = 200;

const KEY: &str = "a-key-of-more-than-sixteen-bytes";

fn config() -> Config {
    let mut config = Config::default();
    (config.net.connections_max, config.memory.total) = (1000, 1 << 30);
    config.net.admissions_pending_max = 1000;
    config.api_keys = vec![ApiKey::new(KEY)];
    config
}

/// A request of the API to publish a text of so many bytes.
fn publish(text_bytes: usize) -> Vec<u8> {
    let body = format!(r#"{{"room":"lobby","user":"shop","text":"{}"}}"#, "x".repeat(text_bytes));
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// A handshake with a cookie of so many bytes.
fn handshake(cookie_bytes: usize) -> Vec<u8> {
    let head = std::str::from_utf8(HANDSHAKE).unwrap().trim_end();
    format!("{head}\r\nCookie: {}\r\n\r\n", "c".repeat(cookie_bytes)).into_bytes()
}

#[test]
fn bodies_under_way_are_charged_what_they_hold() {
    let _turn = TURN.lock();
    for (text_bytes, missing) in [(12_000, 6000), (2000, 1), (12_000, 1)] {
        let request = publish(text_bytes);
        let begun = &request[..request.len() - missing];
        Peers::new(PEERS, config(), b"").hold(&format!("{missing} missing of {text_bytes}"), begun);
    }
}

/// A bus that answers no publication.
struct SilentBus {
    local: LocalBus,
    kept: Vec<BusRequest>,
}

impl Bus for SilentBus {
    fn begin_turn(&mut self, now: Now) {
        self.local.begin_turn(now);
    }

    fn submit(&mut self, request: BusRequest) {
        match request {
            BusRequest::Publish { .. } => self.kept.push(request),
            request => self.local.submit(request),
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        self.local.poll_event()
    }

    fn timeout(&self, now: Now) -> Option<Duration> {
        self.local.timeout(now)
    }
}

#[test]
fn requests_that_wait_for_an_answer_are_charged_what_they_hold() {
    let _turn = TURN.lock();
    for text_bytes in [1000, 12_000] {
        let mut peers = Peers::with_server(PEERS, b"", |host, path| {
            let (config, local) = (config(), LocalBus::new(&config(), 1));
            let bus = SilentBus { local, kept: Vec::with_capacity(PEERS) };
            let mut server = Server::builder(config, host).bus(bus).build().unwrap();
            server.listen_unix(path).unwrap();
            server
        });
        peers.hold(&format!("texts of {text_bytes} bytes"), &publish(text_bytes));
        assert!(peers.server.stats().hub.publications_bytes > PEERS * text_bytes);
    }
}

/// Decides about no handshake.
#[derive(Default)]
struct Undecided {
    tickets: u64,
    /// What it keeps of them.
    heads: Vec<String>,
}

impl Authenticator for Undecided {
    fn authenticate(&mut self, _now: Now, request: &Request<()>) -> Authentication {
        self.tickets += 1;
        let cookie = request.headers()["Cookie"].to_str().unwrap().to_owned();
        self.heads.push(cookie);
        Authentication::Later(AdmissionTicket(self.tickets))
    }
}

#[test]
fn parked_handshakes_are_charged_what_they_hold() {
    let _turn = TURN.lock();
    for cookie_bytes in [1000, 4000] {
        let mut peers = Peers::with_server(PEERS, b"", |host, path| {
            let authenticator = Undecided { tickets: 0, heads: Vec::with_capacity(PEERS) };
            let mut server = Server::builder(config(), host).authenticator(authenticator).build().unwrap();
            server.listen_unix(path).unwrap();
            server
        });
        peers.hold(&format!("cookies of {cookie_bytes} bytes"), &handshake(cookie_bytes));
        assert_eq!(peers.server.stats().net.admissions_pending, PEERS);
    }
}

#[cfg(feature = "webhook")]
#[test]
fn handshakes_that_a_back_end_is_asked_about_are_charged_with_the_questions() {
    let _turn = TURN.lock();
    // It takes connections, and answers nothing.
    let back_end = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", back_end.local_addr().unwrap());
    let mut peers = Peers::with_server(PEERS, b"", |host, path| {
        let mut config = config();
        config.net.auth_requests_max = 1;
        let authenticator = roomcast::WebhookAuthenticator::new(&url, &config, &host).unwrap();
        let mut server = Server::builder(config, host).authenticator(authenticator).build().unwrap();
        server.listen_unix(path).unwrap();
        server
    });
    let token = "t".repeat(3000);
    let head = String::from_utf8(handshake(1000)).unwrap();
    // The question has the token twice.
    let head = format!("{}\r\nAuthorization: Bearer {token}\r\n\r\n", head.trim_end());
    peers.hold("questions to a back-end", head.as_bytes());
}

#[cfg(feature = "tls")]
#[test]
fn tls_handshakes_under_way_are_charged_what_they_hold() {
    use rustls::pki_types::ServerName;
    use std::sync::Arc;

    let _turn = TURN.lock();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let identity =
        roomcast::TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let client = client.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut hello = Vec::new();
        rustls::ClientConnection::new(Arc::new(client), name).unwrap().write_tls(&mut hello).unwrap();
        for (what, bytes) in [("half a hello", &hello[..hello.len() / 2]), ("a hello", &hello)] {
            let mut peers = Peers::with_server(PEERS, b"", |host, path| {
                let mut server = Server::builder(config(), host).build().unwrap();
                server.set_tls_identity(&identity);
                let opening = roomcast::Opening { security: roomcast::Security::Tls, ..Default::default() };
                server.listen_with(opening, roomcast::Listener::unix(path).unwrap()).unwrap();
                server
            });
            peers.hold(&format!("{what} of {version:?}"), bytes);
        }
    }
}
