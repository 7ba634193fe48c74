//! The JSON of clients.

use roomcast::internals::protocol::ClientMessage;
use serde_json::{Value, json};

use crate::embedded::{Embedded, Peer, config};
use crate::mutation::Corpus;
use crate::run::run;
use crate::support::{TEXT, frame, upgrade_request};
use crate::tables::error_codes;

const TYPES: [&str; 12] = [
    "joined",
    "left",
    "chat",
    "deleted",
    "ack",
    "presence",
    "members",
    "typing",
    "history",
    "refreshed",
    "pong",
    "error",
];

fn corpus() -> Corpus {
    let inputs = [
        r#"{"type":"join","room":"lobby","history":10,"id":"1"}"#,
        r#"{"type":"join","room":"team-ü","since":{"epoch":"e1","seq":7}}"#,
        r#"{"type":"leave","room":"lobby","id":"2"}"#,
        r#"{"type":"chat","room":"lobby","text":"hello 日本","data":{"a":[1.5,null,true]},"id":"3"}"#,
        r#"{"type":"chat","room":"lobby","text":"\u00fc\ud834\udd1e\n","x":[{}]}"#,
        r#"{"type":"typing","room":"lobby","status":"start"}"#,
        r#"{"type":"typing","room":"lobby","status":"stop","id":"4"}"#,
        r#"{"type":"history","room":"lobby","before":9,"limit":20,"id":"5"}"#,
        r#"{"type":"refresh","token":"a.b.c","id":"6"}"#,
        r#"{"type":"ping","id":"7"}"#,
    ];
    Corpus {
        inputs: inputs.map(|text| text.as_bytes().to_vec()).into(),
        words: &[
            b"\"",
            b"\\",
            b"\\u0000",
            b"\\ud800",
            b"\\u202e",
            b"null",
            b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
            b"{\"a\":",
            b"{}",
            b"[]",
            b",\"room\":\"lobby\"",
            b",\"type\":\"chat\"",
            b",\"data\":",
            b",\"id\":\"\"",
            b",\"seq\":18446744073709551615",
            b"lobby",
            b"1e999",
            b"\xe2\x80\xa8",
            b"\xef\xbb\xbf",
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ],
    }
}

/// The messages in whole text frames.
fn messages_of(mut bytes: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while let [0x81, length, rest @ ..] = bytes {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (127, rest) => {
                let (length, rest) = rest.split_first_chunk().expect("a whole head");
                (u64::from_be_bytes(*length) as usize, rest)
            }
            (length, rest) => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at_checked(length).expect("a frame on the wire is whole");
        messages.push(serde_json::from_slice(payload).unwrap_or_else(|error| {
            panic!("{error}: {}", payload.escape_ascii());
        }));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} instead of a message", bytes.escape_ascii());
    messages
}

/// A member of the lobby.
fn open(server: &mut Embedded) -> Peer {
    let mut peer = server.connect();
    server.send(&mut peer, upgrade_request("/ws?userId=fuzz", &[]).as_bytes());
    server.send(&mut peer, &frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
    peer.take();
    peer
}

/// Checks the messages that follow a text of a client.
fn check(text: &str, answers: &[Value], codes: &[String]) {
    for answer in answers {
        let kind = answer["type"].as_str().expect("a type");
        assert!(TYPES.contains(&kind), "{answer}");
        if kind == "error" {
            assert!(codes.iter().any(|code| answer["code"] == code.as_str()), "{answer}");
            assert!(answer["message"].is_string() && answer["temporary"].is_boolean(), "{answer}");
        }
    }
    let or_null = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    match ClientMessage::parse(text) {
        Err(invalid) => {
            let (room, id) = invalid.about();
            let [answer] = answers else { panic!("{answers:?}") };
            let found = [&answer["type"], &answer["code"], &answer["room"], &answer["id"]];
            let expected = [&json!("error"), &json!(invalid.code.as_str()), &or_null(room), &or_null(id)];
            assert_eq!(found, expected);
        }
        Ok(ClientMessage::Ping { id }) => {
            let [answer] = answers else { panic!("{answers:?}") };
            assert_eq!((&answer["type"], &answer["id"]), (&json!("pong"), &or_null(id.as_deref())));
        }
        Ok(ClientMessage::Chat(chat)) => {
            let data = chat.data.map_or(Value::Null, |data| serde_json::from_str(data.get()).unwrap_or_default());
            let is_said =
                |answer: &Value| answer["type"] == "chat" && answer["text"] == *chat.text && answer["data"] == data;
            let is_answer = |answer: &Value| ["error", "ack"].contains(&answer["type"].as_str().unwrap_or_default());
            assert!(answers.iter().any(|answer| is_said(answer) || is_answer(answer)), "{answers:?}");
        }
        Ok(ClientMessage::Typing(_)) => {}
        Ok(_) => assert!(!answers.is_empty(), "an answer is due"),
    }
}

#[test]
fn messages() {
    let (corpus, codes) = (corpus(), error_codes());
    let mut server = Embedded::with(config());
    let mut peer = open(&mut server);
    let mut others = 0;
    run(
        "messages",
        |rng| {
            let mut text = String::from_utf8_lossy(&corpus.mutated(rng)).into_owned();
            // Larger ones end the connection.
            text.truncate(text.floor_char_boundary(1024));
            text.into_bytes()
        },
        |_, input| {
            let text = std::str::from_utf8(input).expect("it was made of a string");
            server.send(&mut peer, &frame(TEXT, true, input));
            // Its answer comes last.
            others += 1;
            let id = format!("last-{others}");
            server.send(&mut peer, &frame(TEXT, true, json!({"type": "ping", "id": id}).to_string().as_bytes()));
            assert!(!peer.transcript.is_closed, "the connection was closed");
            let mut answers = messages_of(&peer.take());
            let last = answers.pop().expect("a pong");
            assert_eq!(last, json!({"type": "pong", "id": id}), "after {answers:?}");
            check(text, &answers, &codes);
        },
    );
}
