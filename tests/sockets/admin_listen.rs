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
