//! The parts that the tests of the chat share: requests, barriers, and a client that checks everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Client, PATIENCE, TEXT, frame};

/// Whether a message is of a type.
pub fn is(message: &Value, kind: &str) -> bool {
    message["type"] == kind
}

/// A chat message with an id.
pub fn chat(room: &str, text: &str, id: &str) -> Value {
    json!({"type": "chat", "room": room, "text": text, "id": id})
}

/// The masked text frame of a message, for several in one write.
pub fn frame_of_json(message: &Value) -> Vec<u8> {
    frame(TEXT, true, message.to_string().as_bytes())
}

/// Sends a text frame as it stands, JSON or not.
pub fn send_text(client: &mut Client, text: &str) {
    client.send(Message::text(text));
}

/// The text of the next frame of a type, byte for byte; others are skipped.
pub fn recv_text(client: &mut Client, kind: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = client.recv_frame(deadline).unwrap_or_else(|| panic!("no {kind} within {PATIENCE:?}"));
        let Message::Text(text) = frame.expect("the connection is open") else { continue };
        let message: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if is(&message, kind) {
            return text.as_str().to_owned();
        }
    }
}

/// Reads all messages that the server owed when this was called. A message that has not arrived then was
/// not sent.
///
/// The first `pong` may overtake messages of the same turn. The second comes at least a turn later.
pub fn settle(client: &mut Client) -> Vec<Value> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut messages = Vec::new();
    for _ in 0..2 {
        let id = format!("settle-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        client.send_json(&json!({"type": "ping", "id": id}));
        messages.extend(client.recv_until(|message| is(message, "pong") && message["id"] == id));
        messages.pop();
    }
    messages
}

/// Sends a join with more than a room in it. Returns the messages before the `joined`, and the `joined`.
pub fn join_with(client: &mut Client, request: &Value) -> (Vec<Value>, Value) {
    let mut join = request.clone();
    join["type"] = json!("join");
    client.send_json(&join);
    let wanted = |message: &Value| is(message, "error") || is(message, "joined") && message["room"] == join["room"];
    let mut messages = client.recv_until(wanted);
    let joined = messages.pop().expect("the one that was waited for");
    assert_eq!(joined["type"], "joined", "{joined}");
    (messages, joined)
}

/// The numbers of the chat messages among `messages`.
pub fn seqs(messages: &[Value]) -> Vec<u64> {
    let chats = messages.iter().filter(|message| is(message, "chat"));
    chats.map(|message| message["seq"].as_u64().expect("a chat has a seq")).collect()
}

/// The texts of the chat messages among `messages`.
pub fn texts(messages: &[Value]) -> Vec<&str> {
    let chats = messages.iter().filter(|message| is(message, "chat"));
    chats.map(|message| message["text"].as_str().expect("a chat has a text")).collect()
}

/// The presence among `messages`: pairs of user and status.
pub fn presences(messages: &[Value]) -> Vec<(&str, &str)> {
    fn word<'a>(message: &'a Value, field: &str) -> &'a str {
        message[field].as_str().unwrap_or_else(|| panic!("no {field} in {message}"))
    }
    let presences = messages.iter().filter(|message| is(message, "presence"));
    presences.map(|message| (word(message, "userId"), word(message, "status"))).collect()
}

/// The user ids of a `joined` or `members`, sorted.
pub fn users(message: &Value) -> Vec<&str> {
    let users = message["users"].as_array().unwrap_or_else(|| panic!("no users in {message}"));
    let mut ids: Vec<_> = users.iter().map(|user| user["userId"].as_str().expect("a userId")).collect();
    ids.sort_unstable();
    ids
}

/// One room as a client that keeps its position sees it. It panics at a repeated message, and at a gap of
/// which the server has not told.
#[derive(Default)]
pub struct View {
    epoch: Option<String>,
    seq: u64,
    hole: Option<(u64, u64)>,
    /// How often messages were lost, and the server said so.
    pub lost: usize,
    /// How often the server said that nothing was lost.
    pub recovered: usize,
    /// How many chat messages were seen.
    pub chats: usize,
}

impl View {
    /// The value of `since`. None before the first `joined`.
    pub fn since(&self) -> Option<Value> {
        self.epoch.as_ref().map(|epoch| json!({"epoch": epoch, "seq": self.seq}))
    }

    /// A join that resumes where this view stands.
    pub fn join(&self, room: &str) -> Value {
        match self.since() {
            Some(since) => json!({"type": "join", "room": room, "since": since}),
            None => json!({"type": "join", "room": room}),
        }
    }

    /// The last number that was seen, or that a `joined` told.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether nothing is missing up to and including `seq`.
    pub fn is_level(&self, seq: u64) -> bool {
        self.seq == seq && self.hole.is_none()
    }

    /// Takes in one message of the room.
    pub fn take(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("chat") => self.take_chat(message["seq"].as_u64().expect("a chat has a seq")),
            Some("joined") => self.take_joined(message),
            _ => {}
        }
    }

    fn take_chat(&mut self, seq: u64) {
        assert!(seq > self.seq, "{seq} after {}", self.seq);
        if seq != self.seq + 1 {
            self.hole.get_or_insert((self.seq, seq));
        }
        self.seq = seq;
        self.chats += 1;
    }

    fn take_joined(&mut self, joined: &Value) {
        let (epoch, seq) = (joined["epoch"].as_str().expect("an epoch"), joined["seq"].as_u64().expect("a seq"));
        match joined["recovered"].as_bool() {
            Some(true) => {
                assert_eq!(self.epoch.as_deref(), Some(epoch), "recovered into another epoch");
                assert_eq!(self.hole, None, "recovered over a hole");
                assert_eq!(self.seq, seq, "recovered, but not up to the seq of {joined}");
                self.recovered += 1;
            }
            Some(false) => self.lost += 1,
            None => assert!(self.epoch.is_none(), "{joined} does not say whether messages were lost"),
        }
        self.hole = None;
        self.seq = seq;
        self.epoch = Some(epoch.to_owned());
    }
}
