//! Publications over HTTP at one node reach all nodes once, while Redis is cut, stopped or emptied.

use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::nodes::{is_text, node_with, recv_long, wait_ready};
use crate::harness::redis::Redis;
use crate::support::api::{KEY, check_published, check_refused, command, publish, publish_request};
use crate::support::chat::{is, recv_text, seqs, texts};
use crate::support::{Client, Raw, Server};

fn node(redis: &Redis, flags: &[&str]) -> Server {
    node_with(redis, &[&["--api-key", KEY][..], flags].concat())
}

#[test]
fn a_publication_at_one_node_reaches_the_others() {
    let redis = Redis::start();
    let [a, b] = [node(&redis, &[]), node(&redis, &[])];
    let mut readers = [&a, &b].map(Client::connect);
    readers.iter_mut().for_each(|reader| drop(reader.join("lobby")));
    let body = json!({"room": "lobby", "text": "hello", "data": {"n": 1}, "userId": "shop", "id": "x"});
    check_published(&publish(a.address(), &body), "lobby", 1, false);
    let [of_a, of_b] = readers.each_mut().map(|reader| recv_text(reader, "chat"));
    assert_eq!(of_a, of_b);
    assert!(of_a.contains(r#""data":{"n":1},"id":"x""#), "{of_a}");
    // Ids are known at all nodes.
    check_published(&publish(b.address(), &body), "lobby", 1, true);
    check_published(&publish(b.address(), &json!({"room": "lobby", "text": "next"})), "lobby", 2, false);
    for reader in &mut readers {
        let next = reader.recv_type("chat");
        assert_eq!((&next["text"], &next["seq"]), (&json!("next"), &json!(2)));
    }
}

#[test]
fn a_broadcast_at_one_node_reaches_the_rooms_at_the_others_once() {
    let redis = Redis::start();
    let [a, b] = [node(&redis, &[]), node(&redis, &[])];
    let mut readers = ["lobby", "news"].map(|room| {
        let mut reader = Client::connect(&b);
        reader.join(room);
        reader
    });
    let body = json!({"rooms": ["lobby", "news", "empty"], "text": "hello", "userId": "shop", "id": "x"});
    for (server, duplicate) in [(&a, false), (&b, true)] {
        let said = ["lobby", "news", "empty"].map(|room| json!({"room": room, "seq": 1, "duplicate": duplicate}));
        assert_eq!(command(server.address(), "/api/broadcast", &body), json!({"rooms": said}));
    }
    for (reader, room) in readers.iter_mut().zip(["lobby", "news"]) {
        let chat = reader.recv_type("chat");
        assert_eq!((&chat["room"], &chat["text"], &chat["seq"]), (&json!(room), &json!("hello"), &json!(1)));
        check_published(&publish(a.address(), &json!({"room": room, "text": "next"})), room, 2, false);
        assert_eq!(reader.recv_type("chat")["text"], "next");
    }
}

#[test]
fn publishers_at_all_nodes_share_one_order() {
    let redis = Redis::start();
    let nodes = [node(&redis, &[]), node(&redis, &[])];
    let mut ann = Client::connect(&nodes[0]);
    ann.join("lobby");
    thread::scope(|scope| {
        for publisher in 0..10 {
            let address = nodes[publisher % 2].address();
            scope.spawn(move || {
                let mut raw = Raw::connect(address);
                for n in 0..20 {
                    let body = json!({"room": "lobby", "text": format!("{publisher}.{n}")});
                    raw.send(&publish_request(&body.to_string()));
                    assert_eq!(raw.response().status, 200);
                }
            });
        }
    });
    let all = recv_long(&mut ann, "200 messages", |message| is(message, "chat") && message["seq"] == 200);
    assert_eq!(seqs(&all), (1..=200).collect::<Vec<_>>());
}

#[test]
fn without_redis_a_request_is_refused_after_the_hold_time_and_may_be_sent_again() {
    let redis = Redis::start();
    let server = node(&redis, &["--redis-hold", "500ms"]);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    let body = json!({"room": "lobby", "text": "once", "id": "order-7"});
    // Redis takes commands but does not answer, so the node cannot know whether they were carried out.
    redis.signal(Signal::STOP);
    for _ in 0..3 {
        check_refused(&publish(server.address(), &body), 503, "unavailable", &[]);
    }
    redis.signal(Signal::CONT);
    wait_ready(&server);
    // One of the tries has been carried out in the end, perhaps only this one.
    let response = publish(server.address(), &body);
    let is_duplicate = response.text().contains("true");
    check_published(&response, "lobby", 1, is_duplicate);
    check_published(&publish(server.address(), &body), "lobby", 1, true);
    let last = json!({"room": "lobby", "text": "last"});
    check_published(&publish(server.address(), &last), "lobby", 2, false);
    let all = recv_long(&mut ann, "the last", |message| is_text(message, "last"));
    assert_eq!(texts(&all), ["once", "last"]);
}

#[test]
fn a_request_that_was_held_while_redis_was_away_is_answered_when_it_is_back() {
    let mut redis = Redis::start();
    let server = node(&redis, &["--redis-hold", "60s"]);
    redis.kill();
    let mut raw = Raw::connect(server.address());
    raw.send(&publish_request(r#"{"room":"lobby","text":"held","id":"x"}"#));
    crate::harness::nodes::wait_unready(&server);
    redis.restart();
    wait_ready(&server);
    check_published(&raw.response(), "lobby", 1, false);
}

#[test]
fn a_message_that_redis_refuses_for_want_of_a_right_is_not_taken_for_a_repetition_later() {
    let redis = Redis::start();
    let server = node(&redis, &[]);
    redis.ask::<String>(&["ACL", "SETUSER", "default", "-time"]);
    let body = json!({"room": "lobby", "text": "hello", "id": "x"});
    for _ in 0..2 {
        check_refused(&publish(server.address(), &body), 503, "unavailable", &[]);
    }
    redis.ask::<String>(&["ACL", "SETUSER", "default", "+time"]);
    check_published(&publish(server.address(), &body), "lobby", 1, false);
}
