//! Settings by room pattern: history, lists of users, slow mode, and who may say something.

use std::process::Stdio;

use roomcast::{Grant, Grants, Right, RoomName, UserId};
use serde_json::{Value, json};

use crate::support::api::{self, check_published};
use crate::support::chat::{chat, is, join_with, settle, texts};
use crate::support::host::{self, Host};
use crate::support::tokens::{claims, hs256, server_with_secret, with_token};
use crate::support::{Client, Connect, Server, roomcast, wait_until};

/// Says so many things in a room.
fn fill(client: &mut Client, room: &str, count: usize) {
    client.join(room);
    for number in 1..=count {
        client.say(room, &format!("m{number}"));
    }
    assert_eq!(texts(&settle(client)).len(), count);
}

/// What a stranger is shown of a room's history.
fn shown(server: &Server, room: &str, history: u32) -> Vec<String> {
    let mut reader = Client::connect(server);
    let (messages, _) = join_with(&mut reader, &json!({"room": room, "history": history}));
    texts(&messages).into_iter().map(str::to_owned).collect()
}

/// What a message is answered, an error it must be.
#[track_caller]
fn refused(client: &mut Client, message: &Value) -> Value {
    client.send_json(message);
    let mut answers = settle(client);
    answers.retain(|answer| !is(answer, "presence"));
    let [error] = &answers[..] else { panic!("{message} was answered {answers:?}") };
    assert_eq!((&error["type"], &error["room"]), (&json!("error"), &message["room"]), "{error}");
    error.clone()
}

#[track_caller]
fn check_forbidden(client: &mut Client, message: &Value, words: &str) {
    let error = refused(client, message);
    assert_eq!((&error["code"], &error["temporary"]), (&json!("forbidden"), &json!(false)), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
}

#[track_caller]
fn check_slow(client: &mut Client, message: &Value) {
    let error = refused(client, message);
    assert_eq!((&error["code"], &error["id"]), (&json!("rate_limited"), &message["id"]), "{error}");
    let wait_millis = error["retryAfterMs"].as_u64().expect("how long to wait");
    assert!((3_500_000..=3_600_000).contains(&wait_millis), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("is slow")), "{error}");
}

#[test]
fn a_room_keeps_as_many_messages_as_the_longest_pattern_says() {
    let rules = ["--room", "team-*:history=5", "--room", "team-red:history=20;archive:history=30"];
    let server = Server::spawn(&[&["--message-rate", "0", "--history-messages", "10"][..], &rules].concat());
    let mut ann = Client::connect(&server);
    for (room, kept) in [("lobby", 10), ("team-blue", 5), ("team-red", 20), ("archive", 30)] {
        fill(&mut ann, room, 31);
        // As many as any room keeps may be asked for.
        let expected: Vec<_> = (32 - kept..=31).map(|number| format!("m{number}")).collect();
        assert_eq!(shown(&server, room, 30), expected, "{room}");
    }
    let error = refused(&mut ann, &json!({"type": "join", "room": "other", "history": 31}));
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("bad_message"), &json!("history is 31; 0 to 30 are allowed"))
    );
}

#[test]
fn a_room_keeps_messages_as_long_as_its_rule_says() {
    let server = Server::spawn(&["--room", "brief:history-age=1s", "--room", "none-*:history-age=0s"]);
    let mut ann = Client::connect(&server);
    for room in ["brief", "none-1", "lobby"] {
        fill(&mut ann, room, 3);
    }
    assert_eq!(shown(&server, "none-1", 10), [""; 0]);
    wait_until("the messages are too old", || shown(&server, "brief", 10).is_empty());
    assert_eq!(shown(&server, "lobby", 10), ["m1", "m2", "m3"]);
}

#[test]
fn welcome_has_the_most_that_any_room_keeps() {
    for (rule, messages, age) in
        [("a*:history=2000,history-age=2h", 2000, 7_200_000), ("a*:history=2", 1000, 3_600_000)]
    {
        let server = Server::spawn(&["--room", rule]);
        let (mut socket, _) = Client::build(&server).try_open().unwrap();
        let welcome: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
        let limits = &welcome["limits"];
        assert_eq!((&limits["historyMessages"], &limits["historyAgeMs"]), (&json!(messages), &json!(age)));
    }
}

#[test]
fn a_room_lists_as_many_users_as_its_rule_says() {
    let server = Server::spawn(&["--room", "crowd-*:big-room=2"]);
    for (room, is_listed) in [("crowd-1", false), ("lobby", true)] {
        let mut users: Vec<_> = (0..3).map(|i| Client::connect_as(&server, &format!("u{i}"))).collect();
        for user in &mut users {
            user.join(room);
            settle(user);
        }
        let joined = Client::connect_as(&server, "late").join(room);
        assert_eq!(joined["users"].is_array(), is_listed, "{joined}");
    }
}

#[test]
fn in_a_slow_room_a_user_waits_over_all_its_connections() {
    let server = api::server_with(&["--metrics", "--room", "slow-*:slow=1h"]);
    let [mut one, mut two] = [(); 2].map(|()| Client::connect_as(&server, "ann"));
    let mut bob = Client::connect_as(&server, "bob");
    for client in [&mut one, &mut two, &mut bob] {
        client.join("slow-1");
        client.join("slow-2");
        client.join("lobby");
    }
    for client in [&mut one, &mut two, &mut bob] {
        settle(client);
    }
    one.send_json(&chat("slow-1", "first", "1"));
    assert_eq!(texts(&settle(&mut one)), ["first"]);
    settle(&mut two);
    check_slow(&mut one, &chat("slow-1", "second", "2"));
    check_slow(&mut two, &chat("slow-1", "third", "3"));
    // Leaving the room is no way out, nor is a new connection.
    one.send_json(&json!({"type": "leave", "room": "slow-1"}));
    settle(&mut one);
    one.join("slow-1");
    settle(&mut one);
    check_slow(&mut one, &chat("slow-1", "fourth", "4"));
    drop((one, two));
    let mut again = Client::connect_as(&server, "ann");
    again.join("slow-1");
    again.join("slow-2");
    again.join("lobby");
    settle(&mut again);
    check_slow(&mut again, &chat("slow-1", "fifth", "5"));
    // Another user, another room, and back-ends are not concerned.
    bob.say("slow-1", "bob's");
    for room in ["slow-2", "lobby", "lobby"] {
        again.say(room, room);
    }
    for seq in [3, 4] {
        let body = json!({"room": "slow-1", "userId": "ann", "text": "by a back-end"});
        check_published(&api::publish(server.address(), &body), "slow-1", seq, false);
    }
    let all = settle(&mut again);
    let mut seen = texts(&all);
    seen.sort_unstable();
    assert_eq!(seen, ["bob's", "by a back-end", "by a back-end", "lobby", "lobby", "slow-2"]);
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("\nroomcast_messages_slow_limited_total 4\n"), "{}", metrics.text());
}

#[test]
fn a_user_that_has_waited_speaks_again() {
    let server = Server::spawn(&["--message-rate", "0", "--room", "lobby:slow=200ms"]);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    settle(&mut ann);
    ann.say("lobby", "first");
    wait_until("she may speak again", || {
        ann.say("lobby", "second");
        texts(&settle(&mut ann)).contains(&"second")
    });
}

#[test]
fn where_only_the_api_speaks_users_listen() {
    let server = api::server_with(&["--room", "news-*:say=api"]);
    let mut ann = Client::connect(&server);
    ann.join("news-1");
    settle(&mut ann);
    check_forbidden(&mut ann, &chat("news-1", "hello", "1"), "only back-ends may say something in room news-1");
    check_forbidden(&mut ann, &json!({"type": "typing", "room": "news-1", "status": "start"}), "to show typing");
    let body = json!({"room": "news-1", "userId": "desk", "text": "good news"});
    check_published(&api::publish(server.address(), &body), "news-1", 1, false);
    assert_eq!(texts(&settle(&mut ann)), ["good news"]);
    ann.join("lobby");
    ann.say("lobby", "hello");
    assert_eq!(texts(&settle(&mut ann)), ["hello"]);
}

#[test]
fn where_only_granted_users_speak_the_default_grants_are_not_enough() {
    let (server, _files) = server_with_secret(&["--room", "stage-*:say=granted"]);
    let user = |name: &str, more: Value| {
        let mut all = json!({"sub": name});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut client = with_token(&server, &hs256(&claims(&all))).connect();
        client.join("stage-1");
        settle(&mut client);
        client
    };
    let words = "only users to whom it is granted may say something in room stage-1";
    let mut guest = user("guest", json!({}));
    check_forbidden(&mut guest, &chat("stage-1", "hello", "1"), words);
    check_forbidden(&mut guest, &json!({"type": "typing", "room": "stage-1", "status": "start"}), "to show typing");
    let mut listener = user("listener", json!({"rooms": [{"match": "*", "allow": ["join", "history"]}]}));
    check_forbidden(&mut listener, &chat("stage-1", "hello", "1"), words);
    let mut speaker = user("speaker", json!({"rooms": [{"match": "stage-*", "allow": ["join", "say"]}]}));
    speaker.say("stage-1", "I may");
    assert_eq!(texts(&settle(&mut speaker)), ["I may"]);
    // A new token counts as the one before it did.
    let token = hs256(&claims(&json!({"sub": "speaker"})));
    speaker.send_json(&json!({"type": "refresh", "token": token}));
    speaker.recv_type("refreshed");
    check_forbidden(&mut speaker, &chat("stage-1", "hello", "1"), words);
}

#[test]
fn a_host_sets_rules_and_speaks_everywhere() {
    let mut config = host::config();
    config.room_rules = vec!["*:say=api,slow=1h".parse().unwrap()];
    config.default_grants =
        [Grant { rooms: "*".parse().unwrap(), rights: [Right::Join, Right::Say].into_iter().collect() }]
            .into_iter()
            .collect::<Grants>();
    let mut host = Host::new(config);
    let address = host.listen();
    let mut ann = host.serve(|| {
        let mut ann = Connect::to(address).user("ann").connect();
        ann.join("lobby");
        settle(&mut ann);
        check_forbidden(&mut ann, &chat("lobby", "hello", "1"), "only back-ends");
        ann
    });
    for text in ["one", "two"] {
        let (room, user) = (RoomName::new("lobby").unwrap(), UserId::new("desk").unwrap());
        host.server.publish(&roomcast::HostPublication::new(room, user, text)).unwrap();
    }
    host.serve(|| assert_eq!(texts(&settle(&mut ann)), ["one", "two"]));
}

#[test]
fn a_rule_that_is_not_understood_ends_the_start() {
    for (rules, words) in [
        (["--room", "lobby"], "a pattern and settings are needed, as in news-*:say=api,history=500"),
        (["--room", "lobby:say=nobody"], "say is \"nobody\"; all, granted, api are allowed"),
        (["--room", "lobby:history=10000001"], "history is 10000001; 0 to 10000000 are allowed"),
        (["--room", "a:slow=1s;a:slow=2s"], "there are two rules for rooms a; one is allowed"),
    ] {
        // Without a socket from systemd it would end, too, were the rule accepted.
        let output = roomcast().args(rules).args(["--listen", "systemd"]).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
}
