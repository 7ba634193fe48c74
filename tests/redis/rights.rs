//! A Redis user with fewer rights than the scripts need: the node says so and is not ready, and nobody gets a wrong answer.

use crate::harness::nodes::{say_and_see, wait_ready, wait_unready};
use crate::harness::redis::Redis;
use crate::support::{Client, Server};

/// The rights that docs/redis.md names.
fn documented() -> Vec<&'static str> {
    let page = include_str!("../../docs/redis.md");
    let line = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER roomcast on >a-long-password "));
    line.expect("an ACL").split(' ').collect()
}

fn node(redis: &Redis, rights: &[&str]) -> Server {
    redis.ask::<String>(&[&["ACL", "SETUSER", "chat", "on", ">secret"], &documented()[..], rights].concat());
    let url = format!("redis://chat:secret@127.0.0.1:{}", redis.port);
    Server::spawn(&["--redis", &url, "--presence-lease", "3s"])
}

fn give(redis: &Redis, right: &str) {
    redis.ask::<String>(&["ACL", "SETUSER", "chat", right]);
}

#[test]
fn a_node_is_ready_only_while_its_user_has_all_rights_and_names_what_is_missing() {
    let redis = Redis::start();
    let server = node(&redis, &[]);
    wait_ready(&server);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    assert_eq!(say_and_see(&mut ann, "lobby", "one")["seq"], 1);
    assert_eq!((server.log_lines("lacks"), redis.ask::<Vec<String>>(&["KEYS", "*:rights"])), (vec![], vec![]));
    for (seq, name) in [(2, "time"), (3, "publish"), (4, "xadd"), (5, "hset")] {
        give(&redis, &format!("-{name}"));
        wait_unready(&server);
        server.wait_for_log(&format!("lacks rights: give it +{name} (ACL SETUSER)"));
        give(&redis, &format!("+{name}"));
        wait_ready(&server);
        assert_eq!(say_and_see(&mut ann, "lobby", "again")["seq"], seq);
    }
    assert_eq!(server.log_lines("lacks rights").len(), 4, "each is said once");
}

#[test]
fn a_node_that_lacks_a_right_from_the_start_is_not_ready() {
    let redis = Redis::start();
    let server = node(&redis, &["-time"]);
    server.wait_for_log("lacks rights: give it +time");
    assert_eq!(server.get("/readyz").status, 503);
    give(&redis, "+time");
    wait_ready(&server);
}

#[test]
fn a_node_that_may_not_ask_for_the_run_of_redis_is_not_ready_and_says_what_is_lost() {
    let redis = Redis::start();
    let server = node(&redis, &["-info"]);
    for purpose in ["publishing", "subscribing"] {
        server.wait_for_log(&format!("cannot be used for {purpose}: NOPERM"));
    }
    let lines = server.log_lines("cannot be used for");
    assert!(lines.iter().all(|line| line.contains("+info") && line.contains("came back with less")), "{lines:?}");
    assert_eq!((lines.len(), server.get("/readyz").status), (2, 503), "each link says it once");
    give(&redis, "+info");
    wait_ready(&server);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    assert_eq!(say_and_see(&mut ann, "lobby", "one")["seq"], 1);
    let run_id = redis.info("run_id").expect("a run");
    assert_eq!(redis.ask::<String>(&["HGET", "roomcast:{lobby}:meta", "run"]), run_id[..8]);
    // A right that is taken away later is noticed, too.
    give(&redis, "-info");
    wait_unready(&server);
    server.wait_for_log("lacks rights: give it +info (ACL SETUSER)");
    give(&redis, "+info");
    wait_ready(&server);
    assert_eq!(say_and_see(&mut ann, "lobby", "two")["seq"], 2);
}

#[test]
fn a_user_who_may_not_ping_is_refused_and_nobody_is_given_the_number_of_another() {
    let redis = Redis::start();
    let server = node(&redis, &["-ping"]);
    server.wait_for_log("cannot be used for publishing: NOPERM");
    assert_eq!(server.get("/readyz").status, 503);
    give(&redis, "+ping");
    wait_ready(&server);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    give(&redis, "-ping");
    wait_unready(&server);
    give(&redis, "+ping");
    for seq in 1..20 {
        assert_eq!(say_and_see(&mut ann, "lobby", &format!("number {seq}"))["seq"], seq);
    }
}
