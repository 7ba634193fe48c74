//! Redis and what happens on the way to it, at their worst: clocks that differ, copies that never come, answers that are
//! older than what is known, another version beside ours.

#[path = "support/bus.rs"]
mod bus_support;
#[path = "support/redis.rs"]
mod redis_support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus_support::Node;
use redis_support::Redis;
use roomcast::Config;
use roomcast::publication::{Outcome, ReadFrom};

#[test]
fn a_node_whose_clock_is_wrong_takes_nobodys_history() {
    let redis = Redis::start();
    let mut config = Config::default();
    config.timing.history_age = Duration::from_secs(600);
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let [mut right, mut slow, mut fast] = [(1, 0), (2, -3_600_000), (3, 3_600_000)].map(|(seed, ahead)| {
        let mut node = Node::start(&redis, &config, seed);
        node.unix_ms = unix_ms.saturating_add_signed(ahead);
        node
    });
    for node in [&mut slow, &mut right, &mut fast] {
        let ticket = node.publish("m");
        assert!(matches!(node.outcome(ticket), Outcome::Accepted(_)));
    }
    for node in [&mut fast, &mut right, &mut slow] {
        let page = node.read(ReadFrom::Newest(10), 1000);
        assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[test]
fn what_is_older_than_history_may_be_is_not_shown() {
    let redis = Redis::start();
    let mut config = Config::default();
    config.timing.history_age = Duration::from_millis(500);
    let mut node = Node::start(&redis, &config, 1);
    let ticket = node.publish("m");
    node.outcome(ticket);
    node.until("the message is too old", |node| {
        let page = node.read(ReadFrom::Newest(10), 1000);
        (page.top == 1 && page.messages.is_empty()).then_some(())
    });
    assert_eq!(redis.ask::<u32>(&["XLEN", "roomcast:{lobby}:log"]), 0, "it is cut off for good");
}
