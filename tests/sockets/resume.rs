//! History and resuming: messages are neither lost nor repeated, and clients are told where that is
//! impossible.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::chat::{View, chat, is, join_with, seqs, settle, texts};
use crate::support::{Client, PATIENCE, Server, wait_until};

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
fn a_message_sent_again_after_a_drop_is_delivered_once() {
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

#[test]
fn reconnecting_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    const SAID: u64 = 3000;
    let server = Server::spawn(&["--message-rate", "0", "--history-messages", "100000"]);
    let mut ann = Client::connect_as(&server, "ann");
    let mut view = View::default();
    view.take(&ann.join("lobby"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for last in (10..=SAID).step_by(10) {
                for number in last - 9..=last {
                    ann.say("lobby", &number.to_string());
                }
                ann.recv_until(|message| is(message, "chat") && message["seq"] == last);
            }
        });
        let mut chance = fastrand::Rng::with_seed(7);
        let mut connections = 0;
        while !view.is_level(SAID) {
            let mut bob = Client::connect_as(&server, "bob");
            bob.send_json(&view.join("lobby"));
            connections += 1;
            // Some drop before their `joined`, some long after it.
            let patience = 1 + chance.u64(..120);
            for _ in 0..patience {
                view.take(&bob.recv());
                if view.is_level(SAID) {
                    break;
                }
            }
            if chance.bool() {
                bob.reset();
            } else {
                bob.close();
            }
        }
        assert!(connections >= 20, "{connections} connections read it all");
    });
    assert_eq!((view.chats as u64, view.lost), (SAID, 0));
    assert!(view.recovered > 0);
}

#[test]
fn unacknowledged_messages_may_be_sent_again_whether_accepted_or_not() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    let mut chance = fastrand::Rng::with_seed(11);
    let mut view = View::default();
    // The number of each message by id, once it is known.
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let mut said: Vec<String> = Vec::new();
    for round in 0..20 {
        let mut alice = Client::connect_as(&server, "alice");
        alice.send_json(&view.join("lobby"));
        said.extend((0..10).map(|number| format!("{round}-{number}")));
        for id in said.iter().filter(|id| !told.contains_key(*id)) {
            alice.send_json(&chat("lobby", id, id));
        }
        // It drops before it has heard of all of them, in the last round after that.
        let heard = if round == 19 { usize::MAX } else { chance.usize(..15) };
        for _ in 0..heard {
            let message = alice.recv();
            view.take(&message);
            assert!(!is(&message, "error"), "{message}");
            if is(&message, "chat") || is(&message, "ack") {
                let (id, seq) = (message["id"].as_str().expect("an id"), message["seq"].as_u64().expect("a seq"));
                let known = told.insert(id.to_owned(), seq);
                assert!(known.is_none_or(|known| known == seq), "{id} is {known:?} and {seq}");
            }
            if told.len() == said.len() {
                break;
            }
        }
        alice.reset();
    }
    assert_eq!(told.len(), 200);
    bob.say("lobby", "the end");
    let seen = bob.recv_until(|message| message["text"] == "the end");
    let numbered: Vec<_> = texts(&seen).into_iter().map(str::to_owned).zip(seqs(&seen)).collect();
    assert_eq!(numbered.len(), 201, "every message once, and the end");
    for (text, seq) in &numbered[..200] {
        assert_eq!(told.get(text), Some(seq), "{text}");
    }
}

#[test]
fn more_history_than_is_there_is_all_of_it_in_order_and_before_joined() {
    let server = Server::spawn(&UNLIMITED);
    let mut bob = Client::connect_as(&server, "bob");
    let (before, joined) = join_with(&mut bob, &json!({"room": "empty", "history": 50}));
    assert_eq!((seqs(&before), &joined["seq"]), (vec![], &json!(0)));
    let (mut ann, _) = room_of(&server, 7);
    let (before, joined) = join_with(&mut bob, &json!({"room": "lobby", "history": 50}));
    let expected: Vec<_> = (1..=7).map(|number| format!("message {number}")).collect();
    assert_eq!((texts(&before), seqs(&before)), (expected.iter().map(String::as_str).collect(), (1..=7).collect()));
    assert_eq!((&joined["seq"], joined.get("recovered")), (&json!(7), None));
    ann.say("lobby", "live");
    assert_eq!(bob.recv_type("chat")["seq"], 8);
}

#[test]
fn a_long_history_comes_in_pages_while_others_talk() {
    let flags = ["--message-rate", "0", "--output-bytes", "128KiB", "--message-bytes", "2KiB"];
    let server = Server::spawn(&flags);
    let mut ann = Client::connect_as(&server, "ann");
    let epoch = ann.join("lobby")["epoch"].clone();
    let text = "x".repeat(1500);
    let mut said = 0;
    let mut talk = |count: u64| {
        for _ in 0..count {
            said += 1;
            ann.say("lobby", &text);
            ann.recv_until(|message| is(message, "chat") && message["seq"] == said);
        }
        said
    };
    talk(500);
    // It does not read while others talk on, so that pages and live messages meet.
    let mut bob = Client::build(&server).user("bob").small_receive_buffer().connect();
    let mut view = View::default();
    view.take(&json!({"type": "joined", "epoch": epoch, "seq": 0}));
    bob.send_json(&view.join("lobby"));
    let last = talk(300);
    let deadline = Instant::now() + PATIENCE;
    while !(view.is_level(last) && view.recovered > 0) {
        assert!(Instant::now() < deadline, "it has come to {}", view.seq());
        view.take(&bob.recv());
    }
    assert_eq!((view.chats as u64, view.lost), (last, 0));
}

#[test]
fn one_may_resume_on_the_same_connection() {
    let server = Server::spawn(&UNLIMITED);
    let (mut ann, epoch) = room_of(&server, 3);
    ann.send_json(&json!({"type": "leave", "room": "lobby"}));
    ann.recv_type("left");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    for _ in 0..3 {
        bob.say("lobby", "meanwhile");
    }
    bob.recv_until(|message| is(message, "chat") && message["seq"] == 6);
    let (before, joined) = join_with(&mut ann, &json!({"room": "lobby", "since": {"epoch": epoch, "seq": 3}}));
    assert_eq!((seqs(&before), &joined["recovered"]), (vec![4, 5, 6], &json!(true)));
}

/// Joins the lobby as somebody who leaves no trace; the messages that came and `joined`.
fn look(server: &Server, request: &Value) -> (Vec<u64>, Value) {
    let mut client = Client::connect_as(server, "looker");
    let (before, joined) = join_with(&mut client, request);
    client.send_json(&json!({"type": "leave", "room": "lobby"}));
    client.recv_type("left");
    client.close();
    (seqs(&before), joined)
}

#[test]
fn messages_that_are_too_old_are_not_recovered() {
    let server = Server::spawn(&["--history-age", "1s"]);
    let (mut ann, epoch) = room_of(&server, 3);
    wait_until("the history is too old", || look(&server, &json!({"room": "lobby", "history": 3})).0.is_empty());
    let since = |seq: u64| json!({"room": "lobby", "since": {"epoch": epoch, "seq": seq}});
    let (before, joined) = look(&server, &since(1));
    assert_eq!((before, &joined["recovered"], &joined["seq"]), (vec![], &json!(false), &json!(3)));
    assert_eq!(joined["epoch"], epoch, "the room itself is as old as it was");
    assert_eq!(look(&server, &since(3)).1["recovered"], true, "nothing was said since");
    settle(&mut ann);
    ann.say("lobby", "new");
    assert_eq!(ann.recv_type("chat")["seq"], 4);
}

#[test]
fn a_room_that_was_forgotten_begins_a_new_epoch() {
    let flags = ["--history-age", "1s", "--dedupe-window", "1s", "--presence-grace", "0s"];
    let server = Server::spawn(&flags);
    let (ann, epoch) = room_of(&server, 3);
    ann.close();
    let since = json!({"room": "lobby", "since": {"epoch": epoch, "seq": 3}});
    for seconds in 2..=5 {
        std::thread::sleep(Duration::from_secs(seconds));
        let (before, joined) = look(&server, &since);
        if joined["epoch"] != epoch {
            assert_eq!((before, &joined["recovered"], &joined["seq"]), (vec![], &json!(false), &json!(0)));
            return;
        }
        assert_eq!((&joined["recovered"], &joined["seq"]), (&json!(true), &json!(3)));
    }
    panic!("a room that nobody has been in for seconds is never forgotten");
}

#[test]
fn a_position_beyond_all_numbers_is_not_recovered() {
    let server = Server::spawn(&[]);
    let (_ann, epoch) = room_of(&server, 3);
    let mut bob = Client::connect_as(&server, "bob");
    let since = json!({"epoch": epoch, "seq": u64::MAX});
    let (seqs, joined) = join(&mut bob, &json!({"type": "join", "room": "lobby", "since": since}));
    assert_eq!((seqs, &joined["recovered"]), (vec![], &json!(false)));
}
