//! The worst that Redis and its links may do: clocks that differ, copies that never come, and answers
//! that are out of date.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roomcast::Config;
use roomcast::bus::{Outcome, ReadFrom};
use roomcast::internals::PublishScript;

use crate::harness::bus::Node;
use crate::harness::nodes::{history, node_with, nodes, recv_long, say_and_see};
use crate::harness::redis::{Redis, eventually};
use crate::support::Client;
use crate::support::chat::{is, seqs};

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn a_node_whose_clock_is_wrong_takes_nobodys_history() {
    let redis = Redis::start();
    let mut config = Config::default();
    config.history.age_max = Duration::from_secs(600);
    let [mut right, mut slow, mut fast] = [(1, 0), (2, -3_600_000), (3, 3_600_000)].map(|(seed, ahead)| {
        let mut node = Node::start(&redis, &config, seed);
        node.unix_ms = unix_ms().saturating_add_signed(ahead);
        node
    });
    for node in [&mut slow, &mut right, &mut fast] {
        let ticket = node.publish("m");
        assert!(matches!(node.outcome(ticket), Outcome::AcceptedUnseen(_)));
    }
    for node in [&mut fast, &mut right, &mut slow] {
        let page = node.read(ReadFrom::Newest(10), 1000);
        assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[test]
fn keys_live_longer_than_history_in_every_used_room_and_are_renewed_in_time() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    let mut publish = || {
        let ticket = node.publish("m");
        assert!(matches!(node.outcome(ticket), Outcome::AcceptedUnseen(_)));
    };
    let keys = ["roomcast:{lobby}:meta", "roomcast:{lobby}:log"];
    let lives = || keys.map(|key| redis.ask::<i64>(&["PTTL", key]));
    let shorten = || keys.map(|key| redis.ask::<u32>(&["PEXPIRE", key, "60000"]));
    let history = Config::default().history.age_max.as_millis() as i64;
    publish();
    assert!(lives().iter().all(|life| *life > history + 120_000), "{:?}", lives());
    shorten();
    publish();
    assert!(lives().iter().all(|life| *life <= 60_000), "a moment ago is soon enough: {:?}", lives());
    // Two minutes later, or after Redis' clock was set back.
    for till in ["1", "99999999999999"] {
        redis.ask::<u32>(&["HSET", keys[0], "till", till]);
        publish();
        assert!(lives().iter().all(|life| *life > history + 120_000), "{:?}", lives());
        shorten();
    }
    // Where the stream alone was lost the next has to end some day, too.
    redis.ask::<u32>(&["DEL", keys[1]]);
    publish();
    assert!(lives().iter().all(|life| *life > history + 120_000), "{:?}", lives());
}

#[test]
fn messages_older_than_history_may_be_are_not_shown() {
    let redis = Redis::start();
    let mut config = Config::default();
    config.history.age_max = Duration::from_millis(500);
    let mut node = Node::start(&redis, &config, 1);
    let ticket = node.publish("m");
    node.outcome(ticket);
    node.until("the message is too old", |node| {
        let page = node.read(ReadFrom::Newest(10), 1000);
        (page.top == 1 && page.messages.is_empty()).then_some(())
    });
    assert_eq!(redis.ask::<u32>(&["XLEN", "roomcast:{lobby}:log"]), 0, "it is cut off for good");
}

/// Gives the lobby a message that no node hears of.
fn say_unheard(redis: &Redis, body: &str) -> u64 {
    let seq = redis.ask::<u64>(&["HINCRBY", "roomcast:{lobby}:meta", "seq", "1"]);
    redis.ask::<String>(&["XADD", "roomcast:{lobby}:log", &format!("{seq}-0"), "b", body, "t", "1"]);
    seq
}

/// Has Redis believe that the publications which the node makes next were made before and given this number, as if the
/// answer had been lost.
fn foretell(redis: &Redis, node: &mut Node, seq: u64) {
    let ticket = node.publish("the one before");
    assert!(matches!(node.outcome(ticket), Outcome::Accepted(_)));
    let keys: Vec<String> = redis.ask(&["KEYS", "roomcast:{lobby}:id:!*"]);
    let serial = |key: &String| key.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let last = keys.iter().max_by_key(|key| serial(key)).expect("an id of the node's own");
    let stem = last.rsplit_once(' ').unwrap().0;
    let line: String = redis.ask(&["HGET", "roomcast:{lobby}:meta", "line"]);
    for next in 1..=10 {
        redis.ask::<String>(&["SET", &format!("{stem} {}", serial(last) + next), &format!("{line} {seq}")]);
    }
}

#[test]
fn a_copy_that_never_comes_has_the_room_compared() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    node.open();
    foretell(&redis, &mut node, 2);
    assert_eq!(say_unheard(&redis, "m"), 2);
    let ticket = node.publish("m");
    assert_eq!(node.outcome(ticket), Outcome::AcceptedUnseen(2));
    // Long before the next comparison would be due.
    node.until("the message", |node| (node.delivered() == [1, 2]).then_some(()));
    assert!(node.uptime() < Duration::from_secs(18), "{:?}", node.uptime());
}

fn calls_of_scripts(redis: &Redis) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_read_of_less_than_was_delivered_ends_the_epoch_and_asks_little() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    let old = node.open().epoch;
    for _ in 0..5 {
        let ticket = node.publish("m");
        node.outcome(ticket);
    }
    // Its newest messages are gone, and nobody has noticed.
    redis.ask::<u32>(&["HSET", "roomcast:{lobby}:meta", "seq", "3"]);
    redis.ask::<u32>(&["XDEL", "roomcast:{lobby}:log", "4-0", "5-0"]);
    let before = calls_of_scripts(&redis);
    // The reader goes on until a page reaches the top, as members do that catch up.
    let page = node.until("a page that is complete", |node| {
        let page = node.read(ReadFrom::After(5), 1000);
        (page.complete || page.epoch != old).then_some(page)
    });
    assert_eq!((page.top, node.epochs()), (3, vec![(page.epoch.as_str().to_owned(), 3)]));
    assert_ne!(page.epoch, old);
    let calls = calls_of_scripts(&redis) - before;
    assert!(calls <= 20, "{calls} calls");
    assert!(node.uptime() < Duration::from_secs(18), "{:?}", node.uptime());
}

#[test]
fn a_duplicate_in_an_unheard_epoch_waits_for_its_announcement() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    node.open();
    foretell(&redis, &mut node, 2);
    say_unheard(&redis, "m");
    // The epoch is renewed and its announcement lost. Accepted messages still count.
    redis.ask::<u32>(&["HSET", "roomcast:{lobby}:meta", "epoch", "unheard"]);
    let before = calls_of_scripts(&redis);
    let ticket = node.publish("m");
    assert_eq!(node.outcome(ticket), Outcome::Duplicate(2), "its sender sees no copy");
    assert_eq!((node.delivered(), node.epochs()), (vec![1], vec![("unheard".to_owned(), 2)]));
    let calls = calls_of_scripts(&redis) - before;
    assert!(calls <= 5, "{calls} calls");
    assert!(node.uptime() < Duration::from_secs(18), "{:?}", node.uptime());
}

/// Cuts the subscription, and waits until it is back and missing messages were queried.
fn cut_subscription(redis: &Redis, node: &mut Node) {
    let (cuts, fills) = (node.stats().reconnects_total, node.stats().fills_total);
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    node.until("the subscription is cut", |node| (node.stats().reconnects_total > cuts).then_some(()));
    node.until("it was looked for what is missing", |node| (node.stats().fills_total > fills).then_some(()));
}

#[test]
fn without_history_only_an_interruption_that_missed_something_ends_the_epoch() {
    let redis = Redis::start();
    let mut config = Config::default();
    config.history.messages_max = 0;
    let mut node = Node::start(&redis, &config, 1);
    node.open();
    for seq in 1..=3 {
        let ticket = node.publish("m");
        assert_eq!(node.outcome(ticket), Outcome::Accepted(seq));
        cut_subscription(&redis, &mut node);
    }
    let ticket = node.publish("m");
    node.outcome(ticket);
    assert_eq!((node.delivered(), node.epochs()), (vec![1, 2, 3, 4], Vec::new()));
    redis.ask::<u64>(&["HINCRBY", "roomcast:{lobby}:meta", "seq", "2"]);
    cut_subscription(&redis, &mut node);
    node.until("the truth", |node| (!node.epochs().is_empty()).then_some(()));
    assert_eq!((node.delivered().len(), node.epochs()[0].1), (4, 6));
}

#[test]
fn messages_that_redis_could_not_keep_are_refused_and_can_be_sent_again() {
    let redis = Redis::start();
    let mut node = Node::start(&redis, &Config::default(), 1);
    node.open();
    for seq in 1..=5 {
        let ticket = node.publish("m");
        assert_eq!(node.outcome(ticket), Outcome::Accepted(seq));
    }
    // The count is behind the stream, which takes nothing twice.
    redis.ask::<u32>(&["HSET", "roomcast:{lobby}:meta", "seq", "3"]);
    for _ in 4..=5 {
        let ticket = node.publish_as(Some("7"), "again");
        assert!(matches!(node.outcome(ticket), Outcome::Refused(_)));
    }
    let ticket = node.publish_as(Some("7"), "again");
    assert_eq!(node.outcome(ticket), Outcome::Accepted(6), "nothing that was refused is known");
    node.until("all messages", |node| (node.delivered().len() >= 6).then_some(()));
    assert_eq!((node.delivered(), node.epochs()), ((1..=6).collect(), Vec::new()));
}

#[test]
fn epochs_that_end_together_are_logged_together() {
    const JOINED: usize = 50;
    // And that of the host's commands.
    const ROOMS: usize = JOINED + 1;
    let redis = Redis::start();
    let server = node_with(&redis, &[]);
    let mut ann = Client::connect_as(&server, "ann");
    for i in 0..JOINED {
        ann.join(&format!("r{i}"));
    }
    redis.ask::<String>(&["FLUSHALL"]);
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let counted = |line: &String| {
        let (before, _) = line.split_once(" began a new epoch")?;
        before.split(' ').rev().nth(1)?.parse::<usize>().ok()
    };
    let lines = || server.log_lines("began a new epoch");
    eventually("all are counted", || lines().iter().filter_map(counted).sum::<usize>() == ROOMS);
    assert!(lines().iter().all(|line| line.contains("WARN")), "{:?}", lines());
    for words in ["begins epoch", "has to end", "room r"] {
        assert_eq!(server.log_lines(words), [""; 0], "one by one they would fill the log");
    }
}

#[test]
fn channel_messages_of_a_later_version_are_ignored_quietly() {
    let redis = Redis::start();
    let server = node_with(&redis, &[]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let repeat = "for i = 1, 1000 do redis.call('PUBLISH', 'roomcast:{lobby}', ARGV[1]) end";
    redis.ask::<()>(&["EVAL", repeat, "0", "@later 1 2 {}"]);
    redis.ask::<()>(&["EVAL", repeat, "0", "@"]);
    assert_eq!(say_and_see(&mut ann, "lobby", "one")["seq"], 1);
    // A line that the same thread writes afterwards: by then a warning would be there.
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    server.wait_for_log("the link for subscribing is lost");
    assert_eq!(server.log_lines("something other than roomcast"), [""; 0]);
    eventually("it is subscribed again", || {
        redis.ask::<Vec<(String, u32)>>(&["PUBSUB", "NUMSUB", "roomcast:{lobby}"])[0].1 == 1
    });
    // Foreign messages are worth one warning, not a thousand.
    let began = Instant::now();
    redis.ask::<()>(&["EVAL", repeat, "0", "junk"]);
    assert_eq!(say_and_see(&mut ann, "lobby", "two")["seq"], 2);
    server.wait_for_log("something other than roomcast");
    let warnings = server.log_lines("something other than roomcast").len();
    assert!((1..=1 + began.elapsed().as_secs() as usize).contains(&warnings), "{warnings} warnings");
}

#[test]
fn a_subscription_that_redis_gives_up_for_its_slowness_misses_nothing() {
    const BURST: u64 = 500;
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    let mut readers = servers.each_ref().map(Client::connect);
    readers.iter_mut().for_each(|reader| drop(reader.join("lobby")));
    let mut ann = Client::connect_as(&servers[0], "ann");
    ann.join("lobby");
    say_and_see(&mut ann, "lobby", "before");
    redis.ask::<String>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 0 0"]);
    // Redis writes nothing before a script is over, so the messages of one script exceed the limit, however fast the nodes are.
    let publish = PublishScript::new(&Config::default(), "roomcast").source();
    let burst = format!(
        "local function publish(KEYS, ARGV)\n{publish}\nend
        for i = 1, tonumber(ARGV[1]) do
          local body = string.format(ARGV[2], i)
          publish({{KEYS[1], KEYS[2], KEYS[2] .. i}}, {{'burst', body, '100000', '3900000', '3600000'}})
        end"
    );
    let text = "x".repeat(400);
    let body = format!(r#"{{"type":"chat","room":"lobby","userId":"eve","text":"%d {text}","ts":1"#);
    let keys = ["2", "roomcast:{lobby}:meta", "roomcast:{lobby}:log"];
    redis.ask::<()>(&[&["EVAL", &burst], &keys[..], &[&BURST.to_string(), &body]].concat());
    for server in &servers {
        server.wait_for_log("the link for subscribing is lost");
    }
    let after = say_and_see(&mut ann, "lobby", "after");
    assert_eq!(after["seq"], BURST + 2);
    for reader in &mut readers {
        let all = recv_long(reader, "the last message", |message| message["seq"] == BURST + 2 && is(message, "chat"));
        assert_eq!(seqs(&all), (1..=BURST + 2).collect::<Vec<_>>());
        assert!(all.iter().all(|message| !is(message, "joined")), "nothing had to be given up");
    }
    assert_eq!(history(&servers[0], "lobby", BURST + 2).len() as u64, BURST + 2);
}
