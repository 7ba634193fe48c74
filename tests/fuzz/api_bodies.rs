//! The bodies of the HTTP API.

use roomcast::settings::ApiKey;
use serde_json::{Map, Value, json};

use crate::embedded::{Embedded, Transcript, config};
use crate::mutation::{Corpus, pieces};
use crate::run::run;
use crate::support::api::KEY;
use crate::support::request;
use crate::tables::api_refusals;

const AUTHORIZATION: (&str, &str) = ("Authorization", "Bearer key-0123456789abcdef");

/// A whole answer.
struct Answer {
    status: u16,
    is_json: bool,
    has_retry_after: bool,
    body: Vec<u8>,
}

/// The one answer of a transcript, if it has all come.
fn answer_of(transcript: &Transcript) -> Option<Answer> {
    let end = transcript.bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&transcript.bytes[..end]).expect("a head is text").to_ascii_lowercase();
    let body = transcript.bytes[end + 4..].to_vec();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: usize = header("content-length").expect("a length").parse().expect("a number");
    assert!(body.len() <= length, "more than one answer");
    (body.len() == length).then(|| Answer {
        status: head.strip_prefix("http/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status"),
        is_json: header("content-type") == Some("application/json"),
        has_retry_after: header("retry-after").is_some(),
        body,
    })
}

fn ask(server: &mut Embedded, head: &str, body: &[&[u8]]) -> Answer {
    let mut peer = server.connect();
    server.send(&mut peer, head.as_bytes());
    for piece in body {
        server.send(&mut peer, piece);
    }
    server.read_until(&mut peer, |transcript| answer_of(transcript).is_some());
    answer_of(&peer.transcript).unwrap_or_else(|| panic!("no answer: {}", peer.transcript.bytes.escape_ascii()))
}

fn command_head(path: &str, body_bytes: usize) -> String {
    let length = body_bytes.to_string();
    let headers = [AUTHORIZATION, ("Content-Type", "application/json"), ("Content-Length", &length)];
    request("POST", path, &headers)
}

/// A value that fits a schema.
fn sample(name: &str, schema: &Value) -> Value {
    let is = |kind: &str| {
        schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
    };
    if let Some(first) = ["oneOf", "anyOf", "enum"].iter().find_map(|word| schema[*word].get(0)) {
        return if schema["enum"].is_array() { first.clone() } else { sample(name, first) };
    }
    if is("object") {
        let properties = schema["properties"].as_object().expect("an object has properties");
        // A ban is of a user or of a network.
        let is_apart = |name: &str| name == "userId" && properties.contains_key("network");
        let fields = properties.iter().filter(|(name, _)| !is_apart(name));
        return fields.map(|(name, schema)| (name.clone(), sample(name, schema))).collect::<Map<_, _>>().into();
    }
    match name {
        "network" => json!("192.0.2.0/24"),
        "seq" | "before" => json!(1),
        "match" => json!("lob*"),
        _ if is("array") => json!([sample(name, &schema["items"])]),
        _ if is("integer") => schema["minimum"].as_u64().unwrap_or(1).max(1).into(),
        _ if is("boolean") => json!(true),
        _ if is("string") => json!("lobby"),
        _ => json!({"a": [1.5, null]}),
    }
}

/// Paths and valid bodies of all commands.
fn commands(server: &mut Embedded) -> Vec<(String, Vec<u8>)> {
    let answer = ask(server, &request("GET", "/api/openapi.json", &[AUTHORIZATION]), &[]);
    let description: Value = serde_json::from_slice(&answer.body).expect("the description is JSON");
    let paths = description["paths"].as_object().expect("the description has paths");
    let posts = paths.iter().filter(|(_, item)| item["post"].is_object());
    let commands: Vec<_> = posts
        .map(|(path, item)| {
            let schema = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
            (path.clone(), sample("", schema).to_string().into_bytes())
        })
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    commands
}

const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":",
    b"{}",
    b"[]",
    b",\"room\":\"lobby\"",
    b",\"limit\":1001",
    b",\"userId\":\"\"",
    b",\"ttlSeconds\":0",
    b"0.0.0.0/0",
    b"::/0",
    b"1e999",
    b"*",
    b"\xff",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

fn check(answer: &Answer, refusals: &[(u16, String)]) {
    assert!(answer.is_json, "no JSON: {}", answer.body.escape_ascii());
    let body: Value = serde_json::from_slice(&answer.body).expect("the answer is JSON");
    if answer.status == 200 {
        assert!(body.is_object() && body.get("error").is_none(), "{body}");
        return;
    }
    let error = &body["error"];
    let code = error["code"].as_str().expect("a code");
    assert!(
        refusals.iter().any(|known| (known.0, known.1.as_str()) == (answer.status, code)),
        "{} {body}",
        answer.status
    );
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert_eq!(error["temporary"].as_bool(), Some(answer.has_retry_after), "{body}");
}

#[test]
fn api_bodies() {
    let mut config = config();
    config.api_keys = vec![ApiKey::new(KEY)];
    let mut server = Embedded::with(config);
    let (commands, refusals) = (commands(&mut server), api_refusals());
    for (path, body) in &commands {
        let answer = ask(&mut server, &command_head(path, body.len()), &[body]);
        let text = String::from_utf8_lossy(&answer.body);
        assert!([200, 404].contains(&answer.status), "{path}: {} {text}", String::from_utf8_lossy(body));
    }
    let corpus = Corpus { inputs: commands.iter().map(|(_, body)| body.clone()).collect(), words: WORDS };
    run(
        "api_bodies",
        |rng| {
            let (path, body) = rng.choice(&commands).expect("a command");
            let body = corpus.varied(rng, body.clone());
            [path.as_bytes(), b"\n", &body].concat()
        },
        |rng, input| {
            let end = input.iter().position(|byte| *byte == b'\n').expect("a path and a body");
            let path = std::str::from_utf8(&input[..end]).expect("a path is text");
            let body = &input[end + 1..];
            let answer = ask(&mut server, &command_head(path, body.len()), &pieces(rng, body));
            // That others are served is what the next one shows; a WebSocket may be banned by this one.
            check(&answer, &refusals);
        },
    );
}
