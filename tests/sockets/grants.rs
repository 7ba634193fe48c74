//! What tokens, or the server's default, allow in which rooms.

use serde_json::{Value, json};

use crate::support::chat::{settle, texts};
use crate::support::tokens::{claims, hs256, refused, server_with_secret, with_token};
use crate::support::{Client, Server};

const ALL: [&str; 4] = ["join", "say", "typing", "history"];

/// A user with these grants.
fn user(server: &Server, sub: &str, rooms: &Value) -> Client {
    with_token(server, &hs256(&claims(&json!({"sub": sub, "rooms": rooms})))).connect()
}

/// Sends a message that is answered by `forbidden` and by nothing else.
#[track_caller]
fn check_forbidden(client: &mut Client, message: &Value, words: &str) {
    client.send_json(message);
    let answers = settle(client);
    let [error] = &answers[..] else { panic!("{message} was answered {answers:?}") };
    assert_eq!(
        (&error["type"], &error["code"], &error["temporary"]),
        (&json!("error"), &json!("forbidden"), &json!(false))
    );
    assert_eq!((&error["room"], &error["id"]), (&message["room"], &message["id"]));
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
}

fn join(room: &str) -> Value {
    json!({"type": "join", "room": room, "id": "j"})
}

fn chat(room: &str) -> Value {
    json!({"type": "chat", "room": room, "text": "hello", "id": "c"})
}

fn typing(room: &str) -> Value {
    json!({"type": "typing", "room": room, "status": "start", "id": "t"})
}

#[test]
fn a_token_opens_the_rooms_that_it_names() {
    let (server, _files) = server_with_secret(&[]);
    let mut alice =
        user(&server, "alice", &json!([{"match": "lobby", "allow": ALL}, {"match": "team-*", "allow": ALL}]));
    for room in ["lobby", "team-", "team-red"] {
        alice.join(room);
        settle(&mut alice);
        alice.say(room, "hello");
        assert_eq!(texts(&settle(&mut alice)), ["hello"], "{room}");
    }
    for room in ["lobby2", "team", "Lobby", "other"] {
        check_forbidden(&mut alice, &join(room), &format!("not allowed to join room {room}"));
    }
}

#[test]
fn no_grant_is_no_room() {
    let (server, _files) = server_with_secret(&[]);
    let mut alice = user(&server, "alice", &json!([]));
    check_forbidden(&mut alice, &join("lobby"), "to join");
    let mut bob =
        user(&server, "bob", &json!([{"match": "*", "allow": []}, {"match": "lobby", "allow": ["say", "history"]}]));
    check_forbidden(&mut bob, &join("lobby"), "to join");
    check_forbidden(&mut bob, &join("other"), "to join");
}

#[test]
fn a_right_is_good_for_what_it_names_and_for_the_rooms_of_its_grant() {
    let (server, _files) = server_with_secret(&[]);
    let rooms = json!([
        {"match": "listen", "allow": ["join"]},
        {"match": "say", "allow": ["join", "say"]},
        {"match": "type", "allow": ["join", "typing"]},
        {"match": "*", "allow": ["history"]},
    ]);
    let mut alice = user(&server, "alice", &rooms);
    let mut witness = user(&server, "witness", &json!([{"match": "*", "allow": ALL}]));
    for room in ["listen", "say", "type"] {
        alice.join(room);
        witness.join(room);
    }
    settle(&mut witness);
    settle(&mut alice);
    check_forbidden(&mut alice, &chat("listen"), "not allowed to say something in room listen");
    check_forbidden(&mut alice, &typing("listen"), "not allowed to show typing in room listen");
    check_forbidden(&mut alice, &typing("say"), "to show typing");
    check_forbidden(&mut alice, &chat("type"), "to say something");
    assert_eq!(settle(&mut witness), [Value::Null; 0], "what is forbidden reaches nobody");
    alice.send_json(&chat("say"));
    assert_eq!(witness.recv_type("chat")["room"], "say");
    alice.send_json(&typing("type"));
    assert_eq!(witness.recv_type("typing")["room"], "type");
}

#[test]
fn history_needs_its_right() {
    let (server, _files) = server_with_secret(&[]);
    let mut bob = user(&server, "bob", &json!([{"match": "*", "allow": ALL}]));
    let position = bob.join("lobby");
    settle(&mut bob);
    for text in ["one", "two", "three"] {
        bob.say("lobby", text);
    }
    settle(&mut bob);
    let since = json!({"epoch": position["epoch"], "seq": 1});
    let mut reader = user(&server, "reader", &json!([{"match": "*", "allow": ["join", "history"]}]));
    reader.send_json(&json!({"type": "join", "room": "lobby", "history": 2}));
    assert_eq!(texts(&settle(&mut reader)), ["two", "three"]);
    let mut alice = user(&server, "alice", &json!([{"match": "*", "allow": ["join", "say"]}]));
    alice.send_json(&json!({"type": "join", "room": "lobby", "history": 2}));
    let answers = settle(&mut alice);
    let joined = answers.iter().find(|message| message["type"] == "joined").unwrap();
    assert_eq!((texts(&answers), &joined["recovered"], &joined["seq"]), (vec![], &Value::Null, &json!(3)));
    bob.say("lobby", "live");
    assert_eq!(alice.recv_type("chat")["text"], "live", "what is said from now on is not history");
    alice.send_json(&json!({"type": "leave", "room": "lobby"}));
    alice.recv_type("left");
    // The same with a position, of which what follows is not told.
    alice.send_json(&json!({"type": "join", "room": "lobby", "history": 2, "since": since}));
    let answers = settle(&mut alice);
    let joined = answers.iter().find(|message| message["type"] == "joined").unwrap();
    assert_eq!((texts(&answers), &joined["recovered"], &joined["seq"]), (vec![], &json!(false), &json!(4)));
}

#[test]
fn a_token_that_does_not_say_has_the_default() {
    let default = r#"[{"match": "lobby", "allow": ["join", "history"]}]"#;
    let (server, _files) = server_with_secret(&["--default-rooms", default]);
    let mut alice = with_token(&server, &hs256(&claims(&json!({})))).connect();
    alice.join("lobby");
    settle(&mut alice);
    check_forbidden(&mut alice, &chat("lobby"), "to say something");
    check_forbidden(&mut alice, &join("other"), "to join");
    let mut bob = user(&server, "bob", &json!([{"match": "other", "allow": ALL}]));
    bob.join("other");
    settle(&mut bob);
    check_forbidden(&mut bob, &join("lobby"), "to join");
    // It holds for those without a token, too, where none is asked for.
    let open = Server::spawn(&["--default-rooms", default]);
    let mut guest = Client::connect(&open);
    guest.join("lobby");
    settle(&mut guest);
    check_forbidden(&mut guest, &chat("lobby"), "to say something");
}

#[test]
fn grants_that_cannot_be_read_make_the_token_invalid() {
    let (server, _files) = server_with_secret(&[]);
    for rooms in [
        json!(null),
        json!({}),
        json!(["lobby"]),
        json!([{"match": "lobby"}]),
        json!([{"match": "lobby", "allow": ["write"]}]),
        json!([{"match": "lob*by", "allow": ALL}]),
        json!([{"match": "lobby", "allow": ALL, "deny": ["say"]}]),
    ] {
        let response = refused(&server, Some(&hs256(&claims(&json!({"rooms": rooms})))));
        assert!(
            response.status == 401 && response.text().contains("its claims cannot be read"),
            "{rooms}: {response:?}"
        );
    }
}

#[test]
fn a_member_without_the_right_to_history_looks_at_no_older_messages() {
    let (server, _files) = server_with_secret(&[]);
    let rooms = json!([{"match": "lobby", "allow": ALL}, {"match": "hall", "allow": ["join", "say", "typing"]}]);
    let mut alice = user(&server, "alice", &rooms);
    let look_back = |room: &str| json!({"type": "history", "room": room, "limit": 10, "id": "h"});
    for room in ["lobby", "hall"] {
        alice.join(room);
        alice.say(room, "hello");
        settle(&mut alice);
    }
    alice.send_json(&look_back("lobby"));
    assert_eq!(alice.recv_type("history")["messages"][0]["text"], "hello");
    check_forbidden(&mut alice, &look_back("hall"), "not allowed to read the history of room hall");
}
