//! Several nodes at one Redis, and clients that wait as long as a disturbed Redis may take.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::redis::{LONG, Redis, eventually};
use crate::support::chat::{is, join_with, seqs};
use crate::support::{Client, Server};

/// A node that is ready.
pub(crate) fn node_with(redis: &Redis, flags: &[&str]) -> Server {
    let url = redis.url();
    let mut all = vec!["--redis", &url, "--message-rate", "0", "--history-messages", "100000"];
    all.extend(flags);
    let server = Server::spawn(&all);
    wait_ready(&server);
    server
}

pub(crate) fn nodes<const N: usize>(redis: &Redis) -> [Server; N] {
    std::array::from_fn(|_| node_with(redis, &[]))
}

pub(crate) fn wait_ready(server: &Server) {
    eventually("the node is ready", || server.get("/readyz").status == 200);
}

pub(crate) fn wait_unready(server: &Server) {
    eventually("the node is not ready", || server.get("/readyz").status == 503);
}

/// All messages up to and including the next for which `wanted` holds.
pub(crate) fn recv_long(client: &mut Client, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + LONG;
    let mut messages = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(message) = client.try_recv(left) else {
            let short = |message: &Value| message.to_string().chars().take(160).collect::<String>();
            let last: Vec<_> = messages.iter().rev().take(8).map(short).collect();
            panic!("{what} did not come within {LONG:?}; the last of {}: {last:#?}", messages.len());
        };
        messages.push(message);
        if wanted(&messages[messages.len() - 1]) {
            return messages;
        }
    }
}

pub(crate) fn is_text(message: &Value, text: &str) -> bool {
    is(message, "chat") && message["text"] == text
}

/// Says something and waits until it is there.
pub(crate) fn say_and_see(client: &mut Client, room: &str, text: &str) -> Value {
    client.say(room, text);
    recv_long(client, text, |message| is_text(message, text)).pop().unwrap()
}

/// All that history has, as a stranger is shown it on a node that has heard of message `top`.
pub(crate) fn history(server: &Server, room: &str, top: u64) -> Vec<Value> {
    let mut shown = Vec::new();
    eventually("the node has heard of all messages", || {
        let mut reader = Client::connect(server);
        let (messages, joined) = join_with(&mut reader, &json!({"room": room, "history": 100_000}));
        assert_eq!(seqs(&messages).last().copied().unwrap_or(0), joined["seq"].as_u64().unwrap());
        shown = messages.into_iter().filter(|message| is(message, "chat")).collect();
        joined["seq"].as_u64().unwrap() >= top
    });
    shown
}

pub(crate) fn epoch(joined: &Value) -> String {
    joined["epoch"].as_str().expect("an epoch").to_owned()
}
