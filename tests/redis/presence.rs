//! Presence over several nodes and one Redis: a user is online while any connection on any node is, while
//! parts are killed, stopped, emptied or cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use roomcast::bus::{RedisBus, RedisConfig};
use roomcast::{Authentication, Authenticator, Config, Identity, Now, open_identity};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::attendance::{join, pair, seen_by_newcomer, set, until};
use crate::harness::nodes::wait_ready;
use crate::harness::redis::{LONG, Redis, eventually};
use crate::harness::way::{Course, Way};
use crate::support::chat::{presences, settle, users};
use crate::support::host::{host_loop, tokens};
use crate::support::{Client, Connect, PATIENCE, Server, raise_file_limit, wait_until};

/// Turns an embedded server until it has ended.
fn drive(mut poll: Poll, mut server: roomcast::Server) {
    let mut events = Events::with_capacity(64);
    while !server.has_ended() {
        poll.poll(&mut events, server.timeout()).expect("poll");
        for event in events.iter().filter(|event| event.token() != Token(0)) {
            server.handle_event(event);
        }
        server.turn();
    }
}

const NODES: &str = "roomcast:nodes";

/// A node that is ready, with a short lease and grace.
fn node_with(redis: &Redis, flags: &[&str]) -> Server {
    let url = redis.url();
    let mut all = vec!["--redis", &url, "--message-rate", "0", "--presence-lease", "3s"];
    if !flags.contains(&"--presence-grace") {
        all.extend(["--presence-grace", "1s"]);
    }
    all.extend(flags);
    let server = Server::spawn(&all);
    wait_ready(&server);
    server
}

fn nodes<const N: usize>(redis: &Redis) -> [Server; N] {
    std::array::from_fn(|_| node_with(redis, &[]))
}

/// Waits until every living node has beaten so often that the silent are known to be.
fn wait_for_beats(redis: &Redis, servers: &[&Server]) {
    let beats = || -> BTreeMap<String, u64> {
        let all: BTreeMap<String, String> = redis.ask(&["HGETALL", NODES]);
        let number = |text: &str| text.split(' ').next().and_then(|number| number.parse().ok());
        all.into_iter().filter_map(|(node, text)| Some((node, number(&text)?))).collect()
    };
    eventually("all nodes beat", || beats().len() >= servers.len());
    let before = beats();
    eventually("all nodes beat on", || {
        let now = beats();
        let moved = before.iter().filter(|(node, beat)| now.get(*node).is_some_and(|now| *now >= **beat + 7));
        moved.count() >= servers.len()
    });
}

#[test]
fn typing_is_told_on_the_other_nodes_and_once_on_the_own() {
    let redis = Redis::start();
    let [one, two] = nodes(&redis);
    let mut ann = Client::connect_as(&one, "ann");
    let mut eve = Client::connect_as(&one, "eve");
    let mut bob = Client::connect_as(&two, "bob");
    for client in [&mut ann, &mut eve, &mut bob] {
        client.join("lobby");
    }
    for status in ["start", "stop"] {
        ann.send_json(&json!({"type": "typing", "room": "lobby", "status": status}));
        let expected = json!({"type": "typing", "room": "lobby", "userId": "ann", "status": status});
        assert_eq!(bob.recv_type("typing"), expected);
        assert_eq!(eve.recv_type("typing"), expected);
    }
    bob.say("lobby", "done");
    let seen = eve.recv_until(|message| message["text"] == "done");
    assert!(seen.iter().all(|message| message["type"] != "typing"), "{seen:?}");
}

#[test]
fn users_of_all_nodes_are_named_and_announced() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let mut ann = Client::connect_as(&a, "ann");
    assert_eq!(ann.join("lobby")["count"], 0);
    settle(&mut ann);
    let mut bob = Client::connect_as(&b, "bob");
    let joined = bob.join("lobby");
    assert_eq!((users(&joined), joined["count"].as_u64()), (vec!["ann"], Some(1)));
    assert_eq!(presences(&until(&mut ann, "bob", "online")), [("bob", "online")]);
    bob.send_json(&json!({"type": "leave", "room": "lobby"}));
    until(&mut ann, "bob", "offline");
    // A connection that is lost counts for the grace.
    let carl = join(&b, "carl", "lobby");
    until(&mut ann, "carl", "online");
    drop(carl);
    until(&mut ann, "carl", "offline");
    assert_eq!(seen_by_newcomer(&b, "lobby"), set(&["ann"]));
}

/// Ends the server when an assertion fails as well, because the thread that drives it waits for its end.
struct ShutDown<'a>(&'a roomcast::Remote);

impl Drop for ShutDown<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}

/// Gives everybody a name that needs some care.
struct Namer;

const NAME: &str = "\"Ann\"\u{1}\n\\ the 🐈";

/// What others see of it.
const SHOWN: &str = "\"Ann\"\\ the 🐈";

impl Authenticator for Namer {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        let named = |identity| Identity { name: Some(NAME.to_owned()), ..identity };
        open_identity(request).map(named).map_or_else(Authentication::Refuse, Authentication::Admit)
    }
}

#[test]
fn names_reach_the_other_nodes() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let mut bob = join(&a, "bob", "lobby");
    let config = Config::default();
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let bus = RedisBus::new(&config, &RedisConfig::new(&redis.url()), Arc::clone(&waker), 1).unwrap();
    let host = host_loop(&poll, &waker, tokens(&config));
    let mut server = roomcast::Server::builder(config, host).authenticator(Namer).bus(bus).build().unwrap();
    let address = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let remote = server.remote();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _at_end = ShutDown(&remote);
            eventually("it admits users", || Connect::to(address).try_open().is_ok());
            let mut ann = Connect::to(address).user("ann").connect();
            ann.join("lobby");
            let seen = until(&mut bob, "ann", "online");
            assert_eq!(seen[seen.len() - 1]["name"], SHOWN);
            let joined = Client::connect_as(&b, "carl").join("lobby");
            assert!(joined["users"].as_array().unwrap().contains(&json!({"userId": "ann", "name": SHOWN})), "{joined}");
        });
        drive(poll, server);
    });
}

#[test]
fn a_user_on_two_nodes_comes_once_and_goes_once() {
    let redis = Redis::start();
    let [a, b, c] = nodes(&redis);
    let mut bob = join(&c, "bob", "lobby");
    let (mut first, mut second) = (join(&a, "ann", "lobby"), Client::connect_as(&b, "ann"));
    let mut seen = until(&mut bob, "ann", "online");
    assert_eq!(users(&second.join("lobby")), ["ann", "bob"]);
    // A later arrival is announced later.
    let mut carl = join(&b, "carl", "lobby");
    seen.extend(until(&mut bob, "carl", "online"));
    first.send_json(&json!({"type": "leave", "room": "lobby"}));
    first.recv_type("left");
    let _dora = join(&a, "dora", "lobby");
    seen.extend(until(&mut bob, "dora", "online"));
    second.send_json(&json!({"type": "leave", "room": "lobby"}));
    seen.extend(until(&mut bob, "ann", "offline"));
    let seen = presences(&seen);
    let of_ann: Vec<_> = seen.into_iter().filter(|(user, _)| *user == "ann").collect();
    assert_eq!(of_ann, [("ann", "online"), ("ann", "offline")]);
    until(&mut carl, "ann", "offline");
}

#[test]
fn a_reload_onto_another_node_is_no_absence() {
    let redis = Redis::start();
    let [a, b, c] = std::array::from_fn(|_| node_with(&redis, &["--presence-grace", "4s"]));
    let mut watchers = [join(&a, "w1", "lobby"), join(&b, "w2", "lobby"), join(&c, "w3", "lobby")];
    let (ann, dan) = (join(&a, "ann", "lobby"), join(&a, "dan", "lobby"));
    for watcher in &mut watchers {
        until(watcher, "dan", "online");
    }
    drop(ann);
    let _ann = join(&b, "ann", "lobby");
    // Whose grace is over after hers.
    drop(dan);
    for watcher in &mut watchers {
        let seen = until(watcher, "dan", "offline");
        assert!(presences(&seen).iter().all(|(user, _)| *user != "ann"), "{seen:?}");
    }
}

#[test]
fn a_user_who_moves_while_the_old_node_is_cut_off_is_not_told_to_be_absent() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let old = Server::spawn(&["--redis", &way.url(), "--presence-lease", "12s", "--presence-grace", "1s"]);
    wait_ready(&old);
    let new = node_with(&redis, &["--presence-grace", "1s"]);
    let mut watcher = join(&old, "watcher", "lobby");
    // In the last round what Redis says is late.
    let late = Course { delay: Duration::from_millis(800), ..Course::default() };
    for (ann, dan, away) in [("ann", "dan", 1500), ("anna", "dana", 300), ("anni", "dani", 1000)] {
        let before = join(&old, ann, "lobby");
        until(&mut watcher, ann, "online");
        way.cut();
        drop(before);
        let _after = join(&new, ann, "lobby");
        thread::sleep(Duration::from_millis(away));
        if ann == "anni" {
            way.set(late);
        }
        way.mend();
        // Longer than the grace.
        thread::sleep(Duration::from_secs(3));
        let _dan = join(&new, dan, "lobby");
        let seen = until(&mut watcher, dan, "online");
        assert!(presences(&seen).iter().all(|(user, _)| *user != ann), "{seen:?}");
    }
}

#[test]
fn a_user_who_moves_while_the_link_of_the_old_node_is_silent_is_not_told_to_be_absent() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let old = Server::spawn(&["--redis", &way.url(), "--presence-lease", "12s", "--presence-grace", "500ms"]);
    wait_ready(&old);
    let new = node_with(&redis, &[]);
    let mut watcher = join(&old, "watcher", "lobby");
    let (ann, eve) = (join(&old, "ann", "lobby"), join(&old, "eve", "lobby"));
    for user in ["ann", "eve"] {
        until(&mut watcher, user, "online");
    }
    way.set(Course { is_held: true, ..Course::default() });
    drop(ann);
    let _ann = join(&new, "ann", "lobby");
    // She does not come back.
    drop(eve);
    old.wait_for_log("the link for subscribing is lost");
    way.set(Course::default());
    let seen = until(&mut watcher, "eve", "offline");
    assert!(presences(&seen).iter().all(|(user, _)| *user != "ann"), "{seen:?}");
    assert_eq!(seen_by_newcomer(&old, "lobby"), set(&["ann", "watcher"]));
}

#[test]
fn users_of_a_killed_node_are_gone_within_the_lease_and_nobody_else() {
    let redis = Redis::start();
    let [a, b, c] = nodes(&redis);
    let mut bob = join(&b, "bob", "lobby");
    let mut carl = join(&c, "carl", "lobby");
    let _on_a = [join(&a, "ann", "lobby"), join(&a, "both", "lobby"), join(&a, "alone", "other")];
    let _on_b = join(&b, "both", "lobby");
    for client in [&mut bob, &mut carl] {
        until(client, "ann", "online");
    }
    wait_for_beats(&redis, &[&a, &b, &c]);
    a.signal(Signal::KILL);
    for client in [&mut bob, &mut carl] {
        let seen = until(client, "ann", "offline");
        let gone: Vec<_> = presences(&seen).into_iter().filter(|(_, status)| *status == "offline").collect();
        assert_eq!(gone, [("ann", "offline")]);
    }
    // A later client does not see them either, nor on a node where no client was to be told.
    let d = node_with(&redis, &[]);
    for server in [&b, &c, &d] {
        assert_eq!(seen_by_newcomer(server, "lobby"), set(&["bob", "both", "carl"]));
        assert_eq!(seen_by_newcomer(server, "other"), set(&[]));
    }
}

#[test]
fn a_user_that_comes_back_elsewhere_when_a_node_ends_was_never_gone() {
    let redis = Redis::start();
    let [mut a, b, c] = std::array::from_fn(|_| node_with(&redis, &["--presence-grace", "5s"]));
    let mut watchers = [join(&b, "bob", "lobby"), join(&c, "carl", "lobby")];
    let (mut ann, mut dan) = (join(&a, "ann", "lobby"), join(&a, "dan", "lobby"));
    for watcher in &mut watchers {
        until(watcher, "dan", "online");
    }
    a.sigterm();
    assert_eq!((ann.expect_close(), dan.expect_close()), (1001, 1001));
    drop((ann, dan));
    let _ann = join(&c, "ann", "lobby");
    assert!(a.wait_exit().success());
    let beats: Vec<String> = redis.ask(&["HVALS", NODES]);
    assert_eq!(beats.iter().filter(|beat| beat.starts_with("left")).count(), 1, "{beats:?}");
    for watcher in &mut watchers {
        let seen = until(watcher, "dan", "offline");
        assert!(presences(&seen).iter().all(|(user, _)| *user != "ann"), "{seen:?}");
    }
    let d = node_with(&redis, &[]);
    assert_eq!(seen_by_newcomer(&d, "lobby"), set(&["ann", "bob", "carl"]));
    eventually("nothing is left of the node that ended", || redis.ask::<usize>(&["HLEN", NODES]) == 3);
}

#[test]
fn a_redis_that_is_emptied_makes_nobody_absent() {
    let redis = Redis::start();
    let servers = nodes::<3>(&redis);
    let [a, b, c] = &servers;
    let mut clients = pair(a, b);
    for _ in 0..2 {
        redis.ask::<String>(&["FLUSHALL"]);
        eventually("redis is told again", || redis.ask::<usize>(&["HLEN", "roomcast:{lobby}:nodes"]) == 2);
        wait_for_beats(&redis, &servers.each_ref());
    }
    assert_eq!(seen_by_newcomer(c, "lobby"), set(&["ann", "bob"]));
    for client in &mut clients {
        let seen = settle(client);
        assert!(presences(&seen).iter().all(|(user, _)| *user == "newcomer"), "{seen:?}");
    }
    // And goes on from there.
    drop(join(b, "dora", "lobby"));
    until(&mut clients[0], "dora", "offline");
}

#[test]
fn a_set_that_redis_has_lost_is_said_whole_with_the_next_change() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis);
    let _ann = join(&a, "ann", "lobby");
    let set_of = || -> Vec<String> {
        let keys: Vec<String> = redis.ask(&["KEYS", "roomcast:{lobby}:on:*"]);
        keys.iter().flat_map(|key| redis.ask::<Vec<String>>(&["HKEYS", key])).collect()
    };
    eventually("ann is kept", || set_of() == ["ann"]);
    let keys: Vec<String> = redis.ask(&["KEYS", "roomcast:{lobby}:on:*"]);
    redis.ask::<u32>(&["DEL", "roomcast:{lobby}:nodes", &keys[0]]);
    let _bob = join(&a, "bob", "lobby");
    let mut found = Vec::new();
    eventually("bob is kept", || {
        found = set_of();
        found.contains(&"bob".to_owned())
    });
    assert!(found.contains(&"ann".to_owned()), "{found:?}");
    assert_eq!(seen_by_newcomer(&b, "lobby"), set(&["ann", "bob"]));
}

#[test]
fn a_redis_that_is_away_for_longer_than_the_lease_makes_nobody_absent() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    let mut clients = pair(&servers[0], &servers[1]);
    redis.signal(Signal::STOP);
    // Longer than the lease, and than the links live without an answer.
    thread::sleep(Duration::from_secs(6));
    // A user that goes meanwhile is gone afterwards.
    let carl = Client::connect_as(&servers[0], "carl");
    redis.signal(Signal::CONT);
    servers.iter().for_each(wait_ready);
    wait_for_beats(&redis, &servers.each_ref());
    drop(carl);
    for client in &mut clients {
        assert_eq!(presences(&settle(client)), []);
    }
    for server in &servers {
        assert_eq!(seen_by_newcomer(server, "lobby"), set(&["ann", "bob"]));
    }
}

#[test]
fn a_node_that_stood_still_is_gone_and_comes_back() {
    let redis = Redis::start();
    let [a, b, c] = nodes(&redis);
    let [mut ann, mut bob] = pair(&a, &b);
    for _ in 0..2 {
        a.signal(Signal::STOP);
        until(&mut bob, "ann", "offline");
        eventually("the third node sees it, too", || seen_by_newcomer(&c, "lobby") == set(&["bob"]));
        a.signal(Signal::CONT);
        until(&mut bob, "ann", "online");
        eventually("all nodes agree", || {
            [&a, &b, &c].iter().all(|server| seen_by_newcomer(server, "lobby") == set(&["ann", "bob"]))
        });
    }
    let seen = settle(&mut ann);
    assert!(presences(&seen).iter().all(|(user, _)| *user == "newcomer"), "bob was always there: {seen:?}");
}

#[test]
fn two_thousand_arrivals_on_one_node_are_a_few_messages_on_another() {
    const USERS: usize = 2000;
    raise_file_limit();
    let redis = Redis::start();
    let [a, b] = std::array::from_fn(|_| node_with(&redis, &["--big-room", "10", "--metrics"]));
    let mut bob = join(&b, "bob", "lobby");
    let begun = Instant::now();
    let crowd: Vec<_> = (0..USERS).map(|i| join(&a, &format!("u{i}"), "lobby")).collect();
    let deadline = Instant::now() + LONG;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|message: &Value| message["count"] != USERS + 1) {
        seen.push(bob.try_recv(deadline.saturating_duration_since(Instant::now())).expect("all are counted"));
    }
    let seconds = begun.elapsed().as_secs() as usize;
    assert!(seen.len() <= 10 + 1 + seconds + 2, "{} messages in {seconds} s", seen.len());
    let figure = |server: &Server, name: &str| {
        let text = server.get("/metrics").text().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("roomcast_{name} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().expect("a number") as usize
    };
    let shares = figure(&b, "redis_presence_updates_received_total");
    assert!(shares <= 20 * (seconds + 2), "{shares} shares in {seconds} s");
    assert_eq!((figure(&b, "redis_remote_users"), figure(&b, "redis_nodes")), (USERS, 2));
    let joined = Client::connect_as(&b, "late").join("lobby");
    assert_eq!((joined["count"].as_u64(), joined["users"].is_null()), (Some(USERS as u64 + 1), true));
    // They all go at once.
    a.signal(Signal::KILL);
    drop(crowd);
    let before = Instant::now();
    while seen.last().is_none_or(|message| message["count"].as_u64().is_none_or(|count| count > 2)) {
        assert!(before.elapsed() < LONG, "they are still there: {:?}", seen.last());
        seen.extend(bob.try_recv(LONG));
    }
}

#[test]
fn nodes_agree_after_their_subscriptions_were_cut() {
    let redis = Redis::start();
    let servers = nodes::<3>(&redis);
    let mut watchers: Vec<_> =
        servers.iter().zip(["w0", "w1", "w2"]).map(|(server, name)| join(server, name, "lobby")).collect();
    let mut guests: BTreeMap<String, Client> = BTreeMap::new();
    for round in 0..60usize {
        let name = format!("g{}", round * 7 % 12);
        match guests.remove(&name) {
            Some(mut guest) => guest.send_json(&json!({"type": "leave", "room": "lobby"})),
            None => drop(guests.insert(name.clone(), join(&servers[round % 3], &name, "lobby"))),
        }
        if round % 10 == 5 {
            redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
    }
    // A lost change is queried even if no later change shows the gap.
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let (mut gone, here): (BTreeMap<_, _>, BTreeMap<_, _>) =
        guests.into_iter().partition(|(name, _)| name.ends_with(['1', '2']));
    gone.values_mut().for_each(|guest: &mut Client| guest.send_json(&json!({"type": "leave", "room": "lobby"})));
    let mut expected: BTreeSet<String> = here.keys().cloned().collect();
    expected.extend(set(&["w0", "w1", "w2"]));
    assert!(expected.len() > 5 && !gone.is_empty(), "{expected:?}");
    // Much sooner than rooms are compared by the clock, and before anybody new comes, which would show the gap.
    for (watcher, name) in watchers.iter_mut().zip(["w0", "w1", "w2"]) {
        let (mut present, deadline) = (set(&["w0", "w1", "w2"]), Instant::now() + PATIENCE);
        while present != expected {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(message) = watcher.try_recv(left) else { panic!("{name} sees {present:?}, not {expected:?}") };
            for (user, status) in presences(&[message]) {
                match status {
                    "online" => drop(present.insert(user.to_owned())),
                    _ => drop(present.remove(user)),
                }
            }
        }
    }
    for server in &servers {
        wait_until("a newcomer sees all", || seen_by_newcomer(server, "lobby") == expected);
    }
}

#[test]
fn sets_that_do_not_fit_into_one_answer_are_read_in_several() {
    let redis = Redis::start();
    // Nodes of which only Redis knows; they beat so rarely that the test is over before they are missed.
    for node in 0..4 {
        let id = format!("node{node}");
        redis.ask::<u32>(&["HSET", NODES, &id, "1 300000 0"]);
        redis.ask::<u32>(&["HSET", "roomcast:{lobby}:nodes", &id, "7"]);
        let key = format!("roomcast:{{lobby}}:on:{id}");
        let users: Vec<String> = (0..5000).flat_map(|user| [format!("{node}.{user}"), "A name".to_owned()]).collect();
        let mut words = vec!["HSET", &key];
        words.extend(users.iter().map(String::as_str));
        assert_eq!(redis.ask::<u32>(&words), 5000);
    }
    let server = node_with(&redis, &[]);
    assert_eq!(Client::connect_as(&server, "ann").join("lobby")["count"], 20_000);
}
