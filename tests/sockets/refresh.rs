//! New tokens on connections that are there.

use std::time::Duration;

use roomcast::{AdmissionTicket, Authentication, Authenticator, Grants, Identity, Now, Refusal, UserId};
use serde_json::{Value, json};

use crate::support::chat::{frame_of_json, settle, texts};
use crate::support::host::{Host, config};
use crate::support::tokens::{claims, good, hs256, in_seconds, server_with_secret, with_token};
use crate::support::{Client, Raw, Server};

fn refresh(token: &str) -> Value {
    json!({"type": "refresh", "token": token, "id": "r"})
}

/// The answer is an error of this code about the refresh.
#[track_caller]
fn check_refused(client: &mut Client, token: &str, code: &str, words: &str) -> Value {
    client.send_json(&refresh(token));
    let error = client.recv_type("error");
    assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!("r")), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
    assert!(token.is_empty() || !error.to_string().contains(token), "{error}");
    error
}

#[test]
fn a_connection_lives_on_with_a_new_token() {
    let (server, _files) = server_with_secret(&[]);
    let mut alice = with_token(&server, &hs256(&claims(&json!({"exp": in_seconds(2)})))).connect();
    alice.join("lobby");
    settle(&mut alice);
    let expires = in_seconds(600);
    alice.send_json(&refresh(&hs256(&claims(&json!({"exp": expires, "name": "Alice"})))));
    assert_eq!(settle(&mut alice), [json!({"type": "refreshed", "expiresAt": expires * 1000, "id": "r"})]);
    // Another one with the old token shows when that has expired.
    let mut other = with_token(&server, &hs256(&claims(&json!({"sub": "other", "exp": in_seconds(2)})))).connect();
    assert_eq!(other.expect_close(), 4003);
    alice.say("lobby", "still here");
    let chat = alice.recv_type("chat");
    assert_eq!((&chat["text"], &chat["name"]), (&json!("still here"), &json!("Alice")));
}

#[test]
fn a_new_token_may_be_good_for_less_time() {
    let (server, _files) = server_with_secret(&[]);
    let mut alice = with_token(&server, &good()).connect();
    alice.send_json(&refresh(&hs256(&claims(&json!({"exp": in_seconds(2)})))));
    alice.recv_type("refreshed");
    assert_eq!(alice.expect_close(), 4003);
}

#[test]
fn memberships_have_the_rights_of_the_new_token() {
    let (server, _files) = server_with_secret(&[]);
    let all = json!(["join", "say", "typing", "history"]);
    let grants = |rooms: Value| hs256(&claims(&json!({"rooms": rooms})));
    let token = grants(
        json!([{"match": "lost-*", "allow": all}, {"match": "kept", "allow": ["join", "say"]}, {"match": "more", "allow": ["join"]}]),
    );
    let mut alice = with_token(&server, &token).connect();
    let mut bob = with_token(&server, &hs256(&claims(&json!({"sub": "bob"})))).connect();
    for room in ["lost-1", "kept", "lost-2", "more"] {
        bob.join(room);
        alice.join(room);
    }
    settle(&mut alice);
    settle(&mut bob);
    let token = grants(
        json!([{"match": "kept", "allow": ["join"]}, {"match": "more", "allow": all}, {"match": "lost-1", "allow": ["say"]}]),
    );
    alice.send_json(&refresh(&token));
    let answers = settle(&mut alice);
    assert_eq!(answers[0]["type"], "refreshed");
    let removed = |room: &str| {
        let message = "the new token does not allow this room";
        let error = json!({"type": "error", "code": "removed", "message": message, "temporary": false, "room": room});
        [error, json!({"type": "left", "room": room})]
    };
    assert_eq!(answers[1..], [removed("lost-1"), removed("lost-2")].concat());
    let gone = settle(&mut bob);
    assert!(gone.iter().all(|message| message["status"] == "offline" && message["userId"] == "alice"), "{gone:?}");
    assert_eq!(gone.len(), 2);

    alice.say("kept", "no");
    assert_eq!(alice.recv_type("error")["code"], "forbidden");
    alice.say("lost-1", "no");
    assert_eq!(alice.recv_type("error")["code"], "not_joined");
    alice.send_json(&json!({"type": "join", "room": "lost-1"}));
    assert_eq!(alice.recv_type("error")["code"], "forbidden");
    alice.say("more", "yes");
    bob.say("kept", "heard");
    assert_eq!(texts(&settle(&mut alice)), ["yes", "heard"]);
}

#[test]
fn a_bad_token_changes_nothing() {
    let (server, _files) = server_with_secret(&["--token-audience", "chat"]);
    let ours = |others: Value| {
        let mut claims = claims(&others);
        claims["aud"] = json!("chat");
        hs256(&claims)
    };
    for (token, words) in [
        (good(), "another audience"),
        (ours(json!({"exp": in_seconds(-5)})), "it has expired"),
        (ours(json!({"sub": "bob"})), "of another user"),
        (ours(json!({"rooms": ["lobby"]})), "its claims cannot be read"),
        ("nonsense".to_owned(), "not three parts"),
        (String::new(), "not three parts"),
        (format!("{}.", ours(json!({})).rsplit_once('.').unwrap().0), "its signature is wrong"),
        ("x".repeat(5000), "4096 are allowed"),
    ] {
        let mut alice = with_token(&server, &ours(json!({}))).connect();
        alice.join("lobby");
        check_refused(&mut alice, &token, "invalid_token", words);
        alice.say("lobby", "as before");
        assert_eq!(alice.recv_type("chat")["text"], "as before", "{words}");
    }
    let mut alice = with_token(&server, &ours(json!({"exp": in_seconds(2)}))).connect();
    check_refused(&mut alice, &good(), "invalid_token", "another audience");
    assert_eq!(alice.expect_close(), 4003, "the old token goes on until it expires");
}

#[test]
fn a_connection_brings_no_more_than_one_token_in_ten_seconds() {
    let (server, _files) = server_with_secret(&[]);
    let mut alice = with_token(&server, &good()).connect();
    alice.send_json(&refresh(&good()));
    alice.recv_type("refreshed");
    let error = check_refused(&mut alice, &good(), "rate_limited", "more than one refresh in 10 s");
    let wait = error["retryAfterMs"].as_u64().unwrap();
    assert!(error["temporary"] == true && (1000..=10_000).contains(&wait), "{error}");
}

#[test]
fn a_connection_without_a_token_has_none_to_replace() {
    let server = Server::spawn(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    check_refused(&mut alice, &good(), "invalid_token", "no token that could be replaced");
    alice.send_json(&json!({"type": "refresh", "id": "r"}));
    assert_eq!(alice.recv_type("error")["code"], "bad_message");
    alice.join("lobby");
}

/// Admits everybody as ann for an hour, and puts off what it is asked about new tokens.
struct Slow {
    tickets: u64,
    abandoned: std::rc::Rc<std::cell::Cell<u64>>,
}

fn ann() -> Identity {
    let grants = Some(Grants::everything());
    Identity { grants, ..Identity::verified(UserId::new("ann").unwrap()) }
}

impl Authenticator for Slow {
    fn authenticate(&mut self, _now: Now, _request: &http::Request<()>) -> Authentication {
        Authentication::Admit(ann())
    }

    fn refresh(&mut self, _now: Now, user: &UserId, token: &str) -> Authentication {
        assert_eq!((user.as_str(), token), ("ann", "new"));
        self.tickets += 1;
        Authentication::Later(AdmissionTicket(self.tickets))
    }

    fn abandon(&mut self, AdmissionTicket(ticket): AdmissionTicket) {
        self.abandoned.set(ticket);
    }
}

#[test]
fn a_decision_about_a_new_token_may_come_later_or_never() {
    let abandoned = std::rc::Rc::new(std::cell::Cell::new(0));
    let authenticator = Slow { tickets: 0, abandoned: std::rc::Rc::clone(&abandoned) };
    let mut config = config();
    config.timing.admission_timeout = Duration::from_millis(700);
    config.net.admissions_pending_max = 2;
    let mut host = Host::build(config, |builder| builder.authenticator(authenticator));
    let address = host.listen();
    let ask = || {
        let mut raw = Raw::open(address, "/ws");
        raw.json_of("welcome");
        raw.send(&frame_of_json(&refresh("new")));
        // The pong shows that it was read.
        raw.send(&frame_of_json(&json!({"type": "ping"})));
        raw.json_of("pong");
        raw
    };
    let (mut first, mut second, mut third) = host.serve(|| {
        let (mut first, second) = (ask(), ask());
        first.send(&frame_of_json(&refresh("new")));
        assert_eq!(first.json_of("error")["code"], "rate_limited", "one is under way");
        let mut third = Raw::open(address, "/ws");
        third.send(&frame_of_json(&refresh("new")));
        (first, second, third)
    });
    let error = host.serve(|| third.json_of("error"));
    assert_eq!((&error["code"], &error["temporary"]), (&json!("unavailable"), &json!(true)), "{error}");
    assert_eq!(abandoned.get(), 3, "there was no room for it");
    let expires_at = Some(Now::system().unix_ms + 60_000);
    assert!(host.server.admit(AdmissionTicket(1), Ok(Identity { expires_at, ..ann() })));
    assert!(
        !host.server.admit(AdmissionTicket(1), Err(Refusal::new(http::StatusCode::FORBIDDEN, "no"))),
        "decided already"
    );
    let refreshed = host.serve(|| first.json_of("refreshed"));
    assert_eq!(refreshed["expiresAt"].as_u64(), expires_at);
    let error = host.serve(|| second.json_of("error"));
    assert_eq!((&error["code"], &error["id"]), (&json!("unavailable"), &json!("r")), "{error}");
    assert_eq!(abandoned.get(), 2, "it has waited for too long");
    assert!(!host.server.admit(AdmissionTicket(2), Ok(ann())));
}
