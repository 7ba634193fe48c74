//! Identity by tokens: which are accepted, which are not, and what happens when they expire.

use ring::hmac;
use serde_json::{Value, json};

use crate::support::tokens::{
    EdIssuer, Files, SECRET, claims, es256, good, hmac_token, hs256, in_seconds, refused, server_with_secret, unsigned,
    with_token,
};
use crate::support::{Client, Connect, Raw, Server, roomcast, upgrade_request};

/// Made by OpenSSL, for alice.
const RSA_KEY: &str = include_str!("../../src/server/tokens/verifier/rsa.pem");
const RSA_TOKEN: &str = include_str!("../../src/server/tokens/verifier/rs256.jwt");

/// The handshake is refused with 401, and a sentence that has these words and nothing of the token.
#[track_caller]
fn check_refused(server: &Server, token: Option<&str>, words: &str) {
    let response = refused(server, token);
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")), "{response:?}");
    assert!(response.text().contains(words), "{response:?}");
    for part in token.into_iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 3) {
        assert!(!format!("{response:?}").contains(part), "{response:?}");
    }
}

#[test]
fn a_token_says_who_a_connection_is() {
    let (server, _files) = server_with_secret(&[]);
    let expires = in_seconds(600);
    let token = hs256(&json!({"sub": "alice", "exp": expires, "name": "Alice in Chains"}));
    let bearer = format!("Bearer {token}");
    let connections = [
        with_token(&server, &token),
        Connect::to(server.address()).header("Authorization", &bearer).protocol("roomcast.v1"),
        Connect::to(server.address()).user("mallory").header("Authorization", &bearer),
    ];
    for connection in connections {
        let client = connection.connect();
        assert_eq!(client.user_id(), "alice");
        assert_eq!(
            (&client.welcome["name"], &client.welcome["expiresAt"]),
            (&json!("Alice in Chains"), &json!(expires * 1000))
        );
        assert!(!format!("{:?}", client.response).contains(&token), "a token is never repeated");
    }
    let protocol = |connect: &Connect| connect.connect().response.headers().get("sec-websocket-protocol").cloned();
    assert_eq!(protocol(&with_token(&server, &token)).unwrap(), "roomcast.v1");
}

#[test]
fn every_kind_of_key_verifies_its_tokens() {
    let files = Files::new();
    let alice = claims(&json!({}));
    let (first, second) = (EdIssuer::new(1), EdIssuer::new(2));
    let (p256, es256) = es256(&alice);
    let flags = [
        "--token-secret-file".to_owned(),
        files.write("old", [b'x'; 32]),
        "--token-secret-file".to_owned(),
        files.write("secret", SECRET),
        "--token-key-file".to_owned(),
        files.write("keys.pem", format!("{RSA_KEY}{p256}{}", first.public_pem())),
        "--jwks-file".to_owned(),
        files.write("jwks", json!({"keys": [{"kty": "oct", "k": "AA"}, second.jwk("two")]}).to_string()),
    ];
    let server = Server::spawn(&flags.each_ref().map(String::as_str));
    let by = |hash, name: &str| hmac_token(hash, SECRET.as_bytes(), &json!({"alg": name}), &alice);
    for (kind, token) in [
        ("HS256", by(hmac::HMAC_SHA256, "HS256")),
        ("HS384", by(hmac::HMAC_SHA384, "HS384")),
        ("HS512", by(hmac::HMAC_SHA512, "HS512")),
        ("an older secret", hmac_token(hmac::HMAC_SHA256, &[b'x'; 32], &json!({"alg": "HS256"}), &alice)),
        ("RS256", RSA_TOKEN.trim().to_owned()),
        ("ES256", es256),
        ("EdDSA", first.token(&json!({}), &alice)),
        ("EdDSA of a set", second.token(&json!({"kid": "two"}), &alice)),
        ("EdDSA of a set, without kid", second.token(&json!({}), &alice)),
    ] {
        let connected = with_token(&server, &token).try_open();
        assert!(connected.is_ok(), "{kind}: {:?}", connected.err());
    }
}

#[test]
fn a_token_that_nobody_has_signed_is_refused() {
    let files = Files::new();
    let key = files.write("rsa.pem", RSA_KEY);
    let server = Server::spawn(&["--token-key-file", &key]);
    let alice = claims(&json!({}));
    for name in ["none", "None", "NONE", ""] {
        let token = format!("{}.", unsigned(&json!({"alg": name}), &alice));
        check_refused(&server, Some(&token), "its alg is none of");
    }
    let unsigned = format!("{}.", unsigned(&json!({"alg": "RS256"}), &alice));
    check_refused(&server, Some(&unsigned), "its signature is wrong");
    // Everybody has the public key: taken for a secret, it would sign anything.
    let confused = hmac_token(hmac::HMAC_SHA256, RSA_KEY.as_bytes(), &json!({"alg": "HS256"}), &alice);
    check_refused(&server, Some(&confused), "no key is for HS256");
    let other = hmac_token(hmac::HMAC_SHA256, RSA_KEY.as_bytes(), &json!({"alg": "RS256"}), &alice);
    check_refused(&server, Some(&other), "its signature is wrong");
    with_token(&server, RSA_TOKEN.trim()).connect();
}

#[test]
fn a_token_of_another_key_is_refused() {
    let files = Files::new();
    let (ours, other) = (EdIssuer::new(1), EdIssuer::new(2));
    let jwks = files.write("jwks", json!({"keys": [ours.jwk("one")]}).to_string());
    let server = Server::spawn(&["--jwks-file", &jwks]);
    let alice = claims(&json!({}));
    check_refused(&server, Some(&ours.token(&json!({"kid": "two"}), &alice)), "no key has its kid");
    check_refused(&server, Some(&other.token(&json!({"kid": "two"}), &alice)), "no key has its kid");
    check_refused(&server, Some(&other.token(&json!({"kid": "one"}), &alice)), "its signature is wrong");
    check_refused(&server, Some(&other.token(&json!({}), &alice)), "its signature is wrong");
    with_token(&server, &ours.token(&json!({"kid": "one"}), &alice)).connect();
}

#[test]
fn a_token_that_is_for_another_server_or_time_or_for_nobody_is_refused() {
    let (server, _files) = server_with_secret(&["--token-audience", "chat", "--token-issuer", "https://shop.example"]);
    let good = json!({"aud": "chat", "iss": "https://shop.example"});
    let with = |name: &str, value: Value| {
        let mut claims = claims(&good);
        claims[name] = value;
        hs256(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims(&good);
        claims.as_object_mut().unwrap().remove(name);
        hs256(&claims)
    };
    for (token, words) in [
        (with("aud", json!("mail")), "another audience"),
        (without("aud"), "another audience"),
        (with("iss", json!("https://elsewhere.example")), "another issuer"),
        (without("iss"), "another issuer"),
        (with("exp", json!(in_seconds(-1))), "it has expired"),
        (with("exp", json!(in_seconds(0))), "it has expired"),
        (with("exp", json!("tomorrow")), "its claims cannot be read"),
        (without("exp"), "it has no exp"),
        (with("nbf", json!(in_seconds(60))), "it is not valid yet"),
        (without("sub"), "it has no sub"),
        (with("sub", json!("")), "its sub: name is empty"),
        (with("sub", json!("a b")), "its sub: name contains ' '"),
        (with("sub", json!(7)), "its claims cannot be read"),
        (with("padding", json!("x".repeat(4096))), "4096 are allowed"),
        ("nonsense".to_owned(), "not three parts"),
        ("..".to_owned(), "its header cannot be read"),
    ] {
        check_refused(&server, Some(&token), words);
    }
    check_refused(&server, None, "a token is needed");
    let response = {
        let mut raw = Raw::connect(server.address());
        let offers = format!("roomcast.v1, roomcast.token.{}", with("aud", json!("mail")));
        raw.send(upgrade_request("/ws", &[("Sec-WebSocket-Protocol", &offers)]).as_bytes());
        raw.response()
    };
    assert_eq!(response.status, 401, "as in Authorization");
    let welcome = with_token(&server, &with("nbf", json!(in_seconds(-1)))).connect().welcome;
    assert_eq!(welcome["userId"], "alice");
}

#[test]
fn one_of_two_tokens_is_not_chosen() {
    let (server, _files) = server_with_secret(&[]);
    let both = [&good(), "nonsense"].map(|token| format!("roomcast.token.{token}")).join(", ");
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &[("Sec-WebSocket-Protocol", &format!("roomcast.v1, {both}"))]).as_bytes());
    let response = raw.response();
    assert_eq!((response.status, response.text().contains("more than one token")), (400, true), "{response:?}");
}

#[test]
fn a_connection_ends_with_its_token() {
    let (server, _files) = server_with_secret(&[]);
    let mut bob = with_token(&server, &hs256(&claims(&json!({"sub": "bob"})))).connect();
    bob.join("lobby");
    let mut alice = with_token(&server, &hs256(&json!({"sub": "alice", "exp": in_seconds(2)}))).connect();
    alice.join("lobby");
    assert_eq!(alice.expect_close(), 4003);
    assert!(in_seconds(0) >= alice.welcome["expiresAt"].as_i64().unwrap() / 1000, "not before its time");
    bob.say("lobby", "I am still here");
    assert_eq!(bob.recv_type("chat")["text"], "I am still here");
}

#[test]
fn a_token_is_not_ignored_where_none_is_asked_for() {
    let server = Server::spawn(&[]);
    let response = refused(&server, Some(&good()));
    assert_eq!(response.status, 400);
    assert!(response.text().contains("this server takes none"), "{response:?}");
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &[("Sec-WebSocket-Protocol", "roomcast.v1, roomcast.token.s3cret")]).as_bytes());
    let response = raw.response();
    assert!(response.status == 400 && !format!("{response:?}").contains("s3cret"), "{response:?}");
    // What a proxy asks for is not ours.
    Client::build(&server).header("Authorization", "Basic YTpi").connect();
}

#[test]
fn the_log_has_no_token() {
    let files = Files::new();
    let mut command = roomcast();
    command.env("RUST_LOG", "trace").args(["--listen", "127.0.0.1:0", "--token-secret-file"]);
    command.arg(files.write("secret", SECRET));
    let server = Server::spawn_command(command, 1);
    let (good, bad) = (good(), hs256(&json!({"sub": "alice", "exp": 1})));
    let mut alice = with_token(&server, &good).connect();
    for (message, answer) in [
        (json!({"type": "nothing"}), "error"),
        (json!({"type": "refresh", "token": [good]}), "error"),
        (json!({"type": "refresh", "token": bad}), "error"),
    ] {
        alice.send_json(&message);
        alice.recv_type(answer);
    }
    refused(&server, Some(&bad));
    server.sigterm();
    alice.expect_close();
    let log = server.log().join("\n");
    for part in [good, bad].iter().flat_map(|token| token.split('.').map(str::to_owned).collect::<Vec<_>>()) {
        assert!(!log.contains(&part), "{log}");
    }
    assert!(!log.contains(SECRET));
}

#[test]
fn a_server_that_strangers_can_reach_says_that_it_believes_everybody() {
    let open = Server::spawn(&["--listen", "0.0.0.0:0"]);
    let line = open.wait_for_log("is believed to be whom they say");
    assert!(line.contains("WARN") && line.contains("http://0.0.0.0:"), "{line}");
    let (closed, _files) = server_with_secret(&["--listen", "0.0.0.0:0"]);
    for server in [closed, Server::spawn(&["--listen", "[::1]:0"])] {
        server.get("/healthz");
        assert_eq!(server.log_lines("is believed"), [""; 0]);
    }
}

#[test]
fn the_program_makes_tokens() {
    let (server, files) = server_with_secret(&["--token-audience", "chat", "--token-issuer", "shop"]);
    let secret = files.path("secret");
    let run = |words: &[&str]| {
        let mut command = roomcast();
        command.args(["token", "--secret-file"]).arg(&secret).args(words);
        let output = command.output().expect("run the program");
        let error = String::from_utf8(output.stderr).unwrap();
        let token = String::from_utf8(output.stdout).unwrap();
        if output.status.success() { Ok(token.trim().to_owned()) } else { Err(error) }
    };
    let ours = ["--audience", "chat", "--issuer", "shop"];
    let token = run(&[&["--sub", "zoë", "--ttl", "10m", "--name", "Zoë \"Z\""], &ours[..]].concat()).unwrap();
    let welcome = with_token(&server, &token).connect().welcome;
    assert_eq!((&welcome["userId"], &welcome["name"]), (&json!("zoë"), &json!("Zoë \"Z\"")));
    let left = welcome["expiresAt"].as_i64().unwrap() / 1000 - in_seconds(0);
    assert!((590..=600).contains(&left), "{left} s");
    check_refused(&server, Some(&run(&["--sub", "alice"]).unwrap()), "another audience");
    assert!(run(&["--sub", "a b"]).unwrap_err().contains("--sub: name contains ' '"));
    assert!(run(&["--sub", "alice", "--ttl", "soon"]).unwrap_err().contains("--ttl"));
    assert!(run(&[]).unwrap_err().contains("--sub"));
    let rooms = run(&[&["--sub", "bob", "--rooms", r#"[{"match": "lobby", "allow": ["join"]}]"#], &ours[..]].concat());
    let mut bob = with_token(&server, &rooms.unwrap()).connect();
    bob.join("lobby");
    bob.send_json(&json!({"type": "join", "room": "other"}));
    assert_eq!(bob.recv_type("error")["code"], "forbidden");
    assert!(run(&["--sub", "bob", "--rooms", "lobby"]).unwrap_err().contains("--rooms: expected value"));
    let expired = run(&[&["--sub", "alice", "--ttl", "0s"], &ours[..]].concat()).unwrap();
    check_refused(&server, Some(&expired), "it has expired");
    // A token lives for a while, and no longer than that.
    std::fs::remove_file(&secret).unwrap();
    assert!(run(&["--sub", "alice"]).unwrap_err().contains("secret: No such file"));
}

#[test]
fn a_file_without_a_key_is_named_at_the_start() {
    let files = Files::new();
    let check = |flag: &str, path: &str, words: &str| {
        let server = roomcast();
        let mut command = std::process::Command::new("timeout");
        command.args(["--signal=KILL", "10"]).arg(server.get_program()).args(["--listen", "127.0.0.1:0", flag, path]);
        let output = command.output().expect("run the program");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(path) && error.contains(words), "{error}");
    };
    let private = "-----BEGIN PRIVATE KEY-----\nMAMCAQE=\n-----END PRIVATE KEY-----\n";
    check("--token-secret-file", "/nowhere/secret", "No such file");
    check("--token-secret-file", &files.write("short", "thirty-one bytes are not enough"), "at least 32 are needed");
    check("--token-secret-file", &files.write("huge", vec![b'x'; 300_000]), "more than 262144 bytes");
    check("--token-key-file", "/nowhere/key", "No such file");
    check("--token-key-file", &files.write("private", private), "a private key; the server needs the public key alone");
    check("--token-key-file", &files.write("text", SECRET), "no public key");
    check("--jwks-file", "/nowhere/jwks", "No such file");
    check("--jwks-file", &files.write("jwks", r#"{"keys":[{"kty":"oct","k":"AA"}]}"#), "none of 1 keys can be used");
}
