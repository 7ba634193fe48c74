//! The limits of a server: time, size, connections, file descriptors.

use std::{
    io::ErrorKind,
    net::Shutdown,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, prlimit};

use crate::support::{
    BINARY, Client, PATIENCE, Raw, Server, frame, raise_file_limit, request, upgrade_request, wait_until,
};

/// Writes a byte now and then until the server answers; returns the status and how many bytes had been taken by then.
fn drip(raw: &mut Raw, bytes: &[u8], pause: Duration) -> (u16, usize) {
    raw.stream.set_read_timeout(Some(pause)).expect("set the read timeout");
    for (sent, byte) in bytes.iter().enumerate() {
        let _ = raw.try_send(&[*byte]);
        match raw.stream.peek(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return (raw.response().status, sent),
        }
    }
    panic!("{} bytes were taken without an answer", bytes.len());
}

#[test]
fn a_silent_client_is_answered_408() {
    let server = Server::spawn(&["--handshake-timeout", "1s"]);
    let start = Instant::now();
    let mut raw = Raw::connect(server.address());
    let response = raw.response();
    assert_eq!(response.status, 408, "{response:?}");
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(raw.at_end());
}

#[test]
fn a_slow_client_does_not_extend_its_deadline() {
    let server = Server::spawn(&["--handshake-timeout", "1s"]);
    let mut raw = Raw::connect(server.address());
    let (status, sent) = drip(&mut raw, upgrade_request("/ws", &[]).as_bytes(), Duration::from_millis(100));
    assert_eq!(status, 408, "after {sent} bytes");
}

/// A request whose head is exactly `length` bytes long.
fn request_of(length: usize) -> String {
    let bare = request("GET", "/healthz", &[("Connection", "close"), ("X-Padding", "")]).len();
    let request = request("GET", "/healthz", &[("Connection", "close"), ("X-Padding", &"x".repeat(length - bare))]);
    assert_eq!(request.len(), length);
    request
}

#[track_caller]
fn check_head(server: &Server, head: &str, status: u16) {
    let mut raw = Raw::connect(server.address());
    raw.send(head.as_bytes());
    assert_eq!(raw.response().status, status, "a head of {} bytes", head.len());
}

#[test]
fn a_head_over_8_kib_is_answered_431() {
    let server = Server::spawn(&[]);
    check_head(&server, &request_of(8192), 200);
    check_head(&server, &request_of(8193), 431);
    check_head(&server, &request_of(100_000), 431);
}

#[test]
fn a_head_over_8_kib_is_answered_before_it_ends() {
    let server = Server::spawn(&[]);
    check_head(&server, &request_of(10_000)[..9_000], 431);
    check_head(&server, &format!("GET /{} ", "x".repeat(20_000)), 431);
}

#[test]
fn a_head_of_very_many_fields_is_answered() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::connect(server.address());
    let fields = vec![("A", "b"); 1000];
    raw.send(request("GET", "/healthz", &fields).as_bytes());
    let status = raw.response().status;
    assert!([200, 431].contains(&status), "{status}");
}

/// Whether another client gets in; if not, it must have been answered 503.
fn gets_in(server: &Server) -> bool {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    let response = raw.response();
    assert!([101, 503].contains(&response.status), "{response:?}");
    response.status == 101
}

#[test]
fn a_full_server_answers_503_and_health_and_recovers() {
    let server = Server::spawn(&["--max-connections", "2"]);
    let first = Client::connect(&server);
    let mut second = Client::connect(&server);
    let mut refused = Raw::connect(server.address());
    refused.send(upgrade_request("/ws", &[]).as_bytes());
    let response = refused.response();
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{response:?}");
    assert!(response.text().contains("connections"), "it says why: {:?}", response.text());
    assert_eq!(server.get("/healthz").text().trim(), "ok");
    second.join("lobby");
    assert_eq!(first.close(), 1000);
    wait_until("another client gets in", || gets_in(&server));
}

#[test]
fn silent_connections_do_not_take_the_places_of_clients_for_ever() {
    let server = Server::spawn(&["--max-connections", "4", "--handshake-timeout", "1s"]);
    let silent: Vec<_> = (0..40).map(|_| Raw::connect(server.address())).collect();
    wait_until("a client gets in", || gets_in(&server));
    drop(silent);
}

#[test]
fn silent_sockets_beyond_the_limit_do_not_keep_health_checks_out() {
    let server = Server::spawn(&["--max-connections", "2"]);
    let clients = [Client::connect(&server), Client::connect(&server)];
    raise_file_limit();
    let silent: Vec<_> = (0..300).map(|_| Raw::connect(server.address())).collect();
    for _ in 0..20 {
        assert!(health_is_answered(&server), "health is not answered beside {} silent sockets", silent.len());
    }
    // Those who have asked and do not leave are in nobody's way either.
    let mut answered: Vec<_> = (0..100).map(|_| Raw::connect(server.address())).collect();
    for raw in &mut answered {
        let _ = raw.try_send(request("GET", "/healthz", &[]).as_bytes());
    }
    assert!(health_is_answered(&server));
    drop((clients, silent, answered));
}

#[test]
fn bytes_that_begin_no_request_are_refused_when_they_come() {
    let server = Server::spawn(&["--handshake-timeout", "1h"]);
    let tls_hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    for beginning in [&tls_hello[..], b"\x16", b"SSH-2.0-OpenSSH_9.6\r\n", b"\0\0\0\0", b"EHLO example\r\n", b"GET\t"] {
        let mut raw = Raw::connect(server.address());
        raw.send(beginning);
        let response = raw.response();
        assert_eq!(response.status, 400, "{beginning:?}: {response:?}");
        assert!(raw.at_end());
    }
    // Byte by byte it is the same.
    let mut raw = Raw::connect(server.address());
    let (status, sent) = drip(&mut raw, b"SSH-2.0-OpenSSH_9.6\r\nand more", Duration::from_millis(20));
    assert_eq!(status, 400, "after {sent} bytes");
}

/// Sends until the server cuts the connection, and says how many bytes it took; at most 64 MiB.
fn flood(raw: &mut Raw) -> usize {
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < 64 << 20 && raw.try_send(&chunk).is_ok() {
        sent += chunk.len();
    }
    sent
}

#[test]
fn little_is_read_of_a_peer_that_was_answered_and_sends_on() {
    // Far less than is sent, and more than the socket buffers of both sides hold.
    const TAKEN_MAX: usize = 16 << 20;
    let server = Server::spawn(&["--metrics"]);
    let mut raw = Raw::connect(server.address());
    raw.send(&[b'x'; 9000]);
    let sent = flood(&mut raw);
    assert!(sent < TAKEN_MAX, "{sent} bytes behind a head that is too large");

    let mut raw = Raw::open(server.address(), "/ws");
    raw.send(&frame(BINARY, true, b"not spoken here"));
    let sent = flood(&mut raw);
    assert!(sent < TAKEN_MAX, "{sent} bytes behind a close");

    let metrics = server.get("/metrics");
    let received = metrics.text().lines().find_map(|line| line.strip_prefix("roomcast_received_bytes_total "));
    let received: f64 = received.expect("the counter").parse().expect("a number");
    assert!(received < 1e6, "{received} bytes were read");
}

#[test]
fn very_many_connections_beyond_the_limit_do_not_end_the_server() {
    let server = Server::spawn(&["--max-connections", "2", "--handshake-timeout", "1s"]);
    raise_file_limit();
    let crowd: Vec<_> = (0..300).map(|_| Raw::connect(server.address())).collect();
    drop(crowd);
    wait_until("a client gets in", || gets_in(&server));
}

#[test]
fn many_slow_clients_do_not_hinder_another() {
    raise_file_limit();
    let server = Server::spawn(&[]);
    let upgrade = upgrade_request("/ws", &[]);
    let slow: Vec<_> = (0..500)
        .map(|index| {
            let mut raw = Raw::connect(server.address());
            raw.send(&upgrade.as_bytes()[..index % upgrade.len()]);
            raw
        })
        .collect();
    let mut alice = Client::connect_as(&server, "alice");
    let mut bob = Client::connect_as(&server, "bob");
    alice.join("lobby");
    bob.join("lobby");
    bob.say("lobby", "hello");
    assert_eq!(alice.recv_type("chat")["text"], "hello");
    drop(slow);
}

/// How many files the server has open.
fn open_files(server: &Server) -> u64 {
    let folder = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    std::fs::read_dir(folder).expect("the server's open files").count() as u64
}

/// Asks for `/healthz` with little patience; false when nobody answers.
fn health_is_answered(server: &Server) -> bool {
    let mut raw = Raw::connect(server.address());
    raw.send(request("GET", "/healthz", &[("Connection", "close")]).as_bytes());
    raw.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("set the read timeout");
    let answered = raw.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
    if !answered {
        let _ = raw.stream.shutdown(Shutdown::Both);
    }
    answered
}

#[test]
fn a_server_out_of_file_descriptors_accepts_again_when_they_are_free() {
    let server = Server::spawn(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    let few = open_files(&server) + 16;
    // The limit of the running process is lowered from outside, so that the server cannot have prepared for it.
    prlimit(Some(server.pid()), Resource::Nofile, Rlimit { current: Some(few), maximum: Some(few) })
        .expect("lower the file limit");

    let crowd: Vec<_> = (0..24).map(|_| Raw::connect(server.address())).collect();
    wait_until("all descriptors are taken", || open_files(&server) >= few);
    alice.join("lobby");
    alice.say("lobby", "still here");
    assert_eq!(alice.recv_type("chat")["text"], "still here");
    let used = processor_time(&server);
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_time(&server) - used;
    assert!(spent < Duration::from_millis(500), "a server that waits for descriptors used {spent:?} of one second");

    drop(crowd);
    wait_until("a request is answered", || health_is_answered(&server));
    Client::connect_as(&server, "bob").join("lobby");
}

/// The processor time that the server has used, from fields 14 and 15 of `/proc/PID/stat`, in ticks of 10 ms.
fn processor_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid().as_raw_nonzero())).expect("the process");
    let after_name = stat.rsplit_once(')').expect("the name in parentheses").1;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_server_with_a_low_file_limit_serves_what_it_can() {
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 128 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_roomcast"),
        "--listen",
        "127.0.0.1:0",
    ]);
    let server = Server::spawn_command(command, 1);
    let mut crowd: Vec<_> = (0..200).map(|_| Raw::connect(server.address())).collect();
    let upgrade = upgrade_request("/ws", &[]);
    for raw in &mut crowd {
        let _ = raw.try_send(upgrade.as_bytes());
    }
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while !(health_is_answered(&server) && gets_in(&server)) {
        assert!(Instant::now() < deadline, "a crowd that has left still keeps others out");
    }
}
