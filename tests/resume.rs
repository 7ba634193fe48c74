//! History, and coming back: nothing lost, nothing doubled, and the truth where that cannot be.

mod support;

use serde_json::{Value, json};
use support::{Client, Server};

const UNLIMITED: [&str; 2] = ["--message-rate", "0"];

/// Joins with `request`; gives the numbers of the messages that came before `joined`, and `joined`.
fn join(client: &mut Client, request: &Value) -> (Vec<u64>, Value) {
    client.send_json(request);
    let mut seqs = Vec::new();
    loop {
        let message = client.recv();
        match message["type"].as_str() {
            Some("chat") => seqs.push(message["seq"].as_u64().unwrap()),
            Some("joined") => return (seqs, message),
            _ => {}
        }
    }
}

/// A room in which `count` messages were said, with its epoch.
fn room_of(server: &Server, count: u64) -> (Client, String) {
    let mut ann = Client::connect_as(server, "ann");
    let joined = ann.join("lobby");
    for i in 1..=count {
        ann.say("lobby", &format!("message {i}"));
    }
    ann.recv_until(|message| message["seq"] == count && message["type"] == "chat");
    (ann, joined["epoch"].as_str().unwrap().to_owned())
}

#[test]
fn history_and_since_bring_what_they_say() {
    let server = Server::spawn(&[&UNLIMITED[..], &["--history-messages", "5"]].concat());
    let (_ann, epoch) = room_of(&server, 8);
    let since = |epoch: &str, seq: u64| json!({"epoch": epoch, "seq": seq});
    let check = |extra: Value, expected: &[u64], recovered: Value| {
        let mut request = json!({"type": "join", "room": "lobby"});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut bob = Client::connect_as(&server, "bob");
        let (seqs, joined) = join(&mut bob, &request);
        assert_eq!((seqs.as_slice(), &joined["recovered"]), (expected, &recovered), "{request}");
        assert_eq!((&joined["seq"], &joined["epoch"]), (&json!(8), &json!(epoch)));
    };
    check(json!({}), &[], Value::Null);
    check(json!({"history": 2}), &[7, 8], Value::Null);
    check(json!({"history": 5}), &[4, 5, 6, 7, 8], Value::Null);
    check(json!({"since": since(&epoch, 8)}), &[], json!(true));
    check(json!({"since": since(&epoch, 5)}), &[6, 7, 8], json!(true));
    check(json!({"since": since(&epoch, 3)}), &[4, 5, 6, 7, 8], json!(true));
    check(json!({"since": since(&epoch, 2)}), &[], json!(false));
    check(json!({"since": since(&epoch, 2), "history": 2}), &[7, 8], json!(false));
    check(json!({"since": since(&epoch, 9), "history": 2}), &[7, 8], json!(false));
    check(json!({"since": since("another", 8), "history": 2}), &[7, 8], json!(false));
}

#[test]
fn a_client_that_drops_again_and_again_sees_every_message_once() {
    let server = Server::spawn(&UNLIMITED);
    let (mut ann, epoch) = room_of(&server, 1);
    let total = 400;
    let mut seen: Vec<u64> = vec![1];
    let mut said = 1;
    while said < total {
        let mut bob = Client::connect_as(&server, "bob");
        let request = json!({"type": "join", "room": "lobby", "since": {"epoch": epoch, "seq": seen.last()}});
        // Some are said before the answer, some behind it.
        bob.send_json(&request);
        for _ in 0..20 {
            said += 1;
            ann.say("lobby", &format!("message {said}"));
        }
        let mut is_joined = false;
        let until = said - 5;
        while !is_joined || *seen.last().unwrap() < until {
            let message = bob.recv();
            if message["type"] == "joined" {
                assert_eq!(message["recovered"], true);
                is_joined = true;
            } else if message["type"] == "chat" {
                seen.push(message["seq"].as_u64().unwrap());
            }
        }
        bob.reset();
    }
    assert_eq!(seen, (1..=*seen.last().unwrap()).collect::<Vec<_>>());
}

#[test]
fn what_is_sent_again_after_a_drop_is_said_once() {
    let server = Server::spawn(&UNLIMITED);
    let (mut ann, _) = room_of(&server, 1);
    for _ in 0..3 {
        let mut bob = Client::connect_as(&server, "bob");
        bob.join("lobby");
        bob.send_json(&json!({"type": "chat", "room": "lobby", "text": "once", "id": "b-1"}));
        bob.recv_until(|message| message["id"] == "b-1");
        bob.reset();
    }
    ann.say("lobby", "the end");
    let seen = ann.recv_until(|message| message["text"] == "the end");
    let once = seen.iter().filter(|message| message["text"] == "once").count();
    assert_eq!(once, 1, "{seen:?}");
}

#[test]
fn a_restarted_server_says_that_it_begins_anew() {
    let first = Server::spawn(&UNLIMITED);
    let (_ann, epoch) = room_of(&first, 3);
    let second = Server::spawn(&UNLIMITED);
    let mut bob = Client::connect_as(&second, "bob");
    let (seqs, joined) = join(&mut bob, &json!({"type": "join", "room": "lobby", "since": {"epoch": epoch, "seq": 3}}));
    assert_eq!((seqs.len(), &joined["recovered"], &joined["seq"]), (0, &json!(false), &json!(0)));
    assert_ne!(joined["epoch"], epoch);
}
