//! Several nodes and one Redis. All nodes see one order, without loss or repetition, while parts are
//! killed, stopped, emptied or cut. Where messages are lost, clients are told.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use roomcast::{Config, Owner};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::bus::Node;
use crate::harness::nodes::{
    epoch, history, is_text, node_with, nodes, recv_long, say_and_see, wait_ready, wait_unready,
};
use crate::harness::redis::{Certificate, Redis, eventually, free_port};
use crate::harness::talk::talk_through;
use crate::harness::way::{Course, Way};
use crate::support::chat::{chat, is, join_with, seqs, settle, texts};
use crate::support::{Client, Server};

/// Waits until so many more messages were said in the lobby.
fn grow(redis: &Redis, more: usize) {
    let count = || redis.ask::<Option<usize>>(&["HGET", "roomcast:{lobby}:meta", "seq"]).unwrap_or(0);
    let enough = count() + more;
    eventually("the talk goes on", || count() >= enough);
}

#[test]
fn all_nodes_see_one_order() {
    let redis = Redis::start();
    let servers = nodes::<3>(&redis);
    let mut readers = servers.each_ref().map(Client::connect);
    readers.iter_mut().for_each(|reader| drop(reader.join("lobby")));
    thread::scope(|scope| {
        for i in 0..6 {
            let server = &servers[i % 3];
            scope.spawn(move || {
                let mut client = Client::connect_as(server, &format!("t{i}"));
                client.join("lobby");
                for n in 0..100 {
                    client.say("lobby", &format!("{i}.{n}"));
                }
                recv_long(&mut client, "the last own copy", |message| is_text(message, &format!("{i}.99")));
            });
        }
    });
    let seen = readers.each_mut().map(|reader| {
        let all = recv_long(reader, "600 messages", |message| message["seq"] == 600 && is(message, "chat"));
        assert_eq!(seqs(&all), (1..=600).collect::<Vec<_>>());
        texts(&all).into_iter().map(str::to_owned).collect::<Vec<_>>()
    });
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
    let of_one: Vec<_> = seen[0].iter().filter_map(|text| text.strip_prefix("0.")?.parse::<u32>().ok()).collect();
    assert_eq!(of_one, (0..100).collect::<Vec<_>>(), "a sender's own order");
}

#[test]
fn a_node_knows_the_owners_of_its_own_messages_and_of_no_others() {
    let redis = Redis::start();
    let mut nodes = [1, 2].map(|seed| Node::start(&redis, &Config::default(), seed));
    for node in &mut nodes {
        node.open();
    }
    nodes[0].publish(r#"{"type":"chat","room":"lobby","text":"hello","ts":1"#);
    let owners = nodes.each_mut().map(|node| node.until("the message", |node| node.owners().pop()));
    assert_eq!(owners, [Some(Owner::HOST), None]);
}

#[test]
fn a_client_resumes_on_another_node() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let mut ann = Client::connect_as(&a, "ann");
    let joined = ann.join("lobby");
    for i in 1..=20 {
        say_and_see(&mut ann, "lobby", &format!("message {i}"));
    }
    let mut bob = Client::connect_as(&b, "bob");
    let since = json!({"epoch": joined["epoch"], "seq": 7});
    let (messages, joined) = join_with(&mut bob, &json!({"room": "lobby", "since": since}));
    assert_eq!((joined["recovered"].as_bool(), joined["seq"].as_u64()), (Some(true), Some(20)));
    assert_eq!(seqs(&messages), (8..=20).collect::<Vec<_>>());
    // The same id on another node is the same message.
    ann.send_json(&chat("lobby", "once", "x"));
    recv_long(&mut ann, "the copy", |message| is_text(message, "once"));
    let mut ann_again = Client::connect_as(&b, "ann");
    ann_again.join("lobby");
    ann_again.send_json(&chat("lobby", "once", "x"));
    let ack = recv_long(&mut ann_again, "the ack", |message| is(message, "ack")).pop().unwrap();
    assert_eq!((ack["seq"].as_u64(), ack["duplicate"].as_bool()), (Some(21), Some(true)));
    assert_eq!(history(&a, "lobby", 21).len(), 21);
}

#[test]
fn no_ack_overtakes_its_copy() {
    let redis = Redis::start();
    let [a, _b] = nodes(&redis);
    let mut ann = Client::connect_as(&a, "ann");
    ann.join("lobby");
    for i in 0..500 {
        ann.send_json(&chat("lobby", &i.to_string(), &i.to_string()));
    }
    let mut all = recv_long(&mut ann, "the last copy", |message| is_text(message, "499"));
    all.extend(settle(&mut ann));
    assert_eq!(seqs(&all), (1..=500).collect::<Vec<_>>());
    let mut seen = BTreeSet::new();
    for message in &all {
        let id = message["id"].to_string();
        if is(message, "chat") {
            seen.insert(id);
        } else if is(message, "ack") {
            assert!(seen.contains(&id) && message["duplicate"] == false, "{message}");
        }
    }
}

#[test]
fn a_redis_that_crashes_and_keeps_its_data_loses_and_doubles_nothing() {
    let mut redis = Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let servers = nodes::<2>(&redis);
    talk_through(&servers, || {
        for _ in 0..2 {
            grow(&redis, 200);
            redis.kill();
            servers.iter().for_each(wait_unready);
            redis.restart();
            servers.iter().for_each(wait_ready);
        }
        grow(&redis, 200);
    });
}

#[test]
fn a_redis_that_comes_back_empty_begins_a_new_epoch() {
    let mut redis = Redis::start();
    let [a, b] = nodes(&redis);
    let mut clients = [Client::connect_as(&a, "ann"), Client::connect_as(&b, "bob")];
    let old = clients.each_mut().map(|client| epoch(&client.join("lobby")));
    assert_eq!(old[0], old[1]);
    say_and_see(&mut clients[0], "lobby", "before");
    recv_long(&mut clients[1], "the message", |message| is_text(message, "before"));
    redis.kill();
    [&a, &b].into_iter().for_each(wait_unready);
    assert_eq!(a.get("/healthz").status, 200);
    redis.restart();
    let new = clients.each_mut().map(|client| {
        let joined = recv_long(client, "a joined, unasked", |message| is(message, "joined")).pop().unwrap();
        assert_eq!((joined["recovered"].as_bool(), joined["room"].as_str()), (Some(false), Some("lobby")));
        epoch(&joined)
    });
    assert!(new[0] == new[1] && new[0] != old[0], "{old:?} {new:?}");
    let message = say_and_see(&mut clients[1], "lobby", "after");
    assert_eq!(message["seq"], 1);
    recv_long(&mut clients[0], "the message", |message| is_text(message, "after"));
    let mut late = Client::connect_as(&b, "eve");
    let since = json!({"epoch": old[0], "seq": 1});
    let (messages, joined) = join_with(&mut late, &json!({"room": "lobby", "since": since, "history": 10}));
    assert_eq!((joined["recovered"].as_bool(), texts(&messages)), (Some(false), vec!["after"]));
}

#[test]
fn a_position_in_an_epoch_that_a_node_has_yet_to_hear_of_is_continued_there() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let hears_at_once = node_with(&redis, &[]);
    let hears_late = Server::spawn(&["--redis", &way.url()]);
    wait_ready(&hears_late);
    let [mut ann, mut bob] = [Client::connect_as(&hears_at_once, "ann"), Client::connect_as(&hears_late, "bob")];
    ann.join("lobby");
    bob.join("lobby");
    say_and_see(&mut ann, "lobby", "in the old epoch");
    recv_long(&mut bob, "the message", |message| is(message, "chat"));
    let delay = Duration::from_millis(900);
    way.set(Course { delay, spares_calls: true, ..Course::default() });
    redis.ask::<u32>(&["DEL", "roomcast:{lobby}:meta", "roomcast:{lobby}:log"]);
    ann.say("lobby", "in the new epoch");
    let joined = recv_long(&mut ann, "the new epoch", |message| is(message, "joined")).pop().unwrap();
    let since = json!({"epoch": joined["epoch"], "seq": joined["seq"]});
    say_and_see(&mut ann, "lobby", "missed");
    let mut ann = Client::connect_as(&hears_late, "ann");
    let (messages, joined) = join_with(&mut ann, &json!({"room": "lobby", "since": since, "history": 0}));
    let first = since["seq"].as_u64().unwrap() + 1;
    assert_eq!((joined["recovered"].as_bool(), seqs(&messages)), (Some(true), (first..=2).collect()));
    assert_eq!(texts(&messages).last(), Some(&"missed"));
}

#[test]
fn a_redis_that_comes_back_from_an_old_snapshot_is_found_out() {
    let mut redis = Redis::with(&["--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"]);
    let [a, b] = nodes(&redis);
    let mut ann = Client::connect_as(&a, "ann");
    let old = epoch(&ann.join("lobby"));
    say_and_see(&mut ann, "lobby", "kept");
    redis.ask::<String>(&["SAVE"]);
    for i in 0..5 {
        say_and_see(&mut ann, "lobby", &format!("lost {i}"));
    }
    redis.kill();
    [&a, &b].into_iter().for_each(wait_unready);
    // The other node does not have the room open and does not notice the loss. It assigns the numbers again.
    redis.restart();
    wait_ready(&b);
    let mut bob = Client::connect_as(&b, "bob");
    bob.join("lobby");
    for i in 0..7 {
        bob.say("lobby", &format!("other {i}"));
    }
    let all = recv_long(&mut ann, "a joined, unasked", |message| is(message, "joined"));
    let joined = &all[all.len() - 1];
    assert_eq!(joined["recovered"], false);
    assert_ne!(epoch(joined), old);
    say_and_see(&mut bob, "lobby", "together");
    recv_long(&mut ann, "the message", |message| is_text(message, "together"));
    let shown = history(&a, "lobby", 9);
    assert_eq!(texts(&shown).first(), Some(&"kept"));
    assert_eq!(texts(&shown).len(), 9);
}

#[test]
fn a_hole_that_cannot_be_filled_begins_a_new_epoch_everywhere() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let mut clients = [Client::connect_as(&a, "ann"), Client::connect_as(&b, "bob")];
    let old = epoch(&clients[0].join("lobby"));
    clients[1].join("lobby");
    say_and_see(&mut clients[0], "lobby", "before");
    recv_long(&mut clients[1], "the message", |message| is_text(message, "before"));
    // Five numbers that no message has.
    redis.ask::<u64>(&["HINCRBY", "roomcast:{lobby}:meta", "seq", "5"]);
    clients[0].send_json(&chat("lobby", "behind the hole", "x"));
    let heard = clients.each_mut().map(|client| recv_long(client, "a joined", |message| is(message, "joined")));
    let new = heard.each_ref().map(|messages| {
        let joined = messages.last().unwrap();
        assert_eq!((joined["recovered"].as_bool(), joined["seq"].as_u64()), (Some(false), Some(7)));
        epoch(joined)
    });
    assert!(new[0] == new[1] && new[0] != old);
    // Its sender will not see a copy, and is told that it is kept. If both come in one turn, what is
    // for one connection is written before the log of the room.
    let is_ack = |message: &Value| is(message, "ack") && message["id"] == "x";
    if !heard[0].iter().any(is_ack) {
        recv_long(&mut clients[0], "the ack", is_ack);
    }
    assert_eq!(say_and_see(&mut clients[1], "lobby", "after")["seq"], 8);
    recv_long(&mut clients[0], "the message", |message| is_text(message, "after"));
}

#[test]
fn a_node_that_is_killed_takes_nobody_with_it() {
    let redis = Redis::start();
    let [a, b, mut c] = nodes(&redis);
    let mut ann = Client::connect_as(&a, "ann");
    let mut bob = Client::connect_as(&b, "bob");
    let mut eve = Client::connect_as(&c, "eve");
    for client in [&mut ann, &mut bob, &mut eve] {
        client.join("lobby");
    }
    say_and_see(&mut eve, "lobby", "my last words");
    c.signal(Signal::KILL);
    c.wait_exit();
    for i in 0..20 {
        say_and_see(&mut ann, "lobby", &format!("message {i}"));
    }
    let all = recv_long(&mut bob, "the last message", |message| is_text(message, "message 19"));
    assert_eq!(seqs(&all), (1..=21).collect::<Vec<_>>());
}

#[test]
fn subscriptions_that_are_cut_miss_nothing() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    let mut reader = Client::connect(&servers[1]);
    reader.join("lobby");
    talk_through(&servers, || {
        for _ in 0..5 {
            grow(&redis, 100);
            redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        grow(&redis, 100);
    });
    let top = history(&servers[0], "lobby", 0).len() as u64;
    let all = recv_long(&mut reader, "the last message", |message| is(message, "chat") && message["seq"] == top);
    assert_eq!(seqs(&all), (1..=top).collect::<Vec<_>>());
    assert!(all.iter().all(|message| !is(message, "joined")), "nothing had to be given up");
}

#[test]
fn links_that_publish_may_be_cut_too() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    let cut = || redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    talk_through(&servers, || {
        for _ in 0..5 {
            grow(&redis, 100);
            cut();
        }
        grow(&redis, 100);
    });
    // A client that sets no id and sends nothing again relies on the node alone. Redis takes these
    // commands and does not carry them out.
    let mut ann = Client::connect_as(&servers[0], "ann");
    ann.join("quiet");
    wait_ready(&servers[0]);
    redis.ask::<String>(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    for i in 0..100 {
        ann.say("quiet", &i.to_string());
    }
    eventually("the messages are under way", || redis.ask::<String>(&["CLIENT", "LIST"]).contains(" flags=b "));
    cut();
    redis.ask::<String>(&["CLIENT", "UNPAUSE"]);
    let all = recv_long(&mut ann, "the last copy", |message| message["seq"] == 100 && is(message, "chat"));
    assert_eq!(texts(&all), (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_script_cache_that_is_emptied_is_filled_again() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    talk_through(&servers, || {
        for _ in 0..20 {
            grow(&redis, 20);
            redis.ask::<String>(&["SCRIPT", "FLUSH"]);
        }
        grow(&redis, 100);
    });
}

#[test]
fn a_redis_that_stands_still_is_noticed_and_nothing_is_lost() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    talk_through(&servers, || {
        grow(&redis, 100);
        redis.signal(Signal::STOP);
        servers.iter().for_each(wait_unready);
        // Longer than the links live without an answer; the kernel goes on accepting connections.
        thread::sleep(Duration::from_secs(5));
        redis.signal(Signal::CONT);
        servers.iter().for_each(wait_ready);
        grow(&redis, 100);
    });
    assert!(!servers[0].log_lines("no answer to PING").is_empty());
}

#[test]
fn a_wrong_password_is_said_clearly_and_not_shown() {
    let redis = Redis::with(&["--save", "", "--requirepass", "the-right-one"]);
    let url = format!("redis://:the-wrong-one@127.0.0.1:{}", redis.port);
    let server = Server::spawn(&["--redis", &url]);
    let line = server.wait_for_log("WRONGPASS");
    assert!(line.contains("ERROR") && line.contains("--redis"), "{line}");
    assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (503, 200));
    assert_eq!(server.log_lines("the-wrong-one"), [""; 0]);
    let url = format!("redis://:the-right-one@127.0.0.1:{}", redis.port);
    let server = Server::spawn(&["--redis", &url]);
    wait_ready(&server);
    Client::connect(&server).join("lobby");
}

#[test]
fn without_redis_messages_are_refused_after_the_hold_time() {
    let mut redis = Redis::start();
    let server = node_with(&redis, &["--redis-hold", "500ms"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    redis.kill();
    ann.send_json(&chat("lobby", "held", "x"));
    ann.send_json(&json!({"type": "join", "room": "other"}));
    let mut refused = BTreeSet::new();
    while refused.len() < 2 {
        let error = recv_long(&mut ann, "the errors", |message| is(message, "error")).pop().unwrap();
        assert_eq!((error["code"].as_str(), error["temporary"].as_bool()), (Some("unavailable"), Some(true)));
        refused.insert(error["room"].as_str().unwrap().to_owned());
    }
    redis.restart();
    wait_ready(&server);
    ann.send_json(&chat("lobby", "held", "x"));
    recv_long(&mut ann, "the copy", |message| is_text(message, "held"));
    ann.join("other");
}

#[test]
fn thousands_of_rooms_are_joined_at_once_and_again_after_a_cut() {
    const ROOMS: usize = 4000;
    let redis = Redis::start();
    let a = node_with(&redis, &["--rooms-per-connection", "4096", "--output-bytes", "8MiB"]);
    let b = node_with(&redis, &[]);
    let mut ann = Client::connect_as(&a, "ann");
    for i in 0..ROOMS {
        ann.send_json(&json!({"type": "join", "room": format!("r{i}")}));
    }
    let mut joined = 0;
    recv_long(&mut ann, "all joined", |message| {
        joined += usize::from(is(message, "joined"));
        joined == ROOMS
    });
    let mut bob = Client::connect_as(&b, "bob");
    let last = format!("r{}", ROOMS - 1);
    bob.join(&last);
    say_and_see(&mut bob, &last, "one");
    recv_long(&mut ann, "the message", |message| is_text(message, "one"));
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    say_and_see(&mut bob, &last, "two");
    recv_long(&mut ann, "the message", |message| is_text(message, "two"));
    eventually("all are subscribed again", || {
        let counts: Vec<(String, u32)> = redis.ask(&["PUBSUB", "NUMSUB", "roomcast:{r0}", "roomcast:{r3999}"]);
        counts.iter().map(|(_, count)| count).sum::<u32>() == 3
    });
}

#[test]
fn tls_is_spoken_with_trusted_servers_only() {
    let (certificate, tls_port) = (Certificate::new(), free_port());
    let _redis = Redis::with_tls(&["--save", ""], &certificate, tls_port);
    let cert = certificate.path();
    let url = format!("rediss://localhost:{tls_port}");

    let server = Server::spawn(&["--redis", &url, "--redis-ca", &cert, "--message-rate", "0", "--log-bytes", "16MiB"]);
    wait_ready(&server);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    // More than TLS puts into a record, and than a socket takes at once.
    for i in 0..200 {
        ann.say("lobby", &format!("{i} {}", "x".repeat(10_000)));
    }
    let all = recv_long(&mut ann, "the last copy", |message| message["seq"] == 200 && is(message, "chat"));
    assert_eq!(seqs(&all), (1..=200).collect::<Vec<_>>());

    let stranger = Server::spawn(&["--redis", &url]);
    stranger.wait_for_log("certificate");
    assert_eq!(stranger.get("/readyz").status, 503);
}

#[test]
fn a_position_beyond_all_numbers_is_not_recovered() {
    let redis = Redis::start();
    let server = node_with(&redis, &[]);
    let mut ann = Client::connect_as(&server, "ann");
    for (room, seq) in [("one", i64::MAX as u64), ("two", u64::MAX)] {
        ann.send_json(&json!({"type": "join", "room": room, "since": {"epoch": "e", "seq": seq}}));
        let joined = recv_long(&mut ann, "joined", |message| is(message, "joined")).pop().unwrap();
        assert_eq!(joined["recovered"], false);
        say_and_see(&mut ann, room, "goes on");
    }
}

#[test]
fn a_password_is_not_shown_by_a_redis_that_does_not_know_it() {
    let redis = Redis::with(&["--save", "", "--rename-command", "AUTH", "LOGIN"]);
    let url = format!("redis://:top-secret@127.0.0.1:{}", redis.port);
    let server = Server::spawn(&["--redis", &url]);
    server.wait_for_log("unknown command");
    assert_eq!(server.log_lines("top-secret"), [""; 0]);
}
