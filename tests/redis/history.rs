//! Older messages, in pages, from a history that all nodes share and that may come back without its newest messages.

use std::time::Instant;

use roomcast::Config;
use roomcast::bus::{Page, ReadFrom};
use serde_json::{Value, json};

use crate::harness::bus::Node;
use crate::harness::nodes::{epoch, is_text, node_with, recv_long, say_and_see};
use crate::harness::redis::{LONG, Redis};
use crate::support::api::{KEY, check_refused, command, post};
use crate::support::chat::{is, join_with};
use crate::support::{Client, Server};

fn node(redis: &Redis) -> Server {
    node_with(redis, &["--api-key", KEY])
}

/// All that was said in the lobby, in pages as a member reads them.
fn read_back(member: &mut Client, limit: u32) -> Vec<Value> {
    let mut read = Vec::new();
    loop {
        let before = read.first().map(|message: &Value| message["seq"].clone());
        let mut request = json!({"type": "history", "room": "lobby", "limit": limit});
        if let Some(before) = before {
            request["before"] = before;
        }
        member.send_json(&request);
        let page = recv_long(member, "a page", |message| is(message, "history")).pop().unwrap();
        read.splice(0..0, page["messages"].as_array().unwrap().iter().cloned());
        if page["more"] == false {
            return read;
        }
    }
}

#[test]
fn members_and_back_ends_of_all_nodes_read_the_same_pages() {
    let redis = Redis::start();
    let [a, b] = [node(&redis), node(&redis)];
    let mut ann = Client::connect_as(&a, "ann");
    let joined = ann.join("lobby");
    for i in 0..250 {
        command(
            b.address(),
            "/api/publish",
            &json!({"room": "lobby", "text": format!("message {i}"), "userId": "shop"}),
        );
    }
    recv_long(&mut ann, "the last", |message| is_text(message, "message 249"));
    // What a member of another node is shown when it joins.
    let mut bob = Client::connect_as(&b, "bob");
    let (shown, _) = join_with(&mut bob, &json!({"room": "lobby", "history": 1000}));
    let shown: Vec<_> = shown.into_iter().filter(|message| is(message, "chat")).collect();
    assert_eq!(shown.len(), 250);
    assert_eq!(read_back(&mut ann, 70), shown);
    assert_eq!(read_back(&mut bob, 100), shown);
    drop((ann, bob));
    // Nobody is there any more, and a node that has just come never had it open.
    for server in [&a, &node(&redis)] {
        let page = command(server.address(), "/api/history", &json!({"room": "lobby", "before": 101, "limit": 50}));
        let about = (page["epoch"].as_str().unwrap(), &page["more"], &page["nodes"]);
        assert_eq!(about, (epoch(&joined).as_str(), &json!(true), &json!("all")));
        assert_eq!(page["messages"].as_array().unwrap()[..], shown[50..100]);
    }
}

#[test]
fn without_redis_a_page_is_refused_and_may_be_asked_for_again() {
    let mut redis = Redis::start();
    let server = node_with(&redis, &["--api-key", KEY, "--redis-hold", "300ms"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    say_and_see(&mut ann, "lobby", "hello");
    redis.kill();
    for _ in 0..2 {
        ann.send_json(&json!({"type": "history", "room": "lobby", "limit": 1, "id": "h"}));
        let error = recv_long(&mut ann, "an error", |message| is(message, "error")).pop().unwrap();
        assert_eq!(
            (&error["code"], &error["temporary"], &error["id"]),
            (&json!("unavailable"), &json!(true), &json!("h"))
        );
    }
    check_refused(&post(server.address(), "/api/history", &json!({"room": "lobby"})), 503, "unavailable", &[]);
}

fn say(node: &mut Node, bodies: &[&str]) {
    for body in bodies {
        let ticket = node.publish(body);
        node.outcome(ticket);
    }
}

/// Has a Redis forget all unsaved data, and waits until a node has both its links again.
fn lose(redis: &mut Redis, node: &mut Node) {
    redis.kill();
    node.until("the loss is noticed", |node| (!node.is_ready()).then_some(()));
    redis.restart();
    node.until("the links stand", |node| node.is_ready().then_some(()));
}

/// The newest messages, as soon as it is known to which epoch they belong.
fn look_back(node: &mut Node) -> Page {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "no page within {LONG:?}");
        let ticket = node.ask_read(ReadFrom::Before { seq: None, count: 10 }, 1000);
        match node.page(ticket) {
            Ok(page) => return page,
            Err(refusal) => assert!(refusal.code().is_temporary(), "{refusal:?}"),
        }
    }
}

fn bodies(page: &Page) -> Vec<&[u8]> {
    page.messages.iter().map(|message| &*message.body).collect()
}

fn redis_with_snapshots() -> Redis {
    Redis::with(&["--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"])
}

#[test]
fn a_room_that_was_open_nowhere_while_redis_lost_messages_is_read_in_a_new_epoch() {
    let mut redis = redis_with_snapshots();
    let mut node = Node::start(&redis, &Config::default(), 1);
    say(&mut node, &["one", "two"]);
    redis.ask::<String>(&["SAVE"]);
    say(&mut node, &["three"]);
    let old = look_back(&mut node);
    assert_eq!((bodies(&old), old.complete), (vec![&b"one"[..], b"two", b"three"], true));
    lose(&mut redis, &mut node);
    say(&mut node, &["other three"]);
    let new = look_back(&mut node);
    assert_eq!(bodies(&new), [&b"one"[..], b"two", b"other three"]);
    assert_ne!(new.epoch, old.epoch);
    // The same that is told of the room when it is opened.
    assert_eq!(node.open().epoch, new.epoch);
}

#[test]
fn an_open_room_is_read_in_the_epoch_that_its_members_are_told() {
    let mut redis = redis_with_snapshots();
    let [mut node, mut other] = [1, 2].map(|seed| Node::start(&redis, &Config::default(), seed));
    let old = node.open();
    say(&mut node, &["one", "two"]);
    redis.ask::<String>(&["SAVE"]);
    assert_eq!(look_back(&mut node).epoch, old.epoch);
    say(&mut node, &["three"]);
    node.until("the message", |node| (node.delivered() == [1, 2, 3]).then_some(()));
    lose(&mut redis, &mut node);
    other.until("the links stand", |node| node.is_ready().then_some(()));
    say(&mut other, &["other three"]);
    let new = look_back(&mut node);
    node.until("the new epoch", |node| (!node.epochs().is_empty()).then_some(()));
    assert_eq!(new.epoch.as_str(), node.epochs()[0].0);
    assert_eq!(bodies(&new), [&b"one"[..], b"two", b"other three"]);
}
