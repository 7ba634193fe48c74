//! The certificate of a server: at the start, when it is renewed, and when its files are wrong.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::host::{Host, config};
use crate::support::tls::{Certificate, Files};
use crate::support::{Client, PATIENCE, Raw, Server, TEXT, frame, roomcast, wait_until};
use roomcast::{Error, Listener, Opening, Security, TlsIdentity};

/// What the program says, which does not start.
#[track_caller]
fn refused(flags: &[&str]) -> String {
    let mut child = roomcast().args(flags).stderr(Stdio::piped()).spawn().expect("run the program");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("wait for the program").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("what the program has said");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
    said
}

#[test]
fn a_server_without_a_proper_certificate_does_not_start() {
    let files = Files::default();
    let other = Certificate::default();
    let write = |name: &str, text: &str| {
        std::fs::write(files.path(name), text).unwrap();
        files.name(name)
    };
    let (cert, key) = (files.name("cert.pem"), files.name("key.pem"));
    let (other_key, empty) = (write("other.pem", &other.key), write("empty.pem", ""));
    let locked = write("locked.pem", &files.certificate.key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    let long = write("long.pem", &"x".repeat(300_000));
    let missing = files.name("missing.pem");
    let tls = "--listen=tls:127.0.0.1:0";
    for (flags, needles) in [
        (&[tls][..], &["there is no certificate", "--tls-cert FILE and --tls-key FILE are needed"][..]),
        (&[tls, "--tls-cert", &cert], &["--tls-key <FILE>"]),
        (&[tls, "--tls-key", &key], &["--tls-cert <FILE>"]),
        (
            &["--listen=127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key],
            &["no address speaks TLS", "--listen tls:"],
        ),
        (
            &[tls, "--tls-cert", &cert, "--tls-cert", &cert, "--tls-key", &key],
            &["--tls-cert names 2 files and --tls-key names 1; each certificate needs its key"],
        ),
        (&[tls, "--tls-cert", &missing, "--tls-key", &key], &["--tls-cert", "missing.pem: No such file"]),
        (&[tls, "--tls-cert", &cert, "--tls-key", &missing], &["--tls-key", "missing.pem: No such file"]),
        (&[tls, "--tls-cert", &key, "--tls-key", &key], &["key.pem: no certificate", "but a private key"]),
        (&[tls, "--tls-cert", &empty, "--tls-key", &key], &["empty.pem: no certificate", "but nothing"]),
        (&[tls, "--tls-cert", &long, "--tls-key", &key], &["long.pem: more than 262144 bytes"]),
        (&[tls, "--tls-cert", &cert, "--tls-key", &cert], &["cert.pem: no private key", "but a certificate"]),
        (&[tls, "--tls-cert", &cert, "--tls-key", &locked], &["locked.pem: no private key", "with a passphrase"]),
        (
            &[tls, "--tls-cert", &cert, "--tls-key", &other_key],
            &["cert.pem and --tls-key", "not that of the first certificate"],
        ),
    ] {
        let said = refused(flags);
        for needle in needles {
            assert!(said.contains(needle), "no {needle:?} for {flags:?} in {said}");
        }
        assert!(!said.contains("panicked") && !said.contains("BEGIN RSA") && said.lines().count() < 12, "{said}");
    }
}

#[test]
fn the_log_says_which_address_speaks_what() {
    let files = Files::default();
    let folder = tempfile::tempdir().unwrap();
    let path = format!("--listen=tls:unix:{}/socket", folder.path().display());
    let server = files.spawn(&["--listen=proxy:tls:127.0.0.1:0", &path, "--trusted-proxy=127.0.0.1"]);
    let schemes: Vec<_> = server.listeners().iter().map(|address| address.split_once(':').unwrap().0).collect();
    assert_eq!(schemes, ["https", "http", "https", "unix"]);
    server.wait_for_log("with PROXY headers, listening on https://127.0.0.1");
    server.wait_for_log("with TLS, listening on unix:");
}

#[test]
fn sighup_brings_a_new_certificate_and_old_connections_go_on() {
    let mut files = Files::default();
    let server = files.spawn(&[]);
    let address = server.tls_address();
    let old = files.certificate.client();
    let mut ann = old.open(address, "/ws?userId=ann");
    ann.json_of("welcome");
    ann.send(&frame(TEXT, true, br#"{"type": "join", "room": "lobby"}"#));
    ann.json_of("joined");

    files.renew();
    assert!(old.is_shown_by(address), "it is not read again by itself");
    server.signal(Signal::HUP);
    let new = files.certificate.client();
    wait_until("the new certificate is shown", || new.is_shown_by(address));
    server.wait_for_log("new TLS sessions show the certificate of");
    assert!(!old.is_shown_by(address));

    // A certificate that is half written, or of another key, changes nothing.
    let whole = std::fs::read_to_string(files.path("cert.pem")).unwrap();
    for (name, text, needle) in [
        ("cert.pem", &whole[..whole.len() / 2], "all old certificates stay: --tls-cert"),
        ("cert.pem", &*Certificate::default().chain, "not that of the first certificate"),
        ("key.pem", "", "all old certificates stay: --tls-key"),
    ] {
        let before = std::fs::read(files.path(name)).unwrap();
        std::fs::write(files.path(name), text).unwrap();
        server.signal(Signal::HUP);
        let line = server.wait_for_log(needle);
        assert!(line.contains("ERROR"), "{line}");
        assert!(new.is_shown_by(address));
        std::fs::write(files.path(name), before).unwrap();
    }

    // Whoever was there before is there still, and hears those who are not.
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    bob.say("lobby", "still there?");
    assert_eq!(ann.json_of("chat")["text"], "still there?");
}

#[test]
fn sessions_are_not_resumed_under_another_certificate() {
    let mut files = Files::default();
    let server = files.spawn(&[]);
    let old = files.certificate.client().offering(&[]);
    assert_eq!(old.get(server.tls_address(), "/healthz").status, 200);
    files.renew();
    server.signal(Signal::HUP);
    server.wait_for_log("new TLS sessions show the certificate of");
    // It has a ticket, but is shown a certificate that it does not know.
    assert!(!old.is_shown_by(server.tls_address()));
}

#[test]
fn a_host_brings_a_certificate_of_its_own() {
    let mut host = Host::new(config());
    let tls = Opening { security: Security::Tls, ..Opening::default() };
    let listener = || Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let Err(Error::Config(reason)) = host.server.listen_with(tls, listener()) else { panic!("no certificate") };
    assert!(reason.contains("there is no certificate"), "{reason}");
    let (one, other) = (Certificate::default(), Certificate::default());
    let identity = |of: &Certificate| TlsIdentity::from_pem(of.chain.as_bytes(), of.key.as_bytes()).unwrap();
    host.server.set_tls_identity(&identity(&one));
    let url = host.server.listen_with(tls, listener()).unwrap().url(Security::Tls);
    let address = url.strip_prefix("https://").unwrap().parse().unwrap();
    let shown =
        |host: &mut Host| host.serve(|| [&one, &other].map(|certificate| certificate.client().is_shown_by(address)));
    assert_eq!(shown(&mut host), [true, false]);
    host.server.set_tls_identity(&identity(&other));
    assert_eq!(shown(&mut host), [false, true]);
    // Without files there is nothing to be read again.
    host.server.reload();
    assert_eq!(shown(&mut host), [false, true]);
}

#[test]
fn a_server_that_speaks_no_tls_answers_a_hello_as_any_other_garbage() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    raw.send(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    assert_eq!(raw.response().status, 400);
}
