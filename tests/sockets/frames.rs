//! WebSocket frames as no well-behaved library would send them: split, fragmented, malformed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::host::{self, Host};
use crate::support::{
    BINARY, CLOSE, CONTINUATION, Client, Connect, PATIENCE, PING, PONG, Raw, Server, TEXT, close_frame, frame,
    frame_of, upgrade_request, wait_until,
};

/// The largest message that the servers of this file accept.
const MESSAGE_BYTES: usize = 1024;

fn server() -> Server {
    Server::spawn(&["--message-bytes", "1KiB", "--data-bytes", "1KiB", "--message-rate", "0"])
}

/// A connection that has been welcomed.
fn open(server: &Server) -> Raw {
    let mut raw = Raw::open(server.address(), "/ws");
    assert_eq!(raw.json()["type"], "welcome");
    raw
}

/// A message that is answered by a pong with the same id.
fn ping(id: &str) -> Vec<u8> {
    json!({"type": "ping", "id": id}).to_string().into_bytes()
}

/// The server answers `input`, a message of [`ping`], in whatever frames it comes.
#[track_caller]
fn check_pong(raw: &mut Raw, input: &[u8], id: &str) {
    raw.send(input);
    assert_eq!(raw.json(), json!({"type": "pong", "id": id}));
}

/// The server answers `input` with a Close of code `expected`, and sends nothing after it.
#[track_caller]
fn check(server: &Server, what: &str, input: &[u8], expected: u16) {
    let mut raw = open(server);
    raw.send(input);
    assert_eq!(raw.expect_close(), expected, "{what}");
    let _ = raw.try_send(&close_frame(expected));
    assert!(raw.at_end(), "{what}: something follows the Close");
}

#[test]
fn a_message_may_be_fragmented() {
    let server = server();
    let mut raw = open(&server);
    let message = ping("a");
    for at in 0..=message.len() {
        let (start, end) = message.split_at(at);
        check_pong(&mut raw, &[frame(TEXT, false, start), frame(CONTINUATION, true, end)].concat(), "a");
    }
    let mut fragments = frame(TEXT, false, b"");
    fragments.extend(message.iter().flat_map(|byte| frame(CONTINUATION, false, &[*byte])));
    fragments.extend(frame(CONTINUATION, true, b""));
    check_pong(&mut raw, &fragments, "a");
}

#[test]
fn a_character_may_be_split_between_fragments() {
    let server = server();
    let mut raw = open(&server);
    let message = ping("日本𝄞");
    for at in 0..=message.len() {
        let (start, end) = message.split_at(at);
        check_pong(&mut raw, &[frame(TEXT, false, start), frame(CONTINUATION, true, end)].concat(), "日本𝄞");
    }
}

#[test]
fn a_ping_between_fragments_is_answered_at_once() {
    let server = server();
    let mut raw = open(&server);
    let message = ping("a");
    raw.send(&[frame(TEXT, false, &message[..5]), frame(PING, true, b"between")].concat());
    let pong = raw.frame();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"between"[..]));
    check_pong(&mut raw, &frame(CONTINUATION, true, &message[5..]), "a");
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let server = server();
    let mut raw = open(&server);
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.send(&frame(PING, true, payload));
        let pong = raw.frame();
        assert_eq!((pong.fin, pong.opcode, pong.payload.as_slice()), (true, PONG, payload));
    }
}

#[test]
fn an_unasked_pong_is_ignored() {
    let server = server();
    let mut raw = open(&server);
    check_pong(&mut raw, &[frame(PONG, true, b"unasked"), frame(TEXT, true, &ping("a"))].concat(), "a");
}

#[test]
fn frames_may_be_split_at_any_byte() {
    crate::support::raise_file_limit();
    let server = server();
    let message = ping("a");
    let bytes = [
        frame(TEXT, false, &message[..7]),
        frame(PING, true, b"between"),
        frame(CONTINUATION, true, &message[7..]),
        frame(TEXT, true, &[ping("b"), vec![b' '; 200]].concat()),
    ]
    .concat();
    let mut connections: Vec<_> = (1..bytes.len()).map(|at| (at, open(&server))).collect();
    for (at, raw) in &mut connections {
        raw.send(&bytes[..*at]);
    }
    // The server has answered another request, so it has read the first parts before the second ones come.
    assert_eq!(server.get("/healthz").status, 200);
    for (at, raw) in &mut connections {
        raw.send(&bytes[*at..]);
    }
    for (at, raw) in &mut connections {
        assert_eq!(raw.frame().payload, b"between", "split at {at}");
        assert_eq!(raw.json(), json!({"type": "pong", "id": "a"}), "split at {at}");
        assert_eq!(raw.json(), json!({"type": "pong", "id": "b"}), "split at {at}");
    }
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let server = server();
    let mut raw = open(&server);
    for byte in frame(TEXT, true, &[ping("a"), vec![b' '; 300]].concat()) {
        raw.send(&[byte]);
    }
    assert_eq!(raw.json(), json!({"type": "pong", "id": "a"}));
}

#[test]
fn many_frames_in_one_write_are_answered_in_order() {
    let server = server();
    let mut raw = open(&server);
    let frames: Vec<_> = (0..500).flat_map(|number| frame(TEXT, true, &ping(&number.to_string()))).collect();
    raw.send(&frames);
    for number in 0..500 {
        assert_eq!(raw.json(), json!({"type": "pong", "id": number.to_string()}));
    }
}

#[test]
fn a_message_at_the_limit_is_accepted_and_one_above_is_closed_1009() {
    let server = server();
    let padded = |length: usize| {
        let mut message = ping("a");
        message.resize(length, b' ');
        message
    };
    let mut raw = open(&server);
    check_pong(&mut raw, &frame(TEXT, true, &padded(MESSAGE_BYTES)), "a");
    let whole = padded(MESSAGE_BYTES);
    check_pong(&mut raw, &[frame(TEXT, false, &whole[..600]), frame(CONTINUATION, true, &whole[600..])].concat(), "a");

    check(&server, "one frame", &frame(TEXT, true, &padded(MESSAGE_BYTES + 1)), 1009);
    let fragments = [frame(TEXT, false, &padded(600)), frame(CONTINUATION, true, &[b' '; 425])].concat();
    check(&server, "fragments", &fragments, 1009);
    let endless: Vec<_> = (0..100).flat_map(|_| frame(CONTINUATION, false, &[b' '; 100])).collect();
    check(&server, "endless fragments", &[frame(TEXT, false, b" "), endless].concat(), 1009);
}

#[test]
fn an_oversized_frame_is_closed_1009_before_its_payload_is_sent() {
    let server = server();
    for length in [MESSAGE_BYTES as u64 + 1, 1 << 40, i64::MAX as u64] {
        let mut head = vec![0x81, 0xff];
        head.extend(length.to_be_bytes());
        head.extend([1, 2, 3, 4]);
        check(&server, &format!("a frame of {length} bytes"), &head, 1009);
    }
}

#[test]
fn text_that_is_not_utf_8_is_closed_1007() {
    let server = server();
    let bad: [&[u8]; 6] = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok \xce", b"\xe2\x82"];
    for bytes in bad {
        check(&server, &format!("{bytes:x?} whole"), &frame(TEXT, true, bytes), 1007);
        for at in 0..=bytes.len() {
            let (start, end) = bytes.split_at(at);
            let fragments = [frame(TEXT, false, start), frame(CONTINUATION, true, end)].concat();
            check(&server, &format!("{bytes:x?} split at {at}"), &fragments, 1007);
        }
    }
}

/// The server answers the beginning of a frame, or of a message, with 1007 before the rest comes; without the last byte it
/// waits for more.
#[track_caller]
fn check_bad_at_once(server: &Server, beginning: &[u8], what: &str) {
    let (last, before) = beginning.split_last().expect("a byte that is bad");
    let mut raw = open(server);
    raw.send(before);
    // The answer on a younger connection shows that the server has read what came before, and it has not closed.
    check_pong(&mut open(server), &frame(TEXT, true, &ping("a")), "a");
    assert!(raw.frame_within(Duration::from_millis(20)).is_none(), "{what}: closed too early");
    raw.send(&[*last]);
    assert_eq!(raw.expect_close(), 1007, "{what}");
}

#[test]
fn text_that_is_not_utf_8_is_closed_when_its_first_bad_byte_comes() {
    let server = server();
    let good = "κόσμε".as_bytes();
    for bad in [&b"\xf4\x90"[..], b"\xff", b"\xed\xa0", b"\xe6\x97a"] {
        let text = [good, bad, b"edited, and more than that"].concat();
        let cut = text.len() - 26;
        // The frame is cut behind the byte.
        let whole = frame(TEXT, true, &text);
        check_bad_at_once(&server, &whole[..whole.len() - 26], &format!("{bad:x?} of a frame"));
        // So is a fragment, which goes on in the middle of a character.
        let (start, end) = text.split_at(cut - 1);
        let fragments =
            [frame(TEXT, false, start), frame(PING, true, b"\xff"), frame(CONTINUATION, true, end)].concat();
        let mut raw = open(&server);
        raw.send(&fragments[..fragments.len() - 26]);
        assert_eq!(raw.frame().opcode, PONG);
        assert_eq!(raw.expect_close(), 1007, "{bad:x?} of a fragment");
    }
}

#[test]
fn bytes_that_are_no_text_are_not_looked_at() {
    let server = server();
    for (what, input, code) in [
        ("binary", frame(BINARY, true, b"\xff\xff"), 1003),
        ("reserved bits", frame_of(0xc1, Some([1, 2, 3, 4]), b"\xff\xff"), 1002),
        ("without a mask", frame_of(0x81, None, b"\xff\xff"), 1002),
    ] {
        let mut raw = open(&server);
        raw.send(&input[..input.len() - 1]);
        check_pong(&mut open(&server), &frame(TEXT, true, &ping("a")), "a");
        raw.send(&input[input.len() - 1..]);
        assert_eq!(raw.expect_close(), code, "{what}");
    }
}

#[test]
fn a_binary_message_is_closed_1003() {
    let server = server();
    check(&server, "whole", &frame(BINARY, true, b"x"), 1003);
    check(&server, "empty", &frame(BINARY, true, b""), 1003);
    check(&server, "fragmented", &[frame(BINARY, false, b"x"), frame(CONTINUATION, true, b"y")].concat(), 1003);
}

#[test]
fn what_the_protocol_forbids_is_closed_1002() {
    let server = server();
    let mask = Some([1, 2, 3, 4]);
    check(&server, "an unmasked frame", &frame_of(0x81, None, b"{}"), 1002);
    check(&server, "an unmasked ping", &frame_of(0x89, None, b""), 1002);
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        check(&server, &format!("reserved bits {reserved:#x}"), &frame_of(0x81 | reserved, mask, b"{}"), 1002);
        check(&server, &format!("reserved bits {reserved:#x} of a ping"), &frame_of(0x89 | reserved, mask, b""), 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&server, &format!("opcode {opcode}"), &frame(opcode, true, b""), 1002);
        check(&server, &format!("opcode {opcode} with a payload"), &frame(opcode, true, b"x"), 1002);
    }
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        check(&server, &format!("a fragmented {name}"), &frame(opcode, false, b""), 1002);
        check(&server, &format!("a {name} of 126 bytes"), &frame(opcode, true, &[b'x'; 126]), 1002);
    }
    check(&server, "a continuation of nothing", &frame(CONTINUATION, true, b"x"), 1002);
    check(&server, "an unfinished continuation of nothing", &frame(CONTINUATION, false, b"x"), 1002);
    let restarted = [frame(TEXT, false, b"{"), frame(TEXT, true, b"}")].concat();
    check(&server, "a message within a message", &restarted, 1002);
    let after_whole = [frame(TEXT, true, &ping("a")), frame(CONTINUATION, true, b"x")].concat();
    check(&server, "a continuation of a whole message", &after_whole, 1002);
}

#[test]
fn answers_to_what_came_before_a_close_go_first() {
    let server = server();
    let hello = [frame(TEXT, true, &ping("a")), frame(TEXT, true, br#"{"type":"dance"}"#)].concat();
    for (what, end, code) in [
        ("a frame that is none", vec![0xff; 16], 1002),
        ("a binary message", frame(BINARY, true, b"x"), 1003),
        ("text that is not UTF-8", frame(TEXT, true, b"\xff"), 1007),
        ("a message that is too large", frame(TEXT, true, &[b'x'; MESSAGE_BYTES + 1]), 1009),
        ("a Close", close_frame(1000), 1000),
    ] {
        let mut raw = open(&server);
        raw.send(&[&*hello, &end].concat());
        assert_eq!(raw.json(), json!({"type": "pong", "id": "a"}), "{what}");
        assert_eq!(raw.json()["code"], "unknown_type", "{what}");
        assert_eq!(raw.frame().close_code(), code, "{what}");
    }
    // Even behind the head of the handshake.
    let mut raw = Raw::connect(server.address());
    raw.send(&[upgrade_request("/ws", &[]).as_bytes(), &hello, &[0xff; 16]].concat());
    raw.upgraded();
    let types = [(); 3].map(|()| raw.json()["type"].as_str().map(str::to_owned));
    assert_eq!(types.map(Option::unwrap_or_default), ["welcome", "pong", "error"]);
    assert_eq!(raw.frame().close_code(), 1002);
}

#[test]
fn messages_before_a_violation_reach_the_others() {
    let server = server();
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    let mut raw = open(&server);
    let join = json!({"type": "join", "room": "lobby"}).to_string();
    let chat = json!({"type": "chat", "room": "lobby", "text": "last words"}).to_string();
    raw.send(
        &[frame(TEXT, true, join.as_bytes()), frame(TEXT, true, chat.as_bytes()), frame(BINARY, true, b"x")].concat(),
    );
    assert_eq!(raw.expect_close(), 1003);
    assert_eq!(alice.recv_type("chat")["text"], "last words");
}

#[test]
fn bad_json_is_answered_and_the_connection_stays() {
    let server = server();
    let mut raw = open(&server);
    for bad in ["", " ", "not json", "[]", "null", "42", "\"x\"", "{", "{\"type\":\"ping\"", "\u{feff}{}"] {
        raw.send(&frame(TEXT, true, bad.as_bytes()));
        let error = raw.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_json")), "for {bad:?}");
        assert_eq!(error["temporary"], false, "for {bad:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "for {bad:?}");
    }
    check_pong(&mut raw, &frame(TEXT, true, &ping("a")), "a");
}

#[test]
fn deeply_nested_json_hurts_nobody() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut raw = open(&server);
    for bad in ["[".repeat(16_000), "{\"a\":".repeat(3_000), format!("{{\"type\":{}1", "[".repeat(15_000))] {
        raw.send(&frame(TEXT, true, bad.as_bytes()));
        let error = raw.json();
        let code = error["code"].as_str().unwrap_or_default();
        assert!(["bad_json", "bad_message"].contains(&code), "{error}");
    }
    check_pong(&mut raw, &frame(TEXT, true, &ping("a")), "a");
}

/// Joins a room and never reads: what the others say there must pile up on the server's side of the socket.
fn slow_member(server: &Server, room: &str) -> Client {
    let mut client = Client::build(server).small_receive_buffer().user("slow").connect();
    client.join(room);
    client
}

/// Sends messages of 16 kB, each acknowledged by its own copy, `count` times.
fn fill(server: &Server, room: &str, count: usize) {
    let mut talker = Client::connect_as(server, "talker");
    talker.join(room);
    let text = "x".repeat(16_000);
    for number in 0..count {
        talker.say(room, &text);
        let copy = talker.recv_type("chat");
        assert_eq!(copy["seq"], json!(number + 1));
    }
}

#[test]
fn a_ping_is_answered_even_when_a_backlog_fills_the_socket() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut slow = slow_member(&server, "lobby");
    fill(&server, "lobby", 40);
    slow.send(tungstenite::Message::Ping(b"behind the backlog".as_slice().into()));
    let deadline = Instant::now() + PATIENCE;
    let mut messages = 0;
    loop {
        match slow.recv_frame(deadline) {
            Some(Ok(tungstenite::Message::Pong(payload))) => {
                assert_eq!(payload, b"behind the backlog".as_slice());
                break;
            }
            Some(Ok(_)) => messages += 1,
            other => panic!("{other:?} instead of a pong, after {messages} messages"),
        }
    }
}

/// Sends garbage until the connection ends.
fn send_garbage(mut raw: Raw) {
    let garbage: Vec<u8> = (0..65_536u32).map(|index| (index * 31 + index / 251) as u8).collect();
    let deadline = Instant::now() + PATIENCE;
    while raw.try_send(&garbage).is_ok() {
        assert!(Instant::now() < deadline, "the server reads garbage for ever");
    }
}

#[test]
fn garbage_without_end_hurts_nobody() {
    let mut config = host::config();
    config.hub.message_rate = 0;
    config.timing.close_timeout = Duration::from_secs(1);
    let mut host = Host::new(config);
    let address = host.listen();
    host.serve(|| {
        let vandals: Vec<_> = (0..4)
            .map(|number| {
                // Half of them send garbage instead of a request, the others instead of frames.
                let connect = move || if number % 2 == 0 { Raw::connect(address) } else { Raw::open(address, "/ws") };
                std::thread::spawn(move || send_garbage(connect()))
            })
            .collect();
        let mut alice = Connect::to(address).user("alice").connect();
        let mut bob = Connect::to(address).user("bob").connect();
        alice.join("lobby");
        bob.join("lobby");
        let mut rounds = 0;
        wait_until("the vandals are cut off", || {
            rounds += 1;
            alice.say("lobby", &format!("round {rounds}"));
            assert_eq!(bob.recv_type("chat")["text"], format!("round {rounds}"));
            vandals.iter().all(std::thread::JoinHandle::is_finished)
        });
        for vandal in vandals {
            vandal.join().expect("a vandal is cut off");
        }
    });
}

#[test]
fn unknown_types_and_fields_are_survived() {
    let server = server();
    let mut raw = open(&server);
    raw.send(&frame(TEXT, true, br#"{"type":"dance","room":"lobby"}"#));
    assert_eq!(raw.json()["code"], "unknown_type");
    for bad in [json!({}), json!({"type": 1}), json!({"type": "join"}), json!({"type": "chat", "room": 1, "text": "x"})]
    {
        raw.send(&frame(TEXT, true, bad.to_string().as_bytes()));
        let error: Value = raw.json();
        assert_eq!((&error["type"], &error["temporary"]), (&json!("error"), &json!(false)), "for {bad}");
    }
    raw.send(&frame(TEXT, true, br#"{"type":"ping","id":"a","colour":"green"}"#));
    assert_eq!(raw.json(), json!({"type": "pong", "id": "a"}));
}
