//! Keys of tokens that change while the server runs: files that are read again, and sets that are fetched.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::tokens::{EdIssuer, Files, SECRET, claims, good, hmac_token, refused, with_token};
use crate::support::{Client, Raw, Server, TEXT, frame, roomcast, upgrade_request, wait_until};

/// Serves a set of keys by HTTP, a request at a time, as the test says.
struct Issuer {
    address: SocketAddr,
    requests: Receiver<TcpStream>,
    count: usize,
}

impl Issuer {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("its address");
        let (sender, requests): (Sender<TcpStream>, _) = channel();
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).all(|stream| sender.send(stream).is_ok()));
        Self { address, requests, count: 0 }
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// Waits for a request and answers it.
    fn answer(&mut self, status: &str, body: &str) {
        let mut stream = self.requests.recv_timeout(crate::support::PATIENCE).expect("a request for the keys");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).expect("answer");
        self.count += 1;
    }

    fn give(&mut self, keys: &[Value]) {
        self.answer("200 OK", &json!({"keys": keys}).to_string());
    }

    /// Nobody has asked since the last answer.
    fn check_quiet(&self) {
        assert!(self.requests.try_recv().is_err(), "asked again after {} times", self.count);
    }
}

fn server_with_url(issuer: &Issuer) -> Server {
    server_with_keys_of(&issuer.url(), &[])
}

/// The program with these variables in its environment, which asks no proxy for the keys.
pub(crate) fn server_with_keys_of(url: &str, environment: &[(&str, &str)]) -> Server {
    let mut command = roomcast();
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command.args(["--listen", "127.0.0.1:0", "--jwks-url", url]);
    Server::spawn_command(command, 1)
}

pub(crate) fn token_of(issuer: &EdIssuer, kid: &str) -> String {
    issuer.token(&json!({"kid": kid}), &claims(&json!({})))
}

#[test]
fn a_key_that_is_taken_away_ends_the_connections_of_its_tokens() {
    const CROWD: usize = 300;
    let files = Files::new();
    let [first, second, third] = [1, 2, 3].map(EdIssuer::new);
    let key = files.write("key.pem", [first.public_pem(), second.public_pem()].concat());
    let jwks = files.write("jwks", json!({"keys": [third.jwk("three")]}).to_string());
    let server = Server::spawn(&["--token-key-file", &key, "--jwks-file", &jwks]);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| with_token(&server, &token_of(&first, "one")).connect()).collect();
    let mut refreshed = with_token(&server, &token_of(&first, "one")).connect();
    refreshed.send_json(&json!({"type": "refresh", "token": token_of(&second, "two")}));
    refreshed.recv_type("refreshed");
    let mut stays = [&second, &third].map(|issuer| with_token(&server, &token_of(issuer, "three")).connect());
    let mut check_stays = || {
        for client in stays.iter_mut().chain([&mut refreshed]) {
            client.send_json(&json!({"type": "ping"}));
            client.recv_type("pong");
        }
    };

    // The same keys in another order, in another file and under another name close nobody.
    files.write("key.pem", [second.public_pem(), third.public_pem()].concat());
    files.write("jwks", json!({"keys": [first.jwk("one")]}).to_string());
    server.signal(Signal::HUP);
    server.wait_for_log("0 secrets and 3 public keys");
    check_stays();
    crowd[0].send_json(&json!({"type": "ping"}));
    crowd[0].recv_type("pong");

    files.write("jwks", json!({"keys": [third.jwk("three")]}).to_string());
    server.signal(Signal::HUP);
    for client in &mut crowd {
        assert_eq!(client.expect_close(), 4003);
    }
    server.wait_for_log(&format!("closed {CROWD} connections whose key has been taken away"));
    check_stays();
    assert!(!is_accepted(&server, &token_of(&first, "one")));
}

/// Sends a handshake with a token, and does not wait for the answer.
fn knock(server: &Server, token: &str) -> Raw {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &[("Authorization", &format!("Bearer {token}"))]).as_bytes());
    raw
}

fn is_accepted(server: &Server, token: &str) -> bool {
    with_token(server, token).try_open().is_ok()
}

#[test]
fn files_are_read_again_on_sighup() {
    let files = Files::new();
    let (old, new) = (EdIssuer::new(1), EdIssuer::new(2));
    let secret = files.write("secret", SECRET);
    let key = files.write("key.pem", old.public_pem());
    let jwks = files.write("jwks", json!({"keys": [old.jwk("old")]}).to_string());
    let flags = ["--token-secret-file", &secret, "--token-key-file", &key, "--jwks-file", &jwks];
    let mut server = Server::spawn(&flags);
    let mut alice = with_token(&server, &good()).connect();
    alice.join("lobby");
    assert!(is_accepted(&server, &token_of(&old, "old")));
    assert!(!is_accepted(&server, &token_of(&new, "new")));

    files.write("secret", [b'n'; 32]);
    files.write("key.pem", new.public_pem());
    files.write("jwks", json!({"keys": [new.jwk("new")]}).to_string());
    server.signal(Signal::HUP);
    wait_until("the new key counts", || is_accepted(&server, &token_of(&new, "new")));
    let new_secret = hmac_token(ring::hmac::HMAC_SHA256, &[b'n'; 32], &json!({"alg": "HS256"}), &claims(&json!({})));
    assert!(is_accepted(&server, &new_secret));
    for token in [good(), token_of(&old, "old")] {
        assert!(!is_accepted(&server, &token), "the old keys are gone");
    }
    assert_eq!(alice.expect_close(), 4003);

    // What cannot be read changes nothing: not even what could be read beside it.
    files.write("key.pem", old.public_pem());
    files.write("secret", "too short");
    server.signal(Signal::HUP);
    let line = server.wait_for_log("stay as they were");
    assert!(line.contains("WARN") && line.contains("at least 32 are needed"), "{line}");
    assert!(is_accepted(&server, &token_of(&new, "new")) && !is_accepted(&server, &token_of(&old, "old")));
    server.sigterm();
    assert!(server.wait_exit().success());
}

#[test]
fn sighup_ends_no_server() {
    let server = Server::spawn(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    server.signal(Signal::HUP);
    server.wait_for_log("SIGHUP");
    alice.join("lobby");
    assert_eq!(server.log_lines("shutting down"), [""; 0]);
}

#[test]
fn keys_are_fetched_and_handshakes_wait_for_them() {
    let (mut issuer, ours, other) = (Issuer::new(), EdIssuer::new(1), EdIssuer::new(2));
    let server = server_with_url(&issuer);
    let mut early = [knock(&server, &token_of(&ours, "one")), knock(&server, &token_of(&other, "two"))];
    assert_eq!(server.get("/healthz").status, 200, "the loop does not wait");
    issuer.give(&[ours.jwk("one")]);
    early[0].upgraded();
    assert_eq!(early[0].json_of("welcome")["userId"], "alice");
    let response = early[1].response();
    assert!(response.status == 401 && response.text().contains("no key has its kid"), "{response:?}");
    assert!(is_accepted(&server, &token_of(&ours, "one")));
    // Anybody can invent names of keys: they cause no more than one request a minute.
    for kid in 0..20 {
        let response = refused(&server, Some(&token_of(&other, &format!("kid-{kid}"))));
        assert!(response.status == 401 && response.text().contains("no key has its kid"), "{response:?}");
    }
    issuer.check_quiet();
    // SIGHUP does not wait for that minute.
    server.signal(Signal::HUP);
    issuer.give(&[ours.jwk("one"), other.jwk("two")]);
    wait_until("the new key counts", || is_accepted(&server, &token_of(&other, "two")));
    assert!(is_accepted(&server, &token_of(&ours, "one")));
    server.signal(Signal::HUP);
    issuer.answer("500 Internal Server Error", "nothing");
    let line = server.wait_for_log("the keys of --jwks-url stay as they were");
    assert!(line.contains("WARN") && line.contains("500"), "{line}");
    assert!(is_accepted(&server, &token_of(&ours, "one")));
    early[0].send(&frame(TEXT, true, br#"{"type":"ping"}"#));
    early[0].json_of("pong");
    // A key that its issuer has taken out of the set.
    server.signal(Signal::HUP);
    issuer.give(&[other.jwk("two")]);
    assert_eq!(early[0].expect_close(), 4003);
}

#[test]
fn an_issuer_that_is_away_at_the_start_is_asked_again() {
    let (mut issuer, ours) = (Issuer::new(), EdIssuer::new(1));
    let server = server_with_url(&issuer);
    let mut early = knock(&server, &token_of(&ours, "one"));
    issuer.answer("200 OK", "no keys");
    let response = early.response();
    assert_eq!((response.status, response.header("retry-after").is_some()), (503, true), "{response:?}");
    assert!(response.text().contains("the keys of tokens could not be fetched"), "{response:?}");
    let answered = std::thread::spawn(move || {
        issuer.give(&[EdIssuer::new(1).jwk("one")]);
        issuer
    });
    wait_until("the key counts", || is_accepted(&server, &token_of(&ours, "one")));
    answered.join().unwrap().check_quiet();
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let (mut issuer, ours) = (Issuer::new(), EdIssuer::new(1));
    let server = server_with_url(&issuer);
    let padding = "x".repeat(300_000);
    issuer.answer("200 OK", &json!({"keys": [ours.jwk("one")], "padding": padding}).to_string());
    server.wait_for_log("stay as they were");
    assert_eq!(refused(&server, Some(&token_of(&ours, "one"))).status, 503);
}
