//! The promises to a program that embeds the server in its loop.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use mio::net::UnixStream;
use mio::{Interest, Poll, Token, Waker};
use roomcast::CloseReason;
use roomcast::PushError;
use roomcast::bus::Outcome;
use roomcast::{
    Authentication, Authenticator, Caller, Error, HostPublication, Identity, Listener, Notice, Now, Policy, Refusal,
    RoomName, Server, UserId, open_identity,
};
use roomcast::{LISTENERS_MAX, ListenAddress};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::host::{Example, Host, LOOK, OWN, WAKE, config, host_loop, publication, tokens};
use crate::support::{Connect, PATIENCE, Raw, TEXT, frame, request};

#[test]
fn the_example_says_what_comes_by_udp_and_prints_what_is_said() {
    let example = Example::spawn();
    let chat: SocketAddr = example.line("chat on http://").parse().unwrap();
    let udp: SocketAddr = example.line("udp on ").parse().unwrap();
    let mut ann = Connect::to(chat).user("ann").connect();
    ann.join("lobby");
    example.line("Joined {");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"lobby the build is green\n", udp).unwrap();
    let message = ann.recv_type("chat");
    assert_eq!(message["userId"], "udp");
    assert_eq!(message["text"], "the build is green");
    assert_eq!(example.line("lobby 1: "), "udp: the build is green");
    for bad in [&b"lobby"[..], b"", b"lobby ", b"two\xff words", b"{} text"] {
        socket.send_to(bad, udp).unwrap();
        example.line("was dropped: ");
    }
    ann.say("lobby", "I see");
    assert_eq!(example.line("lobby 2: "), "ann: I see");
}

#[test]
fn a_flood_starves_nobody_and_every_turn_is_bounded() {
    const FLOODERS: usize = 12;
    const HOST_MESSAGES: usize = 200;
    // Four events a turn, and the host's is the last of all that may be ready.
    const TURNS_MAX: usize = (FLOODERS + 3).div_ceil(4) + 1;
    let mut config = config();
    (config.hub.message_rate, config.net.accepts_per_turn, config.net.reads_per_turn) = (0, 2, 3);
    (config.net.messages_per_read, config.hub.sends_per_turn) = (8, 5);
    let mut host = Host::new(config);
    let address = host.listen();
    let (mut own, mut sender) = UnixStream::pair().unwrap();
    host.poll.registry().register(&mut own, OWN, Interest::READABLE).unwrap();
    thread::scope(move |scope| {
        for _ in 0..FLOODERS {
            scope.spawn(move || flood(address));
        }
        let deadline = Instant::now() + PATIENCE;
        let (mut handled, mut waited) = (0, 0);
        let (mut most_messages, mut most_sends) = (0, 0);
        while handled < HOST_MESSAGES || host.server.stats().hub.messages_received < 5_000 {
            assert!(Instant::now() < deadline, "{handled} handled; {:?}", host.server);
            if waited == 0 {
                assert_eq!(sender.write(b"!").unwrap(), 1);
            }
            let before = host.server.stats();
            waited += 1;
            if host.turn(LOOK) {
                assert_eq!(own.read(&mut [0; 8]).unwrap(), 1);
                (handled, waited) = (handled + 1, 0);
            }
            assert!(waited < TURNS_MAX, "the host's message was not seen within {waited} turns");
            let now = host.server.stats();
            assert_eq!(now.turns, before.turns + 1);
            assert!(now.net.accepted - before.net.accepted <= 2);
            assert!(now.net.received_bytes - before.net.received_bytes <= 3 * 64 * 1024);
            most_messages = most_messages.max(now.hub.messages_received - before.hub.messages_received);
            most_sends = most_sends.max(now.hub.sends - before.hub.sends);
        }
        // Exactly the budgets: less would mean that nothing was put to the test.
        assert_eq!((most_messages, most_sends), (3 * 8, 5));
        // With the server go the connections, which ends the flood.
        drop(host);
    });
}

/// Chats as fast as the server reads until the connection ends, and reads everything.
fn flood(address: SocketAddr) {
    let mut raw = Raw::open(address, "/ws");
    let mut reader = raw.stream.try_clone().unwrap();
    raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
    let chats = frame(TEXT, true, br#"{"type":"chat","room":"lobby","text":"more and more"}"#).repeat(100);
    let reading = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    while raw.try_send(&chats).is_ok() {}
    // Why it ended does not matter: the other side dropped everything.
    let _ = reading.join().unwrap();
}

#[test]
fn tokens_outside_the_range_are_not_the_servers() {
    let config = config();
    let tokens = tokens(&config);
    let server = Host::new(config).server;
    assert!(server.owns(Token(tokens.start)) && server.owns(Token(tokens.end - 1)));
    assert!(![WAKE, OWN, Token(tokens.start - 1), Token(tokens.end)].map(|token| server.owns(token)).contains(&true));
}

/// Comes, says something, leaves and goes.
fn visit(host: &mut Host) {
    let address = host.listen();
    host.serve(move || {
        let mut ann = Connect::to(address).user("ann").connect();
        ann.join("lobby");
        ann.say("lobby", "hello");
        assert_eq!(ann.recv_type("chat")["text"], "hello");
        ann.send_json(&json!({"type": "leave", "room": "lobby"}));
        ann.recv_type("left");
        assert_eq!(ann.close(), 1000);
    });
    host.turn_until("the end of the visit", |host| host.server.stats().net.sockets == 0);
    host.notices.extend(std::iter::from_fn(|| host.server.poll_notice()));
}

#[test]
fn notices_tell_in_order_what_happened() {
    let mut host = Host::new(config());
    visit(&mut host);
    let [connected, joined, chat, left, disconnected] = host.notices.try_into().unwrap();
    let Notice::Connected { connection, user } = connected else { panic!("{connected:?}") };
    assert_eq!(user.as_str(), "ann");
    let room = RoomName::new("lobby").unwrap();
    assert_eq!(joined, Notice::Joined { connection, user: user.clone(), room: room.clone() });
    let Notice::Chat { room: said_in, seq: 1, json } = chat else { panic!("{chat:?}") };
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((said_in, &json["text"], &json["seq"]), (room.clone(), &json!("hello"), &json!(1)));
    assert_eq!(left, Notice::Left { connection, user: user.clone(), room });
    assert_eq!(disconnected, Notice::Disconnected { connection, user });
}

#[test]
fn a_host_that_wants_no_notices_gets_none() {
    let mut config = config();
    config.notices = false;
    let mut host = Host::new(config);
    visit(&mut host);
    host.server.publish(&publication("hello", None)).unwrap();
    host.turn(LOOK);
    assert_eq!((host.notices.as_slice(), host.server.poll_notice()), (&[][..], None));
}

#[test]
fn publications_of_the_host_are_answered_and_notices_that_it_leaves_lying_are_counted() {
    let mut config = config();
    config.hub.notices_max = 2;
    let mut host = Host::new(config);
    let mut publish = |text, id| host.server.publish(&publication(text, id)).unwrap();
    let tickets =
        [publish("one", Some("a")), publish("one again", Some("a")), publish("two", None), publish("3", None)];
    host.turn(LOOK);
    let published = |at: usize, outcome| Some(Notice::Published { ticket: tickets[at], outcome });
    assert_eq!(host.server.poll_notice(), published(0, Outcome::Accepted(1)));
    assert_eq!(host.server.poll_notice(), published(1, Outcome::Duplicate(1)));
    assert_eq!(host.server.poll_notice(), Some(Notice::Missed(2)));
    assert_eq!(host.server.poll_notice(), None);

    let longest = "x".repeat(64);
    host.server.publish(&publication("id of 64 bytes", Some(&longest))).unwrap();
    let mut refused = |text: &str, id: Option<&str>| match host.server.publish(&publication(text, id)) {
        Err(Error::Command(words)) => words,
        other => panic!("{other:?}"),
    };
    assert!(refused("", None).contains("text is empty"));
    assert_eq!(refused("hello", Some("")), "id of 0 bytes; 1 to 64 are allowed");
    assert_eq!(refused("hello", Some(&(longest + "x"))), "id of 65 bytes; 1 to 64 are allowed");
    assert!(refused(&"x".repeat(16 * 1024), None).ends_with("exceeds 16384"));
    host.server.shutdown();
    assert!(host.server.publish(&publication("late", None)).unwrap_err().to_string().contains("shutting down"));
}

#[test]
fn the_hosts_data_is_held_to_the_bound_of_all_data() {
    let mut host = Host::new(config());
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(4095))).unwrap();
    let error = host.server.publish(&HostPublication { data: Some(data), ..publication("hello", None) }).unwrap_err();
    assert_eq!(error.to_string(), "data of 4097 bytes exceeds 4096");
}

#[test]
fn the_hosts_data_can_be_read_by_everybody() {
    let mut host = Host::new(config());
    let mut refusal = |data: &str| {
        let data = Some(RawValue::from_string(data.to_owned()).unwrap());
        host.server.publish(&HostPublication { data, ..publication("hello", None) }).map_err(|error| error.to_string())
    };
    assert!(refusal(r#"{"a":[1e308]}"#).is_ok());
    assert!(refusal("1e309").is_err_and(|error| error.starts_with("data contains the number 1e309; at most")));
    assert!(refusal(r#""\udfff""#).is_err_and(|error| error.contains("without its other half")));
    let deep = "[".repeat(65) + &"]".repeat(65);
    assert!(refusal(&deep).is_err_and(|error| error.contains("65 levels")));
}

#[test]
fn other_threads_publish_close_and_count() {
    let mut host = Host::new(config());
    let (address, remote) = (host.listen(), host.server.remote());
    let stats = host.serve(move || {
        let mut ann = Connect::to(address).user("ann").connect();
        ann.join("lobby");
        remote.publish(publication("from afar", None)).unwrap();
        assert_eq!(ann.recv_type("chat")["text"], "from afar");
        remote.disconnect_user(UserId::new("ann").unwrap(), CloseReason::EXPELLED).unwrap();
        assert_eq!(ann.expect_close(), 4500);
        let (sender, receiver) = mpsc::channel();
        remote.stats(move |stats| sender.send((stats, thread::current().id())).unwrap()).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap()
    });
    assert_eq!((stats.0.hub.connections, stats.0.hub.messages_delivered), (0, 1));
    assert_eq!(stats.1, thread::current().id(), "the counts are told on the thread of the loop");
    assert!(host.notices.iter().any(|n| matches!(n, Notice::Published { outcome: Outcome::Accepted(1), .. })));
}

#[test]
fn the_longest_reason_of_a_close_arrives_whole_and_a_longer_one_cannot_be_made() {
    let mut host = Host::new(config());
    let address = host.listen();
    let mut ann = host.serve(move || Connect::to(address).user("ann").connect());
    host.turn(LOOK);
    let Some(Notice::Connected { connection, .. }) = host.notices.first() else { panic!("{:?}", host.notices) };
    let longest = "r".repeat(123);
    let error = CloseReason::new(4000, longest.clone() + "r").unwrap_err();
    assert_eq!(error.to_string(), "close reason of 124 bytes exceeds 123");
    host.server.close(*connection, CloseReason::new(4000, longest.clone()).unwrap());
    let frame = host.serve(move || ann.recv_frame(Instant::now() + PATIENCE)).expect("a frame").expect("a whole one");
    let tungstenite::Message::Close(Some(close)) = frame else { panic!("{frame:?}") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4000, longest.as_str()));
}

#[test]
fn a_loop_that_sleeps_for_ever_is_woken_by_another_thread_to_end() {
    let mut host = Host::new(config());
    host.listen();
    host.turn(LOOK);
    assert_eq!(host.server.timeout(), None);
    let remote = host.server.remote();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| remote.shutdown().unwrap());
        host.turn(PATIENCE);
    });
    assert!(host.server.has_ended() && start.elapsed() < PATIENCE, "{:?}", host.server);
    drop(host);
    assert!(matches!(remote.shutdown(), Err(Error::Inbox(PushError::Closed))));
}

#[test]
fn a_full_inbox_is_an_error_until_the_next_turn() {
    let mut config = config();
    config.hub.inbox_messages_max = 2;
    let mut host = Host::new(config);
    let remote = host.server.remote();
    let publish = || remote.publish(publication("hello", None));
    assert!(publish().is_ok() && publish().is_ok());
    assert!(matches!(publish(), Err(Error::Inbox(PushError::Full))));
    host.turn(LOOK);
    publish().unwrap();
}

struct Doorkeeper;

impl Authenticator for Doorkeeper {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        match open_identity(request) {
            Ok(Identity { user: None, .. }) => {
                Authentication::Refuse(Refusal::new(http::StatusCode::UNAUTHORIZED, "guests are not admitted"))
            }
            Ok(identity) => Authentication::Admit(Identity { name: Some("Alice A.".to_owned()), ..identity }),
            Err(refusal) => Authentication::Refuse(refusal),
        }
    }
}

impl Policy for Doorkeeper {
    fn allow_join(&mut self, _caller: &Caller<'_>, room: &RoomName) -> Result<(), String> {
        if room.as_str() == "cellar" { Err("the cellar is closed".to_owned()) } else { Ok(()) }
    }

    fn allow_message(&mut self, _: &Caller<'_>, _: &RoomName, text: &str, _: Option<&str>) -> Result<(), String> {
        if text.contains("darn") { Err("mind your language".to_owned()) } else { Ok(()) }
    }
}

#[test]
fn the_hosts_authenticator_and_policy_decide() {
    let mut host = Host::build(config(), |builder| builder.authenticator(Doorkeeper).policy(Doorkeeper));
    let address = host.listen();
    host.serve(move || {
        let mut stranger = std::net::TcpStream::connect(address).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stranger.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stranger.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("guests are not admitted"), "{answer}");

        let mut alice = Raw::open(address, "/ws?userId=alice");
        let mut say = |message: Value| alice.send(&frame(TEXT, true, message.to_string().as_bytes()));
        say(json!({"type": "join", "room": "cellar", "id": "1"}));
        say(json!({"type": "join", "room": "lobby"}));
        say(json!({"type": "chat", "room": "lobby", "text": "darn", "id": "2"}));
        say(json!({"type": "chat", "room": "lobby", "text": "dear"}));
        let closed = alice.json_of("error");
        assert_eq!((&closed["code"], &closed["message"]), (&json!("forbidden"), &json!("the cellar is closed")));
        let impolite = alice.json_of("error");
        assert_eq!((&impolite["id"], &impolite["message"]), (&json!("2"), &json!("mind your language")));
        let users = Connect::to(address).user("bob").connect().join("lobby")["users"].clone();
        assert!(users.as_array().unwrap().contains(&json!({"userId": "alice", "name": "Alice A."})), "{users}");
        let chat = alice.json_of("chat");
        assert_eq!((&chat["text"], &chat["name"]), (&json!("dear"), &json!("Alice A.")));
    });
}

#[test]
fn listeners_may_be_handed_over() {
    let mut host = Host::new(config());
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    assert_eq!(host.server.listen_on(Listener::Tcp(tcp)).unwrap(), ListenAddress::Tcp(address));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let unix = host.server.listen_on(Listener::Unix(unix)).unwrap();
    assert_eq!(unix, ListenAddress::Unix(Some(path.clone())));
    host.serve(|| {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        let mut unix = std::os::unix::net::UnixStream::connect(&path).unwrap();
        for stream in [&mut tcp as &mut dyn ReadWrite, &mut unix] {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok\n"), "{answer}");
        }
    });
    let error = host.server.listen(address).unwrap_err();
    assert!(matches!(&error, Error::Listen { address: a, .. } if *a == address.to_string()), "{error:?}");
    for _ in 2..LISTENERS_MAX {
        host.listen();
    }
    let error = host.server.listen("127.0.0.1:0".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::TooManyListeners(LISTENERS_MAX)), "{error:?}");
}

#[test]
fn the_file_of_a_unix_socket_is_removed_only_by_the_server_that_bound_it() {
    let mut host = Host::new(config());
    let folder = tempfile::tempdir().unwrap();
    let [own, opened, foreign] = ["own", "opened", "foreign"].map(|name| folder.path().join(name));
    host.server.listen_unix(&own).unwrap();
    host.server.listen_on(Listener::unix(&opened).unwrap()).unwrap();
    let bound = std::os::unix::net::UnixListener::bind(&foreign).unwrap();
    host.server.listen_on(Listener::Unix(bound)).unwrap();
    host.server.shutdown();
    host.turn_until("the end", |host| host.server.has_ended());
    assert_eq!([&own, &opened, &foreign].map(|path| path.exists()), [false, false, true]);
}

#[test]
fn a_listener_that_is_broken_for_good_neither_spins_nor_holds_up_the_others() {
    let mut host = Host::new(config());
    let broken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let copy = socket2::Socket::from(broken.try_clone().unwrap());
    host.server.listen_on(Listener::Tcp(broken)).unwrap();
    let address = host.listen();
    host.turn(LOOK);
    copy.shutdown(std::net::Shutdown::Both).unwrap();
    host.turn_until("accepting fails", |host| host.server.stats().net.accept_pauses > 0);
    let (turns, start) = (host.server.stats().turns, Instant::now());
    host.serve(move || {
        for _ in 0..20 {
            let mut raw = Raw::connect(address);
            raw.send(request("GET", "/healthz", &[]).as_bytes());
            assert_eq!(raw.response().status, 200);
        }
        thread::sleep(LOOK * 10);
    });
    // A few for each request, and one for each time that `serve` looks at the client.
    let turns = host.server.stats().turns - turns;
    assert!(turns < 20 * 6 + 50, "{turns} turns in {:?}", start.elapsed());
    assert!(host.server.timeout().is_some_and(|timeout| !timeout.is_zero()));
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn unusable_settings_are_refused_with_numbers() {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
    let error = Server::builder(config(), host_loop(&poll, &waker, 10..20)).build().unwrap_err();
    assert!(matches!(error, Error::Tokens { found: 10, needed: 50 }), "{error}");
    assert!(Server::builder(config(), host_loop(&poll, &waker, 10..59)).build().is_err());
    assert!(Server::builder(config(), host_loop(&poll, &waker, 10..60)).build().is_ok());
    let mut bad = config();
    bad.hub.users_listed_max = 201;
    let error = Server::builder(bad, host_loop(&poll, &waker, 10..100)).build().unwrap_err();
    assert_eq!(error.to_string(), "big-room is 201; 1 to 200 are allowed");
}
