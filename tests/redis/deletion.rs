//! Deletions over Redis: no key has the text any more, and nodes that were cut off or restarted show no text either.

use serde_json::{Value, json};

use crate::harness::cluster::RedisCluster;
use crate::harness::nodes::{node_with, recv_long, say_and_see, wait_ready, wait_unready};
use crate::harness::redis::{Redis, eventually};
use crate::harness::way::{Course, Way};
use crate::support::api::{KEY, check_published, check_refused, command, post};
use crate::support::chat::{chat, is, join_with, settle};
use crate::support::{Client, Server};

fn node(redis: &Redis) -> Server {
    node_with(redis, &["--api-key", KEY])
}

fn node_with_history(redis: &Redis, messages: &str) -> Server {
    let url = redis.url();
    let server =
        Server::spawn(&["--redis", &url, "--api-key", KEY, "--message-rate", "0", "--history-messages", messages]);
    wait_ready(&server);
    server
}

/// What is under all keys.
fn contents(redis: &Redis) -> String {
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]);
    let dump = |key: &String| match redis.ask::<String>(&["TYPE", key]).as_str() {
        "string" => redis.ask::<String>(&["GET", key]),
        "hash" => redis.ask::<Vec<String>>(&["HGETALL", key]).join(" "),
        "zset" => redis.ask::<Vec<String>>(&["ZRANGE", key, "0", "-1"]).join(" "),
        "stream" => {
            let entries: Vec<(String, Vec<String>)> = redis.ask(&["XRANGE", key, "-", "+"]);
            entries.iter().map(|(_, fields)| fields.join(" ")).collect::<Vec<_>>().join(" ")
        }
        other => panic!("{key} is a {other}"),
    };
    keys.iter().map(|key| format!("{key} {}\n", dump(key))).collect()
}

/// The entries among messages: the text of a chat, and the numbers of others.
fn entries(messages: &[Value]) -> Vec<(u64, Value)> {
    let is_entry = |message: &&Value| is(message, "chat") || is(message, "deleted");
    let entry = |message: &Value| {
        let shown = if is(message, "chat") { &message["text"] } else { &message["deletes"] };
        (message["seq"].as_u64().unwrap(), shown.clone())
    };
    messages.iter().filter(is_entry).map(entry).collect()
}

fn replay(server: &Server, request: &Value) -> (Vec<(u64, Value)>, Value) {
    let (messages, joined) = join_with(&mut Client::connect(server), request);
    (entries(&messages), joined)
}

#[test]
fn no_key_has_a_deleted_text_and_all_nodes_agree() {
    for history in ["100", "0"] {
        let redis = Redis::start();
        let servers = [0, 1].map(|_| node_with_history(&redis, history));
        let mut clients = [Client::connect_as(&servers[0], "ann"), Client::connect_as(&servers[1], "bob")];
        let epoch = clients.each_mut().map(|client| client.join("lobby")["epoch"].clone())[0].clone();
        for (text, id) in [("one", "1"), ("a secret", "2"), ("the secret", "3")] {
            clients[0].send_json(&chat("lobby", text, id));
            clients.iter_mut().for_each(|client| drop(client.recv_until(|message| message["text"] == text)));
        }
        for (server, seq) in [(&servers[1], 2), (&servers[0], 3)] {
            let body = json!({"room": "lobby", "seq": seq, "epoch": epoch});
            check_published(&post(server.address(), "/api/delete", &body), "lobby", seq, false);
        }
        for client in &mut clients {
            let told = client.recv_until(|message| message["seq"] == 5);
            assert_eq!(entries(&told), [(4, json!([2])), (5, json!([3]))]);
        }
        assert!(!contents(&redis).contains("secret"), "{}", contents(&redis));
        // Ids are remembered.
        clients[0].send_json(&chat("lobby", "a secret", "2"));
        assert_eq!(clients[0].recv_type("ack")["duplicate"], true);
        assert!(settle(&mut clients[1]).is_empty());
        for server in &servers {
            let body = json!({"room": "lobby", "seq": 9});
            check_refused(&post(server.address(), "/api/delete", &body), 404, "not_found", &[]);
            let (shown, joined) = replay(server, &json!({"room": "lobby", "history": history.parse::<u32>().unwrap()}));
            if history == "0" {
                assert_eq!((shown.len(), &joined["seq"]), (0, &json!(5)));
                continue;
            }
            let null = Value::Null;
            let all = [(1, json!("one")), (2, null.clone()), (3, null), (4, json!([2])), (5, json!([3]))];
            assert_eq!(shown, all);
            for seq in 0..=5 {
                let since = json!({"room": "lobby", "since": {"epoch": epoch, "seq": seq}});
                let (shown, joined) = replay(server, &since);
                assert_eq!((&shown[..], &joined["recovered"]), (&all[seq..], &json!(true)), "since {seq}");
            }
            for (before, limit) in (1..=6).flat_map(|before| (1..=6).map(move |limit| (before, limit))) {
                let body = json!({"room": "lobby", "before": before, "limit": limit});
                let page = command(server.address(), "/api/history", &body);
                let older = &all[..before - 1];
                let expected = &older[older.len().saturating_sub(limit)..];
                assert_eq!(entries(page["messages"].as_array().unwrap()), expected, "{limit} before {before}");
                assert_eq!(page["more"], older.len() > limit, "{limit} before {before}");
            }
            let body = json!({"room": "lobby", "seq": 2});
            check_published(&post(server.address(), "/api/delete", &body), "lobby", 2, true);
            check_refused(
                &post(server.address(), "/api/delete", &json!({"room": "lobby", "seq": 4})),
                404,
                "not_found",
                &[],
            );
        }
        assert_eq!(servers.iter().flat_map(|server| server.log_lines("WARN")).collect::<Vec<_>>(), [""; 0]);
    }
}

#[test]
fn a_node_that_was_cut_off_shows_no_text_and_its_members_learn_of_all_deletions() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let far = Server::spawn(&["--redis", &way.url(), "--message-rate", "0"]);
    let near = node(&redis);
    wait_ready(&far);
    let mut ann = Client::connect_as(&far, "ann");
    ann.join("lobby");
    let mut bob = Client::connect_as(&near, "bob");
    bob.join("lobby");
    say_and_see(&mut bob, "lobby", "seen");
    recv_long(&mut ann, "seen", |message| message["text"] == "seen");
    way.cut();
    wait_unready(&far);
    for text in ["missed", "secret", "kept"] {
        say_and_see(&mut bob, "lobby", text);
    }
    // One that the far node has delivered last, and one that it has not delivered.
    for seq in [1, 3] {
        command(near.address(), "/api/delete", &json!({"room": "lobby", "seq": seq}));
    }
    say_and_see(&mut bob, "lobby", "after");
    way.mend();
    let all = recv_long(&mut ann, "after", |message| message["text"] == "after");
    let expected = [
        (2, json!("missed")),
        (3, Value::Null),
        (4, json!("kept")),
        (5, json!([1])),
        (6, json!([3])),
        (7, json!("after")),
    ];
    assert_eq!(entries(&all), expected);
    assert!(all.iter().all(|message| message["recovered"] != false), "no epoch has ended: {all:?}");
}

#[test]
fn a_restarted_redis_and_restarted_nodes_show_tombstones() {
    let mut redis = Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let server = node(&redis);
    let mut ann = Client::connect_as(&server, "ann");
    let epoch = ann.join("lobby")["epoch"].clone();
    for text in ["one", "secret", "three"] {
        say_and_see(&mut ann, "lobby", text);
    }
    for seq in [1, 2] {
        command(server.address(), "/api/delete", &json!({"room": "lobby", "seq": seq}));
    }
    redis.kill();
    wait_unready(&server);
    redis.restart();
    wait_ready(&server);
    assert_eq!(say_and_see(&mut ann, "lobby", "six")["seq"], 6);
    let expected =
        [(1, Value::Null), (2, Value::Null), (3, json!("three")), (4, json!([1])), (5, json!([2])), (6, json!("six"))];
    let fresh = node(&redis);
    for server in [&server, &fresh] {
        let (shown, joined) = replay(server, &json!({"room": "lobby", "since": {"epoch": epoch, "seq": 0}}));
        assert_eq!((&shown[..], &joined["recovered"]), (&expected[..], &json!(true)));
    }
}

#[test]
fn many_deletions_do_not_make_history_longer_than_it_may_be() {
    let redis = Redis::start();
    let server = node_with_history(&redis, "20");
    let mut ann = Client::connect_as(&server, "ann");
    let epoch = ann.join("lobby")["epoch"].clone();
    for n in 0..150 {
        let seq = say_and_see(&mut ann, "lobby", &format!("secret {n}"))["seq"].clone();
        command(server.address(), "/api/delete", &json!({"room": "lobby", "seq": seq}));
    }
    let size = |command: &str, key: &str| redis.ask::<usize>(&[command, &format!("roomcast:{{lobby}}:{key}")]);
    assert!(size("ZCARD", "gone") <= 20 && size("XLEN", "log") <= 20, "{}", contents(&redis));
    assert!(!contents(&redis).contains("secret"));
    let page = command(server.address(), "/api/history", &json!({"room": "lobby", "limit": 100}));
    assert!(entries(page["messages"].as_array().unwrap()).iter().map(|(seq, _)| *seq).eq(281..=300), "{page}");
    let (shown, joined) = replay(&server, &json!({"room": "lobby", "history": 20}));
    assert_eq!((shown.len(), &joined["seq"]), (20, &json!(300)));
    assert!(shown.iter().map(|(seq, _)| *seq).eq(281..=300), "{shown:?}");
    // What is gone for good is told.
    let (_, joined) = replay(&server, &json!({"room": "lobby", "since": {"epoch": epoch, "seq": 200}}));
    assert_eq!(joined["recovered"], false);
}

#[test]
fn a_purge_is_carried_out_in_portions_on_every_room_of_a_cluster() {
    let cluster = RedisCluster::start();
    let url = cluster.url();
    let server = Server::spawn(&["--redis", &url, "--message-rate", "0", "--api-key", KEY]);
    wait_ready(&server);
    let mut mallory = Client::connect_as(&server, "mallory");
    let mut ann = Client::connect_as(&server, "ann");
    let rooms = cluster.rooms();
    for room in &rooms {
        [&mut mallory, &mut ann].into_iter().for_each(|client| drop(client.join(room)));
        for n in 0..70 {
            mallory.say(room, &format!("secret {n}"));
        }
        recv_long(&mut mallory, "secret 69", |message| message["text"] == "secret 69");
        say_and_see(&mut ann, room, "fine");
    }
    let answer = command(server.address(), "/api/purge", &json!({"userId": "mallory"}));
    assert_eq!((&answer["deleted"], &answer["complete"]), (&json!(210), &json!(true)), "{answer}");
    eventually("all is announced", || {
        rooms.iter().all(|room| replay(&server, &json!({"room": room, "history": 9})).1["seq"] == 73)
    });
    for room in &rooms {
        let (shown, _) = replay(&server, &json!({"room": room, "history": 100}));
        assert_eq!(shown.iter().filter(|(_, shown)| shown.is_string()).count(), 1, "{shown:?}");
        assert_eq!(shown.len(), 73);
    }
    for master in &cluster.masters {
        assert!(!contents(master).contains("secret"));
    }
}

#[test]
fn a_purge_of_all_rooms_reaches_rooms_whose_members_are_on_other_nodes() {
    let redis = Redis::start();
    let [asked, other] = [0, 1].map(|_| node_with_history(&redis, "100"));
    let (mut ann, mut mallory) = (Client::connect_as(&other, "ann"), Client::connect_as(&other, "mallory"));
    [&mut ann, &mut mallory].into_iter().for_each(|client| drop(client.join("lobby")));
    say_and_see(&mut mallory, "lobby", "secret");
    // Nobody is in a room of the node that is asked.
    let answer = command(asked.address(), "/api/purge", &json!({"userId": "mallory"}));
    assert_eq!((&answer["deleted"], &answer["complete"]), (&json!(0), &json!(true)), "{answer}");
    assert_eq!(ann.recv_type("deleted")["deletes"], json!([1]));
    assert!(!contents(&redis).contains("secret"));
}
