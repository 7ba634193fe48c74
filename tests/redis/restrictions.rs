//! Bans and mutes hold on all nodes: those that were there, those that were cut, and those that come later.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use roomcast::bus::{Outcome, RedisBus, RedisConfig, RefusalKind};
use roomcast::{Notice, Restriction, RestrictionTarget, UserId};
use serde_json::{Value, json};

use crate::harness::cluster::RedisCluster;
use crate::harness::nodes::{node_with, recv_long, wait_ready, wait_unready};
use crate::harness::redis::{LONG, Redis, eventually};
use crate::harness::way::{Course, Way};
use crate::support::api::{KEY, check_refused, command, post};
use crate::support::chat::is;
use crate::support::host::{Host, LOOK, config};
use crate::support::{Client, Raw, Server, upgrade_request};

const BANNED: u16 = 4503;
const KEYS: [&str; 2] = ["roomcast:{%control}:restrictions", "roomcast:{%control}:expiries"];

fn node(redis: &Redis) -> Server {
    node_with(redis, &["--api-key", KEY])
}

fn node_at(url: &str) -> Server {
    Server::spawn(&["--redis", url, "--api-key", KEY])
}

fn status(server: &Server, user: &str) -> u16 {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
    raw.response().status
}

fn wait_status(server: &Server, user: &str, expected: u16) {
    eventually(&format!("{user} gets {expected}"), || status(server, user) == expected);
}

fn ban(server: &Server, user: &str) {
    command(server.address(), "/api/ban", &json!({"userId": user}));
}

fn unban(server: &Server, user: &str) {
    command(server.address(), "/api/unban", &json!({"userId": user}));
}

/// The users that are banned, with the reasons, as a node knows.
fn banned(address: SocketAddr) -> BTreeMap<String, String> {
    let list = command(address, "/api/bans", &json!({"limit": 1000}));
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let bans = list["bans"].as_array().expect("a list").iter();
    bans.map(|entry| (text(entry, "userId"), text(entry, "reason"))).collect()
}

/// How many Redis has, and how many of them are to expire.
fn stored(redis: &Redis) -> (u32, u32) {
    (redis.ask(&["HLEN", KEYS[0]]), redis.ask(&["ZCARD", KEYS[1]]))
}

/// Says something until it is refused because its user is muted.
fn wait_muted(client: &mut Client, room: &str) {
    eventually("the mute holds", || {
        client.send_json(&json!({"type": "chat", "room": room, "text": "hello", "id": "x"}));
        let answer =
            recv_long(client, "an answer", |message| ["chat", "ack", "error"].iter().any(|kind| is(message, kind)));
        answer.last().expect("an answer")["code"] == "muted"
    });
}

#[test]
fn a_ban_holds_on_all_nodes_and_on_those_that_start_later() {
    let redis = Redis::start();
    let [a, b] = [node(&redis), node(&redis)];
    let mut ann = [&a, &b].map(|server| Client::connect_as(server, "ann"));
    let mut bob = Client::connect_as(&b, "bob");
    bob.join("lobby");
    ban(&a, "ann");
    command(a.address(), "/api/ban", &json!({"network": "192.0.2.0/24", "reason": "flood", "ttlSeconds": 1000}));
    command(a.address(), "/api/mute", &json!({"userId": "bob", "room": "lobby"}));
    assert_eq!(status(&a, "ann"), 403, "on the node itself with the answer");
    ann.iter_mut().for_each(|client| assert_eq!(client.expect_close(), BANNED));
    wait_status(&b, "ann", 403);
    wait_muted(&mut bob, "lobby");
    assert_eq!(stored(&redis), (3, 1));
    let c = node(&redis);
    assert_eq!((status(&c, "ann"), status(&c, "bob")), (403, 101), "as soon as it is ready");
    let lists =
        [&a, &b, &c].map(|server| ["/api/bans", "/api/mutes"].map(|path| command(server.address(), path, &json!({}))));
    assert!(lists[0] == lists[1] && lists[1] == lists[2], "{lists:?}");
    assert!(lists[0][0]["nodes"] == "all" && lists[0][0]["bans"].as_array().unwrap().len() == 2, "{lists:?}");
    unban(&b, "ann");
    [&a, &b, &c].iter().for_each(|server| wait_status(server, "ann", 101));
    assert_eq!(stored(&redis), (2, 1));
}

#[test]
fn a_ban_that_is_written_while_a_node_starts_holds_there_too() {
    let redis = Redis::start();
    let near = node(&redis);
    let delay = Duration::from_millis(600);
    let way = Way::to(redis.port, Course { delay, spares_calls: true, ..Course::default() });
    let far = node_at(&way.url());
    // It can read what there is, and hears of nothing yet.
    eventually("the node is heard of", || redis.ask::<u32>(&["HLEN", "roomcast:nodes"]) == 2);
    ban(&near, "ann");
    assert_eq!(status(&far, "bob"), 503, "nobody knows there who is banned");
    wait_ready(&far);
    assert_eq!((status(&far, "ann"), status(&far, "bob")), (403, 101));
}

#[test]
fn before_the_first_load_nobody_is_admitted_and_later_the_last_state_holds() {
    let mut redis = Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let first = node(&redis);
    ban(&first, "ann");
    drop(first);
    redis.kill();
    let server = Server::spawn(&["--redis", &redis.url(), "--api-key", KEY, "--redis-hold", "300ms"]);
    for path in ["/ws", "/readyz"] {
        let mut raw = Raw::connect(server.address());
        raw.send(upgrade_request(path, &[]).as_bytes());
        let response = raw.response();
        assert!(response.status == 503 && response.header("retry-after").is_some(), "{path}: {response:?}");
    }
    check_refused(&post(server.address(), "/api/bans", &json!({})), 503, "unavailable", &["not loaded"]);
    redis.restart();
    wait_ready(&server);
    assert_eq!((status(&server, "ann"), status(&server, "bob")), (403, 101));
    let mut bob = Client::connect_as(&server, "bob");
    redis.kill();
    wait_unready(&server);
    assert_eq!((status(&server, "ann"), status(&server, "bob")), (403, 101));
    check_refused(&post(server.address(), "/api/ban", &json!({"userId": "bob"})), 503, "unavailable", &[]);
    assert_eq!(command(server.address(), "/api/bans", &json!({}))["nodes"], "this");
    redis.restart();
    wait_ready(&server);
    ban(&server, "bob");
    assert_eq!((bob.expect_close(), status(&server, "ann")), (BANNED, 403));
}

#[test]
fn a_node_that_missed_changes_for_good_loads_all_again() {
    let redis = Redis::start();
    let near = node(&redis);
    let way = Way::to(redis.port, Course::default());
    let far = node_at(&way.url());
    wait_ready(&far);
    ["ann", "bob"].iter().for_each(|user| ban(&near, user));
    wait_status(&far, "bob", 403);
    let mut cat = Client::connect_as(&far, "cat");
    let mut dan = Client::connect_as(&far, "dan");
    dan.join("lobby");
    way.cut();
    wait_unready(&far);
    ban(&near, "cat");
    unban(&near, "bob");
    command(near.address(), "/api/mute", &json!({"userId": "dan"}));
    redis.ask::<u32>(&["XTRIM", "roomcast:{%control}:log", "MAXLEN", "0"]);
    assert_eq!(["ann", "bob", "cat"].map(|user| status(&far, user)), [403, 403, 101], "the last state");
    way.mend();
    assert_eq!(cat.expect_close(), BANNED);
    wait_status(&far, "bob", 101);
    assert_eq!(["ann", "cat"].map(|user| status(&far, user)), [403, 403]);
    wait_muted(&mut dan, "lobby");
    // It goes on with later changes.
    unban(&near, "ann");
    wait_status(&far, "ann", 101);
}

#[test]
fn restrictions_outlive_the_epoch_and_the_history_of_commands() {
    let redis = Redis::start();
    let [a, b] = [node(&redis), node(&redis)];
    ban(&a, "ann");
    wait_status(&b, "ann", 403);
    redis.ask::<u32>(&["DEL", "roomcast:{%control}:meta", "roomcast:{%control}:log"]);
    // Numbers begin again, under another epoch.
    ban(&b, "bob");
    unban(&b, "ann");
    ban(&b, "cat");
    for server in [&a, &b] {
        [("ann", 101), ("bob", 403), ("cat", 403)].iter().for_each(|(user, code)| wait_status(server, user, *code));
    }
    drop((a, b));
    redis.ask::<u32>(&["DEL", "roomcast:{%control}:meta", "roomcast:{%control}:log"]);
    let later = node(&redis);
    assert_eq!(["ann", "bob", "cat"].map(|user| status(&later, user)), [101, 403, 403]);
}

#[test]
fn nodes_that_write_at_once_come_to_the_same_state() {
    let redis = Redis::start();
    let nodes = [node(&redis), node(&redis)];
    thread::scope(|scope| {
        for writer in 0..6 {
            let address = nodes[writer % 2].address();
            scope.spawn(move || {
                for n in 0..30 {
                    let user = format!("u{}", (n * 7 + writer) % 5);
                    if (n + writer) % 3 == 0 {
                        command(address, "/api/unban", &json!({"userId": user}));
                    } else {
                        command(address, "/api/ban", &json!({"userId": user, "reason": format!("{writer}.{n}")}));
                    }
                }
            });
        }
    });
    let mut last = BTreeMap::new();
    eventually("both know the same", || {
        last = banned(nodes[0].address());
        last == banned(nodes[1].address())
    });
    let values: Vec<String> = redis.ask(&["HVALS", KEYS[0]]);
    let values = values.iter().map(|body| serde_json::from_str::<Value>(&format!("{body}}}")).expect("JSON"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let kept: BTreeMap<_, _> = values.map(|value| (text(&value["userId"]), text(&value["reason"]))).collect();
    assert_eq!(last, kept, "what is in force is what is stored");
    assert!(!last.is_empty());
    assert_eq!(banned(node(&redis).address()), last);
}

#[test]
fn a_change_whose_answer_was_lost_is_not_made_again_after_a_later_one() {
    let redis = Redis::start();
    let near = node(&redis);
    let way = Way::to(redis.port, Course::default());
    let far = node_at(&way.url());
    wait_ready(&far);
    way.set(Course { delay: Duration::from_secs(1), ..Course::default() });
    thread::scope(|scope| {
        let address = far.address();
        let answer = scope.spawn(move || post(address, "/api/ban", &json!({"userId": "ann"})));
        eventually("it is written", || stored(&redis).0 == 1);
        unban(&near, "ann");
        // The answer is still on its way.
        way.cut();
        way.set(Course::default());
        way.mend();
        assert_eq!(answer.join().unwrap().status, 200);
    });
    wait_ready(&far);
    assert_eq!(stored(&redis).0, 0);
    [&near, &far].iter().for_each(|server| wait_status(server, "ann", 101));
    assert_eq!(redis.ask::<u32>(&["HGET", "roomcast:{%control}:meta", "seq"]), 2);
}

#[test]
fn what_has_expired_goes_from_redis_too() {
    let redis = Redis::start();
    let server = node(&redis);
    for number in 0..5 {
        command(server.address(), "/api/ban", &json!({"userId": format!("u{number}"), "ttlSeconds": 1}));
    }
    ban(&server, "u4");
    ban(&server, "ann");
    assert_eq!(stored(&redis), (6, 4), "a ban that does not expire has taken the place of one that does");
    wait_status(&server, "u3", 101);
    // Any change takes them along, and so does a node that starts.
    unban(&server, "nobody");
    eventually("they are gone", || stored(&redis) == (2, 0));
    command(server.address(), "/api/ban", &json!({"userId": "cat", "ttlSeconds": 1}));
    wait_status(&server, "cat", 101);
    let other = node(&redis);
    assert_eq!(stored(&redis), (2, 0));
    assert_eq!([("u4", 403), ("ann", 403), ("cat", 101)].map(|(user, code)| status(&other, user) == code), [true; 3]);
}

#[test]
fn many_are_loaded_part_by_part() {
    const COUNT: usize = 3000;
    let redis = Redis::start();
    let mut command = vec!["HSET".to_owned(), KEYS[0].to_owned()];
    for number in 0..COUNT {
        command.push(format!("ban user u{number}"));
        command.push(format!(r#"{{"type":"ban","userId":"u{number}","ts":1"#));
    }
    // Those that no version knows harm nothing.
    command.extend(["x".to_owned(), r#"{"type":"something""#.to_owned()]);
    redis.ask::<u32>(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let server = node_with(&redis, &["--api-key", KEY, "--metrics"]);
    assert!(server.get("/metrics").text().contains(&format!("roomcast_restrictions {COUNT}\n")));
    assert_eq!(["u0", "u1500", "u2999", "u3000"].map(|user| status(&server, user)), [403, 403, 403, 101]);
    server.wait_for_log("3000 bans and mutes were loaded");
}

#[test]
fn redis_bounds_how_many_there_are() {
    let redis = Redis::start();
    let mut config = config();
    config.hub.restrictions_max = 2;
    let settings = RedisConfig::new(&redis.url());
    let mut host = Host::over(config, |config, waker| RedisBus::new(config, &settings, waker, 77).unwrap());
    // Another node's, of which this one has not heard yet.
    let mut restrict = |user: &str, before: &[&str]| {
        before.iter().for_each(|key| redis.ask::<()>(&["HSET", KEYS[0], key, "{"]));
        let target = RestrictionTarget::BannedUser(UserId::new(user).unwrap());
        let ticket = host.server.restrict(Restriction::new(target)).unwrap();
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "no answer");
            host.turn(LOOK);
            while let Some(notice) = host.server.poll_notice() {
                if let Notice::Published { ticket: answered, outcome } = notice
                    && answered == ticket
                {
                    return outcome;
                }
            }
        }
    };
    assert!(matches!(restrict("ann", &[]), Outcome::Accepted(1)));
    let Outcome::Refused(refusal) = restrict("bob", &["another"]) else { panic!("it was taken") };
    assert_eq!(refusal.kind, RefusalKind::StorageFull);
    assert!(matches!(restrict("ann", &[]), Outcome::Accepted(2)), "one that is there may change");
    assert_eq!(stored(&redis).0, 2);
}

#[test]
fn bans_go_through_a_cluster() {
    let cluster = RedisCluster::start();
    let servers = [(); 2].map(|()| node_at(&cluster.url()));
    servers.iter().for_each(wait_ready);
    let mut ann = Client::connect_as(&servers[1], "ann");
    ban(&servers[0], "ann");
    assert_eq!(ann.expect_close(), BANNED);
    let later = node_at(&cluster.url());
    wait_ready(&later);
    assert_eq!((status(&later, "ann"), status(&later, "bob")), (403, 101));
    unban(&later, "ann");
    servers.iter().for_each(|server| wait_status(server, "ann", 101));
}
