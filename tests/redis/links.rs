//! Links that are slow, narrow or cut, and nodes that stand still. All nodes see one order, without
//! loss or repetition, and no link that lives is given up.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::nodes::{history, is_text, recv_long, say_and_see, wait_ready};
use crate::harness::redis::{Redis, eventually};
use crate::harness::talk::{Said, check_all_kept, talk, talk_through};
use crate::harness::way::{Course, Way};
use crate::support::chat::{chat, is, seqs};
use crate::support::{Client, Server};

fn node_at(url: &str) -> Server {
    let server = Server::spawn(&["--redis", url, "--message-rate", "0", "--history-messages", "100000", "--metrics"]);
    wait_ready(&server);
    server
}

/// How often a node has looked for messages that it took for missing.
fn fills(server: &Server) -> f64 {
    let name = "roomcast_redis_gap_reads_total ";
    let metrics = server.get("/metrics").text().to_owned();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).expect("a count")
}

/// Waits until so many more messages were said in the lobby.
fn grow(redis: &Redis, more: usize) {
    let count = || redis.ask::<Option<usize>>(&["HGET", "roomcast:{lobby}:meta", "seq"]).unwrap_or(0);
    let enough = count() + more;
    eventually("the talk goes on", || count() >= enough);
}

/// Ten clients talk over two nodes, one of which is far from Redis; `disturb` changes the way meanwhile. Everybody sees one order, and
/// no link is lost.
fn talk_over(course: Course, disturb: impl FnOnce(&Redis, &Way)) {
    let redis = Redis::start();
    let way = Way::to(redis.port, course);
    let servers = [node_at(&way.url()), node_at(&redis.url())];
    let mut readers = servers.each_ref().map(Client::connect);
    readers.iter_mut().for_each(|reader| drop(reader.join("lobby")));
    talk_through(&servers, || disturb(&redis, &way));
    let top = history(&servers[1], "lobby", 0).len() as u64;
    let seen = readers.each_mut().map(|reader| {
        let all = recv_long(reader, "the last message", |message| is(message, "chat") && message["seq"] == top);
        assert_eq!(seqs(&all), (1..=top).collect::<Vec<_>>());
        assert!(all.iter().all(|message| !is(message, "joined")), "nothing had to be given up");
        all.into_iter().filter(|message| is(message, "chat")).collect::<Vec<Value>>()
    });
    assert!(seen[0] == seen[1], "both saw the same messages");
    assert_eq!(way.made(), 2, "one connection to publish, and one to listen");
    for server in &servers {
        assert_eq!((server.log_lines("is lost"), fills(server)), (Vec::new(), 0.0), "there was nothing to doubt");
    }
}

const FAR: Duration = Duration::from_millis(150);

#[test]
fn a_node_that_is_far_from_redis_sees_the_same_order_and_keeps_its_links() {
    talk_over(Course { delay: FAR, ..Course::default() }, |redis, way| {
        grow(redis, 300);
        // Whatever is asked is answered within the two seconds after which a link counts as dead.
        way.set(Course { delay: 4 * FAR, ..Course::default() });
        grow(redis, 100);
    });
}

#[test]
fn bytes_that_trickle_in_are_put_together() {
    let course = Course { delay: FAR, ..Course::default() };
    talk_over(course, |redis, way| {
        for piece_bytes in [1, 3, 7] {
            way.set(Course { piece_bytes: Some(piece_bytes), ..course });
            grow(redis, 20);
        }
    });
}

#[test]
fn a_subscription_that_lags_behind_the_calls_has_nobody_doubt_it() {
    // Longer than is waited for a message which an answer has overtaken.
    let course = Course { delay: 4 * FAR, spares_calls: true, ..Course::default() };
    talk_over(course, |redis, _| grow(redis, 300));
}

#[test]
fn a_link_with_little_to_say_lives_as_long_as_its_pings_are_answered() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let server = node_at(&way.url());
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    way.set(Course { delay: 4 * FAR, ..Course::default() });
    // Longer than a link lives of which nothing is heard.
    thread::sleep(Duration::from_millis(3500));
    say_and_see(&mut ann, "lobby", "still here");
    assert_eq!((way.made(), server.log_lines("is lost")), (2, Vec::new()));
}

#[test]
fn a_link_whose_pings_are_answered_too_late_is_replaced() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let server = node_at(&way.url());
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    // Nothing arrives for longer than a silent link lives, not even publications of others, which
    // take one direction only.
    way.set(Course { delay: Duration::from_secs(4), ..Course::default() });
    server.wait_for_log("no answer to PING");
    way.set(Course::default());
    ann.say("lobby", "again");
    recv_long(&mut ann, "the message", |message| is_text(message, "again"));
}

#[test]
fn service_is_back_within_a_second_of_a_short_outage_however_often_there_is_one() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let server = node_at(&way.url());
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut times = Vec::new();
    for round in 0..12 {
        way.cut();
        thread::sleep(Duration::from_millis(50));
        way.mend();
        let mended_at = Instant::now();
        say_and_see(&mut ann, "lobby", &format!("round {round}"));
        wait_ready(&server);
        times.push(mended_at.elapsed());
        thread::sleep(Duration::from_millis(400));
    }
    // A busy machine may be late now and then; a wait that grows with each outage is late from some round on.
    let late = times.iter().filter(|time| **time > Duration::from_secs(1)).count();
    assert!(late <= 1, "{times:?}");
}

#[test]
fn typing_from_before_a_link_was_lost_is_not_told_afterwards() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let servers = [node_at(&way.url()), node_at(&redis.url())];
    let mut ann = Client::connect_as(&servers[0], "ann");
    let mut bob = Client::connect_as(&servers[1], "bob");
    ann.join("lobby");
    bob.join("lobby");
    let type_it = |client: &mut Client, status: &str| {
        client.send_json(&json!({"type": "typing", "room": "lobby", "status": status}));
    };
    type_it(&mut ann, "start");
    recv_long(&mut bob, "that she types", |message| is(message, "typing"));
    way.set(Course { is_held: true, ..Course::default() });
    type_it(&mut ann, "stop");
    ann.send_json(&chat("lobby", "what she typed", "x"));
    servers[0].wait_for_log("the link for publishing is lost");
    // It is longer ago than receivers would have believed it.
    thread::sleep(Duration::from_secs(2));
    way.set(Course::default());
    let seen = recv_long(&mut bob, "the message", |message| is_text(message, "what she typed"));
    assert!(seen.iter().all(|message| !is(message, "typing")), "{seen:?}");
    // And what she types now is. Signals wait for no link, so both have to be up again.
    wait_ready(&servers[0]);
    type_it(&mut ann, "start");
    recv_long(&mut bob, "that she types", |message| is(message, "typing"));
}

/// How many subscriptions Redis has.
fn listeners(redis: &Redis) -> usize {
    redis.ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().count()
}

#[test]
fn a_node_that_stood_still_until_redis_gave_it_up_catches_up_and_closes_nobody() {
    let redis = Redis::start();
    redis.ask::<String>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 0 0"]);
    let url = redis.url();
    let flags = ["--redis", &url, "--message-rate", "0", "--history-messages", "100000"];
    let impatient = ["--ping-interval", "1s", "--pong-timeout", "1s"];
    let servers = [Server::spawn(&flags), Server::spawn(&[&flags[..], &impatient].concat())];
    servers.iter().for_each(wait_ready);
    let [mut reader, mut filler] = [("reader", 1), ("filler", 0)].map(|(user, at)| {
        let mut client = Client::connect_as(&servers[at], user);
        client.join("lobby");
        client
    });
    let reading = thread::spawn(move || recv_long(&mut reader, "the end", |message| is_text(message, "the end")));
    let mut filled = BTreeSet::new();
    let mut fill = |text: &str| {
        let id = format!("f{}", filled.len());
        filler.send_json(&chat("lobby", text, &id));
        recv_long(&mut filler, "the copy", |message| message["id"] == *id);
        filled.insert(id);
    };
    let mut said = talk(&servers, &["lobby"; 2], || {
        grow(&redis, 50);
        servers[1].signal(Signal::STOP);
        let stopped_at = Instant::now();
        // The kernel takes some megabytes for a process that stands still.
        let text = "x".repeat(10_000);
        while listeners(&redis) == 2 {
            fill(&text);
        }
        // Longer than a peer may be silent.
        thread::sleep(Duration::from_secs(3).saturating_sub(stopped_at.elapsed()));
        servers[1].signal(Signal::CONT);
        servers[1].wait_for_log("the link for subscribing is lost");
        grow(&redis, 50);
    });
    fill("the end");
    let (user, room) = ("filler".to_owned(), "lobby".to_owned());
    said.push(Said { user, room, acknowledged: filled, top: 0, breaks: 0 });
    check_all_kept(&servers, &said);
    assert!(said.iter().all(|said| said.breaks == 0), "the epoch goes on");
    let all = reading.join().expect("the end is read");
    assert_eq!(seqs(&all), (1..=history(&servers[0], "lobby", 0).len() as u64).collect::<Vec<_>>());
    assert!(all.iter().all(|message| message["recovered"] != false), "nothing had to be given up");
}
