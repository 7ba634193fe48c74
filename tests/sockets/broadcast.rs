//! One message into many rooms over HTTP.

use serde_json::{Value, json};

use crate::support::api::{KEY, check_refused, command, json_of, post, post_with, publish, server_with};
use crate::support::chat::{recv_text, settle, texts};
use crate::support::{Client, Server};

const PATH: &str = "/api/broadcast";

fn rooms(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("room-{n}")).collect()
}

fn said(room: &str, seq: u64, duplicate: bool) -> Value {
    json!({"room": room, "seq": seq, "duplicate": duplicate})
}

#[test]
fn each_room_gets_the_message_and_the_answer_has_its_numbers() {
    let server = server_with(&[]);
    publish(server.address(), &json!({"room": "b", "text": "earlier"}));
    let mut members = ["a", "b"].map(|room| {
        let mut client = Client::connect(&server);
        client.join(room);
        client
    });
    let data = r#"{"n":1.50}"#;
    let body = format!(
        r#"{{"rooms":["b","a","empty"],"text":"hello","data":{data},"userId":"shop","name":"The Shop","id":"x"}}"#
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    let answer = command(server.address(), PATH, &body);
    assert_eq!(answer, json!({"rooms": [said("b", 2, false), said("a", 1, false), said("empty", 1, false)]}));
    for (client, room) in members.iter_mut().zip(["a", "b"]) {
        let chat: Value = serde_json::from_str(&recv_text(client, "chat")).unwrap();
        let expected = json!({"room": room, "text": "hello", "userId": "shop", "name": "The Shop", "id": "x"});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&chat[field], value, "{chat}");
        }
        assert_eq!(chat["data"]["n"], 1.5);
    }
    // The same request again says nothing again.
    let answer = command(server.address(), PATH, &body);
    assert_eq!(answer, json!({"rooms": [said("b", 2, true), said("a", 1, true), said("empty", 1, true)]}));
    for client in &mut members {
        assert_eq!(texts(&settle(client)), [""; 0]);
    }
    // One room more is said there alone.
    let more = json!({"rooms": ["a", "more"], "text": "hello", "userId": "shop", "id": "x"});
    let answer = command(server.address(), PATH, &more);
    assert_eq!(answer, json!({"rooms": [said("a", 1, true), said("more", 1, false)]}));
}

#[test]
fn a_request_has_a_hundred_rooms_at_most_each_once() {
    let server = server_with(&[]);
    let answer = command(server.address(), PATH, &json!({"rooms": rooms(100), "text": "a"}));
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 100);
    assert!(answer["rooms"].as_array().unwrap().iter().all(|room| room["seq"] == 1), "{answer}");
    let refused = |rooms: Value, needle: &str| {
        let body = json!({"rooms": rooms, "text": "a"});
        check_refused(&post(server.address(), PATH, &body), 400, "bad_message", &[needle]);
    };
    refused(json!(rooms(101)), "101 rooms; 1 to 100 are allowed");
    refused(json!([]), "0 rooms");
    refused(json!(null), "broadcast without rooms");
    refused(json!("lobby"), "");
    refused(json!(["lobby", 1]), "");
    refused(json!(["lobby", "cellar", "lobby"]), "room lobby is given twice");
    refused(json!(["lobby", "two words"]), "room: ");
    // Nothing of these was said.
    let answer = command(server.address(), PATH, &json!({"rooms": ["lobby", "room-0"], "text": "a"}));
    assert_eq!(answer, json!({"rooms": [said("lobby", 1, false), said("room-0", 2, false)]}));
}

#[test]
fn names_may_be_as_long_as_names_are_beside_a_long_message() {
    let server = server_with(&["--message-bytes", "1KiB"]);
    let rooms: Vec<_> = (0..100).map(|n| format!("{n:03}{}", "ü".repeat(62))).collect();
    let escaped = json!({"rooms": rooms, "text": "ü".repeat(300)}).to_string().replace('ü', "\\u00fc");
    let head = crate::support::api::publish_head(escaped.len(), &[("Connection", "close")]);
    let head = head.replace("/api/publish", PATH);
    let response = crate::support::api::exchange(server.address(), &head, escaped.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    let too_large = json!({"rooms": rooms, "text": "a".repeat(60_000)});
    check_refused(&post(server.address(), PATH, &too_large), 413, "too_large", &["body of"]);
}

#[test]
fn what_is_wrong_for_all_rooms_is_the_answer_itself() {
    let server = server_with(&[]);
    let mut body = json!({"rooms": ["a", "b"], "text": ""});
    check_refused(&post(server.address(), PATH, &body), 400, "bad_message", &["text is empty"]);
    body = json!({"rooms": ["a", "b"], "text": "a", "id": "i".repeat(65)});
    check_refused(&post(server.address(), PATH, &body), 400, "bad_message", &["id of 65 bytes"]);
    body = json!({"rooms": ["a", "b"], "text": "a".repeat(17_000)});
    check_refused(&post(server.address(), PATH, &body), 413, "too_large", &["message of"]);
}

#[test]
fn a_room_that_is_refused_undoes_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("{KEY}\nlimited-0123456789 rooms=news-*")).expect("write the keys");
    let server = Server::spawn(&["--api-key-file", path.to_str().unwrap()]);
    let send = |rooms: &[&str]| {
        post_with("limited-0123456789", server.address(), PATH, &json!({"rooms": rooms, "text": "a", "id": "x"}))
    };
    let answer = json_of(&send(&["news-1", "lobby", "news-2"]));
    assert_eq!(answer["rooms"][0], said("news-1", 1, false));
    assert_eq!(answer["rooms"][2], said("news-2", 1, false));
    let error = &answer["rooms"][1]["error"];
    assert_eq!((&answer["rooms"][1]["room"], &error["code"]), (&json!("lobby"), &json!("forbidden")), "{answer}");
    assert_eq!(error["temporary"], false);
    check_refused(&send(&["lobby", "cellar"]), 403, "forbidden", &["the key does not allow room lobby"]);
    // Nothing was said in the room that was refused.
    assert_eq!(json_of(&publish(server.address(), &json!({"room": "lobby", "text": "first"})))["seq"], 1);
}
