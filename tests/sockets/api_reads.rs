//! What back-ends ask over HTTP on one node: lists of rooms and of users, one room, and how the server does.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::api::{check_refused, command, post, publish, server_with};
use crate::support::chat::join_with;
use crate::support::{Client, Raw, Server, request, upgrade_request, wait_until};

fn rooms(address: SocketAddr, body: &Value) -> Value {
    command(address, "/api/rooms", body)
}

fn names(list: &Value, entries: &str, field: &str) -> Vec<String> {
    let name = |entry: &Value| entry[field].as_str().unwrap().to_owned();
    list[entries].as_array().unwrap().iter().map(name).collect()
}

fn metric(server: &Server, name: &str) -> u64 {
    let response = server.get("/metrics");
    let value = response.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", response.text()))
}

#[test]
fn rooms_are_listed_by_name_with_what_they_hold() {
    let server = server_with(&[]);
    let address = server.address();
    assert_eq!(rooms(address, &json!({})), json!({"rooms": [], "more": false, "nodes": "this"}));
    let mut ann = [Client::connect_as(&server, "ann"), Client::connect_as(&server, "ann")];
    let mut bob = Client::connect_as(&server, "bob");
    for client in &mut ann {
        client.join("team-a");
    }
    for room in ["team-a", "lobby", "Über"] {
        bob.join(room);
    }
    for text in ["one", "two"] {
        assert_eq!(publish(address, &json!({"room": "team-a", "text": text})).status, 200);
    }
    let all = json!([
        {"room": "lobby", "users": 1, "connections": 1, "seq": 0},
        {"room": "team-a", "users": 2, "connections": 3, "seq": 2},
        {"room": "Über", "users": 1, "connections": 1, "seq": 0},
    ]);
    assert_eq!(rooms(address, &json!({})), json!({"rooms": all, "more": false, "nodes": "this"}));
    // What nobody is in is no room.
    publish(address, &json!({"room": "empty", "text": "hello"}));
    assert_eq!(rooms(address, &json!({"limit": 1000}))["rooms"], all);
}

#[test]
fn a_list_of_rooms_has_pages_that_stay_in_order_while_rooms_come_and_go() {
    let server = server_with(&["--rooms-per-connection", "3000", "--message-rate", "0"]);
    let address = server.address();
    let mut ann = Client::connect_as(&server, "ann");
    // The order of names is another one.
    let names_of = |numbers: std::ops::Range<u32>| numbers.map(|n| format!("r-{:04}", n * 7919 % 2003));
    names_of(0..2003).for_each(|room| drop(ann.join(&room)));
    let expected: Vec<_> = (0..2003).map(|n| format!("r-{n:04}")).collect();
    let (mut listed, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = rooms(address, &json!({"limit": 700, "after": after}));
        listed.extend(names(&page, "rooms", "room"));
        after = json!(listed.last());
        if page["more"] == false {
            break;
        }
        // The room that the next page begins behind goes, and one comes that was passed.
        ann.send_json(&json!({"type": "leave", "room": listed.last()}));
        ann.recv_type("left");
        ann.join(&format!("r-0000-{}", listed.len()));
    }
    assert_eq!(listed, expected);
    // As many as are usual, and a page that ends where the list does.
    let page = rooms(address, &json!({"match": "r-1*"}));
    assert_eq!((names(&page, "rooms", "room"), &page["more"]), (expected[1000..1100].to_vec(), &json!(true)));
    let page = rooms(address, &json!({"match": "r-200*", "limit": 3}));
    assert_eq!((names(&page, "rooms", "room"), &page["more"]), (expected[2000..].to_vec(), &json!(false)));
    let matching = rooms(address, &json!({"match": "r-000*", "limit": 4}));
    let first = ["r-0000", "r-0000-1400", "r-0000-700", "r-0001"];
    assert_eq!(
        (names(&matching, "rooms", "room"), &matching["more"]),
        (first.map(str::to_owned).to_vec(), &json!(true))
    );
    let rest = rooms(address, &json!({"match": "r-000*", "after": "r-0007"}));
    assert_eq!((names(&rest, "rooms", "room"), &rest["more"]), (vec!["r-0008".into(), "r-0009".into()], &json!(false)));
    for (pattern, found) in [("r-0005", 1), ("r-000", 0), ("a*", 0), ("r-2002*", 1), ("z*", 0)] {
        let page = rooms(address, &json!({"match": pattern}));
        assert_eq!((page["rooms"].as_array().unwrap().len(), &page["more"]), (found, &json!(false)), "{pattern}");
    }
    assert_eq!(rooms(address, &json!({"match": "r-*", "after": "s"}))["rooms"], json!([]));
    assert_eq!(names(&rooms(address, &json!({"match": "r-2002*", "after": "a"})), "rooms", "room"), ["r-2002"]);
}

#[test]
fn what_a_list_cannot_be_asked_for_is_refused() {
    let server = server_with(&[]);
    let address = server.address();
    for path in ["/api/rooms", "/api/members"] {
        for limit in [0, 1001] {
            let response = post(address, path, &json!({"room": "lobby", "limit": limit}));
            check_refused(&response, 400, "bad_message", &["limit is", "1 to 1000 are allowed"]);
        }
        let response = post(address, path, &json!({"room": "lobby", "after": "two words"}));
        check_refused(&response, 400, "bad_message", &["after: name contains ' '"]);
    }
    let response = post(address, "/api/rooms", &json!({"match": "a*b"}));
    check_refused(&response, 400, "bad_message", &["match: name contains '*'"]);
    check_refused(&post(address, "/api/members", &json!({})), 400, "bad_message", &["members without room"]);
    check_refused(&post(address, "/api/room", &json!({})), 400, "bad_message", &["room without room"]);
    check_refused(&post(address, "/api/room", &json!({"room": "a b"})), 400, "bad_message", &["room: name"]);
    check_refused(&post(address, "/api/stats", &json!([])), 400, "bad_json", &[]);
}

#[test]
fn a_room_tells_how_it_does_and_which_rules_hold() {
    let rule = "news-*:say=api,history=5,history-age=1m,big-room=3,slow=2s";
    let server = server_with(&["--room", rule, "--history-messages", "100", "--history-age", "1h", "--big-room", "50"]);
    let address = server.address();
    let mut ann = [Client::connect_as(&server, "ann"), Client::connect_as(&server, "ann")];
    let joined = ann.each_mut().map(|client| join_with(client, &json!({"room": "news-1"})).1);
    assert_eq!(publish(address, &json!({"room": "news-1", "text": "hello"})).status, 200);
    let room = command(address, "/api/room", &json!({"room": "news-1"}));
    let expected = json!({
        "room": "news-1", "users": 1, "connections": 2, "catchingUp": 0, "blocked": 0, "epoch": joined[0]["epoch"], "seq": 1,
        "rules": {"historyMessages": 5, "historyAgeMs": 60_000, "bigRoom": 3, "slowMs": 2000, "say": "api"},
        "nodes": "this",
    });
    assert_eq!(room, expected);
    // In a room that nobody is in, there may be history.
    assert_eq!(publish(address, &json!({"room": "later", "text": "hello"})).status, 200);
    let room = command(address, "/api/room", &json!({"room": "later"}));
    let rules = json!({"historyMessages": 100, "historyAgeMs": 3_600_000, "bigRoom": 50, "slowMs": 0, "say": "all"});
    assert_eq!((&room["seq"], &room["users"], &room["rules"]), (&json!(1), &json!(0), &rules));
    assert_eq!(join_with(&mut ann[0], &json!({"room": "later"})).1["epoch"], room["epoch"]);
    // To ask about a room leaves nothing behind.
    command(address, "/api/room", &json!({"room": "nowhere"}));
    command(address, "/api/members", &json!({"room": "nowhere"}));
    assert_eq!(names(&rooms(address, &json!({})), "rooms", "room"), ["later", "news-1"]);
}

#[test]
fn members_are_listed_by_user_with_their_connections_also_while_they_are_awaited_back() {
    let server = server_with(&["--presence-grace", "60s"]);
    let address = server.address();
    let mut clients: Vec<_> =
        ["dan", "bob", "ann", "bob", "Zoë", "cat"].iter().map(|user| Client::connect_as(&server, user)).collect();
    clients.iter_mut().for_each(|client| drop(client.join("lobby")));
    let member = |user: &str, connections: u32| json!({"userId": user, "connections": connections, "elsewhere": false});
    let all = [member("Zoë", 1), member("ann", 1), member("bob", 2), member("cat", 1), member("dan", 1)];
    let page = |body: Value| command(address, "/api/members", &body);
    let list = |members: &[Value], more: bool| json!({"room": "lobby", "users": 5, "members": members, "more": more, "nodes": "this"});
    assert_eq!(page(json!({"room": "lobby"})), list(&all, false));
    assert_eq!(page(json!({"room": "lobby", "limit": 5})), list(&all, false));
    assert_eq!(page(json!({"room": "lobby", "limit": 2})), list(&all[..2], true));
    assert_eq!(page(json!({"room": "lobby", "limit": 2, "after": "ann"})), list(&all[2..4], true));
    assert_eq!(page(json!({"room": "lobby", "limit": 2, "after": "cat"})), list(&all[4..], false));
    // A user that is not there may be the end of a page all the same.
    assert_eq!(page(json!({"room": "lobby", "after": "cat2"})), list(&all[4..], false));
    drop(clients.remove(0));
    wait_until("dan is awaited back", || {
        page(json!({"room": "lobby", "after": "cat"})) == list(&[member("dan", 0)], false)
    });
    let nobody = json!({"room": "other", "users": 0, "members": [], "more": false, "nodes": "this"});
    assert_eq!(page(json!({"room": "other"})), nobody);
}

#[test]
fn a_server_tells_how_it_does() {
    let server = server_with(&["--memory", "100MiB"]);
    let address = server.address();
    let mut ann = [Client::connect_as(&server, "ann"), Client::connect_as(&server, "ann")];
    ann.iter_mut().for_each(|client| drop(client.join("lobby")));
    ann[0].join("cellar");
    ann[0].join("attic");
    assert_eq!(publish(address, &json!({"room": "lobby", "text": "x".repeat(5000)})).status, 200);
    command(address, "/api/mute", &json!({"userId": "bob"}));
    let stats = command(address, "/api/stats", &json!({}));
    let plain = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("connections", json!(2)),
        ("users", json!(1)),
        ("rooms", json!(3)),
        ("messagesDelivered", json!(1)),
        ("messagesReceived", json!(4)),
        ("restrictions", json!(1)),
        ("bus", json!({"ready": true, "shared": false, "nodesAlive": 1})),
        ("nodes", json!("this")),
    ];
    for (field, expected) in plain {
        assert_eq!(stats[field], expected, "{field} in {stats}");
    }
    let memory = &stats["memory"];
    assert_eq!(memory["shares"]["history"]["bytesMax"], 25 << 20);
    let history = memory["shares"]["history"]["bytes"].as_u64().unwrap();
    assert!((5000..6000).contains(&history), "{memory}");
    let shares = memory["shares"].as_object().unwrap();
    for field in ["bytes", "bytesMax"] {
        assert_eq!(
            shares.values().filter_map(|share| share[field].as_u64()).sum::<u64>(),
            memory[field].as_u64().unwrap()
        );
    }
    assert_eq!((shares.len(), shares["rooms"]["bytes"].as_u64() > Some(0)), (6, true), "{memory}");
    let node = stats["nodeId"].as_str().unwrap();
    let started = UNIX_EPOCH + Duration::from_millis(stats["startedAt"].as_u64().unwrap());
    assert!(!node.is_empty() && started.elapsed().unwrap() < Duration::from_secs(600), "{stats}");
    let uptime = || command(address, "/api/stats", &json!({}))["uptimeSeconds"].as_u64().unwrap();
    wait_until("the server has run for a second", || uptime() >= 1);
    assert!(uptime() <= started.elapsed().unwrap().as_secs(), "{stats}");
    let other = server_with(&[]);
    assert_ne!(command(other.address(), "/api/stats", &json!({}))["nodeId"], node);
}

#[test]
fn handshakes_that_a_ban_refuses_are_counted_and_others_are_not() {
    let server = server_with(&["--metrics"]);
    let address = server.address();
    command(address, "/api/ban", &json!({"userId": "mallory"}));
    command(address, "/api/ban", &json!({"network": "127.0.0.9"}));
    let status = |source: &str, user: &str, headers: &[(&str, &str)]| {
        let mut raw = Raw::connect_from(source, address);
        raw.send(upgrade_request(&format!("/ws?userId={user}"), headers).as_bytes());
        raw.response().status
    };
    assert_eq!([status("127.0.0.1", "mallory", &[]), status("127.0.0.9", "ann", &[])], [403, 403]);
    assert_eq!(status("127.0.0.1", "ann", &[]), 101);
    // Refused with the same status, for another reason.
    assert_eq!(status("127.0.0.1", "ann", &[("Origin", "https://elsewhere.example")]), 403);
    assert_eq!(metric(&server, "roomcast_connections_banned_total"), 2);
    let mut raw = Raw::connect_from("127.0.0.9", address);
    raw.send(request("GET", "/healthz", &[]).as_bytes());
    assert_eq!((raw.response().status, metric(&server, "roomcast_connections_banned_total")), (200, 2));
}
