//! The program: its flags, its environment, its listeners, and what it says when it cannot start.

use std::{
    net::{Shutdown, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::json;
use socket2::Socket;

use crate::support::{Client, Connect, Raw, Server, request, roomcast, upgrade_request};

/// Every flag of the program.
const FLAGS: [&str; 42] = [
    "--listen",
    "--trusted-proxy",
    "--connections-per-address",
    "--connects-per-address",
    "--requests-per-address",
    "--allow-origin",
    "--message-rate",
    "--message-burst",
    "--max-connections",
    "--history-messages",
    "--history-age",
    "--history-bytes",
    "--dedupe-window",
    "--log-bytes",
    "--log-bytes-total",
    "--output-bytes",
    "--message-bytes",
    "--data-bytes",
    "--rooms-per-connection",
    "--big-room",
    "--stall-timeout",
    "--ping-interval",
    "--pong-timeout",
    "--handshake-timeout",
    "--answer-timeout",
    "--api-key",
    "--drain-timeout",
    "--presence-grace",
    "--presence-lease",
    "--batch-delay",
    "--metrics",
    "--redis",
    "--redis-prefix",
    "--redis-hold",
    "--redis-ca",
    "--token-secret-file",
    "--token-key-file",
    "--jwks-file",
    "--jwks-url",
    "--token-audience",
    "--token-issuer",
    "--default-rooms",
];

/// Runs a command that must end by itself; a server that runs on against all expectation is ended by `timeout`.
pub(crate) fn run_to_end(flags: &[&str], environment: &[(&str, &str)]) -> Output {
    let server = roomcast();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "10"]).arg(server.get_program()).args(flags);
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.envs(environment.iter().copied()).stdin(Stdio::null()).output().expect("run the program")
}

/// Starting with `flags` fails with status 2 and a message that has all the `needles`.
#[track_caller]
fn check_refused(flags: &[&str], environment: &[(&str, &str)], needles: &[&str]) {
    let output = run_to_end(flags, environment);
    let message = String::from_utf8(output.stderr).expect("the message is UTF-8");
    assert_eq!(output.status.code(), Some(2), "{flags:?} {environment:?}: {message}");
    for needle in needles {
        assert!(message.contains(needle), "{flags:?} {environment:?}: no {needle:?} in: {message}");
    }
}

#[test]
fn help_teaches_every_flag() {
    let output = run_to_end(&["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("the help is UTF-8");
    for flag in FLAGS {
        assert!(help.split_whitespace().any(|word| word == flag), "{flag} is not in the help");
        let variable = format!("ROOMCAST_{}", flag[2..].to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "{variable} is not in the help");
    }
    for default in ["127.0.0.1:8080", "25s", "16KiB", "256MiB", "2m", "1000", "unix:"] {
        assert!(help.contains(default), "{default} is not in the help");
    }
}

/// UPDATE_DOCS=1 writes the page.
#[test]
fn the_reference_page_has_the_tables_of_the_program() {
    let output = run_to_end(&["--help-markdown"], &[]);
    let tables = String::from_utf8(output.stdout).expect("the tables are UTF-8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once("<!-- begin -->\n").expect("the place where the tables begin");
    let (_, after) = rest.split_once("<!-- end -->").expect("the place where the tables end");
    let fresh = format!("{before}<!-- begin -->\n\n{tables}\n<!-- end -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &fresh).expect("write the page");
    } else {
        assert!(page == fresh, "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test reference_page");
    }
}

#[test]
fn a_misspelt_variable_is_named_in_the_log() {
    let mut command = roomcast();
    command.env("ROOMCAST_PING_INTERVALL", "5s").args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn_command(command, 1);
    server.wait_for_log("ROOMCAST_PING_INTERVALL is no setting and changes nothing; ROOMCAST_PING_INTERVAL is one");
    let server = Server::spawn(&[]);
    assert!(server.log_lines("is no setting").is_empty());
}

#[test]
fn the_version_is_told() {
    let output = run_to_end(&["--version"], &[]);
    assert!(output.status.success());
    let version = String::from_utf8(output.stdout).expect("the version is UTF-8");
    assert_eq!(version.trim(), concat!("roomcast ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_value_is_refused_with_what_is_allowed() {
    check_refused(&["--listen", "nonsense"], &[], &["nonsense", "--listen", "127.0.0.1:8080"]);
    check_refused(&["--listen", "127.0.0.1:99999"], &[], &["127.0.0.1:99999", "--listen"]);
    check_refused(&["--allow-origin", "chat.example"], &[], &["chat.example", "origin", "https://"]);
    check_refused(&["--allow-origin", "https://chat.example/path"], &[], &["https://chat.example/path"]);
    check_refused(&["--allow-origin", "https://*.example/"], &[], &["ends with a slash; write https://*.example"]);
    check_refused(&["--ping-interval", "5parsecs"], &[], &["5parsecs", "--ping-interval", "30s"]);
    check_refused(&["--ping-interval", "5"], &[], &["'5'", "--ping-interval", "30s"]);
    check_refused(&["--log-bytes", "12bananas"], &[], &["12bananas", "--log-bytes", "KiB"]);
    check_refused(&["--message-rate", "-1"], &[], &["-1"]);
    check_refused(&["--message-rate", "many"], &[], &["many", "--message-rate"]);
    check_refused(&["--batch-delay", "2s"], &[], &["batch-delay is 2s", "0s to 1s"]);
    check_refused(
        &["--default-rooms", "lobby"],
        &[],
        &["--default-rooms", r#"[{"match": "team-*", "allow": ["join", "say"]}]"#],
    );
    check_refused(&["--jwks-url", "/keys"], &[], &["jwks-url: a URL that begins with https:// or http:// is needed"]);
    check_refused(&["--max-connections", "x"], &[], &["x", "--max-connections"]);
}

#[test]
fn a_redis_url_that_cannot_be_used_is_refused_without_showing_it() {
    for url in ["localhost:6379", "http://:secret@localhost", "redis://:secret@host:port"] {
        check_refused(&["--redis", url], &[], &["redis", "redis://"]);
        let output = run_to_end(&["--redis", url], &[]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
    }
    check_refused(&["--redis", "redis://localhost", "--redis-hold", "1ms"], &[], &["1ms", "100ms"]);
    let hasty = ["--redis", "redis://localhost", "--api-key", "0123456789abcdef", "--answer-timeout", "10s"];
    check_refused(&hasty, &[], &["answer-timeout is 10s", "with redis-hold 10s more than that"]);
    check_refused(&["--redis", "redis://localhost", "--redis-prefix", "a{b"], &[], &["'{'"]);
    check_refused(&["--redis", "rediss://localhost", "--redis-ca", "/nowhere"], &[], &["/nowhere"]);
}

#[test]
fn a_key_that_can_be_guessed_is_refused_without_showing_it() {
    for key in ["too-short-secret"[..15].to_owned(), "secret with spaces in it".to_owned()] {
        for (flags, environment) in
            [(vec!["--api-key", &key], vec![]), (vec![], vec![("ROOMCAST_API_KEY", key.as_str())])]
        {
            check_refused(&flags, &environment, &["api-key 1"]);
            let output = run_to_end(&flags, &environment);
            assert!(!String::from_utf8_lossy(&output.stderr).contains(&key));
        }
    }
    let output = run_to_end(&["--help"], &[("ROOMCAST_API_KEY", "secret-0123456789")]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("secret-0"));
}

#[test]
fn an_unknown_flag_is_refused_with_the_one_that_was_meant() {
    check_refused(&["--ping-intervall", "5s"], &[], &["--ping-intervall", "--ping-interval"]);
    check_refused(&["serve"], &[], &["serve"]);
}

#[test]
fn a_wrong_value_in_the_environment_is_refused_too() {
    check_refused(&[], &[("ROOMCAST_LISTEN", "nonsense")], &["nonsense"]);
    check_refused(&["--listen", "127.0.0.1:0"], &[("ROOMCAST_PING_INTERVAL", "soon")], &["soon"]);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("its address").to_string();
    let output = run_to_end(&["--listen", &address], &[]);
    let message = String::from_utf8(output.stderr).expect("the message is UTF-8");
    assert!(output.status.code().is_some_and(|code| code != 0), "{message}");
    assert!(message.contains(&address), "{message}");
}

#[test]
fn the_environment_sets_what_no_flag_sets() {
    let mut command = roomcast();
    command.env("ROOMCAST_LISTEN", "127.0.0.1:0").env("ROOMCAST_PING_INTERVAL", "1234ms");
    command.env("ROOMCAST_MESSAGE_BYTES", "3KiB").args(["--message-bytes", "5KiB"]);
    let server = Server::spawn_command(command, 1);
    let welcome = Client::connect(&server).welcome;
    assert_eq!(welcome["pingInterval"], 1234);
    assert_eq!(welcome["limits"]["messageBytes"], 5 * 1024);
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    // Compose and unit files make them of variables that are not set.
    let mut command = roomcast();
    for flag in FLAGS {
        command.env(format!("ROOMCAST_{}", flag[2..].to_uppercase().replace('-', "_")), "");
    }
    command.env("ROOMCAST_LISTEN", "127.0.0.1:0");
    let server = Server::spawn_command(command, 1);
    assert_eq!(server.get("/metrics").status, 404);
    assert_eq!(Client::connect(&server).welcome["pingInterval"], 25_000);
    assert!(server.log_lines("is no setting").is_empty());
    // On the command line nothing is as wrong as ever.
    check_refused(&["--api-key", ""], &[], &["api-key 1 has 0 bytes"]);
    check_refused(&["--ping-interval", ""], &[("ROOMCAST_PING_INTERVAL", "")], &["--ping-interval"]);
}

#[test]
fn the_log_begins_with_what_runs_here() {
    let server = Server::spawn(&["--max-connections", "77", "--metrics"]);
    let version = env!("CARGO_PKG_VERSION");
    let expected =
        format!("roomcast {version}: up to 77 connections; history in memory, of this node alone; API off; metrics on");
    assert!(server.log()[0].ends_with(&expected), "{:?}", server.log());
}

#[test]
fn an_ipv6_address_is_listened_on() {
    let server = Server::spawn(&["--listen", "[::1]:0"]);
    assert!(server.listeners()[0].starts_with("http://[::1]:"), "{:?}", server.listeners());
    assert_eq!(server.get("/healthz").status, 200);
    Client::connect(&server).join("lobby");
}

#[test]
fn a_unix_socket_is_listened_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roomcast.sock");
    let listen = format!("unix:{}", path.display());
    let server = Server::spawn(&["--listen", &listen]);
    assert_eq!(server.listeners(), [listen]);

    let mut raw = Raw::over(UnixStream::connect(&path).expect("connect to the socket"));
    raw.send(request("GET", "/healthz", &[("Connection", "close")]).as_bytes());
    assert_eq!(raw.response().text().trim(), "ok");

    let mut raw = Raw::over(UnixStream::connect(&path).expect("connect to the socket"));
    raw.send(upgrade_request("/ws?userId=alice", &[]).as_bytes());
    raw.upgraded();
    assert_eq!(raw.json()["userId"], "alice");
}

/// The program with a socket that was opened for it, as systemd does it: descriptor 3, named by `LISTEN_FDS`.
fn activated(socket: OwnedFd) -> Server {
    let program = roomcast();
    let mut command = Command::new("sh");
    command.args(["-c", r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" --listen systemd 3<&0 </dev/null"#]);
    command.arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::spawn_with_input(command, socket.into(), 1)
}

#[test]
fn the_file_of_a_socket_of_systemd_outlives_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roomcast.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let mut server = activated(socket.try_clone().expect("a copy").into());
    let mut raw = Raw::over(UnixStream::connect(&path).expect("connect to the socket"));
    raw.send(request("GET", "/healthz", &[("Connection", "close")]).as_bytes());
    assert_eq!(raw.response().text().trim(), "ok");
    server.sigterm();
    assert!(server.wait_exit().success());
    // systemd keeps listening, and starts the server again for the next client.
    UnixStream::connect(&path).expect("connect to the socket of a server that has ended");
}

#[test]
fn a_listener_that_is_broken_for_good_is_named_in_the_log_now_and_then() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    let copy = Socket::from(socket.try_clone().expect("a copy"));
    let server = activated(socket.into());
    copy.shutdown(Shutdown::Both).expect("break the socket");
    let line = server.wait_for_log("cannot accept");
    assert!(line.contains("WARN") && line.contains(&format!("http://{address}")), "{line}");
    // It is tried again each second; the pauses between two lines grow.
    std::thread::sleep(Duration::from_millis(3500));
    let lines = server.log_lines("cannot accept").len();
    assert!((2..=3).contains(&lines), "{lines} lines");
}

#[test]
fn several_listeners_share_the_rooms() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("roomcast.sock").display());
    let server = Server::spawn(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", &unix]);
    let listeners = server.listeners();
    assert_eq!(listeners.len(), 3, "{listeners:?}");
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    let address = listeners[1].strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address");
    let mut bob = Connect::to(address).user("bob").connect();
    assert_eq!(bob.join("lobby")["users"][0], json!({"userId": "alice"}));
    bob.say("lobby", "hello");
    assert_eq!(alice.recv_type("chat")["text"], "hello");
}
