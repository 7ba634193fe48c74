//! Publications of back-ends over HTTP: where they go, and how they are answered.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::support::api::{
    check_published, check_refused, exchange, json_of, publish, publish_head, publish_request, publish_text,
    server_with,
};
use crate::support::chat::{chat, join_with, recv_text, settle, texts};
use crate::support::{Client, Raw, Server, request, roomcast, upgrade_request, wait_until};

/// The number behind a name in `/metrics`.
fn metric(server: &Server, name: &str) -> u64 {
    let response = server.get("/metrics");
    let value = response.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", response.text()))
}

#[test]
fn a_publication_reaches_the_room_like_a_message_of_a_client() {
    let server = server_with(&[]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let data = r#"{ "kind":"order", "n":1.50, "null":null }"#;
    let fields = format!(r#""room":"lobby","text":"Grüße \"an\" alle","data":{data},"id":"x1""#);
    ann.send(tungstenite::Message::text(format!(r#"{{"type":"chat",{fields}}}"#)));
    let of_client = recv_text(&mut ann, "chat");
    let response = publish_text(server.address(), &format!(r#"{{"userId":"bob","ignored":[1],{fields}}}"#));
    check_published(&response, "lobby", 2, false);
    let of_request = recv_text(&mut ann, "chat");
    let ts = |text: &str| serde_json::from_str::<Value>(text).unwrap()["ts"].to_string();
    let expected = of_client.replace(&ts(&of_client), &ts(&of_request)).replace(r#""seq":1"#, r#""seq":2"#);
    assert_eq!(of_request, expected.replace(r#""userId":"ann""#, r#""userId":"bob""#));
    assert!(of_request.contains(data), "{of_request}");
}

#[test]
fn without_a_user_the_server_speaks_and_a_name_is_shown() {
    let server = server_with(&[]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    for (body, user, name) in [
        (json!({"room": "lobby", "text": "a"}), "server", Value::Null),
        (json!({"room": "lobby", "text": "a", "userId": null, "name": null, "id": null}), "server", Value::Null),
        (json!({"room": "lobby", "text": "a", "name": "The Shop"}), "server", json!("The Shop")),
        (json!({"room": "lobby", "text": "a", "name": "", "userId": "shop"}), "shop", Value::Null),
    ] {
        assert_eq!(publish(server.address(), &body).status, 200);
        let chat = ann.recv_type("chat");
        assert_eq!((chat["userId"].as_str(), &chat["name"]), (Some(user), &name), "{chat}");
        assert_eq!(chat["id"], Value::Null);
    }
    // An explicit null is not the same as a missing field.
    publish_text(server.address(), r#"{"room":"lobby","text":"a","data":null}"#);
    assert!(recv_text(&mut ann, "chat").contains(r#""data":null"#));
    // The user of a publication does not count as present.
    assert!(settle(&mut ann).iter().all(|message| message["type"] != "presence"));
}

#[test]
fn a_publication_into_an_empty_room_is_history() {
    let server = server_with(&[]);
    for n in 1..=3 {
        let response = publish(server.address(), &json!({"room": "later", "text": n.to_string()}));
        check_published(&response, "later", n, false);
    }
    let mut ann = Client::connect(&server);
    let (messages, joined) = join_with(&mut ann, &json!({"room": "later", "history": 10}));
    assert_eq!((texts(&messages), joined["seq"].as_u64()), (vec!["1", "2", "3"], Some(3)));
}

#[test]
fn a_user_is_put_out_of_a_room_and_closed() {
    let server = server_with(&[]);
    let post = |path: &str, body: &serde_json::Value| {
        let body = body.to_string();
        let head = publish_head(body.len(), &[("Connection", "close")]).replace("/api/publish", path);
        exchange(server.address(), &head, body.as_bytes())
    };
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let response = post("/api/kick", &json!({"room": "lobby", "userId": "ann"}));
    assert_eq!((response.status, json_of(&response)), (200, json!({"userId": "ann"})));
    assert_eq!(ann.recv_type("error")["code"], "removed");
    assert_eq!(ann.recv_type("left")["room"], "lobby");
    ann.join("lobby");
    check_refused(&post("/api/kick", &json!({"userId": "ann"})), 400, "bad_message", &["kick without room"]);
    check_refused(&post("/api/kick", &json!({"room": "lobby"})), 400, "bad_message", &["kick without userId"]);
    check_refused(&post("/api/disconnect", &json!({"userId": "ann", "code": 1000})), 400, "bad_message", &["1000"]);
    check_refused(&post("/api/disconnect", &json!({"userId": "ann", "code": "x"})), 400, "bad_message", &[]);
    let response = post("/api/disconnect", &json!({"userId": "ann", "code": 4711, "reason": "enough"}));
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(ann.expect_close(), 4711);
    let mut ann = Client::connect_as(&server, "ann");
    assert_eq!(post("/api/disconnect", &json!({"userId": "ann"})).status, 200);
    assert_eq!(ann.expect_close(), 4500);
}

#[test]
fn an_id_is_published_once() {
    let server = server_with(&[]);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    let body = json!({"room": "lobby", "text": "once", "id": "order-7", "userId": "shop"});
    check_published(&publish(server.address(), &body), "lobby", 1, false);
    check_published(&publish(server.address(), &body), "lobby", 1, true);
    // Ids are of a user, whether it speaks here or there.
    let other = json!({"room": "lobby", "text": "another's", "id": "order-7", "userId": "stock"});
    check_published(&publish(server.address(), &other), "lobby", 2, false);
    let mut shop = Client::connect_as(&server, "shop");
    shop.join("lobby");
    shop.send_json(&chat("lobby", "once", "order-7"));
    assert_eq!(shop.recv_type("ack")["duplicate"], true);
    let messages = settle(&mut ann);
    assert_eq!(texts(&messages), ["once", "another's"]);
}

#[test]
fn without_a_key_there_is_no_api_and_its_place_says_how_to_turn_it_on() {
    let server = Server::spawn(&[]);
    for head in [publish_head(0, &[]), request("GET", "/api/publish", &[]), request("POST", "/api/kick", &[])] {
        check_refused(&exchange(server.address(), &head, b""), 404, "not_found", &["off", "--api-key", "16"]);
    }
    assert!(!server.get("/nowhere").text().contains("/api"));
}

#[test]
fn the_environment_may_hold_several_keys_none_of_which_is_shown() {
    let keys = ["first-0123456789", "second-0123456789"];
    let mut command = roomcast();
    command.env("ROOMCAST_API_KEY", keys.join(",")).env("RUST_LOG", "trace").args(["--listen", "127.0.0.1:0"]);
    let server = Server::spawn_command(command, 1);
    let body = r#"{"room":"lobby","text":"hello"}"#;
    let length = ("Content-Length", body.len().to_string());
    let send = |authorization: &str| {
        let headers = [("Authorization", authorization), ("Content-Type", "Application/JSON; charset=utf-8")];
        let headers = [&headers[..], &[(length.0, &length.1), ("Connection", "close")]].concat();
        exchange(server.address(), &request("POST", "/api/publish", &headers), body.as_bytes())
    };
    for key in keys {
        assert_eq!(send(&format!("Bearer {key}")).status, 200);
        assert_eq!(send(&format!("bearer  {key} ")).status, 200);
    }
    for wrong in ["third-0123456789", "first-012345678", "first-01234567890", "first-0123456789,second-0123456789", ""]
    {
        let response = send(&format!("Bearer {wrong}"));
        check_refused(&response, 401, "unauthorized", &["none of this server's"]);
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        assert!(wrong.is_empty() || !format!("{response:?}").contains(wrong));
    }
    for key in keys {
        assert_eq!(server.log_lines(key), [""; 0]);
    }
    assert_eq!(server.log_lines("third-"), [""; 0]);
}

#[test]
fn a_request_without_a_key_need_not_send_a_body() {
    let server = server_with(&[]);
    let headers = |authorization: &'static [(&str, &str)]| {
        let proper = [("Content-Type", "application/json"), ("Content-Length", "1000"), ("Expect", "100-continue")];
        request("POST", "/api/publish", &[&proper[..], authorization].concat())
    };
    for (authorization, needle) in [
        (&[][..], "no Authorization"),
        (&[("Authorization", "Basic a2V5LTAxMjM0NTY3ODlhYmNkZWY6")], "another kind"),
        (&[("Authorization", "key-0123456789abcdef")], "another kind"),
        (&[("Authorization", "Bearer")], "none of"),
        (&[("Authorization", "Bearer key-0123456789abcdeg")], "none of"),
    ] {
        let response = exchange(server.address(), &headers(authorization), b"");
        check_refused(&response, 401, "unauthorized", &[needle]);
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn pages_of_other_origins_get_no_special_treatment() {
    let server = server_with(&[]);
    let body = r#"{"room":"lobby","text":"hello"}"#;
    let head = publish_head(body.len(), &[("Origin", "https://shop.example"), ("Connection", "close")]);
    let response = exchange(server.address(), &head, body.as_bytes());
    check_published(&response, "lobby", 1, false);
    assert!(response.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{response:?}");
    let preflight = request("OPTIONS", "/api/publish", &[("Origin", "https://shop.example")]);
    let response = exchange(server.address(), &preflight, b"");
    check_refused(&response, 405, "method_not_allowed", &["OPTIONS", "POST"]);
}

#[test]
fn a_request_is_refused_with_what_was_found_and_what_is_allowed() {
    let server = server_with(&[]);
    let check = |head: &str, status, code, needles: &[&str]| {
        check_refused(&exchange(server.address(), head, b""), status, code, needles);
    };
    check(&request("POST", "/api/nowhere", &[]), 404, "not_found", &["/api/nowhere", "/api/publish"]);
    assert!(server.get("/nowhere").text().contains("/api/publish"));
    let get = exchange(server.address(), &request("GET", "/api/publish", &[]), b"");
    check_refused(&get, 405, "method_not_allowed", &["GET", "POST"]);
    assert_eq!(get.header("allow"), Some("POST"));
    let key = ("Authorization", "Bearer key-0123456789abcdef");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let json = ("Content-Type", "application/json");
    let post = |headers: &[(&str, &str)]| request("POST", "/api/publish", &[&[key], headers].concat());
    check(&post(&[form]), 415, "unsupported_media_type", &["x-www-form-urlencoded", "application/json"]);
    check(&post(&[]), 415, "unsupported_media_type", &["missing", "application/json"]);
    check(&post(&[json]), 411, "length_required", &["Content-Length"]);
    check(&post(&[json, ("Transfer-Encoding", "chunked")]), 411, "length_required", &["Transfer-Encoding"]);
    let both = [json, ("Transfer-Encoding", "chunked"), ("Content-Length", "5")];
    check(&post(&both), 400, "bad_message", &["beside"]);
    check(&post(&[json, ("Content-Length", "5"), ("Content-Length", "6")]), 400, "bad_message", &["5, 6"]);
    check(&post(&[json, ("Content-Length", "-5")]), 400, "bad_message", &["-5"]);
    check(&post(&[json, ("Content-Length", "49153")]), 413, "too_large", &["49153", "49152"]);
}

#[test]
fn a_body_is_refused_with_what_was_found_and_what_is_allowed() {
    let server = server_with(&["--data-bytes", "64"]);
    let check = |body: &str, status, code, needles: &[&str]| {
        check_refused(&publish_text(server.address(), body), status, code, needles);
    };
    check("", 400, "bad_json", &["EOF"]);
    check("{", 400, "bad_json", &["EOF"]);
    check("[1]", 400, "bad_json", &["not a JSON object"]);
    check(r#"["lobby","hello",null,null,null,null]"#, 400, "bad_json", &["not a JSON object"]);
    check(r#"{"room":"lobby","text":"a"} {}"#, 400, "bad_json", &["trailing"]);
    check("{}", 400, "bad_message", &["without room"]);
    check(r#"{"room":"lobby"}"#, 400, "bad_message", &["text is empty"]);
    check(r#"{"room":"lobby","text":""}"#, 400, "bad_message", &["text is empty"]);
    check(r#"{"room":"lobby","text":5}"#, 400, "bad_message", &["integer `5`, expected a string"]);
    check(r#"{"room":"two words","text":"a"}"#, 400, "bad_message", &["room", "' '", "letters"]);
    check(r#"{"room":"","text":"a"}"#, 400, "bad_message", &["room", "empty"]);
    check(r#"{"room":"a","text":"a","userId":"<b>"}"#, 400, "bad_message", &["userId", "'<'"]);
    check(r#"{"room":"a","text":"a","id":""}"#, 400, "bad_message", &["id of 0 bytes", "64"]);
    let long = "x".repeat(65);
    check(&json!({"room": "a", "text": "a", "id": long}).to_string(), 400, "bad_message", &["65", "64"]);
    check(&json!({"room": "a", "text": "a", "data": long}).to_string(), 413, "too_large", &["67", "64"]);
    let text = "x".repeat(16 * 1024);
    check(&json!({"room": "a", "text": text}).to_string(), 413, "too_large", &["exceeds 16384"]);
    let head = publish_head(2, &[("Connection", "close")]);
    check_refused(&exchange(server.address(), &head, b"\xff\xfe"), 400, "bad_json", &["UTF-8"]);
}

#[test]
fn a_body_may_be_escaped_though_that_makes_it_longer() {
    let server = server_with(&[]);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    let text = "ü".repeat(8000);
    let response =
        publish_text(server.address(), &format!(r#"{{"room":"lobby","text":"{}"}}"#, r"\u00fc".repeat(8000)));
    check_published(&response, "lobby", 1, false);
    assert_eq!(ann.recv_type("chat")["text"], text.as_str());
}

#[test]
fn a_request_may_come_in_pieces_of_any_size() {
    let server = server_with(&[]);
    let bytes = publish_request(r#"{"room":"lobby","text":"in pieces"}"#);
    for piece in [1, 2, 3, 64] {
        let mut raw = Raw::connect(server.address());
        bytes.chunks(piece).for_each(|piece| raw.send(piece));
        assert_eq!(raw.response().status, 200);
    }
    // Everywhere it may be cut: head, body, and between.
    let mut raw = Raw::connect(server.address());
    for cut in 1..bytes.len() {
        raw.send(&bytes[..cut]);
        raw.send(&bytes[cut..]);
        assert_eq!(raw.response().status, 200, "cut at {cut}");
    }
}

#[test]
fn a_client_that_asks_whether_to_go_on_is_told() {
    let server = server_with(&[]);
    let body = r#"{"room":"lobby","text":"expected"}"#;
    let mut raw = Raw::connect(server.address());
    let head = publish_head(body.len(), &[("Expect", "100-continue")]);
    for seq in 1..=2 {
        raw.send(head.as_bytes());
        assert_eq!(raw.response_head().status, 100);
        raw.send(body.as_bytes());
        check_published(&raw.response(), "lobby", seq, false);
    }
    // A client that does not wait for it is not told.
    raw.send(&[head.as_bytes(), body.as_bytes()].concat());
    check_published(&raw.response(), "lobby", 3, false);
    let too_long = publish_head(1_000_000, &[("Expect", "100-continue")]);
    check_refused(&exchange(server.address(), &too_long, b""), 413, "too_large", &["1000000"]);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = server_with(&["--handshake-timeout", "300ms"]);
    for sent in ["", r#"{"room":"lobby","#] {
        let mut raw = Raw::connect(server.address());
        raw.send(publish_head(50, &[]).as_bytes());
        raw.send(sent.as_bytes());
        check_refused(&raw.response(), 408, "request_timeout", &["body", "300ms"]);
        assert!(raw.at_end());
    }
}

#[test]
fn a_peer_that_goes_in_the_middle_leaves_nothing() {
    let server = server_with(&["--metrics"]);
    for _ in 0..10 {
        let mut raw = Raw::connect(server.address());
        raw.send(publish_head(50, &[]).as_bytes());
        raw.send(b"{");
    }
    wait_until("all have gone", || metric(&server, "roomcast_sockets") == 1);
    assert_eq!(publish(server.address(), &json!({"room": "lobby", "text": "a"})).status, 200);
}

#[test]
fn a_connection_is_kept_and_requests_are_answered_in_their_order() {
    let server = server_with(&[]);
    let mut raw = Raw::connect(server.address());
    let mut requests = Vec::new();
    for n in 1..=100 {
        requests.extend(publish_request(&json!({"room": "lobby", "text": n.to_string()}).to_string()));
        requests.extend(publish_request("{"));
    }
    raw.send(&requests);
    for n in 1..=100 {
        let response = raw.response();
        assert_eq!(response.header("connection"), None, "{response:?}");
        check_published(&response, "lobby", n, false);
        check_refused(&raw.response(), 400, "bad_json", &[]);
    }
    // One after another as well, and any other request last.
    raw.send(&publish_request(r#"{"room":"lobby","text":"101"}"#));
    check_published(&raw.response(), "lobby", 101, false);
    raw.send(request("GET", "/healthz", &[]).as_bytes());
    let response = raw.response();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(raw.at_end());
}

#[test]
fn a_kept_connection_may_become_a_websocket() {
    let server = server_with(&[]);
    let mut raw = Raw::connect(server.address());
    raw.send(&[publish_request(r#"{"room":"lobby","text":"a"}"#), upgrade_request("/ws", &[]).into()].concat());
    check_published(&raw.response(), "lobby", 1, false);
    raw.upgraded();
    raw.json_of("welcome");
}

#[test]
fn a_connection_ends_where_the_client_wants_it_to_or_nothing_more_is_asked() {
    let server = server_with(&["--handshake-timeout", "300ms"]);
    let body = r#"{"room":"lobby","text":"a"}"#;
    let response = exchange(server.address(), &publish_head(body.len(), &[("Connection", "close")]), body.as_bytes());
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    let of_1_0 = publish_head(body.len(), &[]).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(exchange(server.address(), &of_1_0, body.as_bytes()).header("connection"), Some("close"));
    let mut raw = Raw::connect(server.address());
    raw.send(&publish_request(body));
    assert_eq!(raw.response().status, 200);
    assert!(raw.at_end(), "an idle connection ends without a word");
    let mut raw = Raw::connect(server.address());
    raw.send(&publish_request(body));
    assert_eq!(raw.response().status, 200);
    raw.send(b"POST /api");
    assert_eq!(raw.response().status, 408);
}

#[test]
fn a_peer_that_shuts_down_its_side_behind_a_request_is_answered() {
    let server = server_with(&[]);
    let mut raw = Raw::connect(server.address());
    let two = publish_request(r#"{"room":"lobby","text":"a"}"#).repeat(2);
    raw.send(&two);
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for seq in 1..=2 {
        check_published(&raw.response(), "lobby", seq, false);
    }
    assert!(raw.at_end());
}

#[test]
fn ten_publish_at_once_and_each_is_told_its_own_number() {
    let server = server_with(&["--metrics"]);
    let mut ann = Client::connect(&server);
    ann.join("lobby");
    let address = server.address();
    let numbers = thread::scope(|scope| {
        let publishers: Vec<_> = (0..10)
            .map(|publisher| {
                scope.spawn(move || {
                    let mut raw = Raw::connect(address);
                    let mut numbers = Vec::new();
                    for n in 0..50 {
                        let text = format!("{publisher}.{n}");
                        raw.send(&publish_request(&json!({"room": "lobby", "text": text}).to_string()));
                        let response = raw.response();
                        numbers.push((json_of(&response)["seq"].as_u64().expect("a number"), text));
                    }
                    numbers
                })
            })
            .collect();
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect::<BTreeSet<_>>()
    });
    let messages = ann.recv_until(|message| message["seq"] == 500);
    let seen: BTreeSet<_> = messages
        .iter()
        .filter(|message| message["type"] == "chat")
        .map(|message| (message["seq"].as_u64().unwrap(), message["text"].as_str().unwrap().to_owned()))
        .collect();
    assert!(numbers == seen && numbers.len() == 500);
    assert_eq!(metric(&server, "roomcast_api_accepted_total"), 500);
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    let server = server_with(&["--metrics"]);
    let body = json!({"room": "lobby", "text": "a", "id": "x"});
    publish(server.address(), &body);
    publish(server.address(), &body);
    publish(server.address(), &body);
    publish(server.address(), &json!({"room": "lobby"}));
    exchange(server.address(), &request("GET", "/api/publish", &[]), b"");
    let counts = ["accepted", "duplicates", "rejected", "rejected_temporary"];
    let counts = counts.map(|name| metric(&server, &format!("roomcast_api_{name}_total")));
    assert_eq!(counts, [1, 2, 2, 0]);
}
