//! Names that could be mistaken for others: ids with one spelling, display names that hide nothing.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::api::{check_refused, json_of, publish, server_with};
use crate::support::{Client, Connect, Raw, Server, upgrade_request};

/// Ids that are refused, and what the error says of them.
const REFUSED: [(&str, &str); 12] = [
    ("ann\u{202e}", "'\\u{202e}'"),
    ("ann\u{2066}", "'\\u{2066}'"),
    ("ann\u{200f}", "'\\u{200f}'"),
    ("ann\u{61c}", "'\\u{61c}'"),
    ("ann\u{200b}", "'\\u{200b}'"),
    ("ann\u{2028}", "'\\u{2028}'"),
    ("ann\n", "'\\n'"),
    ("ann\u{1b}", "'\\u{1b}'"),
    ("ann\u{3164}", "'\\u{3164}'"),
    ("ann\u{e000}", "'\\u{e000}'"),
    ("A\u{30a}ngstrom", "'\\u{30a}'"),
    ("\u{212b}ngstrom", "not in Unicode form NFC, from U+212B on; only the NFC spelling"),
];

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Tries to connect as a user, whose id the server refuses.
fn refusal_of(server: &Server, id: &str) -> String {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request(&format!("/ws?userId={}", percent_encoded(id)), &[]).as_bytes());
    let response = raw.response();
    assert_eq!(response.status, StatusCode::BAD_REQUEST.as_u16(), "{id:?}: {response:?}");
    response.text().to_owned()
}

#[test]
fn ids_have_one_spelling_and_hide_nothing() {
    let server = server_with(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    for (id, found) in REFUSED {
        let reason = refusal_of(&server, id);
        assert!(reason.contains(found) && reason.contains("allowed"), "{id:?}: {reason}");
        alice.send_json(&json!({"type": "join", "room": id}));
        let error = alice.recv_type("error");
        assert_eq!(error["code"], "bad_message", "{id:?}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(found)), "{id:?}: {error}");
        for body in [json!({"room": id, "text": "hello"}), json!({"room": "lobby", "text": "hello", "userId": id})] {
            check_refused(&publish(server.address(), &body), 400, "bad_message", &[found]);
        }
    }
    let angstrom = Connect::to(server.address()).path(&format!("/ws?userId={}", percent_encoded("Ångstrom"))).connect();
    assert_eq!(angstrom.user_id(), "Ångstrom");
}

/// A display name as others see it, sent by the API.
fn shown_by_api(server: &Server, member: &mut Client, name: &str) -> Value {
    let body = json!({"room": "lobby", "text": "hello", "userId": "zoe", "name": name});
    let response = publish(server.address(), &body);
    assert_eq!(response.status, 200, "{}", json_of(&response));
    member.recv_type("chat")["name"].clone()
}

/// Display names as they are sent, and as they are shown.
fn names() -> Vec<(String, Value)> {
    [
        ("Zoe\u{308}", json!("Zoë")),
        ("\u{202e}nimdA\u{202c} \u{2067}x\u{2069}", json!("nimdA x")),
        ("An\u{200b}n\u{200d}\u{feff}\u{2060}\n\u{1b}[31m\u{2028}\u{85}", json!("Ann[31m")),
        (" \u{200e}\u{3164} ", Value::Null),
        ("❤\u{fe0f} 日本 علي", json!("❤\u{fe0f} 日本 علي")),
    ]
    .map(|(sent, shown)| (sent.to_owned(), shown))
    .into_iter()
    .chain([("e\u{301}".repeat(100), json!("é".repeat(64)))])
    .collect()
}

#[test]
fn display_names_of_the_api_lose_what_cannot_be_seen() {
    let server = server_with(&[]);
    let mut alice = Client::connect_as(&server, "alice");
    alice.join("lobby");
    for (sent, shown) in names() {
        assert_eq!(shown_by_api(&server, &mut alice, &sent), shown, "{sent:?}");
    }
}

#[cfg(feature = "tokens")]
#[test]
fn display_names_of_tokens_lose_what_cannot_be_seen() {
    use crate::support::tokens::{claims, hs256, server_with_secret, with_token};
    let (server, _files) = server_with_secret(&[]);
    let token_of = |name: &str| hs256(&claims(&json!({"name": name})));
    for (sent, shown) in names() {
        assert_eq!(with_token(&server, &token_of(&sent)).connect().welcome["name"], shown, "{sent:?}");
    }
    let (sent, shown) = names().swap_remove(1);
    let mut alice = with_token(&server, &token_of("Alice")).connect();
    alice.join("lobby");
    alice.send_json(&json!({"type": "refresh", "token": token_of(&sent)}));
    alice.recv_type("refreshed");
    alice.send_json(&json!({"type": "chat", "room": "lobby", "text": "hello"}));
    assert_eq!(alice.recv_type("chat")["name"], shown);
}

#[test]
fn a_display_name_is_asked_for_beside_the_id() {
    let server = Server::spawn(&[]);
    let connect = |query: &str| Connect::to(server.address()).path(&format!("/ws?{query}")).connect();
    let mut alice = connect("userId=alice");
    assert_eq!(alice.welcome["name"], Value::Null);
    alice.join("lobby");
    let mut bob = connect("name=Bob+M%C3%BCller%E2%80%AE&userId=bob");
    assert_eq!((bob.user_id(), &bob.welcome["name"]), ("bob", &json!("Bob Müller")), "without what cannot be seen");
    bob.join("lobby");
    let presence = alice.recv_until(|message| message["userId"] == "bob").pop().expect("a presence");
    assert_eq!((&presence["type"], &presence["name"]), (&json!("presence"), &json!("Bob Müller")));
    bob.say("lobby", "hello");
    assert_eq!(alice.recv_type("chat")["name"], "Bob Müller");
    let guest = connect("name=Bob");
    assert!(guest.user_id().starts_with("guest-"), "a name is no id");
    assert_eq!(guest.welcome["name"], "Bob");
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws?userId=ann&name=%ff", &[]).as_bytes());
    let response = raw.response();
    assert_eq!((response.status, response.text().trim()), (400, "name is not UTF-8"));
}
