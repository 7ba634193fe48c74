//! The present users, as clients on several nodes are told.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::harness::redis::LONG;
use crate::support::chat::{presences, settle, users};
use crate::support::{Client, Server};

pub(crate) fn join(server: &Server, user: &str, room: &str) -> Client {
    let mut client = Client::connect_as(server, user);
    client.join(room);
    client
}

/// The users of the room, as they are told to a stranger that joins and leaves again.
pub(crate) fn seen_by_newcomer(server: &Server, room: &str) -> BTreeSet<String> {
    let joined = Client::connect_as(server, "newcomer").join(room);
    let mut seen: BTreeSet<String> = users(&joined).into_iter().map(str::to_owned).collect();
    assert_eq!(joined["count"], seen.len(), "{joined}");
    seen.remove("newcomer");
    seen
}

/// All messages up to and including that a user came or went, however long it takes.
pub(crate) fn until(client: &mut Client, user: &str, status: &str) -> Vec<Value> {
    let deadline = Instant::now() + LONG;
    let mut messages = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(message) = client.try_recv(left) else {
            panic!("{user} was not told to be {status} within {LONG:?}; but {messages:?}");
        };
        messages.push(message);
        if presences(&messages[messages.len() - 1..]) == [(user, status)] {
            return messages;
        }
    }
}

/// Ann on one node and Bob on another, who have been told of each other.
pub(crate) fn pair(one: &Server, other: &Server) -> [Client; 2] {
    let (mut ann, mut bob) = (join(one, "ann", "lobby"), Client::connect_as(other, "bob"));
    // Nobody waits with a `joined` until the other nodes have heard of it.
    if !users(&bob.join("lobby")).contains(&"ann") {
        until(&mut bob, "ann", "online");
    }
    until(&mut ann, "bob", "online");
    settle(&mut ann);
    settle(&mut bob);
    [ann, bob]
}

pub(crate) fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}
