//! Older messages, in pages: for members, and for back-ends.

use std::io::Write;
use std::time::Instant;

use roomcast::bus::{BusRequest, LocalBus, ReadFrom};
use roomcast::internals::frame::Head;
use roomcast::internals::{Hub, NewConnection, Output, Owners};
use roomcast::{Config, ConnectionId, Now, OpenPolicy, UserId};
use serde_json::{Value, json};

use crate::support::api::{KEY, check_refused, command, post, server_with};
use crate::support::chat::{chat, frame_of_json, is, settle};
use crate::support::local_room::{LocalRoom, run_bus};
use crate::support::{Client, Server};

const UNLIMITED: [&str; 4] = ["--message-rate", "0", "--messages-per-owner", "0"];

/// The numbers of a page.
fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("no messages in {page}"));
    messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

/// Asks for messages before a number, or the newest, and gives the answer or the error.
#[track_caller]
fn look_back(client: &mut Client, before: Option<u64>, limit: u64) -> Value {
    let mut request = json!({"type": "history", "room": "lobby", "limit": limit, "id": "h"});
    if let Some(before) = before {
        request["before"] = json!(before);
    }
    client.send_json(&request);
    let answer = client.recv_until(|message| is(message, "history") || is(message, "error")).pop().unwrap();
    assert_eq!((&answer["room"], &answer["id"]), (&json!("lobby"), &json!("h")), "{answer}");
    answer
}

/// A member of a room in which so many messages were said, each of so many bytes, and all these messages.
fn room_of(server: &Server, count: u64, bytes: usize) -> (Client, Vec<Value>) {
    let mut ann = Client::connect_as(server, "ann");
    ann.join("lobby");
    for i in 1..=count {
        ann.say("lobby", &format!("message {i} {}", "x".repeat(bytes)));
    }
    let is_chat = |message: &Value| is(message, "chat");
    let messages = ann.recv_until(|message| is_chat(message) && message["seq"] == count);
    (ann, messages.into_iter().filter(is_chat).collect())
}

#[track_caller]
fn check_error(answer: &Value, code: &str, is_temporary: bool, words: &str) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
    assert_eq!(answer["temporary"], is_temporary, "{answer}");
    assert!(answer["message"].as_str().is_some_and(|message| message.contains(words)), "{answer}");
}

#[test]
fn a_member_pages_back_from_the_newest_message_to_the_first() {
    let server = Server::spawn(&UNLIMITED);
    let (_ann, said) = room_of(&server, 1000, 10);
    let mut bob = Client::connect_as(&server, "bob");
    let epoch = bob.join("lobby")["epoch"].clone();
    let (mut read, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = look_back(&mut bob, before, 70);
        assert_eq!(page["epoch"], epoch);
        let messages = page["messages"].as_array().unwrap();
        before = messages[0]["seq"].as_u64();
        read.splice(0..0, messages.iter().cloned());
        pages += 1;
        if page["more"] == false {
            break;
        }
    }
    // The messages are those that the members have seen.
    assert_eq!(read, said);
    assert_eq!(pages, 15);
}

#[test]
fn a_page_ends_before_its_number_and_where_history_begins() {
    let server = Server::spawn(&[&UNLIMITED[..], &["--history-messages", "8"]].concat());
    let (mut ann, _) = room_of(&server, 10, 10);
    let mut check = |before, limit, expected: &[u64], more| {
        let page = look_back(&mut ann, before, limit);
        assert_eq!((seqs(&page).as_slice(), &page["more"]), (expected, &json!(more)), "{limit} before {before:?}");
    };
    // 1 and 2 are not held any more.
    check(None, 3, &[8, 9, 10], true);
    check(None, 100, &[3, 4, 5, 6, 7, 8, 9, 10], false);
    check(Some(u64::MAX), 1, &[10], true);
    check(Some(11), 1, &[10], true);
    check(Some(10), 1, &[9], true);
    check(Some(5), 1, &[4], true);
    check(Some(4), 1, &[3], false);
    for before in 0..=3 {
        check(Some(before), 10, &[], false);
    }
}

#[test]
fn a_room_without_messages_has_an_empty_page() {
    let server = Server::spawn(&[]);
    let mut ann = Client::connect_as(&server, "ann");
    let epoch = ann.join("lobby")["epoch"].clone();
    for before in [None, Some(7)] {
        let page = json!({
            "type": "history", "room": "lobby", "epoch": epoch, "messages": [], "more": false, "id": "h",
        });
        assert_eq!(look_back(&mut ann, before, 10), page);
    }
}

#[test]
fn a_page_is_bounded_in_bytes_but_for_its_first_message() {
    let server = Server::spawn(&[&UNLIMITED[..], &["--output-bytes", "128KiB", "--message-bytes", "16KiB"]].concat());
    let (mut ann, _) = room_of(&server, 10, 10_000);
    // A quarter of the write buffer is 32 KiB.
    let page = look_back(&mut ann, None, 100);
    assert_eq!((seqs(&page), &page["more"]), (vec![8, 9, 10], &json!(true)));
    let page = look_back(&mut ann, Some(3), 100);
    assert_eq!((seqs(&page), &page["more"]), (vec![1, 2], &json!(false)));
    let page = look_back(&mut ann, Some(4), 100);
    assert_eq!((seqs(&page), &page["more"]), (vec![1, 2, 3], &json!(false)));
}

#[test]
fn a_limit_out_of_bounds_is_refused() {
    let server = Server::spawn(&[]);
    let (mut ann, _) = room_of(&server, 1, 10);
    for limit in [0, 101] {
        let words = format!("limit is {limit}; 1 to 100 are allowed");
        check_error(&look_back(&mut ann, None, limit), "bad_message", false, &words);
    }
    assert_eq!(seqs(&look_back(&mut ann, None, 100)), [1]);
}

#[test]
fn only_members_look_back() {
    let server = Server::spawn(&[]);
    let (mut ann, _) = room_of(&server, 1, 10);
    let mut bob = Client::connect_as(&server, "bob");
    check_error(&look_back(&mut bob, None, 10), "not_joined", false, "not in room lobby");
    bob.join("lobby");
    assert_eq!(seqs(&look_back(&mut bob, None, 10)), [1]);
    // Right behind a join, too, and not behind a leave.
    ann.send_json(&json!({"type": "leave", "room": "lobby"}));
    check_error(&look_back(&mut ann, None, 10), "not_joined", false, "not in room lobby");
    ann.send_json(&json!({"type": "join", "room": "lobby"}));
    assert_eq!(seqs(&look_back(&mut ann, None, 10)), [1]);
}

#[test]
fn a_member_that_has_left_before_the_page_came_is_not_shown_it() {
    let server = Server::spawn(&[]);
    let (mut ann, _) = room_of(&server, 1, 10);
    let look_back = json!({"type": "history", "room": "lobby", "limit": 10, "id": "h"});
    let leave = json!({"type": "leave", "room": "lobby", "id": "l"});
    // Both come in one read, and the bus is asked after it.
    let both = [frame_of_json(&look_back), frame_of_json(&leave)].concat();
    ann.stream().write_all(&both).unwrap();
    let answers = settle(&mut ann);
    let error = answers.iter().find(|answer| answer["id"] == "h").unwrap_or_else(|| panic!("{answers:?}"));
    check_error(error, "not_joined", false, "not in room lobby");
    assert!(answers.iter().any(|answer| is(answer, "left")), "{answers:?}");
}

#[test]
fn many_questions_at_once_are_each_answered_once() {
    let server = Server::spawn(&UNLIMITED);
    let (mut ann, _) = room_of(&server, 50, 1000);
    for i in 0..200 {
        ann.send_json(&json!({"type": "history", "room": "lobby", "limit": 50, "id": format!("h{i}")}));
    }
    let answers: Vec<_> = settle(&mut ann).into_iter().filter(|message| !is(message, "presence")).collect();
    let mut ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((answers.len(), ids.len()), (200, 200));
    let (pages, errors): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| is(answer, "history"));
    assert!(!pages.is_empty() && !errors.is_empty(), "{} pages, {} errors", pages.len(), errors.len());
    assert!(pages.iter().all(|page| seqs(page).len() == 50));
    for error in errors {
        check_error(error, "rate_limited", true, "");
        assert_eq!(error["retryAfterMs"], 1000);
    }
    // Others get on, and so does this one.
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    assert_eq!(seqs(&look_back(&mut bob, None, 2)), [49, 50]);
    assert_eq!(seqs(&look_back(&mut ann, None, 2)), [49, 50]);
}

#[test]
fn a_page_costs_a_delivery_for_each_message() {
    let flags = [&UNLIMITED[..], &["--deliveries-per-owner", "200"]].concat();
    let server = Server::spawn(&flags);
    let (mut ann, _) = room_of(&server, 50, 10);
    let (begun, mut passed) = (Instant::now(), 0);
    for _ in 0..20 {
        let answer = look_back(&mut ann, None, 50);
        if is(&answer, "error") {
            check_error(&answer, "rate_limited", true, "more than 200 deliveries a second");
        } else {
            passed += 1;
        }
    }
    // A full bucket, what has come since, and a last page.
    let most = 200.0 + 200.0 * begun.elapsed().as_secs_f64() + 50.0;
    assert!(passed > 0 && f64::from(passed * 50) <= most, "{passed} of 20 passed in {:?}", begun.elapsed());
}

#[test]
fn a_back_end_reads_a_room_in_which_nobody_is() {
    let server = server_with(&["--history-messages", "8"]);
    for i in 1..=10 {
        command(server.address(), "/api/publish", &json!({"room": "lobby", "text": format!("message {i}")}));
    }
    let read = |body: &Value| command(server.address(), "/api/history", body);
    let page = read(&json!({"room": "lobby", "limit": 2}));
    let fields: Vec<_> = page.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["epoch", "messages", "more", "nodes", "room"]);
    let about = (&page["room"], &page["more"], &page["nodes"]);
    assert_eq!((seqs(&page), about), (vec![9, 10], (&json!("lobby"), &json!(true), &json!("all"))));
    let message = &page["messages"][0];
    assert_eq!(
        (&message["type"], &message["userId"], &message["text"]),
        (&json!("chat"), &json!("server"), &json!("message 9"))
    );
    let page = read(&json!({"room": "lobby", "before": 5}));
    assert_eq!((seqs(&page), &page["more"]), (vec![3, 4], &json!(false)));
    assert_eq!(seqs(&read(&json!({"room": "lobby"}))).len(), 8);
    // Its epoch is the one that members are told.
    let joined = Client::connect_as(&server, "ann").join("lobby");
    assert_eq!(page["epoch"], joined["epoch"]);
    let none = read(&json!({"room": "nowhere"}));
    assert_eq!((seqs(&none), &none["more"]), (vec![], &json!(false)));
    for (body, words) in [
        (json!({}), "history without room"),
        (json!({"room": "no blanks"}), "room: name contains ' '"),
        (json!({"room": "lobby", "limit": 0}), "limit is 0; 1 to 100 are allowed"),
        (json!({"room": "lobby", "limit": 101}), "limit is 101; 1 to 100 are allowed"),
        (json!({"room": "lobby", "limit": (1_u64 << 32) + 5}), "1 to 100 are allowed"),
        (json!({"room": "lobby", "before": -1}), "-1"),
    ] {
        check_refused(&post(server.address(), "/api/history", &body), 400, "bad_message", &[words]);
    }
}

#[test]
fn members_and_back_ends_see_the_new_epoch_after_a_restart() {
    let flags = ["--api-key", KEY];
    let server = Server::spawn(&flags);
    let (mut ann, _) = room_of(&server, 3, 10);
    let old = look_back(&mut ann, None, 10)["epoch"].clone();
    let server = Server::spawn(&flags);
    let (mut ann, _) = room_of(&server, 1, 10);
    ann.send_json(&chat("lobby", "again", "a"));
    ann.recv_until(|message| is(message, "chat"));
    let page = look_back(&mut ann, Some(100), 10);
    assert_ne!(page["epoch"], old);
    assert_eq!(seqs(&page), [1, 2]);
    let read = command(server.address(), "/api/history", &json!({"room": "lobby"}));
    assert_eq!((&read["epoch"], &read["messages"]), (&page["epoch"], &page["messages"]));
}

/// The text frames that a hub has for single connections.
fn output(hub: &mut Hub) -> Vec<Value> {
    let mut messages = Vec::new();
    hub.poll_output(|output| {
        let Output::Frames(_, mut frames) = output else { return };
        while let Some(head) = Head::parse(frames) {
            let (frame, rest) = frames.split_at(head.header_bytes + head.payload_bytes as usize);
            messages.push(serde_json::from_slice(&frame[head.header_bytes..]).unwrap());
            frames = rest;
        }
    });
    messages
}

#[test]
fn a_member_that_does_not_read_its_pages_gets_no_more_of_them() {
    let mut room = LocalRoom::new(1);
    for _ in 0..8 {
        room.say(&json!({"type": "chat", "room": "lobby", "text": "x".repeat(15_000)}).to_string());
        room.flush(|_| {});
    }
    let ask = |room: &mut LocalRoom| {
        room.say(&json!({"type": "history", "room": "lobby", "limit": 100}).to_string());
        let [answer] = &output(&mut room.hub)[..] else { panic!("not one answer") };
        answer.clone()
    };
    // A page is of four messages, and has to have been read by all but so many bytes before the next one but one.
    for _ in 0..2 {
        assert_eq!(seqs(&ask(&mut room)), [5, 6, 7, 8]);
    }
    for _ in 0..3 {
        check_error(&ask(&mut room), "rate_limited", true, "a page is sent behind at most 65536");
    }
    room.hub.handle_drained(ConnectionId::new(0, 1));
    assert_eq!(seqs(&ask(&mut room)), [5, 6, 7, 8]);
}

#[test]
fn a_crowd_that_looks_back_is_not_before_a_member_that_resumes() {
    const CROWD: u32 = 1000;
    let mut config = Config::default();
    config.hub.message_rate = 0;
    let mut hub = Hub::new(&config, Box::new(OpenPolicy));
    let mut bus = LocalBus::new(&config, 1);
    let (now, owners) = (Now::default(), Owners::new(1));
    let connect = |hub: &mut Hub, slot: u32| {
        let (user, owner) = (UserId::new(&format!("u{slot}")).unwrap(), owners.api_key(&[slot as u8; 32]));
        let id = ConnectionId::new(slot, 1);
        hub.connect(now, id, NewConnection::new(&user, owner));
        id
    };
    for slot in 0..CROWD {
        let id = connect(&mut hub, slot);
        hub.handle_text(now, id, r#"{"type":"join","room":"lobby"}"#);
        run_bus(&mut hub, &mut bus, now);
    }
    hub.poll_output(|_| {});
    for slot in 0..CROWD {
        hub.handle_text(now, ConnectionId::new(slot, 1), r#"{"type":"history","room":"lobby","limit":100}"#);
    }
    let newcomer = connect(&mut hub, CROWD);
    hub.handle_text(now, newcomer, r#"{"type":"join","room":"lobby","since":{"epoch":"e","seq":1}}"#);
    let reads: Vec<_> = std::iter::from_fn(|| match hub.poll_bus_request()? {
        BusRequest::Read { from, .. } => Some(from),
        other => panic!("{other:?}"),
    })
    .collect();
    let resumes = |from: &ReadFrom| !matches!(from, ReadFrom::Before { .. });
    assert!(reads.iter().position(resumes).is_some_and(|at| at <= 1), "{reads:?}");
    assert_eq!(reads.len(), 1 + 8, "so many of the crowd at once");
}
