//! A Redis Cluster: each room has one order, whichever master has it. Slots that move and masters that
//! go do not affect rooms elsewhere.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::attendance::{join, seen_by_newcomer, set, until};
use crate::harness::cluster::{RedisCluster, errors};
use crate::harness::nodes::{epoch, history, is_text, recv_long, say_and_see, wait_ready, wait_unready};
use crate::harness::redis::{Certificate, Redis, eventually, free_port};
use crate::harness::talk::{Said, check_all_kept, check_lost_is_told, talk};
use crate::support::chat::{chat, is, presences, settle, texts};
use crate::support::{Client, Server, roomcast};

fn node(cluster: &RedisCluster) -> Server {
    let url = cluster.url();
    let flags = ["--message-rate", "0", "--history-messages", "100000", "--redis-hold", "60s"];
    let presence = ["--presence-lease", "3s", "--presence-grace", "1s"];
    let server = Server::spawn(&[&["--redis", &url][..], &flags, &presence].concat());
    wait_ready(&server);
    server
}

fn said_so_far(redis: &Redis, room: &str) -> usize {
    let key = format!("roomcast:{{{room}}}:meta");
    redis.ask::<Option<usize>>(&["HGET", &key, "seq"]).unwrap_or(0)
}

fn grow(redis: &Redis, room: &str, more: usize) {
    let enough = said_so_far(redis, room) + more;
    eventually("the talk goes on", || said_so_far(redis, room) >= enough);
}

#[test]
fn rooms_of_all_masters_have_one_order_on_all_nodes() {
    const EACH: usize = 20;
    let cluster = RedisCluster::start();
    let servers = [node(&cluster), node(&cluster)];
    let rooms: Vec<_> = (0..50).map(|i| format!("r{i}")).collect();
    let mut clients = [Client::connect_as(&servers[0], "ann"), Client::connect_as(&servers[1], "bob")];
    for client in &mut clients {
        rooms.iter().for_each(|room| drop(client.join(room)));
    }
    eventually("everybody is seen in all rooms", || {
        let mut eve = Client::connect_as(&servers[0], "eve");
        rooms.iter().all(|room| eve.join(room)["count"] == 3)
    });
    for room in &rooms[..5] {
        clients[0].send_json(&json!({"type": "typing", "room": room, "status": "start"}));
        let is_it = |message: &Value| is(message, "typing") && message["room"] == **room;
        recv_long(&mut clients[1], "that somebody types elsewhere", is_it);
    }
    for n in 0..EACH {
        for room in &rooms {
            for (client, name) in clients.iter_mut().zip(["ann", "bob"]) {
                client.send_json(&chat(room, &format!("{name} {n}"), &n.to_string()));
            }
        }
    }
    let seen = clients.each_mut().map(|client| {
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut left = rooms.len() * EACH * 2;
        recv_long(client, "all messages", |message| {
            if is(message, "chat") {
                let list = seen.entry(message["room"].as_str().unwrap().to_owned()).or_default();
                list.push(message["text"].as_str().unwrap().to_owned());
                assert_eq!(message["seq"], list.len());
                left -= 1;
            }
            left == 0
        });
        seen
    });
    assert_eq!(seen[0], seen[1]);
    for (room, list) in &seen[0] {
        for name in ["ann", "bob"] {
            let own: Vec<_> = list.iter().filter(|text| text.starts_with(name)).collect();
            let expected: Vec<_> = (0..EACH).map(|n| format!("{name} {n}")).collect();
            assert!(own.into_iter().eq(&expected), "a sender's own order in {room}");
        }
        assert_eq!(&texts(&history(&servers[0], room, 2 * EACH as u64)), list);
    }
    assert!(cluster.masters.iter().all(|master| master.ask::<usize>(&["DBSIZE"]) > 0));
}

/// How many subscribe to a room at a master.
fn listeners(redis: &Redis, room: &str) -> usize {
    let counts: Vec<(String, usize)> = redis.ask(&["PUBSUB", "SHARDNUMSUB", &format!("roomcast:{{{room}}}")]);
    counts.iter().map(|(_, count)| count).sum()
}

/// Moves all keys of a slot.
fn move_keys(slot: &str, from: &Redis, to: &Redis) {
    loop {
        let keys: Vec<String> = from.ask(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        if keys.is_empty() {
            return;
        }
        let port = to.port.to_string();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        from.ask::<String>(&words);
    }
}

#[test]
fn a_slot_that_moves_while_people_talk_loses_and_doubles_nothing() {
    let cluster = RedisCluster::start();
    let servers = [node(&cluster), node(&cluster)];
    let [moving, _, other] = cluster.rooms();
    let slot = cluster.slot(&moving).to_string();
    let ids: Vec<String> = cluster.masters.iter().map(|master| master.ask(&["CLUSTER", "MYID"])).collect();
    let said = talk(&servers, &[&moving, &moving, &other], || {
        let mut from = 0;
        // There and back, so that the nodes' links have had it before.
        for to in [1, 0] {
            let (source, target) = (&cluster.masters[from], &cluster.masters[to]);
            grow(source, &moving, 50);
            let (asks, moves) = (errors(source, "ASK"), errors(source, "MOVED"));
            target.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]);
            source.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]);
            eventually("publications wait for the slot", || errors(source, "TRYAGAIN") > 0);
            move_keys(&slot, source, target);
            eventually("calls are sent on", || errors(source, "ASK") > asks);
            grow(&cluster.masters[2], &other, 20);
            for master in [target, source, &cluster.masters[2]] {
                master.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
            }
            eventually("calls move", || errors(source, "MOVED") > moves);
            eventually("subscriptions move", || (listeners(source, &moving), listeners(target, &moving)) == (0, 2));
            grow(target, &moving, 50);
            from = to;
        }
    });
    check_all_kept(&servers, &said);
    assert!(said.iter().all(|said| said.breaks == 0), "the epoch goes on");
    let all = history(&servers[0], &moving, 0);
    for Said { user, acknowledged, .. } in said.iter().filter(|said| said.room == moving) {
        let own: Vec<_> =
            all.iter().filter(|message| message["userId"] == **user).map(|message| &message["id"]).collect();
        let expected: Vec<_> = (1..=acknowledged.len()).map(|n| format!("m{n}")).collect();
        assert!(own.iter().copied().eq(&expected), "{user}'s own order is {own:?}");
    }
}

#[test]
fn a_room_whose_keys_have_moved_is_read_before_its_slot_has() {
    let cluster = RedisCluster::start();
    let server = node(&cluster);
    let [room, ..] = cluster.rooms();
    let mut ann = Client::connect_as(&server, "ann");
    ann.join(&room);
    (0..10).for_each(|i| drop(say_and_see(&mut ann, &room, &format!("message {i}"))));
    let [source, target] = [&cluster.masters[0], &cluster.masters[1]];
    let slot = cluster.slot(&room).to_string();
    let ids = [source, target].map(|master| master.ask::<String>(&["CLUSTER", "MYID"]));
    target.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    source.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    move_keys(&slot, source, target);
    assert_eq!(history(&server, &room, 10).len(), 10);
    assert!(errors(source, "ASK") > 0);
    // Messages wait for the slot from now on.
    ann.say(&room, "late");
    eventually("it is tried", || errors(target, "TRYAGAIN") > 0);
    assert_eq!(texts(&settle(&mut ann)), [""; 0]);
    for master in [target, source] {
        master.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
    }
    recv_long(&mut ann, "the message", |message| is_text(message, "late"));
}

#[test]
fn a_master_that_is_down_holds_only_its_own_rooms() {
    let mut cluster = RedisCluster::start();
    let servers = [node(&cluster), node(&cluster)];
    let [held, free, _] = cluster.rooms();
    let mut clients = [Client::connect_as(&servers[0], "ann"), Client::connect_as(&servers[1], "bob")];
    for client in &mut clients {
        client.join(&held);
        client.join(&free);
    }
    say_and_see(&mut clients[0], &held, "before");
    recv_long(&mut clients[1], "the message", |message| is_text(message, "before"));
    cluster.masters[0].kill();
    for i in 0..20 {
        clients[0].say(&held, &format!("held {i}"));
    }
    for i in 0..20 {
        say_and_see(&mut clients[0], &free, &format!("free {i}"));
    }
    recv_long(&mut clients[1], "the message", |message| is_text(message, "free 19"));
    let early = clients.each_mut().map(settle).concat();
    assert!(!texts(&early).iter().any(|text| text.starts_with("held")), "{early:?}");
    assert_eq!(servers[0].get("/readyz").status, 200);
    cluster.masters[0].restart();
    eventually("its rooms are heard again", || listeners(&cluster.masters[0], &held) == 2);
    for client in &mut clients {
        recv_long(client, "the last message", |message| is_text(message, "held 19"));
    }
    let expected: Vec<_> = std::iter::once("before".to_owned()).chain((0..20).map(|i| format!("held {i}"))).collect();
    assert_eq!(texts(&history(&servers[1], &held, 21)), expected);
}

#[test]
fn a_replica_that_takes_over_with_less_begins_a_new_epoch() {
    let mut cluster = RedisCluster::start();
    let replica = cluster.replica(0);
    let servers = [node(&cluster), node(&cluster)];
    let [room, other, _] = cluster.rooms();
    let mut clients = [Client::connect_as(&servers[0], "ann"), Client::connect_as(&servers[1], "bob")];
    let old = clients.each_mut().map(|client| {
        client.join(&other);
        epoch(&client.join(&room))
    });
    say_and_see(&mut clients[0], &room, "kept");
    cluster.masters[0].wait_until_replicated();
    // The replica hears no more of it.
    replica.signal(Signal::STOP);
    cluster.masters[0].ask::<usize>(&["CLIENT", "KILL", "TYPE", "replica"]);
    for i in 0..5 {
        say_and_see(&mut clients[0], &room, &format!("lost {i}"));
    }
    recv_long(&mut clients[1], "the last message", |message| is_text(message, "lost 4"));
    cluster.masters[0].kill();
    replica.signal(Signal::CONT);
    replica.ask::<String>(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    let new = clients.each_mut().map(|client| {
        let joined = recv_long(client, "a joined, unasked", |message| is(message, "joined")).pop().unwrap();
        assert_eq!((joined["recovered"].as_bool(), joined["room"].as_str()), (Some(false), Some(room.as_str())));
        epoch(&joined)
    });
    assert!(new[0] == new[1] && new[0] != old[0], "{old:?} {new:?}");
    let message = say_and_see(&mut clients[1], &room, "after");
    recv_long(&mut clients[0], "the message", |message| is_text(message, "after"));
    assert_eq!(texts(&history(&servers[0], &room, message["seq"].as_u64().unwrap())), ["kept", "after"]);
    // Rooms of other masters notice nothing.
    say_and_see(&mut clients[0], &other, "as ever");
    let seen = recv_long(&mut clients[1], "the message", |message| is_text(message, "as ever"));
    assert!(seen.iter().all(|message| !is(message, "joined")), "{seen:?}");
}

#[test]
fn a_cluster_is_spoken_to_by_tls_and_with_a_password() {
    let (certificate, tls_port) = (Certificate::new(), free_port());
    let cport = free_port().to_string();
    let options = ["--save", "", "--cluster-enabled", "yes", "--cluster-port", &cport, "--tls-cluster", "yes"];
    let redis = Redis::with_tls(&options, &certificate, tls_port);
    redis.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually("the cluster is whole", || redis.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    redis.ask::<String>(&["ACL", "SETUSER", "chat", "on", ">secret", "~*", "&*", "+@all"]);
    redis.ask::<String>(&["ACL", "SETUSER", "default", "resetpass", "-@all"]);
    let url = format!("rediss+cluster://chat:secret@localhost:{tls_port}");
    let server = Server::spawn(&["--redis", &url, "--redis-ca", &certificate.path()]);
    wait_ready(&server);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    say_and_see(&mut ann, "lobby", "hello");
    let stranger = Server::spawn(&["--redis", &url.replace("secret", "wrong"), "--redis-ca", &certificate.path()]);
    let line = stranger.wait_for_log("WRONGPASS");
    assert!(line.contains("no slot map"), "{line}");
    assert_eq!(stranger.get("/readyz").status, 503);
}

#[test]
fn a_cluster_has_no_databases_but_the_first() {
    let output = roomcast().args(["--redis", "redis+cluster://:the-secret@127.0.0.1:1/3"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("no databases but 0"), "{words}");
    assert!(!words.contains("the-secret"), "{words}");
}

#[test]
fn users_of_a_killed_node_are_gone_from_the_rooms_of_all_masters_and_nobody_else() {
    let cluster = RedisCluster::start();
    let servers = [node(&cluster), node(&cluster), node(&cluster)];
    let rooms = cluster.rooms();
    let mut clients = ["ann", "bob", "carl"].map(|user| (user, Vec::new()));
    for ((user, joined), server) in clients.iter_mut().zip(&servers) {
        joined.extend(rooms.iter().map(|room| join(server, user, room)));
    }
    let everybody = set(&["ann", "bob", "carl"]);
    for room in &rooms {
        for server in &servers {
            eventually("all nodes agree", || seen_by_newcomer(server, room) == everybody);
        }
    }
    servers[0].signal(Signal::KILL);
    for (_, joined) in &mut clients[1..] {
        for client in joined {
            let seen = until(client, "ann", "offline");
            let gone =
                presences(&seen).into_iter().filter(|(user, status)| *status == "offline" && *user != "newcomer");
            assert_eq!(gone.collect::<Vec<_>>(), [("ann", "offline")]);
        }
    }
    let late = node(&cluster);
    for (server, room) in
        [&servers[1], &late].into_iter().flat_map(|server| rooms.iter().map(move |room| (server, room)))
    {
        assert_eq!(seen_by_newcomer(server, room), set(&["bob", "carl"]));
    }
}

#[test]
fn arrivals_and_departures_while_a_slot_moves_are_told_afterwards_and_nobody_is_absent() {
    let cluster = RedisCluster::start();
    let servers = [node(&cluster), node(&cluster)];
    let [room, ..] = cluster.rooms();
    let mut watchers = [join(&servers[0], "ann", &room), join(&servers[1], "bob", &room)];
    let dora = join(&servers[0], "dora", &room);
    for server in &servers {
        eventually("all nodes agree", || seen_by_newcomer(server, &room) == set(&["ann", "bob", "dora"]));
    }
    watchers.iter_mut().for_each(|watcher| drop(settle(watcher)));
    let slot = cluster.slot(&room).to_string();
    let [source, target] = [&cluster.masters[0], &cluster.masters[1]];
    let ids = [source, target].map(|master| master.ask::<String>(&["CLUSTER", "MYID"]));
    target.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    source.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    // The hash of nodes goes first, so that no call for presence has all of its keys in one place.
    let (key, port) = (format!("roomcast:{{{room}}}:nodes"), target.port.to_string());
    source.ask::<String>(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
    let waits = errors(source, "TRYAGAIN");
    drop(dora);
    let mut carl = Client::connect_as(&servers[1], "carl");
    carl.send_json(&json!({"type": "join", "room": room}));
    eventually("presence waits for the slot", || errors(source, "TRYAGAIN") > waits);
    move_keys(&slot, source, target);
    for master in [target, source, &cluster.masters[2]] {
        master.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
    }
    recv_long(&mut carl, "that he is in", |message| is(message, "joined"));
    // Each is on the other node than one of the two.
    for watcher in &mut watchers {
        let mut left = vec![("carl", "online"), ("dora", "offline")];
        recv_long(watcher, "who came and who went", |message| {
            for change in presences(std::slice::from_ref(message)) {
                let before = left.len();
                left.retain(|expected| *expected != change);
                assert!(left.len() < before || change.0 == "newcomer", "{message}");
            }
            left.is_empty()
        });
    }
    for server in &servers {
        assert_eq!(seen_by_newcomer(server, &room), set(&["ann", "bob", "carl"]));
    }
}

#[test]
fn a_master_that_stands_still_until_its_replica_takes_over_loses_nothing_untold() {
    let cluster = RedisCluster::start();
    let replica = cluster.replica(0);
    let servers = [node(&cluster), node(&cluster)];
    let [room, other, _] = cluster.rooms();
    let mut watchers = [join(&servers[0], "ann", &room), join(&servers[1], "bob", &room)];
    let has_role = |redis: &Redis, role| redis.info("role").as_deref() == Some(role);
    let said = talk(&servers, &[&room, &other], || {
        grow(&cluster.masters[0], &room, 50);
        // The replica lacks all messages that are acknowledged from here on.
        replica.signal(Signal::STOP);
        cluster.masters[0].ask::<usize>(&["CLIENT", "KILL", "TYPE", "replica"]);
        grow(&cluster.masters[0], &room, 50);
        cluster.masters[0].signal(Signal::STOP);
        replica.signal(Signal::CONT);
        eventually("the replica has taken over", || has_role(&replica, "master"));
        grow(&replica, &room, 50);
        cluster.masters[0].signal(Signal::CONT);
        eventually("the old master is a replica", || has_role(&cluster.masters[0], "slave"));
        grow(&replica, &room, 50);
    });
    check_lost_is_told(&servers, &said);
    assert!(said.iter().filter(|said| said.room == *room).all(|said| said.breaks > 0), "something was lost");
    assert!(said.iter().filter(|said| said.room == *other).all(|said| said.breaks == 0), "and nothing elsewhere");
    for watcher in &mut watchers {
        let seen = settle(watcher);
        let absent =
            presences(&seen).into_iter().find(|change| [("ann", "offline"), ("bob", "offline")].contains(change));
        assert_eq!(absent, None);
    }
}

#[test]
fn a_right_that_is_missing_at_one_master_keeps_the_node_from_being_ready_until_it_is_there() {
    let cluster = RedisCluster::start();
    let server = node(&cluster);
    let rooms = cluster.rooms();
    let mut ann = Client::connect_as(&server, "ann");
    rooms.iter().for_each(|room| drop(ann.join(room)));
    let heartbeats = |at: usize| {
        let all = cluster.masters[at].try_ask::<Vec<String>>(&["HVALS", "roomcast:nodes"]).ok()?;
        all.first()?.split(' ').next()?.parse::<u64>().ok()
    };
    let home = [0, 1, 2].into_iter().find(|at| heartbeats(*at).is_some()).expect("heartbeats");
    let other = (home + 1) % 3;
    cluster.masters[other].ask::<String>(&["ACL", "SETUSER", "default", "-xadd"]);
    ann.send_json(&chat(&rooms[other], "refused", "1"));
    wait_unready(&server);
    server.wait_for_log("lacks rights: give it +xadd (ACL SETUSER)");
    // Checks at the master that has the heartbeats do not hide it.
    let before = heartbeats(home).unwrap();
    eventually("it is checked again", || {
        assert_eq!(server.get("/readyz").status, 503);
        heartbeats(home).unwrap() >= before + 4
    });
    cluster.masters[other].ask::<String>(&["ACL", "SETUSER", "default", "+xadd"]);
    wait_ready(&server);
    server.wait_for_log("the redis user has all rights now");
}
