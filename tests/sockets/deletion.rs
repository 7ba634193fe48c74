//! Deletions and purges on one node: what members see, what history shows, and how they are answered.

use roomcast::bus::Outcome;
use roomcast::{MessageRef, Notice, RoomName};
use serde_json::{Value, json};

use crate::support::api::{check_published, check_refused, command, post, publish, server_with};
use crate::support::chat::{chat, is, join_with, settle, texts};
use crate::support::host::{Host, config};
use crate::support::{Client, Connect, Server};

/// What a replay has, without times: the text of each message, and deletions as they are.
fn replay(server: &Server, room: &str, request: &Value) -> (Vec<Value>, Value) {
    let mut reader = Client::connect(server);
    let mut request = request.clone();
    request["room"] = json!(room);
    let (messages, joined) = join_with(&mut reader, &request);
    (shown(messages), joined)
}

fn shown(messages: Vec<Value>) -> Vec<Value> {
    let show = |mut message: Value| {
        if is(&message, "chat") {
            return message["text"].clone();
        }
        message.as_object_mut().unwrap().remove("ts");
        message
    };
    messages.into_iter().filter(|message| is(message, "chat") || is(message, "deleted")).map(show).collect()
}

fn tombstone(room: &str, seq: u64) -> Value {
    json!({"type": "deleted", "room": room, "seq": seq})
}

fn announcement(room: &str, deletes: &[u64], seq: u64) -> Value {
    json!({"type": "deleted", "room": room, "deletes": deletes, "seq": seq})
}

#[test]
fn a_deleted_message_is_announced_and_history_has_a_tombstone_under_its_number() {
    let server = server_with(&[]);
    let address = server.address();
    let mut ann = Client::connect_as(&server, "ann");
    let epoch = ann.join("lobby")["epoch"].clone();
    for (id, text) in [("a", "one"), ("b", "secret"), ("c", "three")] {
        ann.send_json(&chat("lobby", text, id));
    }
    ann.recv_until(|message| message["text"] == "three");
    let answer = command(address, "/api/delete", &json!({"room": "lobby", "seq": 2}));
    assert_eq!(answer, json!({"room": "lobby", "seq": 2, "duplicate": false}));
    let told = ann.recv();
    assert!(told["ts"].is_u64(), "{told}");
    assert_eq!(shown(vec![told]), [announcement("lobby", &[2], 4)]);
    ann.send_json(&chat("lobby", "five", "d"));
    assert_eq!(ann.recv_type("chat")["seq"], 5);
    let all = [json!("one"), tombstone("lobby", 2), json!("three"), announcement("lobby", &[2], 4), json!("five")];
    let (messages, joined) = replay(&server, "lobby", &json!({"history": 50}));
    assert_eq!((&messages[..], &joined["seq"]), (&all[..], &json!(5)));
    // A client that has seen the message learns of its deletion; one that has not sees no hole.
    for (seq, rest) in [(3, &all[3..]), (1, &all[1..]), (0, &all[..])] {
        let (messages, joined) = replay(&server, "lobby", &json!({"since": {"epoch": epoch, "seq": seq}}));
        assert_eq!((&messages[..], &joined["recovered"]), (rest, &json!(true)), "since {seq}");
    }
    // Its id is remembered.
    ann.send_json(&chat("lobby", "secret", "b"));
    let ack = ann.recv_type("ack");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(2), &json!(true)));
    // The first and the newest may go, too.
    for seq in [1, 5] {
        command(address, "/api/delete", &json!({"room": "lobby", "seq": seq, "epoch": epoch}));
    }
    assert_eq!(settle(&mut ann).len(), 2);
    let (messages, _) = replay(&server, "lobby", &json!({"since": {"epoch": epoch, "seq": 0}}));
    assert!(messages.iter().all(|message| message != "one" && message != "five"), "{messages:?}");
    assert_eq!(messages.len(), 7);
}

#[test]
fn a_message_is_deleted_once_and_what_was_never_said_is_not_found() {
    let server = server_with(&["--history-messages", "3"]);
    let address = server.address();
    let mut ann = Client::connect(&server);
    let epoch = ann.join("lobby")["epoch"].clone();
    for n in 1..=5 {
        check_published(&publish(address, &json!({"room": "lobby", "text": n.to_string()})), "lobby", n, false);
    }
    settle(&mut ann);
    let delete = |body: Value| post(address, "/api/delete", &body);
    for (body, status, code, needle) in [
        (json!({"seq": 1}), 400, "bad_message", "delete without room"),
        (json!({"room": "lobby"}), 400, "bad_message", "delete without seq"),
        (json!({"room": "lobby", "seq": 0}), 400, "bad_message", "the first message has 1"),
        (json!({"room": "lobby", "seq": -1}), 400, "bad_message", "-1"),
        (json!({"room": "lobby", "seq": 5, "epoch": ""}), 400, "bad_message", "epoch of 0 bytes"),
        (json!({"room": "lobby", "seq": 5, "epoch": "e".repeat(65)}), 400, "bad_message", "epoch of 65 bytes"),
        (json!({"room": "lobby", "seq": 5, "epoch": "other"}), 404, "not_found", "no such message"),
        (json!({"room": "lobby", "seq": 6}), 404, "not_found", "no such message"),
        (json!({"room": "nowhere", "seq": 1}), 404, "not_found", "no such message"),
    ] {
        check_refused(&delete(body), status, code, &[needle]);
    }
    assert!(settle(&mut ann).is_empty());
    check_published(&delete(json!({"room": "lobby", "seq": 5, "epoch": epoch})), "lobby", 5, false);
    check_published(&delete(json!({"room": "lobby", "seq": 5})), "lobby", 5, true);
    // An announcement stays, or clients that are away would not learn of the deletion.
    check_refused(&delete(json!({"room": "lobby", "seq": 6})), 404, "not_found", &[]);
    // History does not hold it any more, but screens may.
    check_published(&delete(json!({"room": "lobby", "seq": 1})), "lobby", 1, false);
    assert_eq!(shown(settle(&mut ann)), [announcement("lobby", &[5], 6), announcement("lobby", &[1], 7)]);
    let (messages, _) = replay(&server, "lobby", &json!({"history": 3}));
    assert_eq!(messages[..], [tombstone("lobby", 5), announcement("lobby", &[5], 6), announcement("lobby", &[1], 7)]);
}

#[test]
fn members_that_have_fallen_behind_never_see_a_text_after_its_announcement() {
    let server = server_with(&["--message-rate", "0", "--log-bytes", "64k", "--history-bytes", "64M"]);
    let address = server.address();
    let mut slow = Connect::to(address).user("slow").small_receive_buffer().connect();
    slow.join("lobby");
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let filler = "x".repeat(8000);
    for n in 1..=400_u64 {
        ann.say("lobby", &format!("{n} {filler}"));
        ann.recv_until(|message| message["seq"] == n);
    }
    for seq in 1..=400_u64 {
        command(address, "/api/delete", &json!({"room": "lobby", "seq": seq}));
    }
    ann.say("lobby", "the end");
    let mut gone = std::collections::BTreeSet::new();
    let mut tombstones = 0;
    let messages = slow.recv_until(|message| message["text"] == "the end");
    let numbered = messages.iter().filter(|message| is(message, "chat") || is(message, "deleted"));
    for (next, message) in (1_u64..).zip(numbered) {
        let seq = message["seq"].as_u64().unwrap();
        assert_eq!(seq, next, "{message}");
        assert!(!is(message, "chat") || !gone.contains(&seq), "{seq} came after its announcement");
        let deletes = message["deletes"].as_array();
        tombstones += u64::from(is(message, "deleted") && deletes.is_none());
        gone.extend(deletes.into_iter().flatten().filter_map(Value::as_u64));
    }
    assert!(gone.len() == 400 && tombstones > 0, "{} announced, {tombstones} tombstones", gone.len());
}

#[test]
fn a_purge_deletes_what_a_user_has_said_in_a_room_or_in_all() {
    let server = server_with(&["--message-rate", "0"]);
    let address = server.address();
    let mut mallory = Client::connect_as(&server, "mallory");
    let mut ann = Client::connect_as(&server, "ann");
    for room in ["red", "blue", "green"] {
        ann.join(room);
        mallory.join(room);
        for n in 0..100 {
            mallory.say(room, &format!("spam {n}"));
        }
        mallory.recv_until(|message| message["text"] == "spam 99");
        ann.say(room, "mallory says spam");
        ann.recv_until(|message| message["text"] == "mallory says spam");
    }
    settle(&mut ann);
    let answer = command(address, "/api/purge", &json!({"userId": "mallory", "room": "red"}));
    assert_eq!(answer, json!({"userId": "mallory", "room": "red", "deleted": 100, "complete": true}));
    // Many in one announcement, so that they do not take the place of others in history.
    let told = shown(settle(&mut ann));
    let (first, rest): (Vec<_>, Vec<_>) = ((1..=64).collect(), (65..=100).collect());
    assert_eq!(told, [announcement("red", &first, 102), announcement("red", &rest, 103)]);
    let answer = command(address, "/api/purge", &json!({"userId": "mallory"}));
    assert_eq!(answer, json!({"userId": "mallory", "deleted": 200, "complete": true}));
    assert_eq!(settle(&mut ann).len(), 4);
    for room in ["red", "blue", "green"] {
        let (messages, _) = replay(&server, room, &json!({"history": 1000}));
        let texts: Vec<_> = messages.iter().filter_map(Value::as_str).collect();
        assert_eq!((texts, messages.len()), (vec!["mallory says spam"], 103), "{room}");
    }
    let answer = command(address, "/api/purge", &json!({"userId": "mallory", "room": "nowhere"}));
    assert_eq!((&answer["deleted"], &answer["complete"]), (&json!(0), &json!(true)));
    check_refused(&post(address, "/api/purge", &json!({"room": "red"})), 400, "bad_message", &["purge without userId"]);
    assert!(shown(settle(&mut ann)).is_empty());
}

#[test]
fn each_deletion_and_purge_is_one_line_of_the_log_without_the_text() {
    let server = server_with(&[]);
    publish(server.address(), &json!({"room": "lobby", "text": "secret", "userId": "ann"}));
    command(server.address(), "/api/delete", &json!({"room": "lobby", "seq": 1}));
    command(server.address(), "/api/purge", &json!({"userId": "ann"}));
    server.wait_for_log("purge ann from all rooms");
    let lines = server.log_lines("api: ");
    let said = |needle: &str| lines.iter().filter(|line| line.contains(needle)).count();
    assert_eq!(said("delete message 1 in room lobby"), 1, "{lines:?}");
    assert_eq!(said("purge ann from all rooms"), 1, "{lines:?}");
    assert!(server.log_lines("secret").is_empty());
}

#[test]
fn a_host_deletes_and_is_told() {
    let mut host = Host::new(config());
    let address = host.listen();
    let remote = host.server.remote();
    host.serve(|| {
        let mut ann = Connect::to(address).user("ann").connect();
        ann.join("lobby");
        ann.say("lobby", "secret");
        ann.recv_type("chat");
        for seq in [1, 7] {
            remote.delete(MessageRef { room: RoomName::new("lobby").unwrap(), seq, epoch: None }).unwrap();
        }
        assert_eq!(ann.recv_type("deleted")["deletes"], json!([1]));
        assert!(texts(&settle(&mut ann)).is_empty());
    });
    let is_chat = |notice: &&Notice| matches!(notice, Notice::Chat { .. });
    assert_eq!(host.notices.iter().filter(is_chat).count(), 1);
    let deleted = host.notices.iter().find_map(|notice| match notice {
        Notice::Deleted { seq, deletes, .. } => Some((*seq, deletes.clone())),
        _ => None,
    });
    assert_eq!(deleted, Some((2, vec![1])));
    let outcome = |notice: &Notice| match notice {
        Notice::Published { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    let outcomes: Vec<_> = host.notices.iter().filter_map(outcome).collect();
    assert!(matches!(outcomes[..], [Outcome::Accepted(2), Outcome::Refused(_)]), "{outcomes:?}");
}
