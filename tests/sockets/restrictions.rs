//! Bans and mutes on one node: what they do, how they end, how they are listed, and how many there may be.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use roomcast::settings::ApiKey;
use roomcast::{
    AdmissionTicket, Authentication, Authenticator, Identity, Network, Now, Refusal, Restriction, RestrictionTarget,
    UserId, http,
};
use serde_json::{Value, json};

use crate::support::api::{KEY, check_refused, command, post, server_with};
use crate::support::chat::{is, join_with, texts};
use crate::support::host::{Host, LOOK, config};
use crate::support::{Client, Connect, Raw, Response, TEXT, frame, request, upgrade_request, wait_until};

const BANNED: u16 = 4503;

/// Sends a handshake of a user from an address of this machine.
fn knock_from(source: &str, address: SocketAddr, user: &str) -> (Raw, Response) {
    knock(Raw::connect_from(source, address), user, &[])
}

fn knock(mut raw: Raw, user: &str, headers: &[(&str, &str)]) -> (Raw, Response) {
    raw.send(upgrade_request(&format!("/ws?userId={user}"), headers).as_bytes());
    let response = raw.response();
    (raw, response)
}

fn status(address: SocketAddr, user: &str) -> u16 {
    knock(Raw::connect(address), user, &[]).1.status
}

#[track_caller]
fn check_banned(response: &Response, needle: &str) {
    assert_eq!(response.status, 403, "{response:?}");
    assert!(response.text().contains(needle), "no {needle:?} in {}", response.text());
}

/// Says something in a room and returns the answer: the message, or the error.
fn say(client: &mut Client, room: &str, text: &str) -> Value {
    client.send_json(&json!({"type": "chat", "room": room, "text": text, "id": text}));
    let is_answer =
        |message: &Value| is(message, "chat") && message["text"] == text || is(message, "ack") || is(message, "error");
    client.recv_until(is_answer).pop().unwrap()
}

#[track_caller]
fn check_muted(answer: &Value, needle: &str) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("muted")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(needle), "{answer}");
}

#[test]
fn a_banned_user_is_closed_at_once_and_refused_until_the_ban_is_lifted() {
    let server = server_with(&[]);
    let address = server.address();
    let mut ann = [Client::connect_as(&server, "ann"), Client::connect_as(&server, "ann")];
    let mut bob = Client::connect_as(&server, "bob");
    ann.iter_mut().chain([&mut bob]).for_each(|client| drop(client.join("lobby")));
    let answer = command(address, "/api/ban", &json!({"userId": "ann", "reason": "„genug“"}));
    assert_eq!(answer, json!({"userId": "ann", "reason": "„genug“"}));
    // The answer says that it is in force here.
    check_banned(&knock(Raw::connect(address), "ann", &[]).1, "banned: „genug“");
    ann.iter_mut().for_each(|client| assert_eq!(client.expect_close(), BANNED));
    assert_eq!(status(address, "anna"), 101);
    assert_eq!(say(&mut bob, "lobby", "still here")["type"], "chat");
    assert_eq!(command(address, "/api/unban", &json!({"userId": "ann"})), json!({"userId": "ann"}));
    assert_eq!(status(address, "ann"), 101);
    // Who is not banned is not to be unbanned, which does no harm.
    command(address, "/api/unban", &json!({"userId": "ann"}));
    // The log comes over a pipe of its own.
    let lines = |needle: &str| server.log_lines(needle).len();
    wait_until("the log", || lines("api: lift ban user ann, asked for by key 97b2173c") == 2);
    assert_eq!(lines("api: ban user ann, asked for by key 97b2173c"), 1);
    assert!(server.log_lines("genug").is_empty(), "{:?}", server.log());
}

#[test]
fn the_close_of_a_ban_has_its_reason() {
    let mut host = Host::new(config());
    let address = host.listen();
    let mut raws = host.serve(|| ["ann", "bob"].map(|user| Raw::open(address, &format!("/ws?userId={user}"))));
    let ban = |user: &str| Restriction::new(RestrictionTarget::BannedUser(UserId::new(user).unwrap()));
    host.server.restrict(Restriction { reason: Some("spam".to_owned()), ..ban("ann") }).unwrap();
    host.server.restrict(ban("bob")).unwrap();
    let reasons = host.serve(|| {
        raws.each_mut().map(|raw| {
            loop {
                let frame = raw.frame();
                if frame.opcode == 8 {
                    break (frame.close_code(), String::from_utf8(frame.payload[2..].to_vec()).unwrap());
                }
            }
        })
    });
    assert_eq!(reasons, [(BANNED, "spam".to_owned()), (BANNED, "banned".to_owned())]);
    let error = host.server.restrict(Restriction { reason: Some("r".repeat(124)), ..ban("ann") }).unwrap_err();
    assert_eq!(error.to_string(), "reason of 124 bytes exceeds 123");
}

#[test]
fn a_banned_network_is_closed_and_refused_whatever_its_peers_are_called() {
    let server = server_with(&[]);
    let address = server.address();
    let (mut near, response) = knock_from("127.0.2.1", address, "ann");
    assert_eq!(response.status, 101);
    let (mut far, _) = knock_from("127.0.3.1", address, "bob");
    let answer = command(address, "/api/ban", &json!({"network": "127.0.2.77/24", "reason": "flood"}));
    assert_eq!(answer, json!({"network": "127.0.2.0/24", "reason": "flood"}));
    assert_eq!(near.expect_close(), BANNED);
    check_banned(&knock_from("127.0.2.200", address, "cat").1, "banned: flood");
    // A single address, and what else is here goes on.
    command(address, "/api/ban", &json!({"network": "127.0.4.1"}));
    check_banned(&knock_from("127.0.4.1", address, "cat").1, "banned");
    assert_eq!(knock_from("127.0.4.2", address, "cat").1.status, 101);
    far.send(&frame(TEXT, true, br#"{"type":"ping"}"#));
    far.json_of("pong");
    // Other resources are open to all: a ban is of chat.
    let mut raw = Raw::connect_from("127.0.2.200", address);
    raw.send(request("GET", "/healthz", &[]).as_bytes());
    assert_eq!(raw.response().status, 200);
    command(address, "/api/unban", &json!({"network": "127.0.2.0/24"}));
    assert_eq!(knock_from("127.0.2.200", address, "cat").1.status, 101);
}

#[test]
fn an_address_of_ipv6_stands_for_its_network() {
    let server = server_with(&["--listen", "[::1]:0"]);
    let address = server.address();
    assert!(address.is_ipv6());
    let (mut ann, response) = knock(Raw::connect(address), "ann", &[]);
    assert_eq!(response.status, 101);
    let answer = command(address, "/api/ban", &json!({"network": "::1:2:3:4"}));
    assert_eq!(answer, json!({"network": "::/64"}));
    assert_eq!(ann.expect_close(), BANNED);
    assert_eq!(status(address, "ann"), 403);
    command(address, "/api/unban", &json!({"network": "::/64"}));
    command(address, "/api/ban", &json!({"network": "::2/128"}));
    assert_eq!(status(address, "ann"), 101);
}

#[test]
fn behind_a_proxy_bans_are_of_the_addresses_that_it_names() {
    let server = server_with(&["--trusted-proxy", "127.0.0.1"]);
    let address = server.address();
    let from = |client: &str| knock(Raw::connect(address), "ann", &[("X-Forwarded-For", client)]);
    let (mut four, mut six, mut other) = (from("192.0.2.1").0, from("2001:db8::1").0, from("192.0.2.2").0);
    for (network, raw) in [("192.0.2.1", &mut four), ("2001:db8::/48", &mut six)] {
        command(address, "/api/ban", &json!({"network": network}));
        assert_eq!(raw.expect_close(), BANNED);
    }
    for client in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:0:7::1"] {
        assert_eq!(from(client).1.status, 403, "{client}");
    }
    assert_eq!(from("2001:db8:1::1").1.status, 101);
    other.send(&frame(TEXT, true, br#"{"type":"ping"}"#));
    other.json_of("pong");
}

#[test]
fn a_muted_user_says_and_shows_nothing_in_the_room_and_goes_on_elsewhere() {
    let server = server_with(&[]);
    let address = server.address();
    let [mut ann, mut bob] = ["ann", "bob"].map(|user| Client::connect_as(&server, user));
    [&mut ann, &mut bob].into_iter().for_each(|client| ["red", "blue"].iter().for_each(|room| drop(client.join(room))));
    let answer = command(address, "/api/mute", &json!({"userId": "ann", "room": "red", "reason": "too loud"}));
    assert_eq!(answer, json!({"userId": "ann", "room": "red", "reason": "too loud"}));
    let refused = say(&mut ann, "red", "hello");
    check_muted(&refused, "muted: too loud");
    assert_eq!((&refused["room"], &refused["id"]), (&json!("red"), &json!("hello")));
    assert_eq!((&refused["temporary"], refused.get("retryAfterMs")), (&json!(false), None));
    let typing = |room: &str| json!({"type": "typing", "room": room, "status": "start"});
    ann.send_json(&typing("red"));
    ann.send_json(&typing("blue"));
    assert_eq!(bob.recv_type("typing")["room"], "blue");
    assert_eq!(say(&mut ann, "blue", "here")["type"], "chat");
    // Also on a connection that comes later, and for all rooms that come later.
    command(address, "/api/mute", &json!({"userId": "ann"}));
    let mut later = Client::connect_as(&server, "ann");
    ["red", "green"].iter().for_each(|room| drop(later.join(room)));
    for room in ["red", "green"] {
        check_muted(&say(&mut later, room, "again"), "muted");
    }
    check_muted(&say(&mut ann, "blue", "again"), "muted");
    ann.send_json(&json!({"type": "chat", "room": "elsewhere", "text": "x"}));
    assert_eq!(ann.recv_type("error")["code"], "not_joined");
    // She hears all the same, and the one mute goes without the other.
    assert_eq!(say(&mut bob, "red", "can you hear me")["type"], "chat");
    ann.recv_until(|message| message["text"] == "can you hear me");
    command(address, "/api/unmute", &json!({"userId": "ann"}));
    check_muted(&say(&mut ann, "red", "still"), "muted: too loud");
    assert_eq!(say(&mut ann, "blue", "free")["type"], "chat");
    command(address, "/api/unmute", &json!({"userId": "ann", "room": "red"}));
    assert_eq!(say(&mut ann, "red", "free")["type"], "chat");
    let mut reader = Client::connect(&server);
    let (history, _) = join_with(&mut reader, &json!({"room": "red", "history": 50}));
    assert_eq!(texts(&history), ["can you hear me", "free"], "what she said while she was muted is nowhere");
}

#[test]
fn what_expires_says_when_and_is_gone_then() {
    let server = server_with(&["--metrics", "--message-rate", "0"]);
    let address = server.address();
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    let before = Now::system().unix_ms;
    let mute = command(address, "/api/mute", &json!({"userId": "bob", "ttlSeconds": 2}));
    let expires_at = mute["expiresAt"].as_u64().expect("a time");
    assert!((before + 2000..=Now::system().unix_ms + 2000).contains(&expires_at), "{mute}");
    let refused = say(&mut bob, "lobby", "hello");
    check_muted(&refused, "muted");
    let wait = refused["retryAfterMs"].as_u64().expect("how long");
    assert!(refused["temporary"] == true && (1..=2000).contains(&wait), "{refused}");
    command(address, "/api/ban", &json!({"userId": "ann", "ttlSeconds": 1.0}));
    command(address, "/api/ban", &json!({"network": "127.0.2.0/24", "ttlSeconds": 1}));
    assert_eq!((status(address, "ann"), knock_from("127.0.2.1", address, "cat").1.status), (403, 403));
    wait_until("the bans expire", || {
        (status(address, "ann"), knock_from("127.0.2.1", address, "cat").1.status) == (101, 101)
    });
    wait_until("the mute expires", || say(&mut bob, "lobby", "hello")["type"] == "chat");
    wait_until("they are not held any more", || server.get("/metrics").text().contains("roomcast_restrictions 0\n"));
    for list in ["/api/bans", "/api/mutes"] {
        let found = command(address, list, &json!({}));
        let key = &list[5..];
        assert_eq!(found, json!({key: [], "more": false, "nodes": "this"}));
    }
}

#[test]
fn lists_are_read_page_by_page() {
    let server = server_with(&[]);
    let address = server.address();
    let users: Vec<_> = (0..5).map(|number| format!("u{number}")).collect();
    for user in users.iter().rev() {
        command(address, "/api/ban", &json!({"userId": user}));
        command(address, "/api/mute", &json!({"userId": user, "room": "red", "reason": user}));
        command(address, "/api/mute", &json!({"userId": user}));
    }
    command(address, "/api/ban", &json!({"network": "192.0.2.0/24", "ttlSeconds": 1000}));
    let pages = |path: &str, key: &str, limit: usize| {
        let (mut found, mut body) = (Vec::new(), json!({"limit": limit}));
        loop {
            let page = command(address, path, &body);
            assert_eq!(page["nodes"], "this", "there is no other");
            let entries = page[key].as_array().unwrap().clone();
            assert!(entries.len() <= limit, "{page}");
            body["after"] = entries.last().cloned().unwrap_or_default();
            found.extend(entries);
            if page["more"] == false {
                return found;
            }
            assert_eq!(page[key].as_array().unwrap().len(), limit, "{page}");
        }
    };
    for limit in 1..8 {
        let mut bans = pages("/api/bans", "bans", limit);
        let network = bans.pop().expect("the network comes last");
        assert!(network["network"] == "192.0.2.0/24" && network["expiresAt"].is_u64(), "{network}");
        assert_eq!(bans, users.iter().map(|user| json!({"userId": user})).collect::<Vec<_>>());
        let mutes = pages("/api/mutes", "mutes", limit);
        let expected = users
            .iter()
            .flat_map(|user| [json!({"userId": user}), json!({"userId": user, "room": "red", "reason": user})]);
        assert_eq!(mutes, expected.collect::<Vec<_>>());
    }
    for (path, body, needle) in [
        ("/api/bans", json!({"limit": 0}), "limit is 0; 1 to 1000 are allowed"),
        ("/api/mutes", json!({"limit": 1001}), "limit is 1001; 1 to 1000 are allowed"),
        ("/api/bans", json!({"after": {"userId": "a b"}}), "' '"),
        ("/api/mutes", json!({"after": {"room": "red"}}), "mutes after without userId"),
    ] {
        check_refused(&post(address, path, &body), 400, "bad_message", &[needle]);
    }
}

#[test]
fn what_is_asked_for_wrongly_is_refused_and_said() {
    let server = server_with(&[]);
    for (path, body, needle) in [
        ("/api/ban", json!({}), "ban without userId and network; one of them is needed"),
        ("/api/ban", json!({"userId": "ann", "network": "::1"}), "one of them is allowed"),
        ("/api/unban", json!({}), "unban without userId and network"),
        ("/api/ban", json!({"userId": "a b"}), "userId: name contains ' '"),
        ("/api/ban", json!({"network": "192.0.2.0/33"}), "network: \"192.0.2.0/33\" is no network"),
        ("/api/ban", json!({"userId": "ann", "ttlSeconds": 0}), "ttlSeconds is 0; 1 to 316224000 are allowed"),
        ("/api/ban", json!({"userId": "ann", "ttlSeconds": u64::MAX}), "are allowed"),
        ("/api/mute", json!({"userId": "ann", "ttlSeconds": -1}), "-1"),
        ("/api/mute", json!({"room": "red"}), "mute without userId"),
        ("/api/mute", json!({"userId": "ann", "room": "a b"}), "room: name contains ' '"),
        ("/api/unmute", json!({"userId": ""}), "userId: name is empty"),
        ("/api/ban", json!({"userId": "ann", "reason": "r".repeat(124)}), "reason of 124 bytes exceeds 123"),
    ] {
        check_refused(&post(server.address(), path, &body), 400, "bad_message", &[needle]);
    }
    assert_eq!(command(server.address(), "/api/bans", &json!({}))["bans"], json!([]));
}

#[test]
fn beyond_the_bound_there_is_no_space_until_one_goes() {
    let mut config = config();
    (config.hub.restrictions_max, config.api_keys) = (2, vec![ApiKey::new(KEY)]);
    let mut host = Host::new(config);
    let address = host.listen();
    host.serve(|| {
        command(address, "/api/ban", &json!({"userId": "ann"}));
        command(address, "/api/mute", &json!({"userId": "ann"}));
        let full = post(address, "/api/ban", &json!({"network": "192.0.2.1"}));
        check_refused(&full, 503, "storage_full", &["there are 2 bans and mutes; 2 are allowed"]);
        // One that is there already may change.
        command(address, "/api/ban", &json!({"userId": "ann", "reason": "again"}));
        command(address, "/api/unmute", &json!({"userId": "ann"}));
        command(address, "/api/ban", &json!({"network": "192.0.2.1"}));
    });
    // Those that are under way count.
    let ban = |user: &str| Restriction::new(RestrictionTarget::BannedUser(UserId::new(user).unwrap()));
    let lift = RestrictionTarget::BannedNetwork("192.0.2.1".parse::<Network>().unwrap());
    host.server.lift(lift).unwrap();
    host.turn(LOOK);
    host.server.restrict(ban("bob")).unwrap();
    let error = host.server.restrict(ban("cat")).unwrap_err();
    assert_eq!(error.to_string(), "there are 1 bans and mutes; 2 are allowed");
    host.turn_until("it is in force", |host| host.server.stats().hub.restrictions == 2);
}

#[test]
fn a_ban_of_a_crowd_closes_a_few_a_turn_and_reaches_all() {
    const CROWD: usize = 24;
    let mut config = config();
    config.hub.closes_per_turn = 4;
    let mut host = Host::new(config);
    let address = host.listen();
    let mut crowd = host.serve(|| {
        (0..CROWD).map(|number| Raw::open(address, &format!("/ws?userId=u{}", number % 5))).collect::<Vec<_>>()
    });
    host.server.restrict(Restriction::new(RestrictionTarget::BannedNetwork("127.0.0.0/8".parse().unwrap()))).unwrap();
    let connections = |host: &Host| host.server.stats().hub.connections;
    let mut turns = 0;
    while connections(&host) > 0 {
        let before = connections(&host);
        host.turn(LOOK);
        assert!(before - connections(&host) <= 4, "{before} before, {} after", connections(&host));
        turns += 1;
        assert!(turns < 1000);
    }
    host.serve(|| crowd.iter_mut().for_each(|raw| assert_eq!(raw.expect_close(), BANNED)));
    assert_eq!(host.server.stats().hub.moderated, CROWD as u64);
}

/// Decides nothing by itself.
struct Undecided(Rc<RefCell<u64>>);

impl Authenticator for Undecided {
    fn authenticate(&mut self, _now: Now, _request: &http::Request<()>) -> Authentication {
        *self.0.borrow_mut() += 1;
        Authentication::Later(AdmissionTicket(*self.0.borrow()))
    }
}

#[test]
fn who_is_admitted_later_may_have_been_banned_meanwhile_and_has_an_address_all_the_same() {
    let asked = Rc::new(RefCell::new(0));
    let mut host = Host::build(config(), |builder| builder.authenticator(Undecided(Rc::clone(&asked))));
    let address = host.listen();
    let knock = |host: &mut Host, source: &str, number: u64| {
        let mut raw = Raw::connect_from(source, address);
        raw.send(upgrade_request("/ws", &[]).as_bytes());
        host.turn_until("the authenticator is asked", |_| *asked.borrow() == number);
        raw
    };
    let ban = |host: &mut Host, target| {
        let before = host.server.stats().hub.restrictions;
        host.server.restrict(Restriction::new(target)).unwrap();
        host.turn_until("it is in force", |host| host.server.stats().hub.restrictions > before);
    };
    let mut raws = [
        knock(&mut host, "127.0.2.1", 1),
        knock(&mut host, "127.0.2.1", 2),
        knock(&mut host, "127.0.3.1", 3),
        knock(&mut host, "127.0.4.1", 4),
        knock(&mut host, "127.0.4.1", 5),
    ];
    let user = |name: &str| UserId::new(name).unwrap();
    ban(&mut host, RestrictionTarget::BannedUser(user("ann")));
    ban(&mut host, RestrictionTarget::BannedNetwork("127.0.3.0/24".parse().unwrap()));
    for (ticket, name) in [(1, "ann"), (2, "bob"), (3, "bob"), (4, "cat")] {
        assert!(host.server.admit(AdmissionTicket(ticket), Ok(Identity::verified(user(name)))));
    }
    // A refusal of the authenticator stays one.
    let refusal = Refusal::new(http::StatusCode::UNAUTHORIZED, "who are you");
    assert!(host.server.admit(AdmissionTicket(5), Err(refusal)));
    let answers = host.serve(|| raws.each_mut().map(|raw| raw.response().status));
    assert_eq!(answers, [403, 101, 403, 101, 401]);
    ban(&mut host, RestrictionTarget::BannedNetwork("127.0.4.1".parse().unwrap()));
    host.serve(|| assert_eq!(raws[3].expect_close(), BANNED));
    // A banned address does not even reach the authenticator.
    let before = *asked.borrow();
    let mut raw = Raw::connect_from("127.0.4.1", address);
    let response = host.serve(|| {
        raw.send(upgrade_request("/ws", &[]).as_bytes());
        raw.response()
    });
    check_banned(&response, "banned");
    assert_eq!(*asked.borrow(), before);
    // Before and after the decision, by user and by address.
    assert_eq!(host.server.stats().hub.banned, 3);
}

#[test]
fn other_threads_restrict_too() {
    let mut host = Host::new(config());
    let (address, remote) = (host.listen(), host.server.remote());
    host.serve(move || {
        let mut ann = Connect::to(address).user("ann").connect();
        ann.join("lobby");
        let user = UserId::new("ann").unwrap();
        let mute = RestrictionTarget::Muted { user: user.clone(), room: None };
        let expires_at = Some(Now::system().unix_ms + 3_600_000);
        remote.restrict(Restriction { expires_at, ..Restriction::new(mute.clone()) }).unwrap();
        wait_until("it is in force", || say(&mut ann, "lobby", "hello")["code"] == "muted");
        remote.lift(mute).unwrap();
        wait_until("it is lifted", || say(&mut ann, "lobby", "hello")["type"] != "error");
        remote.restrict(Restriction::new(RestrictionTarget::BannedUser(user))).unwrap();
        assert_eq!(ann.expect_close(), BANNED);
    });
}
