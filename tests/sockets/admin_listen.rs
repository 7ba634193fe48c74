//! Listeners for operators: the API and `/metrics` are answered there and nowhere else.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;

use roomcast::settings::ApiKey;
use roomcast::{Config, ListenAddress, Listener, Opening};
use serde_json::json;

use crate::support::api::{KEY, check_published, post, publish, publish_request, server_with, whole_request};
use crate::support::host::Host;
use crate::support::{Client, Raw, Response, Server, request, roomcast, upgrade_request, wait_until};

const ADMIN: &str = "for operators, listening on http://";

/// A server with a public address and one for operators.
fn server_apart(flags: &[&str]) -> (Server, SocketAddr) {
    let mut command = roomcast();
    command.args(["--api-key", KEY, "--metrics", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(flags);
    let server = Server::spawn_command(command, 2);
    let line = server.wait_for_log(ADMIN);
    let admin = line.rsplit_once(ADMIN).unwrap().1.parse().expect("an address");
    (server, admin)
}

fn get(address: SocketAddr, path: &str) -> Response {
    let mut raw = Raw::connect(address);
    raw.send(request("GET", path, &[("Connection", "close")]).as_bytes());
    raw.response()
}

#[test]
fn operators_and_the_public_are_answered_at_their_own_addresses() {
    let (server, admin) = server_apart(&[]);
    let public = server.address();
    assert_ne!(public, admin);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    check_published(&publish(admin, &json!({"room": "lobby", "text": "hello"})), "lobby", 1, false);
    assert_eq!(ann.recv_type("chat")["text"], "hello");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    // The place of the API says nothing about it, with a key or without.
    for response in [
        post(public, "/api/publish", &json!({"room": "lobby", "text": "a"})),
        post(public, "/api/nothing", &json!({})),
        get(public, "/api/openapi.json"),
        get(public, "/metrics"),
        get(public, "/nothing"),
    ] {
        assert_eq!(response.status, 404, "{response:?}");
        assert!(
            response.text().trim_end().ends_with("there are /, /ws, /roomcast.js, /healthz, /readyz"),
            "{}",
            response.text()
        );
    }
    for path in ["/", "/healthz", "/readyz", "/roomcast.js"] {
        assert_eq!(get(public, path).status, 200, "{path}");
    }
    for path in ["/", "/roomcast.js", "/nothing"] {
        let response = get(admin, path);
        assert_eq!(response.status, 404, "{path}");
        let text = response.text();
        assert!(
            text.contains("there are /healthz, /readyz, /metrics, /api/publish, ") && !text.contains("/ws"),
            "{text}"
        );
    }
    let mut raw = Raw::connect(admin);
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    assert_eq!(raw.response().status, 404);
}

#[test]
fn without_such_an_address_everything_is_at_one() {
    let server = server_with(&["--metrics"]);
    assert_eq!(get(server.address(), "/metrics").status, 200);
    assert_eq!(publish(server.address(), &json!({"room": "lobby", "text": "hello"})).status, 200);
}

#[test]
fn it_may_be_a_unix_socket_and_there_may_be_several() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin");
    let listen = format!("--admin-listen=unix:{}", path.display());
    let (server, admin) = server_apart(&[&listen]);
    server.wait_for_log(&format!("for operators, listening on unix:{}", path.display()));
    let mut raw = Raw::over(UnixStream::connect(&path).expect("connect"));
    raw.send(whole_request("/api/publish", &json!({"room": "lobby", "text": "hello"})).as_bytes());
    check_published(&raw.response(), "lobby", 1, false);
    check_published(&publish(admin, &json!({"room": "lobby", "text": "hello"})), "lobby", 2, false);
    assert_eq!(get(server.address(), "/metrics").status, 404);
}

#[test]
fn caps_by_address_keep_no_operator_out() {
    // An address of its own: none is capped from which programs of the same machine usually come.
    const CROWD: &str = "127.0.0.2";
    let caps = ["--connections-per-address", "2", "--connects-per-address", "1", "--requests-per-address", "1"];
    let (server, admin) = server_apart(&caps);
    let from_crowd = |address| {
        let mut raw = Raw::connect_from(CROWD, address);
        let _ = raw.try_send(request("GET", "/healthz", &[]).as_bytes());
        raw
    };
    let mut held: Vec<_> = (0..40).map(|_| from_crowd(server.address())).collect();
    wait_until("the crowd is refused", || {
        held.push(from_crowd(server.address()));
        held.last_mut().is_some_and(Raw::at_end)
    });
    let mut operators: Vec<_> = (0..40).map(|_| from_crowd(admin)).collect();
    for operator in &mut operators {
        assert_eq!(operator.response().status, 200);
    }
    // Requests on one connection are not counted either.
    let mut raw = Raw::connect_from(CROWD, admin);
    for seq in 1..=40 {
        raw.send(&publish_request(r#"{"room":"lobby","text":"a"}"#));
        check_published(&raw.response(), "lobby", seq, false);
    }
    let text = get(admin, "/metrics").text().to_owned();
    assert!(text.contains("roomcast_address_requests_rejected_total 0"), "{text}");
}

#[test]
fn operators_come_before_strangers_who_wait_for_a_place() {
    const STRANGERS: u64 = 200;
    let mut config = Config::default();
    (config.net.connections_max, config.net.connections_reserved) = (2, 1);
    config.api_keys = vec![ApiKey::new(KEY)];
    let mut host = Host::new(config);
    let public = host.listen();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).expect("listen");
    let admin = match host.server.listen_for_admin(Opening::default(), listener).expect("listen for operators") {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(path) => panic!("a Unix socket at {path:?}"),
    };
    let _members = host.serve(|| ["ann", "bob"].map(|user| Raw::open(public, &format!("/ws?userId={user}"))));
    // They wait for one place, ask for nothing, and came first.
    let _strangers: Vec<_> = (0..STRANGERS).map(|_| Raw::connect(public)).collect();
    let mut operator = Raw::connect(admin);
    operator.send(&publish_request(r#"{"room":"lobby","text":"hello"}"#));
    check_published(&host.serve(|| operator.response()), "lobby", 1, false);
    let displaced = host.server.stats().net.spare_sockets_reclaimed;
    assert!(displaced < STRANGERS / 2, "{displaced} strangers came before the operator");
    // Strangers do not displace an operator who is there.
    host.serve(|| {
        operator.send(&publish_request(r#"{"room":"lobby","text":"hello"}"#));
        check_published(&operator.response(), "lobby", 2, false);
    });
}

#[test]
fn sockets_of_systemd_are_no_address_for_operators() {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "10"]).arg(roomcast().get_program()).args(["--admin-listen", "systemd"]);
    let output = command.output().expect("run the program");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("systemd is for --listen alone"), "{error}");
}

/// A request for the counts.
fn scrape(headers: &[(&str, &str)]) -> Vec<u8> {
    request("GET", "/metrics", &[&[("Connection", "close")], headers].concat()).into_bytes()
}

#[test]
fn a_trusted_proxy_in_front_caps_no_operator_whom_it_names() {
    let caps = ["--requests-per-address", "1", "--connections-per-address", "1", "--connects-per-address", "1"];
    let proxy = ["--trusted-proxy", "127.0.0.1", "--admin-listen", "proxy:127.0.0.1:0"];
    let mut command = roomcast();
    command.env("RUST_LOG", "debug");
    command.args(["--api-key", KEY, "--metrics", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let server = Server::spawn_command(with(command, &[caps.as_slice(), &proxy].concat()), 3);
    let [admin, behind_header] = [ADMIN, "for operators, with PROXY headers, listening on http://"].map(|prefix| {
        let line = server.wait_for_log(prefix);
        line.rsplit_once(prefix).unwrap().1.parse::<SocketAddr>().expect("an address")
    });
    let named = [("X-Forwarded-For", "192.0.2.3")];
    for _ in 0..40 {
        let mut raw = Raw::connect(admin);
        raw.send(&scrape(&named));
        assert_eq!(raw.response().status, 200);
        let mut raw = Raw::connect(behind_header);
        raw.send(&[b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", &*scrape(&[])].concat());
        assert_eq!(raw.response().status, 200);
    }
    // The log has the addresses that the proxy tells.
    for address in ["a request from 192.0.2.3", "a request from 192.0.2.7"] {
        server.wait_for_log(address);
    }
    let is_capped = || {
        let mut raw = Raw::connect(server.address());
        raw.send(request("GET", "/healthz", &named).as_bytes());
        raw.response().status == 429
    };
    wait_until("the public is capped", is_capped);
    // Whoever is no trusted proxy, or brings no header, is no operator.
    let mut raw = Raw::connect(behind_header);
    let _ = raw.try_send(&scrape(&[]));
    assert!(raw.at_end());
    let mut raw = Raw::connect_from("127.0.0.2", behind_header);
    let _ = raw.try_send(&[b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", &*scrape(&[])].concat());
    assert!(raw.at_end());
}

fn with(mut command: Command, flags: &[&str]) -> Command {
    command.args(flags);
    command
}

#[cfg(feature = "tls")]
mod tls {
    use rustix::process::Signal;

    use super::*;
    use crate::support::tls::{Certificate, Files};

    /// A server whose public address speaks no TLS, and the first address of its operators with a certain prefix in the log.
    fn server_with_tls(files: &Files, admin: &str, prefix: &str, flags: &[&str]) -> (Server, String) {
        let (chain, key) = (files.name("cert.pem"), files.name("key.pem"));
        let tls = ["--api-key", KEY, "--metrics", "--tls-cert", &chain, "--tls-key", &key, "--admin-listen", admin];
        let mut command = roomcast();
        command.args(["--listen", "127.0.0.1:0"]).args(tls);
        let server = Server::spawn_command(with(command, flags), 2);
        let line = server.wait_for_log(prefix);
        let address = line.rsplit_once(prefix).unwrap().1.to_owned();
        (server, address)
    }

    #[test]
    fn operators_may_speak_tls_where_the_public_does_not() {
        let mut files = Files::default();
        let (server, address) = server_with_tls(&files, "tls:127.0.0.1:0", "for operators, listening on https://", &[]);
        let admin: SocketAddr = address.parse().expect("an address");
        let client = files.certificate.client();
        assert_eq!(client.get(admin, "/metrics").status, 200);
        assert_eq!(client.get(admin, "/ws").status, 404);
        let mut raw = client.connect(admin);
        raw.send(whole_request("/api/publish", &json!({"room": "lobby", "text": "hello"})).as_bytes());
        check_published(&raw.response(), "lobby", 1, false);
        // Neither the API in the clear, nor a stranger's certificate.
        let response = get(admin, "/metrics");
        assert!(response.status == 400 && response.text().contains("https"), "{response:?}");
        assert!(!Certificate::default().client().is_shown_by(admin));
        for path in ["/metrics", "/api/openapi.json"] {
            assert_eq!(get(server.address(), path).status, 404, "{path}");
        }
        files.renew();
        let client = files.certificate.client();
        server.signal(Signal::HUP);
        wait_until("operators are shown the new certificate", || client.is_shown_by(admin));
    }

    #[test]
    fn behind_a_proxy_header_operators_may_speak_tls() {
        let files = Files::default();
        let prefix = "for operators, with PROXY headers, listening on https://";
        let proxy = ["--trusted-proxy", "127.0.0.1", "--connections-per-address", "1", "--connects-per-address", "1"];
        let (_server, address) = server_with_tls(&files, "proxy:tls:127.0.0.1:0", prefix, &proxy);
        let admin: SocketAddr = address.parse().expect("an address");
        for _ in 0..40 {
            let mut socket = Raw::connect(admin);
            socket.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n");
            let mut raw = files.certificate.client().over(socket.stream);
            raw.send(&scrape(&[]));
            assert_eq!(raw.response().status, 200);
        }
        let mut raw = Raw::connect(admin);
        raw.send(&scrape(&[]));
        assert!(raw.at_end(), "no header");
    }
}
