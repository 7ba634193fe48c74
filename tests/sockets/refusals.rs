//! Refusals of the chat: every mistake has its code, and none of them ends the connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::{KEY, check_refused, exchange, publish_head, publish_text};
use crate::support::chat::{chat, frame_of_json, is, recv_text, send_text, settle, texts};
use crate::support::{CLOSE, Client, PATIENCE, Raw, Server, TEXT, frame, roomcast};

/// A client that has joined the lobby of a server that lets it talk as fast as it likes.
fn alice_in_lobby(flags: &[&str]) -> (Server, Client) {
    let server = Server::spawn(&[&["--message-rate", "0"], flags].concat());
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    settle(&mut alice);
    (server, alice)
}

/// Sends a message that is answered with an error of that code, and with nothing else; returns the error.
#[track_caller]
fn check(client: &mut Client, text: &str, code: &str) -> Value {
    send_text(client, text);
    let shown: String = text.chars().take(120).collect();
    let mut answers = settle(client);
    assert_eq!(answers.len(), 1, "{shown} was answered {answers:?}");
    let error = answers.remove(0);
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{shown} was answered {error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error} does not say why");
    assert_eq!(error["temporary"], false, "{error}");
    error
}

/// The connection is as good as before.
#[track_caller]
fn check_unharmed(client: &mut Client) {
    client.say("lobby", "still here");
    assert_eq!(texts(&settle(client)), ["still here"]);
}

#[test]
fn texts_that_are_no_json_objects_are_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    let deep = "[".repeat(10_000);
    let texts = [
        "",
        " ",
        "hello",
        "{",
        "}",
        "{]",
        "[]",
        "null",
        "1",
        "true",
        "\"chat\"",
        r#"[{"type":"ping"}]"#,
        r#"{"type":"ping"} {"type":"ping"}"#,
        r#"{"type":"ping"},"#,
        r#"{type:"ping"}"#,
        r#"{'type':'ping'}"#,
        r#"{"type":"ping",}"#,
        r#"{"type":"ping","id":}"#,
        "\u{feff}{\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"id\":\"a\nb\"}",
        r#"{"type":"chat","room":"lobby","text":"\x41"}"#,
        r#"{"type":"chat","room":"lobby","text":"x","data":{]}"#,
        r#"{"type":"chat","room":"lobby","text":"x","data":01}"#,
        &deep,
    ];
    for text in texts {
        check(&mut alice, text, "bad_json");
    }
    check_unharmed(&mut alice);
}

#[test]
fn fields_without_names_are_no_message() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    for text in [
        r#"["ping",null,null,null,"1",null,null,null]"#,
        r#"["chat","lobby","hello",null,null,null,null,null]"#,
        r#"["join","other",null,null,null,null,null,null]"#,
    ] {
        let error = check(&mut alice, text, "bad_json");
        assert_eq!(error["message"], "not a JSON object");
    }
    let error = check(&mut alice, r#"{"type":"join","room":"other","since":["epoch",0]}"#, "bad_message");
    assert_eq!(error["message"], "since: not a JSON object");
    check_unharmed(&mut alice);
}

#[test]
fn no_text_of_a_client_or_of_a_close_makes_a_line_of_the_log() {
    let mut command = roomcast();
    command.env("RUST_LOG", "debug").args(["--listen", "127.0.0.1:0", "--api-key", KEY]);
    let server = Server::spawn_command(command, 1);
    let mut alice = Client::connect_as(&server, "alice");
    let forged = "x\n[2026-11-29T00:00:00Z ERROR roomcast] forged \u{1b}[31m\u{202e}";
    for message in [
        json!({"type": "chat", "room": forged, "text": "hello"}),
        json!({"type": "join", "room": forged}),
        json!({"type": "leave", "room": forged}),
        json!({"type": forged}),
        json!({"type": "typing", "room": "lobby", "status": forged}),
        json!({"type": "join", "room": "lobby", "history": forged}),
        json!({"type": "join", "room": "lobby", "since": {"epoch": "e", "seq": forged}}),
    ] {
        alice.send_json(&message);
        alice.recv_type("error");
    }
    let body = json!({"userId": "alice", "reason": forged}).to_string();
    let head = publish_head(body.len(), &[("Connection", "close")]).replace("/api/publish", "/api/disconnect");
    assert_eq!(exchange(server.address(), &head, body.as_bytes()).status, 200);
    assert_eq!(alice.expect_close(), 4500);
    server.wait_for_log("closing with 4500");
    for line in server.log() {
        assert!(line.starts_with("[20") && line.contains("Z ") && !line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
        assert!(!line.starts_with("[2026-11-29T00:00:00Z ERROR"), "{line:?}");
    }
}

#[test]
fn a_lone_surrogate_is_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    for text in [r"\ud800", r"\udc00\ud800", r"\ud800x"] {
        send_text(&mut alice, &format!(r#"{{"type":"chat","room":"lobby","text":"{text}"}}"#));
        let answers = settle(&mut alice);
        let code = answers[0]["code"].as_str().expect("an error");
        assert!(answers.len() == 1 && ["bad_json", "bad_message"].contains(&code), "{text}: {answers:?}");
    }
    check_unharmed(&mut alice);
}

/// What is JSON, but not for every reader of JSON, as the `data` of a message; and what an error says of it.
fn data_that_some_cannot_read() -> Vec<(String, &'static str)> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        (
            r#""\ud800""#.to_owned(),
            r"data contains \ud800 without its other half; only pairs of surrogates are allowed",
        ),
        (r#"{"\udc00\ud800":1}"#.to_owned(), r"data contains \udc00 without"),
        (r#"["\uD83D\u0041"]"#.to_owned(), r"data contains \uD83D without"),
        ("1e999999".to_owned(), "data contains the number 1e999999; at most 1.7976931348623157e308 is allowed"),
        ("[-1E400]".to_owned(), "data contains the number -1E400; "),
        ("9".repeat(400), "data contains the number 99999999999999999999999999999999…; "),
        (nested(65), "data has 65 levels of arrays and objects; 64 are allowed"),
        (nested(2000), "data has 2000 levels of arrays and objects; 64 are allowed"),
        (r#"{"a":"#.repeat(65) + "1" + &"}".repeat(65), "data has 65 levels"),
    ]
}

#[test]
fn data_that_some_receivers_could_not_read_is_refused() {
    let (server, mut alice) = alice_in_lobby(&["--api-key", KEY]);
    for (data, message) in data_that_some_cannot_read() {
        let chat = format!(r#"{{"type":"chat","room":"lobby","text":"x","data":{data}}}"#);
        let error = check(&mut alice, &chat, "bad_message");
        assert!(error["message"].as_str().is_some_and(|found| found.starts_with(message)), "{data}: {error}");
        let body = format!(r#"{{"room":"lobby","text":"x","data":{data}}}"#);
        check_refused(&publish_text(server.address(), &body), 400, "bad_message", &[message]);
    }
    check_unharmed(&mut alice);
}

#[test]
fn unusual_data_that_everybody_can_read_is_passed_on_as_it_is() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    let deepest = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let digits = "9".repeat(300);
    for data in [
        r#""\ud83d\ude00 \\ud800 \" \\""#,
        r#"{"[[[[": "{{{{", "\\":"1e999999"}"#,
        "1e308",
        "-1.7976931348623157e308",
        "1e-999999",
        "[[], [[]], {}, {\"a\": []}]",
        &deepest,
        &digits,
    ] {
        send_text(&mut alice, &format!(r#"{{"type":"chat","room":"lobby","text":"x","data":{data}}}"#));
        let chat = recv_text(&mut alice, "chat");
        assert!(chat.contains(&format!(r#""data":{data},"#)), "{data}: {chat}");
    }
}

#[test]
fn unknown_types_are_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    for kind in ["", "nonsense", "Chat", "CHAT", "welcome", "joined", "presence", "error", "pong", "ack", " chat"] {
        let error = check(
            &mut alice,
            &json!({"type": kind, "room": "lobby", "text": "x", "id": "u"}).to_string(),
            "unknown_type",
        );
        assert_eq!(error.get("userId"), None, "{error}");
    }
    check_unharmed(&mut alice);
}

#[test]
fn fields_that_are_missing_or_of_the_wrong_kind_are_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    let texts = [
        "{}",
        r#"{"room":"lobby","text":"x"}"#,
        r#"{"type":null}"#,
        r#"{"type":1}"#,
        r#"{"type":["chat"]}"#,
        r#"{"type":"join"}"#,
        r#"{"type":"join","room":1}"#,
        r#"{"type":"join","room":null}"#,
        r#"{"type":"join","room":["red"]}"#,
        r#"{"type":"join","room":"red","history":-1}"#,
        r#"{"type":"join","room":"red","history":1.5}"#,
        r#"{"type":"join","room":"red","history":"all"}"#,
        r#"{"type":"join","room":"red","since":7}"#,
        r#"{"type":"join","room":"red","since":{}}"#,
        r#"{"type":"join","room":"red","since":{"epoch":"e"}}"#,
        r#"{"type":"join","room":"red","since":{"seq":1}}"#,
        r#"{"type":"join","room":"red","since":{"epoch":1,"seq":1}}"#,
        r#"{"type":"join","room":"red","since":{"epoch":"e","seq":-1}}"#,
        r#"{"type":"join","room":"red","since":{"epoch":"e","seq":"1"}}"#,
        r#"{"type":"join","room":"red","id":7}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"leave","room":{}}"#,
        r#"{"type":"chat","room":"lobby"}"#,
        r#"{"type":"chat","text":"x"}"#,
        r#"{"type":"chat","room":"lobby","text":null}"#,
        r#"{"type":"chat","room":"lobby","text":7}"#,
        r#"{"type":"chat","room":"lobby","text":["x"]}"#,
        r#"{"type":"chat","room":7,"text":"x"}"#,
        r#"{"type":"chat","room":"lobby","text":"x","id":7}"#,
        r#"{"type":"typing","room":"lobby"}"#,
        r#"{"type":"typing","status":"start"}"#,
        r#"{"type":"typing","room":"lobby","status":"maybe"}"#,
        r#"{"type":"typing","room":"lobby","status":true}"#,
        r#"{"type":"ping","id":7}"#,
        r#"{"type":"ping","id":{}}"#,
    ];
    for text in texts {
        check(&mut alice, text, "bad_message");
    }
    check_unharmed(&mut alice);
}

#[test]
fn values_out_of_bounds_are_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    check(&mut alice, &json!({"type": "chat", "room": "lobby", "text": ""}).to_string(), "bad_message");
    for id in ["", &"x".repeat(65), &"é".repeat(33)] {
        check(&mut alice, &chat("lobby", "x", id).to_string(), "bad_message");
        check(&mut alice, &json!({"type": "ping", "id": id}).to_string(), "bad_message");
        check(&mut alice, &json!({"type": "join", "room": "red", "id": id}).to_string(), "bad_message");
    }
    for history in [json!(1001), json!(u64::MAX)] {
        check(&mut alice, &json!({"type": "join", "room": "red", "history": history}).to_string(), "bad_message");
    }
    let names = [
        "",
        " ",
        "two words",
        "tab\t",
        "line\n",
        "\0",
        "a?b",
        "a&b",
        "a%20b",
        "a\"b",
        "a\\b",
        "<script>",
        "a'b",
        "a,b",
        "😀",
        "zero\u{200b}width",
        "\u{202e}abc",
        &"x".repeat(129),
        &"é".repeat(65),
    ];
    for name in names {
        check(&mut alice, &json!({"type": "join", "room": name}).to_string(), "bad_message");
    }
    check_unharmed(&mut alice);
}

#[test]
fn data_over_its_bound_is_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    let with_data = |length: usize| {
        let data = "x".repeat(length - 2);
        json!({"type": "chat", "room": "lobby", "text": "x", "data": data, "id": length.to_string()}).to_string()
    };
    send_text(&mut alice, &with_data(4096));
    assert_eq!(alice.recv_type("chat")["id"], "4096");
    let error = check(&mut alice, &with_data(4097), "too_large");
    assert_eq!((&error["room"], &error["id"]), (&json!("lobby"), &json!("4097")));
    check_unharmed(&mut alice);
}

#[test]
fn a_room_that_one_has_not_joined_is_refused() {
    let (_server, mut alice) = alice_in_lobby(&[]);
    let error = check(&mut alice, &chat("red", "x", "m-1").to_string(), "not_joined");
    assert_eq!((&error["room"], &error["id"]), (&json!("red"), &json!("m-1")));
    check(&mut alice, r#"{"type":"leave","room":"red"}"#, "not_joined");
    check(&mut alice, r#"{"type":"typing","room":"red","status":"start"}"#, "not_joined");
    let error = check(&mut alice, r#"{"type":"join","room":"lobby","id":"j-1"}"#, "already_joined");
    assert_eq!((&error["room"], &error["id"]), (&json!("lobby"), &json!("j-1")));
    send_text(&mut alice, r#"{"type":"leave","room":"lobby"}"#);
    alice.recv_type("left");
    settle(&mut alice);
    check(&mut alice, &chat("lobby", "x", "m-2").to_string(), "not_joined");
    check(&mut alice, r#"{"type":"leave","room":"lobby"}"#, "not_joined");
    alice.join("lobby");
    settle(&mut alice);
    check_unharmed(&mut alice);
}

#[test]
fn more_rooms_than_allowed_are_refused() {
    let (server, mut alice) = alice_in_lobby(&["--rooms-per-connection", "2"]);
    assert_eq!(alice.welcome["limits"]["roomsPerConnection"], 2);
    alice.join("red");
    settle(&mut alice);
    for _ in 0..3 {
        let error = check(&mut alice, r#"{"type":"join","room":"blue","id":"j"}"#, "too_many_rooms");
        assert_eq!((&error["room"], &error["id"]), (&json!("blue"), &json!("j")));
    }
    check(&mut alice, r#"{"type":"join","room":"red"}"#, "already_joined");
    send_text(&mut alice, r#"{"type":"leave","room":"red"}"#);
    alice.recv_type("left");
    alice.join("blue");
    settle(&mut alice);
    check_unharmed(&mut alice);
    let mut bob = Client::connect_as(&server, "bob");
    assert_eq!(bob.join("blue")["room"], "blue", "the bound is one connection's");
}

#[test]
fn a_text_as_large_as_a_message_may_be_arrives() {
    let (_server, mut alice) = alice_in_lobby(&["--message-bytes", "1KiB"]);
    let bare = json!({"type": "chat", "room": "lobby", "text": ""}).to_string().len();
    let text = "x".repeat(1024 - bare);
    alice.say("lobby", &text);
    assert_eq!(alice.recv_type("chat")["text"], text.as_str());
}

/// Sends `count` numbered messages in one write.
fn burst(raw: &mut Raw, count: usize) {
    let messages = (0..count)
        .flat_map(|number| frame(TEXT, true, chat("lobby", "x", &format!("burst-{number}")).to_string().as_bytes()));
    raw.send(&messages.collect::<Vec<_>>());
}

#[test]
fn a_client_above_the_rate_limit_is_told_once_a_second_and_others_are_not_affected() {
    let server = Server::spawn(&["--message-rate", "5", "--message-burst", "5"]);
    let mut bob = Client::connect_as(&server, "bob");
    assert_eq!((&bob.welcome["limits"]["messageRate"], &bob.welcome["limits"]["messageBurst"]), (&json!(5), &json!(5)));
    bob.join("lobby");
    let mut alice = Raw::open(server.address(), "/ws?userId=alice");
    alice.send(&frame_of_json(&json!({"type": "join", "room": "lobby"})));
    alice.json_of("joined");
    let start = Instant::now();
    burst(&mut alice, 30);

    let mut told = Vec::new();
    let mut heard = Vec::new();
    while let Some(frame) = alice.frame_within(Duration::from_millis(500)) {
        let message = frame.json();
        match message["type"].as_str() {
            Some("error") => told.push(message),
            Some("chat") => heard.push(message),
            _ => assert_eq!(message["type"], "presence", "{message}"),
        }
    }
    let seconds = start.elapsed().as_secs() as usize;
    assert!((1..=1 + seconds).contains(&told.len()), "{seconds} s: {told:?}");
    assert_eq!((&told[0]["code"], &told[0]["temporary"]), (&json!("rate_limited"), &json!(true)), "{told:?}");
    assert!((4..=5 + 5 * (seconds + 1)).contains(&heard.len()), "{} were let through", heard.len());
    bob.say("lobby", "my turn");
    let seen = bob.recv_until(|message| message["text"] == "my turn" || is(message, "error"));
    assert_eq!(texts(&seen).len(), heard.len() + 1);

    let wait = told[0]["retryAfterMs"].as_u64().expect("when to try again");
    assert!((1..=1000).contains(&wait), "{wait} ms at five a second");
    std::thread::sleep(Duration::from_millis(wait));
    alice.send(&frame_of_json(&chat("lobby", "patient", "patient")));
    assert_eq!(alice.json_of("chat")["text"], "my turn");
    assert_eq!(alice.json_of("chat")["text"], "patient");
}

#[test]
fn an_address_that_causes_too_many_deliveries_is_told_when_they_are_worked_off() {
    let server = Server::spawn(&["--deliveries-per-owner", "10", "--metrics"]);
    let mut members: Vec<_> = (0..3).map(|number| Client::connect_as(&server, &format!("user-{number}"))).collect();
    members.iter_mut().for_each(|member| drop(member.join("lobby")));
    // Six deliveries of presence and five of fifteen messages: one passes as long as anything is left.
    for number in 0..5 {
        members[0].send_json(&chat("lobby", "x", &format!("chat-{number}")));
    }
    let told = members[0].recv_until(|message| is(message, "error")).pop().unwrap();
    assert_eq!(
        (&told["code"], &told["temporary"], &told["room"]),
        (&json!("rate_limited"), &json!(true), &json!("lobby"))
    );
    let wait = told["retryAfterMs"].as_u64().expect("when to try again");
    // At most a message of three is owed, and a tenth of a second for each.
    assert!((1..=301).contains(&wait), "{wait} ms");
    // Another connection of the address is refused as well, and may leave.
    members[1].send_json(&json!({"type": "typing", "room": "lobby", "status": "start"}));
    members[1].send_json(&json!({"type": "leave", "room": "lobby", "id": "l"}));
    members[1].recv_until(|message| is(message, "left"));
    std::thread::sleep(Duration::from_millis(wait + 500));
    members[0].send_json(&chat("lobby", "patient", "patient"));
    members[0].recv_until(|message| message["text"] == "patient");
}

#[test]
fn who_floods_is_closed_4501() {
    let server = Server::spawn(&["--message-rate", "5", "--message-burst", "5", "--presence-grace", "100ms"]);
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    let mut alice = Raw::open(server.address(), "/ws?userId=alice");
    alice.send(&frame_of_json(&json!({"type": "join", "room": "lobby"})));
    alice.json_of("joined");
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    let code = loop {
        assert!(Instant::now() < deadline, "{sent} messages were taken");
        burst(&mut alice, 20);
        sent += 20;
        let close = std::iter::from_fn(|| alice.frame_within(Duration::from_millis(100)));
        if let Some(close) = close.into_iter().find(|frame| frame.opcode == CLOSE) {
            break close.close_code();
        }
    };
    assert_eq!(code, 4501);
    assert!(sent > 45, "closed after {sent} messages, which is less than ten bursts of five");
    let seen = bob.recv_until(|message| message["status"] == "offline");
    assert!(!seen.iter().any(|message| is(message, "error")), "{seen:?}");
    bob.say("lobby", "peace");
    bob.recv_until(|message| message["text"] == "peace");
}
