//! Another implementation of TLS: `openssl s_client`, of which a line with one letter is a command.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use crate::support::tls::Files;
use crate::support::{PATIENCE, Server, request};

const API_KEY: &str = "an-example-key-of-16-bytes-or-more";

/// `openssl s_client`; killed when dropped.
struct OpenSsl {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What it has said, and was not expected yet.
    heard: Vec<u8>,
}

/// Follows a stream on a thread of its own until it ends.
fn follow(mut stream: impl Read + Send + 'static, output: Sender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if output.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
}

impl OpenSsl {
    fn connect(files: &Files, server: &Server, flags: &[&str]) -> Self {
        let (address, trusted) = (server.tls_address().to_string(), files.path("cert.pem"));
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-servername", "localhost", "-verify_return_error", "-CAfile"]);
        command.arg(trusted).args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (sender, output) = channel();
        follow(child.stdout.take().expect("stdout is piped"), sender.clone());
        follow(child.stderr.take().expect("stderr is piped"), sender);
        let input = child.stdin.take().expect("stdin is piped");
        Self { child, input, output, heard: Vec::new() }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("openssl takes what is said");
    }

    /// Waits until it has said something, and forgets that.
    fn expect(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.windows(words.len()).position(|window| window == words.as_bytes()) {
                self.heard.drain(..at + words.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.heard.extend(bytes),
                Err(error) => panic!("no {words:?} ({error}) in {}", String::from_utf8_lossy(&self.heard)),
            }
        }
    }

    /// A request on a connection that is kept, and its answer.
    fn ask(&mut self) {
        let key = format!("Bearer {API_KEY}");
        let fields = [("Authorization", &*key), ("Content-Type", "application/json"), ("Content-Length", "2")];
        self.say((request("POST", "/api/bans", &fields) + "{}").as_bytes());
        self.expect("HTTP/1.1 200 OK");
        self.expect("\"bans\":[]");
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl_speaks_each_suite_and_takes_new_keys() {
    let files = Files::default();
    let server = files.spawn(&["--metrics", "--api-key", API_KEY]);
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        let mut openssl = OpenSsl::connect(&files, &server, &["-tls1_3", "-ciphersuites", suite]);
        openssl.expect(&format!("Cipher is {suite}"));
        openssl.ask();
        // It asks the server for a new key with the first command, and not with the second.
        for command in ["K\n", "k\n", "K\n"] {
            openssl.say(command.as_bytes());
            openssl.expect("KEYUPDATE");
            openssl.ask();
            openssl.ask();
        }
        openssl.say(b"Q\n");
        openssl.expect("DONE");
    }
    assert!(server.get("/metrics").text().contains("roomcast_tls_failures_total 0"));
}

#[test]
fn openssl_speaks_each_suite_of_tls_1_2_and_is_refused_another_handshake() {
    let files = Files::default();
    let server = files.spawn(&["--metrics", "--api-key", API_KEY]);
    for suite in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let mut openssl = OpenSsl::connect(&files, &server, &["-tls1_2", "-cipher", suite]);
        openssl.expect(&format!("Cipher is {suite}"));
        openssl.ask();
        openssl.ask();
        openssl.say(b"R\n");
        openssl.expect("no renegotiation");
    }
    assert_eq!(server.get("/healthz").status, 200);
}
