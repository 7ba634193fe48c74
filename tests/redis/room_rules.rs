//! History by room pattern, over Redis.

use serde_json::json;

use crate::harness::nodes::{history, is_text, node_with, recv_long, wait_ready};
use crate::harness::redis::{Redis, eventually};
use crate::support::Client;
use crate::support::api::{KEY, check_published, publish};
use crate::support::chat::{chat, is, join_with, texts};

/// Redis trims in blocks of a hundred.
const MESSAGES: u64 = 350;

fn kept(redis: &Redis, room: &str) -> usize {
    redis.ask(&["XLEN", &format!("roomcast:{{{room}}}:log")])
}

#[test]
fn redis_keeps_as_many_messages_as_the_rule_of_a_room_says() {
    let redis = Redis::start();
    let rules = ["--api-key", KEY, "--room", "team-*:history=100", "--room", "none:history=0"];
    let node = node_with(&redis, &rules);
    let mut ann = Client::connect(&node);
    for room in ["team-open", "none", "lobby"] {
        ann.join(room);
        for number in 1..=MESSAGES {
            ann.say(room, &format!("m{number}"));
        }
        recv_long(&mut ann, "the last message", |message| {
            is(message, "chat") && message["room"] == room && message["seq"] == MESSAGES
        });
    }
    // Nobody has this room open.
    for number in 1..=MESSAGES {
        let body = json!({"room": "team-shut", "userId": "desk", "text": "hello"});
        check_published(&publish(node.address(), &body), "team-shut", number, false);
    }
    for room in ["team-open", "team-shut"] {
        assert!((100..=200).contains(&kept(&redis, room)), "{room} keeps {}", kept(&redis, room));
        let shown = history(&node, room, MESSAGES);
        assert_eq!(texts(&shown).len(), 100, "{room}");
    }
    assert_eq!((kept(&redis, "none"), kept(&redis, "lobby")), (0, MESSAGES as usize));
    assert_eq!(history(&node, "lobby", MESSAGES).len(), MESSAGES as usize);
}

#[test]
fn redis_keeps_messages_and_rooms_as_long_as_the_rule_of_a_room_says() {
    let redis = Redis::start();
    let flags = ["--dedupe-window", "1s", "--room", "brief:history-age=1s", "--room", "long:history-age=1d"];
    let node = node_with(&redis, &flags);
    let mut ann = Client::connect(&node);
    for room in ["brief", "long", "lobby"] {
        ann.join(room);
        ann.say(room, "hello");
        recv_long(&mut ann, "her message", |message| is(message, "chat") && message["room"] == room);
    }
    let shown = |room: &str| {
        let (messages, _) = join_with(&mut Client::connect(&node), &json!({"room": room, "history": 10}));
        texts(&messages).len()
    };
    eventually("the message is too old", || shown("brief") == 0);
    assert_eq!((shown("long"), shown("lobby")), (1, 1));
    // Reading renews how long the keys live; five minutes come on top.
    for (room, seconds) in [("brief", 1), ("long", 86_400), ("lobby", 3600)] {
        let left: i64 = redis.ask(&["TTL", &format!("roomcast:{{{room}}}:meta")]);
        assert!((seconds + 200..=seconds + 301).contains(&left), "{room} lives for {left} s");
    }
}

#[test]
fn a_message_that_redis_did_not_take_does_not_count_in_a_slow_room() {
    let mut redis = Redis::start();
    let node = node_with(&redis, &["--redis-hold", "500ms", "--room", "lobby:slow=1h"]);
    let mut ann = Client::connect(&node);
    ann.join("lobby");
    redis.kill();
    ann.send_json(&chat("lobby", "lost", "1"));
    let refused = recv_long(&mut ann, "a refusal", |message| is(message, "error")).pop().unwrap();
    assert_eq!(refused["code"], "unavailable", "{refused}");
    redis.restart();
    wait_ready(&node);
    ann.send_json(&chat("lobby", "found", "2"));
    let answers = recv_long(&mut ann, "an answer", |message| is(message, "error") || is_text(message, "found"));
    assert!(is_text(answers.last().unwrap(), "found"), "{answers:?}");
    ann.send_json(&chat("lobby", "more", "3"));
    let refused = recv_long(&mut ann, "a refusal", |message| is(message, "error")).pop().unwrap();
    assert_eq!((&refused["code"], &refused["id"]), (&json!("rate_limited"), &json!("3")));
}
