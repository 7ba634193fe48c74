//! A Redis that comes back with fewer messages than it had, or with all of them. No client misses a
//! message without being told, every message is answered, and no client is told of a loss that did
//! not happen.

use std::time::Duration;

use roomcast::Config;
use roomcast::bus::{Outcome, ReadFrom};

use crate::harness::bus::Node;
use crate::harness::nodes::{node_with, recv_long, say_and_see, wait_ready, wait_unready};
use crate::harness::redis::Redis;
use crate::harness::way::{Course, Way};
use crate::support::chat::{chat, is};
use crate::support::{Client, Server};

/// A Redis that keeps only saved data.
fn redis_with_snapshots() -> Redis {
    Redis::with(&["--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"])
}

/// A Redis that loses nothing.
fn durable_redis() -> Redis {
    Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
}

/// With history, and without.
fn configs() -> [Config; 2] {
    [1000, 0].map(|messages| {
        let mut config = Config::default();
        config.history.messages_max = messages;
        config
    })
}

/// Has a Redis forget all unsaved data, and waits until a node has both its links again.
fn lose(redis: &mut Redis, node: &mut Node) {
    redis.kill();
    node.until("the loss is noticed", |node| (!node.is_ready()).then_some(()));
    redis.restart();
    node.until("the links stand", |node| node.is_ready().then_some(()));
}

fn say(node: &mut Node, bodies: &[&str]) {
    for body in bodies {
        let ticket = node.publish(body);
        node.outcome(ticket);
    }
}

/// Says five things of which Redis will forget the last three.
fn say_five_and_save_two(redis: &Redis, node: &mut Node) {
    say(node, &["one", "two"]);
    redis.ask::<String>(&["SAVE"]);
    say(node, &["three", "four", "five"]);
}

#[test]
fn a_room_that_was_opened_at_a_number_which_is_given_out_again_begins_a_new_epoch() {
    for config in configs() {
        let mut redis = redis_with_snapshots();
        let [mut speaker, mut reader] = [1, 2].map(|seed| Node::start(&redis, &config, seed));
        say_five_and_save_two(&redis, &mut speaker);
        // Nothing is read but where the room stands.
        let old = reader.open();
        assert_eq!((old.top, old.messages.len()), (5, 0));
        lose(&mut redis, &mut speaker);
        say(&mut speaker, &["other three", "other four", "other five"]);
        reader.until("the truth", |node| (!node.epochs().is_empty()).then_some(()));
        assert_eq!((reader.epochs()[0].1, reader.delivered()), (5, vec![]));
    }
}

#[test]
fn a_position_in_a_room_that_was_open_nowhere_while_messages_were_lost_is_not_continued() {
    for config in configs() {
        let mut redis = redis_with_snapshots();
        let mut node = Node::start(&redis, &config, 1);
        say_five_and_save_two(&redis, &mut node);
        let old = node.read(ReadFrom::Newest(0), 0);
        lose(&mut redis, &mut node);
        say(&mut node, &["other three", "other four", "other five"]);
        let new = node.open();
        assert_eq!((old.top, new.top), (5, 5), "nothing but the epoch tells");
        assert_ne!(old.epoch, new.epoch);
    }
}

#[test]
fn a_room_that_was_closed_while_redis_was_away_is_compared_before_it_is_forgotten() {
    for config in configs() {
        let mut redis = redis_with_snapshots();
        let way = Way::to(redis.port, Course::default());
        let mut knows_more = Node::start(&redis, &config, 1);
        let mut knows_less = Node::start_at(&way.url(), &config, 2);
        let old = knows_more.open();
        knows_less.open();
        say(&mut knows_more, &["one", "two"]);
        knows_less.until("the messages", |node| (node.delivered() == [1, 2]).then_some(()));
        redis.ask::<String>(&["SAVE"]);
        way.set(Course { is_held: true, ..Course::default() });
        say(&mut knows_more, &["three", "four", "five"]);
        redis.kill();
        knows_more.until("the loss is noticed", |node| (!node.is_ready()).then_some(()));
        knows_more.close();
        let closed_at = knows_more.uptime();
        knows_more.until("closed rooms are forgotten", |node| {
            (node.uptime() > closed_at + Duration::from_secs(6)).then_some(())
        });
        redis.restart();
        way.set(Course::default());
        // It has delivered nothing that Redis lacks.
        wait_until_confirmed(&redis, &mut knows_less);
        say(&mut knows_less, &["other three", "other four", "other five"]);
        knows_more.until("the links stand", |node| node.is_ready().then_some(()));
        assert_ne!(knows_more.open().epoch, old.epoch);
    }
}

/// Waits until somebody has confirmed the lobby since Redis started.
fn wait_until_confirmed(redis: &Redis, node: &mut Node) {
    let run_id = redis.info("run_id").expect("a run");
    node.until("the epoch is confirmed", |_| {
        (redis.ask::<String>(&["HGET", "roomcast:{lobby}:meta", "run"]) == run_id[..8]).then_some(())
    });
}

#[test]
fn a_redis_that_comes_back_with_everything_tells_of_no_loss() {
    for config in configs() {
        let mut redis = durable_redis();
        let [mut speaker, mut reader] = [1, 2].map(|seed| Node::start(&redis, &config, seed));
        say(&mut speaker, &["one", "two", "three"]);
        let old = reader.open();
        for round in 0..2 {
            lose(&mut redis, &mut reader);
            wait_until_confirmed(&redis, &mut reader);
            say(&mut speaker, &["more"]);
            reader.until("the message", |node| (node.delivered().len() > round).then_some(()));
        }
        assert_eq!((reader.delivered(), reader.epochs()), (vec![4, 5], vec![]));
        // A room that is confirmed is opened without a wait, and where it was.
        assert_eq!(speaker.open().epoch, old.epoch);
    }
}

#[test]
fn a_room_whose_last_message_is_too_old_to_be_shown_is_confirmed_all_the_same() {
    let mut redis = durable_redis();
    let mut config = Config::default();
    config.history.age_max = Duration::from_millis(300);
    let mut node = Node::start(&redis, &config, 1);
    say(&mut node, &["one", "two", "three"]);
    node.open();
    node.until("history is empty", |node| {
        let page = node.read(ReadFrom::Newest(10), 1000);
        (page.top == 3 && page.messages.is_empty()).then_some(())
    });
    lose(&mut redis, &mut node);
    wait_until_confirmed(&redis, &mut node);
    assert_eq!(node.epochs(), []);
}

#[test]
fn the_copy_of_another_message_with_the_same_number_answers_nobody() {
    for config in configs() {
        let mut redis = redis_with_snapshots();
        let mut node = Node::start(&redis, &config, 1);
        node.open();
        say_five_and_save_two(&redis, &mut node);
        redis.kill();
        node.until("the loss is noticed", |node| (!node.is_ready()).then_some(()));
        // It waits for the link, and is given the number 3 again.
        let ticket = node.publish("said meanwhile");
        node.turn();
        redis.restart();
        let outcome = node.outcome(ticket);
        let is_seen =
            |seq: u64| node.messages().iter().any(|message| message.seq == seq && *message.body == *b"said meanwhile");
        match outcome {
            Outcome::Accepted(seq) => assert!(is_seen(seq), "{seq} was delivered as something else"),
            Outcome::AcceptedUnseen(_) | Outcome::Duplicate(_) => {}
            Outcome::Refused(refusal) => panic!("{refusal:?}"),
        }
        node.until("the truth", |node| (!node.epochs().is_empty()).then_some(()));
    }
}

#[test]
fn messages_sent_while_redis_loses_messages_are_answered() {
    for history in ["1000", "0"] {
        let mut redis = redis_with_snapshots();
        let url = redis.url();
        let server = Server::spawn(&["--redis", &url, "--history-messages", history]);
        wait_ready(&server);
        let mut ann = Client::connect_as(&server, "ann");
        ann.join("lobby");
        say_and_see(&mut ann, "lobby", "kept");
        redis.ask::<String>(&["SAVE"]);
        for i in 0..5 {
            say_and_see(&mut ann, "lobby", &format!("lost {i}"));
        }
        redis.kill();
        wait_unready(&server);
        for id in ["x", "y", "z"] {
            ann.send_json(&chat("lobby", "said meanwhile", id));
        }
        redis.restart();
        wait_ready(&server);
        for id in ["x", "y", "z"] {
            recv_long(&mut ann, "an answer", |message| {
                message["id"] == id && (is(message, "ack") || is(message, "chat"))
            });
        }
    }
}

#[test]
fn a_client_that_was_away_while_redis_lost_messages_is_told_that_they_are_gone() {
    let mut redis = redis_with_snapshots();
    let [a, b] = [(); 2].map(|()| node_with(&redis, &[]));
    let mut ann = Client::connect_as(&a, "ann");
    let joined = ann.join("lobby");
    say_and_see(&mut ann, "lobby", "kept");
    redis.ask::<String>(&["SAVE"]);
    say_and_see(&mut ann, "lobby", "lost");
    let since = serde_json::json!({"epoch": joined["epoch"], "seq": 2});
    drop((ann, a));
    redis.kill();
    wait_unready(&b);
    redis.restart();
    wait_ready(&b);
    let mut bob = Client::connect_as(&b, "bob");
    bob.join("lobby");
    assert_eq!(say_and_see(&mut bob, "lobby", "instead")["seq"], 2);
    let mut ann = Client::connect_as(&b, "ann");
    let (messages, joined) =
        crate::support::chat::join_with(&mut ann, &serde_json::json!({"room": "lobby", "since": since, "history": 10}));
    assert_eq!(joined["recovered"], false);
    assert_eq!(crate::support::chat::texts(&messages), ["kept", "instead"]);
}
