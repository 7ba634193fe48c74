//! Connections that speak TLS: the page, chat beside plain members, resumption, large messages, slow readers, and peers that
//! speak something else.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use roomcast::{Authentication, Authenticator, Listener, Now, Opening, Preamble, Refusal, Security};
use rustls::HandshakeKind;
use serde_json::{Value, json};

use crate::support::chat::{chat, is, seqs};
use crate::support::host::{Host, config};
use crate::support::tls::{Files, TlsStream, VERSIONS};
use crate::support::{Client, Raw, Server, TEXT, close_frame, frame, request, upgrade_request, wait_until};

fn send_json(raw: &mut Raw<TlsStream>, message: &Value) {
    raw.send(&frame(TEXT, true, message.to_string().as_bytes()));
}

/// Connects as a user and joins the lobby.
fn member(files: &Files, server: &Server, user: &str) -> Raw<TlsStream> {
    let mut raw = files.certificate.client().open(server.tls_address(), &format!("/ws?userId={user}"));
    assert_eq!(raw.json()["type"], "welcome");
    send_json(&mut raw, &json!({"type": "join", "room": "lobby"}));
    raw.json_of("joined");
    raw
}

#[test]
fn the_page_comes_over_https_with_either_version() {
    let files = Files::default();
    let server = files.spawn(&[]);
    for version in VERSIONS {
        let mut raw = files.certificate.client().version(version).connect(server.tls_address());
        raw.send(request("GET", "/", &[("Connection", "close")]).as_bytes());
        let response = raw.response();
        assert_eq!(response.status, 200, "{response:?}");
        let policy = response.header("content-security-policy").unwrap();
        assert!(policy.contains("connect-src 'self' ws: wss:"), "{policy}");
        // More than a record carries.
        assert!(response.body.len() > 20_000 && response.text().contains("</html>"));
        assert!(raw.at_end() && raw.stream.has_been_told_of_the_end());
        assert_eq!(raw.stream.connection().protocol_version(), Some(version.version));
    }
    assert_eq!(server.get("/healthz").status, 200, "the other address speaks no TLS");
}

#[test]
fn members_with_and_without_tls_hear_each_other() {
    let files = Files::default();
    let server = files.spawn(&[]);
    let mut ann = member(&files, &server, "ann");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    send_json(&mut ann, &chat("lobby", "in secret", "1"));
    let heard = [ann.json_of("chat"), bob.recv_type("chat")];
    assert!(heard.iter().all(|message| message["text"] == "in secret" && message["userId"] == "ann"), "{heard:?}");
    bob.say("lobby", "in the open");
    let heard = [ann.json_of("chat"), bob.recv_type("chat")];
    assert!(heard.iter().all(|message| message["text"] == "in the open"), "{heard:?}");
    ann.send(&close_frame(1000));
    assert_eq!(ann.expect_close(), 1000);
    assert!(ann.at_end() && ann.stream.has_been_told_of_the_end());
}

#[test]
fn pages_of_this_machine_may_connect_over_https_and_others_may_not() {
    let files = Files::default();
    let server = files.spawn(&[]);
    let address = server.tls_address();
    let port = address.port();
    let status = |origin: &str| {
        let mut raw = files.certificate.client().connect(address);
        let upgrade = upgrade_request("/ws", &[("Origin", origin)]);
        raw.send(upgrade.replace("roomcast.test", &format!("localhost:{port}")).as_bytes());
        raw.response().status
    };
    assert_eq!(status(&format!("https://localhost:{port}")), 101);
    assert_eq!(status("https://evil.example"), 403);
    assert_eq!(status("https://localhost"), 403);
}

#[test]
fn the_protocol_that_is_agreed_on_is_http_1_1() {
    let files = Files::default();
    let server = files.spawn(&[]);
    let agreed = |offer: &[&str]| {
        let mut raw = files.certificate.client().offering(offer).connect(server.tls_address());
        raw.stream.shake_hands().map_err(|error| error.to_string())?;
        Ok::<_, String>(raw.stream.connection().alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(&["h2", "http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(agreed(&[]), Ok(None));
    let error = agreed(&["h2"]).unwrap_err();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let files = Files::default();
    let server = files.spawn(&["--metrics"]);
    for version in VERSIONS {
        let client = files.certificate.client().version(version);
        let kind = || {
            let mut raw = client.connect(server.tls_address());
            raw.send(request("GET", "/healthz", &[("Connection", "close")]).as_bytes());
            assert_eq!(raw.response().status, 200);
            raw.stream.connection().handshake_kind()
        };
        assert_eq!([kind(), kind()], [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)], "{version:?}");
    }
    let metrics = server.get("/metrics");
    for line in ["roomcast_tls_handshakes_total 4", "roomcast_tls_resumptions_total 2", "roomcast_tls_failures_total 0"]
    {
        assert!(metrics.text().contains(line), "no {line:?} in {}", metrics.text());
    }
}

#[test]
fn a_message_may_be_larger_than_a_record() {
    let files = Files::default();
    let server = files.spawn(&["--message-bytes", "60KiB"]);
    let mut ann = member(&files, &server, "ann");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    for (id, length) in [16_000, 17_000, 50_000].into_iter().enumerate() {
        let text = "x".repeat(length);
        let message = json!({"type": "chat", "room": "lobby", "text": text, "id": id.to_string()});
        send_json(&mut ann, &message);
        assert_eq!(ann.json_of("chat")["text"], text);
        assert_eq!(bob.recv_type("chat")["text"], text);
    }
}

/// Has a plain member say more than sockets and log hold, while one with TLS reads nothing, and then has that read it all.
fn fall_back(message_bytes: usize, count: u64) {
    let files = Files::default();
    let server =
        files.spawn(&["--message-rate=0", "--log-bytes=256KiB", "--message-bytes=40KiB", "--history-messages=100000"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut slow = files.certificate.client().small_receive_buffer().open(server.tls_address(), "/ws");
    send_json(&mut slow, &json!({"type": "join", "room": "lobby"}));
    slow.json_of("joined");
    let text = "x".repeat(message_bytes);
    for seq in 1..=count {
        ann.send_json(&json!({"type": "chat", "room": "lobby", "text": text}));
        if seq % 5 == 0 {
            ann.recv_until(|message| message["type"] == "chat" && message["seq"] == seq);
        }
    }
    let mut heard = Vec::new();
    while heard.len() < count as usize {
        heard.push(slow.json_of("chat"));
    }
    assert_eq!(seqs(&heard), (1..=count).collect::<Vec<_>>());
    assert!(heard.iter().all(|message| message["text"] == text));
    // It is level again, and nothing comes twice.
    ann.say("lobby", "are you there?");
    assert_eq!(slow.json_of("chat")["text"], "are you there?");
}

#[test]
fn a_slow_reader_falls_back_and_loses_nothing() {
    fall_back(1000, 6000);
}

#[test]
fn a_slow_reader_of_messages_larger_than_a_record_loses_nothing() {
    fall_back(39_000, 200);
}

#[test]
fn a_client_that_takes_nothing_is_closed_between_two_frames() {
    let files = Files::default();
    let server = files.spawn(&[
        "--message-rate=0",
        "--log-bytes=64KiB",
        "--message-bytes=2KiB",
        "--stall-timeout=500ms",
        "--presence-grace=0s",
    ]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut stalled =
        files.certificate.client().small_receive_buffer().open(server.tls_address(), "/ws?userId=stalled");
    send_json(&mut stalled, &json!({"type": "join", "room": "lobby"}));
    stalled.json_of("joined");
    let text = "x".repeat(1024);
    let gone = json!({"type": "presence", "room": "lobby", "userId": "stalled", "status": "offline"});
    let mut seen = Vec::new();
    for seq in 1..=4000 {
        ann.say("lobby", &text);
        if seq % 10 == 0 {
            seen.extend(ann.recv_until(|message| is(message, "chat") && message["seq"] == seq));
            seen.retain(|message| is(message, "presence"));
        }
    }
    if !seen.contains(&gone) {
        ann.recv_until(|message| *message == gone);
    }
    // What the sockets hold are whole frames, and Close behind them.
    assert_eq!(stalled.expect_close(), 4002);
}

#[test]
fn requests_of_the_api_are_answered_though_the_client_sends_nothing_more() {
    let files = Files::default();
    let server = files.spawn(&["--api-key=an-example-key-of-16-bytes-or-more"]);
    let body = r#"{"room": "lobby", "userId": "shop", "text": "shipped"}"#;
    let length = body.len().to_string();
    let fields = [
        ("Authorization", "Bearer an-example-key-of-16-bytes-or-more"),
        ("Content-Type", "application/json"),
        ("Content-Length", &length),
    ];
    let publish = request("POST", "/api/publish", &fields) + body;
    let mut raw = files.certificate.client().connect(server.tls_address());
    for seq in 1..=3 {
        raw.send(publish.as_bytes());
        if seq == 3 {
            raw.stream.say_goodbye();
        }
        let response = raw.response();
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text().contains(&format!("\"seq\":{seq}")), "{response:?}");
    }
    raw.stream.socket().shutdown(Shutdown::Write).unwrap();
    assert!(raw.at_end());
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let files = Files::default();
    let server = files.spawn(&[]);
    let client = files.certificate.client();
    for size in [1, 2, 3, 5, 20, 100] {
        let mut raw = client.connect(server.tls_address());
        let upgrade = upgrade_request("/ws", &[]);
        upgrade.as_bytes().chunks(size).for_each(|piece| raw.send(piece));
        raw.upgraded();
        assert_eq!(raw.json()["type"], "welcome");
        let join = frame(TEXT, true, br#"{"type": "join", "room": "lobby"}"#);
        join.chunks(size).for_each(|piece| raw.send(piece));
        raw.json_of("joined");
    }
}

#[test]
fn many_messages_in_one_read_are_all_heard() {
    let files = Files::default();
    let server = files.spawn(&["--message-rate=0"]);
    let mut ann = member(&files, &server, "ann");
    // More than a turn reads, in records of all sizes.
    let frames: Vec<u8> = (0..2000)
        .flat_map(|at| frame(TEXT, true, chat("lobby", "x", &at.to_string()).to_string().as_bytes()))
        .collect();
    for piece in frames.chunks(7001) {
        ann.send(piece);
    }
    let heard: Vec<_> = (0..2000).map(|_| ann.json_of("chat")).collect();
    assert_eq!(seqs(&heard), (1..=2000).collect::<Vec<_>>());
}

#[test]
fn other_protocols_end_their_own_connection_alone() {
    let files = Files::default();
    let server = files.spawn(&["--metrics"]);
    let mut ann = member(&files, &server, "ann");
    let mut lost = Raw::connect(server.tls_address());
    lost.send(request("GET", "/", &[]).as_bytes());
    let response = lost.response();
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.text().contains("this port speaks TLS; ask it with https://"), "{response:?}");
    assert!(lost.at_end());
    let mut garbage = Raw::connect(server.tls_address());
    garbage.send(&[0; 100]);
    garbage.rest();
    let mut broken = files.certificate.client().open(server.tls_address(), "/ws");
    assert_eq!(broken.json()["type"], "welcome");
    broken.stream.socket().write_all(&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    assert!(broken.try_rest().is_err(), "an alert tells that the record is broken");
    send_json(&mut ann, &chat("lobby", "still here", "1"));
    assert_eq!(ann.json_of("chat")["text"], "still here");
    assert!(server.get("/metrics").text().contains("roomcast_tls_failures_total 2"));
}

#[test]
fn a_handshake_that_does_not_end_is_cut_by_the_timeout() {
    let files = Files::default();
    let server = files.spawn(&["--handshake-timeout", "1s"]);
    let start = Instant::now();
    let mut silent = Raw::connect(server.tls_address());
    let mut slow = Raw::connect(server.tls_address());
    // The beginning of a hello.
    slow.send(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
    let mut mute = files.certificate.client().connect(server.tls_address());
    mute.stream.shake_hands().unwrap();
    for raw in [&mut silent, &mut slow] {
        assert!(raw.at_end());
        assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    }
    // With keys there is an answer.
    assert_eq!(mute.response().status, 408);
    assert!(mute.at_end() && mute.stream.has_been_told_of_the_end());
}

#[test]
fn an_end_is_an_end_whether_it_was_told_or_not() {
    let files = Files::default();
    let server = files.spawn(&["--presence-grace", "0s"]);
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    let mut is_offline = |user: &str| {
        let gone =
            |message: &Value| is(message, "presence") && message["userId"] == user && message["status"] == "offline";
        bob.recv_until(gone);
    };
    let mut ann = member(&files, &server, "ann");
    // The socket stays open.
    ann.stream.say_goodbye();
    is_offline("ann");
    assert!(ann.rest().is_empty() || ann.stream.has_been_told_of_the_end());
    let eve = member(&files, &server, "eve");
    eve.stream.socket().shutdown(Shutdown::Write).unwrap();
    is_offline("eve");
}

/// Refuses everybody with the address that they come from.
struct TellAddress;

impl Authenticator for TellAddress {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        let address = request.extensions().get::<SocketAddr>().map(|address| address.ip().to_string());
        Authentication::Refuse(Refusal::new(http::StatusCode::FORBIDDEN, address.unwrap_or("no address".to_owned())))
    }
}

fn listen_with(host: &mut Host, preamble: Preamble) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let opening = Opening { preamble, security: Security::Tls };
    host.server.listen_with(opening, Listener::Tcp(listener)).unwrap();
    address
}

#[test]
fn the_header_of_a_proxy_comes_before_tls() {
    let files = Files::default();
    let mut config = config();
    config.tls = vec![files.settings()];
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let mut host = Host::build(config, |builder| builder.authenticator(TellAddress));
    let address = listen_with(&mut host, Preamble::ProxyHeader);
    let client = files.certificate.client();
    for header in ["PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", "PROXY UNKNOWN\r\n"] {
        let expected = if header.contains("192") { "192.0.2.7" } else { "127.0.0.1" };
        // With the last cuts nothing, or a part of the hello, comes in the same packet as the header.
        for cut in [0, 1, header.len() - 1, header.len()] {
            host.serve(|| {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_nodelay(true).unwrap();
                socket.write_all(&header.as_bytes()[..cut]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
                socket.write_all(&header.as_bytes()[cut..]).unwrap();
                let mut raw = client.over(socket);
                raw.send(upgrade_request("/ws", &[]).as_bytes());
                assert_eq!(raw.response().text().trim(), expected, "cut at {cut}");
            });
        }
    }
}

#[test]
fn a_server_that_ends_says_so_to_those_with_tls() {
    let files = Files::default();
    let mut server = files.spawn(&[]);
    let mut ann = member(&files, &server, "ann");
    let mut halfway = files.certificate.client().connect(server.tls_address());
    halfway.stream.shake_hands().unwrap();
    server.sigterm();
    assert_eq!(ann.expect_close(), 1001);
    ann.send(&close_frame(1001));
    assert!(ann.at_end() && ann.stream.has_been_told_of_the_end());
    assert!(server.wait_exit().success());
}

#[test]
fn caps_by_address_count_connections_that_speak_tls() {
    let files = Files::default();
    let server = files.spawn(&["--connections-per-address", "2", "--metrics"]);
    // The machine itself is not capped, so the peers come from elsewhere.
    let connect = || Raw::connect_from("127.0.0.2", server.tls_address());
    let crowd = [connect(), connect()];
    assert!(connect().at_end(), "the third is closed before it has said anything");
    let rejected = "roomcast_address_connections_rejected_total 1";
    assert!(server.get("/metrics").text().contains(rejected));
    drop(crowd);
    // Their places are free again.
    wait_until("another one is taken", || {
        let mut raw = files.certificate.client().over(connect().stream);
        raw.stream.shake_hands().is_ok()
    });
}
