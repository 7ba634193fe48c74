//! Chat: a message reaches all members of its room, once, in order and unchanged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::chat::{chat, frame_of_json, is, presences, recv_text, send_text, seqs, settle, texts};
use crate::support::{Client, Raw, Server};

/// A client that has joined a room.
fn member(server: &Server, user_id: &str, room: &str) -> Client {
    let mut client = Client::connect_as(server, user_id);
    client.join(room);
    client
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

#[test]
fn every_member_gets_the_same_bytes() {
    let server = Server::spawn(&[]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    let before = unix_now().as_millis() as u64;
    alice.send_json(&json!({"type": "chat", "room": "lobby", "text": "hello", "data": {"a": 1}, "id": "m-1"}));
    let copy = recv_text(&mut alice, "chat");
    assert_eq!(recv_text(&mut bob, "chat"), copy);
    let after = unix_now().as_millis() as u64;

    let message: Value = serde_json::from_str(&copy).expect("JSON");
    let ts = message["ts"].as_u64().expect("ts is a whole number");
    assert!((before..=after).contains(&ts), "{ts} is not between {before} and {after}");
    let expected = json!({
        "type": "chat", "room": "lobby", "userId": "alice", "text": "hello", "data": {"a": 1}, "id": "m-1", "ts": ts, "seq": 1,
    });
    assert_eq!(message, expected);

    bob.say("lobby", "hello yourself");
    let copy = recv_text(&mut bob, "chat");
    assert_eq!(recv_text(&mut alice, "chat"), copy);
    let message: Value = serde_json::from_str(&copy).expect("JSON");
    let expected = json!({
        "type": "chat", "room": "lobby", "userId": "bob", "text": "hello yourself", "ts": message["ts"], "seq": 2,
    });
    assert_eq!(message, expected, "a message without data and id");
}

#[test]
fn messages_are_numbered_in_the_order_in_which_all_see_them() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut members: Vec<_> = ["alice", "bob", "carol"].map(|name| member(&server, name, "lobby")).into();
    for number in 0..100 {
        for member in &mut members {
            let text = format!("{} {number}", member.user_id());
            member.say("lobby", &text);
        }
    }
    let mut views = Vec::new();
    for member in &mut members {
        let mut messages = member.recv_until(|message| message["seq"] == 300);
        messages.retain(|message| is(message, "chat"));
        views.push(messages);
    }
    assert_eq!(seqs(&views[0]), (1..=300).collect::<Vec<_>>());
    assert_eq!(views[1], views[0]);
    assert_eq!(views[2], views[0]);
    for name in ["alice", "bob", "carol"] {
        let own = views[0].iter().filter(|message| message["userId"] == name).map(|message| message["text"].clone());
        let said: Vec<_> = (0..100).map(|number| json!(format!("{name} {number}"))).collect();
        assert_eq!(own.collect::<Vec<_>>(), said, "one speaker's messages stay in their order");
    }
}

#[test]
fn user_and_time_of_a_message_are_the_servers() {
    let server = Server::spawn(&[]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    alice.send_json(&json!({
        "type": "chat", "room": "lobby", "text": "it was bob", "userId": "bob", "name": "Bob", "ts": 1, "seq": 99, "status": "online",
    }));
    let copy = recv_text(&mut bob, "chat");
    assert_eq!(copy.matches("\"userId\"").count(), 1, "{copy}");
    let message: Value = serde_json::from_str(&copy).expect("JSON");
    assert_ne!(message["ts"], 1);
    let expected = json!({
        "type": "chat", "room": "lobby", "userId": "alice", "text": "it was bob", "ts": message["ts"], "seq": 1,
    });
    assert_eq!(message, expected);
}

#[test]
fn data_is_passed_on_verbatim() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    let forms = [
        r#"{ "spaces" :  [ 1 ,2 ] , "tab":	1 }"#,
        "{\"line\":\n[\r\n1\n]}",
        "[1.0,1e3,1E+03,-0,0.10,123456789012345678901234567890,0.1234567890123456789012345678901234567890]",
        r#"{"twice":1,"twice":2}"#,
        r#""\u0041\/\u00e9 é \ud83d\ude00 \u2028""#,
        r#"{"type":"error","seq":7,"userId":"mallory","room":"elsewhere"}"#,
        "true",
        "0",
        "\"\"",
        "[]",
        "{}",
        "null",
    ];
    for form in forms {
        send_text(&mut alice, &format!(r#"{{"type":"chat","room":"lobby","text":"x","data":{form}}}"#));
        let copy = recv_text(&mut bob, "chat");
        assert!(copy.contains(&format!("\"data\":{form}")), "{form} became {copy}");
    }
}

#[test]
fn text_of_every_kind_arrives_as_it_was_said() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    let controls: String = (0..0x20u8).chain([0x7f]).map(char::from).collect();
    let texts = [
        r#"quotes " and \ and / and \n"#,
        "\"\\\u{8}\u{c}\n\r\t",
        &controls,
        "</script><script>alert(1)</script><!--",
        "\u{2028}\u{2029}\u{feff}\u{fffd}\u{ffff}\u{200d}\u{202e}",
        "👩‍👩‍👧‍👦 😀 𝒳 \u{10ffff}",
        "é e\u{301} ñ 日本語 العربية",
        " leading and trailing ",
        "\0",
        " ",
    ];
    for text in texts {
        let plain = json!({"type": "chat", "room": "lobby", "text": text}).to_string();
        send_text(&mut alice, &plain);
        assert_eq!(bob.recv_type("chat")["text"], text);
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        send_text(&mut alice, &format!(r#"{{"type":"chat","room":"lobby","text":"{units}"}}"#));
        assert_eq!(bob.recv_type("chat")["text"], text, "with every character escaped");
    }
}

#[test]
fn rooms_on_one_connection_are_separate() {
    let server = Server::spawn(&[]);
    let mut alice = member(&server, "alice", "red");
    alice.join("blue");
    let (mut bob, mut carol) = (member(&server, "bob", "red"), member(&server, "carol", "blue"));
    bob.say("red", "one");
    carol.say("blue", "uno");
    bob.say("red", "two");
    assert_eq!(texts(&bob.recv_until(|message| message["text"] == "two")), ["one", "two"]);
    let mut seen = settle(&mut alice);
    seen.retain(|message| is(message, "chat"));
    let of = |room: &str| seen.iter().filter(|message| message["room"] == room).cloned().collect::<Vec<_>>();
    assert_eq!((texts(&of("red")), seqs(&of("red"))), (vec!["one", "two"], vec![1, 2]));
    assert_eq!((texts(&of("blue")), seqs(&of("blue"))), (vec!["uno"], vec![1]));
    let seen = settle(&mut carol);
    assert!(seen.iter().all(|message| message["room"] == "blue"), "{seen:?}");
}

#[test]
fn join_and_chat_may_come_in_one_write() {
    let server = Server::spawn(&[]);
    let mut raw = Raw::open(server.address(), "/ws?userId=alice");
    let mut bytes = Vec::new();
    for room in ["red", "blue"] {
        bytes.extend(frame_of_json(&json!({"type": "join", "room": room})));
        bytes.extend(frame_of_json(&chat(room, "first words", &format!("{room}-1"))));
        bytes.extend(frame_of_json(&chat(room, "more words", &format!("{room}-2"))));
    }
    raw.send(&bytes);
    // The copy acknowledges a message. Where `joined` already counts it, an `ack` does.
    let mut told = Vec::new();
    while told.len() < 4 {
        let message = raw.json();
        assert_ne!(message["type"], "error", "{message}");
        if is(&message, "chat") || is(&message, "ack") {
            told.push((message["id"].as_str().expect("an id").to_owned(), message["seq"].as_u64()));
        }
    }
    told.sort();
    let expected = [("blue-1", 1), ("blue-2", 2), ("red-1", 1), ("red-2", 2)];
    assert_eq!(told, expected.map(|(id, seq)| (id.to_owned(), Some(seq))));
}

#[test]
fn messages_before_a_leave_arrive_before_left() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut bob = member(&server, "bob", "lobby");
    let mut alice = Raw::open(server.address(), "/ws?userId=alice");
    alice.send(&frame_of_json(&json!({"type": "join", "room": "lobby"})));
    alice.json_of("joined");
    for number in 0..50 {
        bob.say("lobby", &format!("bob {number}"));
    }
    bob.recv_until(|message| message["text"] == "bob 49");
    let mut bytes: Vec<_> =
        (0..50).flat_map(|number| frame_of_json(&chat("lobby", "alice", &number.to_string()))).collect();
    bytes.extend(frame_of_json(&json!({"type": "leave", "room": "lobby", "id": "bye"})));
    bytes.extend(frame_of_json(&chat("lobby", "too late", "late")));
    alice.send(&bytes);

    let mut told = Vec::new();
    loop {
        let message = alice.json();
        match message["type"].as_str() {
            Some("chat" | "ack") => told.push(message["seq"].as_u64().expect("a seq")),
            Some("left") => {
                assert_eq!(message, json!({"type": "left", "room": "lobby", "id": "bye"}));
                break;
            }
            Some("error") => assert_eq!((&message["code"], &message["id"]), (&json!("not_joined"), &json!("late"))),
            _ => assert_eq!(message["type"], "presence", "{message}"),
        }
    }
    told.sort_unstable();
    assert_eq!(told, (1..=100).collect::<Vec<_>>());
    bob.recv_until(|message| message["status"] == "offline");
    bob.say("lobby", "after");
    bob.recv_until(|message| message["text"] == "after");
    alice.send(&frame_of_json(&json!({"type": "ping", "id": "last"})));
    loop {
        let message = alice.json();
        match message["type"].as_str() {
            Some("pong") => break,
            Some("error") => assert_eq!(message["code"], "not_joined", "{message}"),
            _ => panic!("{message} after `left`"),
        }
    }
}

#[test]
fn one_may_leave_and_come_back() {
    let server = Server::spawn(&[]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    alice.send_json(&json!({"type": "leave", "room": "lobby"}));
    assert_eq!(alice.recv_type("left"), json!({"type": "left", "room": "lobby"}));
    bob.say("lobby", "unheard");
    bob.recv_type("chat");
    assert_eq!(settle(&mut alice), Vec::<Value>::new());
    assert_eq!(alice.join("lobby")["seq"], 1);
    bob.say("lobby", "heard");
    let message = alice.recv_type("chat");
    assert_eq!((&message["text"], &message["seq"]), (&json!("heard"), &json!(2)));
}

/// Says something in `lobby`, sends `requests` in the same write, and compares the answers: types, ids and codes.
#[track_caller]
fn check_told_after_a_chat(requests: &[Value], expected: &[Value]) {
    let server = Server::spawn(&[]);
    let mut alice = Raw::open(server.address(), "/ws?userId=alice");
    alice.send(&frame_of_json(&json!({"type": "join", "room": "lobby"})));
    alice.json_of("joined");
    // In one write, so that the message is on its way to the bus when the leave comes.
    let mut bytes = frame_of_json(&chat("lobby", "last words", "words"));
    requests.iter().for_each(|request| bytes.extend(frame_of_json(request)));
    alice.send(&bytes);
    let mut told = Vec::new();
    while told.len() < expected.len() {
        let message = alice.json();
        if message["type"] != "presence" {
            told.push(json!([message["type"], message["id"], message["code"]]));
        }
    }
    assert_eq!(told, expected);
    alice.send(&frame_of_json(&json!({"type": "ping"})));
    let next = std::iter::repeat_with(|| alice.json()).find(|message| message["type"] != "presence");
    assert_eq!(next, Some(json!({"type": "pong"})));
}

fn leave(id: &str) -> Value {
    json!({"type": "leave", "room": "lobby", "id": id})
}

fn join(id: &str) -> Value {
    json!({"type": "join", "room": "lobby", "id": id})
}

#[test]
fn a_join_right_behind_a_leave_waits_for_it() {
    check_told_after_a_chat(
        &[leave("l1"), join("j2")],
        &[json!(["chat", "words", null]), json!(["left", "l1", null]), json!(["joined", "j2", null])],
    );
    check_told_after_a_chat(
        &[leave("l1"), join("j2"), join("j3")],
        &[
            json!(["error", "j3", "already_joined"]),
            json!(["chat", "words", null]),
            json!(["left", "l1", null]),
            json!(["joined", "j2", null]),
        ],
    );
}

#[test]
fn a_leave_behind_a_join_that_waits_for_a_leave_takes_it_back() {
    check_told_after_a_chat(
        &[leave("l1"), join("j2"), leave("l3"), join("j4"), chat("lobby", "too late", "late")],
        &[
            json!(["error", "j4", "room_busy"]),
            json!(["error", "late", "not_joined"]),
            json!(["chat", "words", null]),
            json!(["left", "l1", null]),
            json!(["left", "l3", null]),
        ],
    );
}

#[test]
fn an_id_said_again_is_acknowledged_and_not_delivered_again() {
    let server = Server::spawn(&[]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    let mut other_tab = member(&server, "alice", "lobby");
    alice.send_json(&chat("lobby", "once", "m-1"));
    assert_eq!(alice.recv_type("chat")["seq"], 1);
    let again = json!({"type": "ack", "room": "lobby", "id": "m-1", "seq": 1, "duplicate": true});

    alice.send_json(&chat("lobby", "once", "m-1"));
    assert_eq!(alice.recv_type("ack"), again);
    other_tab.send_json(&chat("lobby", "other words do not matter", "m-1"));
    assert_eq!(other_tab.recv_type("ack"), again, "from another connection of the same user");
    alice.send_json(&json!({"type": "leave", "room": "lobby"}));
    alice.recv_type("left");
    alice.join("lobby");
    alice.send_json(&chat("lobby", "once", "m-1"));
    assert_eq!(alice.recv_type("ack"), again, "after it has left and come back");
    assert_eq!(texts(&settle(&mut bob)), ["once"]);

    bob.send_json(&chat("lobby", "an id of bob's own", "m-1"));
    assert_eq!(bob.recv_type("chat")["seq"], 2, "from another user");
    alice.join("elsewhere");
    alice.send_json(&chat("elsewhere", "in another room", "m-1"));
    let message = alice.recv_until(|message| message["room"] == "elsewhere" && is(message, "chat")).pop();
    assert_eq!(message.expect("the one that was waited for")["seq"], 1, "in another room");
    let acks = settle(&mut alice).into_iter().filter(|message| is(message, "ack")).collect::<Vec<_>>();
    assert_eq!(acks, Vec::<Value>::new(), "the copy is the acknowledgement");
}

#[test]
fn typing_reaches_the_others_and_no_history() {
    let server = Server::spawn(&[]);
    let (mut alice, mut bob) = (member(&server, "alice", "lobby"), member(&server, "bob", "lobby"));
    for status in ["start", "start", "stop"] {
        alice.send_json(&json!({"type": "typing", "room": "lobby", "status": status, "userId": "carol"}));
        let expected = json!({"type": "typing", "room": "lobby", "userId": "alice", "status": status});
        assert_eq!(bob.recv_type("typing"), expected);
    }
    alice.say("lobby", "done");
    assert_eq!(bob.recv_type("chat")["seq"], 1);
    let mut carol = Client::connect_as(&server, "carol");
    carol.send_json(&json!({"type": "join", "room": "lobby", "history": 10}));
    let mut seen = carol.recv_until(|message| is(message, "joined"));
    seen.extend(settle(&mut carol));
    assert!(!seen.iter().any(|message| is(message, "typing")), "{seen:?}");
}

#[test]
fn a_ping_is_answered_with_its_id() {
    let server = Server::spawn(&[]);
    let mut alice = Client::connect(&server);
    let longest = "x".repeat(64);
    for id in ["1", "é\u{2028}\"", &longest] {
        alice.send_json(&json!({"type": "ping", "id": id}));
        assert_eq!(alice.recv(), json!({"type": "pong", "id": id}));
    }
    send_text(&mut alice, r#"{"type":"ping"}"#);
    assert_eq!(alice.recv(), json!({"type": "pong"}));
}

#[test]
fn names_may_be_of_any_script() {
    let server = Server::spawn(&[]);
    let longest = "x".repeat(128);
    for name in ["a", "Café", "日本語", "комната-7", "_a-b.c:d@e~f+g#h=i/j", "٣", &longest] {
        let user_id: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut client = Client::connect_as(&server, &user_id);
        assert_eq!(client.user_id(), name);
        let joined = client.join(name);
        assert_eq!((&joined["room"], &joined["users"]), (&json!(name), &json!([])), "who was there before");
        client.say(name, "hello");
        let message = client.recv_type("chat");
        assert_eq!((&message["room"], &message["userId"]), (&json!(name), &json!(name)));
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let server = Server::spawn(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    send_text(&mut alice, r#"{"new":[{"deep":{}}],"room":"lobby","type":"join","id":"j","colour":"red"}"#);
    assert_eq!(alice.recv_type("joined")["id"], "j");
    send_text(&mut alice, r#" { "text" : "hi" , "mentions" : ["bob"], "room":"lobby","type":"chat" } "#);
    let message = alice.recv_type("chat");
    assert_eq!((&message["text"], message.get("mentions")), (&json!("hi"), None));
}

#[test]
fn four_types_are_enough_for_a_client() {
    let server = Server::spawn(&[]);
    let known = |messages: Vec<Value>| -> Vec<Value> {
        let known = ["chat", "join", "presence", "error"];
        messages.into_iter().filter(|message| known.iter().any(|kind| is(message, kind))).collect()
    };
    let mut raw = Raw::open(server.address(), "/ws?userId=simple");
    raw.send(&frame_of_json(&json!({"type": "join", "room": "lobby"})));
    raw.send(&frame_of_json(&json!({"type": "chat", "room": "lobby", "text": "anybody here?"})));
    let mut seen = Vec::new();
    while !seen.iter().any(|message| is(message, "chat")) {
        seen.extend(known(vec![raw.json()]));
    }
    assert_eq!((presences(&seen), texts(&seen)), (vec![("simple", "online")], vec!["anybody here?"]));

    let mut bob = member(&server, "bob", "lobby");
    bob.say("lobby", "me");
    bob.send_json(&json!({"type": "leave", "room": "lobby"}));
    bob.recv_type("left");
    raw.send(&frame_of_json(&json!({"type": "chat", "room": "nowhere", "text": "x"})));
    seen.clear();
    while !(presences(&seen).len() == 2 && seen.iter().any(|message| is(message, "error"))) {
        seen.extend(known(vec![raw.json()]));
    }
    assert_eq!((presences(&seen), texts(&seen)), (vec![("bob", "online"), ("bob", "offline")], vec!["me"]));
}
