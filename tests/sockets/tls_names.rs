//! Several certificates: each client is shown the one for the name that it asks for.

use std::net::SocketAddr;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::tls::{Certificate, TlsClient};
use crate::support::{Server, wait_until};

/// Certificates in files, the default one first.
struct Certificates {
    folder: TempDir,
    all: Vec<Certificate>,
}

impl Certificates {
    fn new(names: &[&[&str]]) -> Self {
        let mut certificates = Self { folder: tempfile::tempdir().expect("a folder"), all: Vec::new() };
        certificates.renew(names);
        certificates
    }

    fn renew(&mut self, names: &[&[&str]]) {
        self.all = names.iter().map(|names| Certificate::of(names)).collect();
        for (index, Certificate { chain, key }) in self.all.iter().enumerate() {
            self.write(&format!("cert-{index}.pem"), chain);
            self.write(&format!("key-{index}.pem"), key);
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("write a file");
    }

    fn spawn(&self) -> Server {
        let files = |kind: &str| -> Vec<_> {
            (0..self.all.len()).map(|index| self.path(&format!("{kind}-{index}.pem"))).collect()
        };
        let [certificates, keys] = ["cert", "key"].map(files);
        let mut flags = vec!["--listen=tls:127.0.0.1:0"];
        flags.extend(certificates.iter().flat_map(|path| ["--tls-cert", path]));
        flags.extend(keys.iter().flat_map(|path| ["--tls-key", path]));
        Server::spawn(&flags)
    }

    /// A client that trusts one of them, and asks for a name.
    fn client(&self, index: usize, name: &str) -> TlsClient {
        self.all[index].client().asking_for(name)
    }

    /// Whether each of them is shown to those that ask for one of its names.
    fn are_shown(&self, address: SocketAddr, names: &[&str]) -> bool {
        names.iter().enumerate().all(|(index, name)| self.client(index, name).is_shown_by(address))
    }
}

const NAMES: [&[&str]; 4] =
    [&["localhost", "127.0.0.1"], &["chat.example", "shop.test"], &["*.apps.example"], &["news.apps.example"]];

/// A name of each.
const ASKED: [&str; 4] = ["localhost", "chat.example", "any.apps.example", "news.apps.example"];

#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let certificates = Certificates::new(&NAMES);
    let server = certificates.spawn();
    let address = server.tls_address();
    for (index, name) in [
        (0, "localhost"),
        (1, "chat.example"),
        (1, "CHAT.Example"),
        (1, "shop.test"),
        (2, "other.apps.example"),
        // Of several that are good for it the first one, also if a later one says more of it.
        (2, "news.apps.example"),
        // No name is sent with an address.
        (0, "127.0.0.1"),
    ] {
        let mut raw = certificates.client(index, name).connect(address);
        raw.stream.shake_hands().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(certificates.client(index, name).get(address, "/healthz").status, 200, "{name}");
    }
    // For other names there is the first one. A star stands for one label.
    for name in ["a.b.apps.example", "apps.example", "chat.example.test", "localhost.test"] {
        let mut raw = certificates.client(0, name).connect(address);
        let error = raw.stream.shake_hands().expect_err(name).to_string();
        assert!(error.contains("not valid for name"), "{name}: {error}");
    }
}

#[test]
fn certificates_are_read_again_all_or_none() {
    let mut names = NAMES;
    // Each has a name of its own.
    names.swap(2, 3);
    let mut asked = ASKED;
    asked.swap(2, 3);
    let mut certificates = Certificates::new(&names);
    let server = certificates.spawn();
    let address = server.tls_address();
    assert!(certificates.are_shown(address, &asked));
    let old =
        Certificates { folder: tempfile::tempdir().expect("a folder"), all: std::mem::take(&mut certificates.all) };

    certificates.renew(&names);
    certificates.write("key-3.pem", &old.all[0].key);
    server.signal(Signal::HUP);
    let line = server.wait_for_log("all old certificates stay");
    assert!(line.contains("ERROR") && line.contains("cert-3.pem") && line.contains("key-3.pem"), "{line}");
    assert!(old.are_shown(address, &asked));

    certificates.write("key-3.pem", &certificates.all[3].key);
    server.signal(Signal::HUP);
    wait_until("the new ones are shown", || certificates.are_shown(address, &asked));
    for (index, name) in asked.into_iter().enumerate() {
        server.wait_for_log(&format!(
            "new TLS sessions show the certificate of {}",
            certificates.path(&format!("cert-{index}.pem"))
        ));
        assert!(!old.client(index, name).is_shown_by(address), "{index}");
    }
}
