//! A node that ends while Redis is slow: accepted messages are written, and other nodes learn that its
//! users are gone.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::nodes::{is_text, node_with, recv_long};
use crate::harness::redis::{Redis, eventually};
use crate::support::Client;
use crate::support::chat::is;

/// Far less than a lease, after which the users of a node that has said nothing are taken for gone.
const SOON: Duration = Duration::from_secs(15);

fn check_end(text: Option<&str>) {
    let redis = Redis::start();
    let [mut ending, other] = [(); 2].map(|()| node_with(&redis, &["--presence-grace", "1s"]));
    let mut bob = Client::connect_as(&other, "bob");
    bob.join("lobby");
    let mut ann = Client::connect_as(&ending, "ann");
    ann.join("lobby");
    recv_long(&mut bob, "ann comes", |message| is(message, "presence") && message["userId"] == "ann");
    redis.ask::<String>(&["CLIENT", "PAUSE", "1500", "WRITE"]);
    if let Some(text) = text {
        ann.say("lobby", text);
        eventually("the message is under way", || redis.ask::<String>(&["CLIENT", "LIST"]).contains(" flags=b "));
    }
    let began = Instant::now();
    ending.signal(Signal::TERM);
    assert!(ending.wait_exit().success());
    if let Some(text) = text {
        recv_long(&mut bob, "what was accepted", |message| is_text(message, text));
    }
    recv_long(&mut bob, "ann goes", |message| is(message, "presence") && message["status"] == "offline");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_server_that_ends_waits_until_redis_has_what_it_accepted_and_its_users_are_known_to_be_gone() {
    check_end(Some("my last words"));
}

#[test]
fn a_server_that_ends_waits_until_others_know_it_however_long_redis_takes() {
    check_end(None);
}
