//! What an attack is: how its connections begin, what each sends next, and how it reads.

use std::time::Duration;

use bytes::Bytes;

use crate::wire;

/// One way to harm others. All its connections share it.
pub(super) trait Attack: Send {
    /// What a connection sends first, in place of the request for an upgrade.
    fn raw_hello(&self) -> Option<Bytes> {
        None
    }

    fn reads(&self) -> Reads {
        Reads::All
    }

    /// The least time between two moves of a connection. The rate limit of the server allows 50 messages a second.
    fn interval(&self) -> Duration;

    /// How long a seat stays empty after its connection has ended.
    fn absence(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// The next move of a connection, whose last one has left.
    fn next(&mut self, seat: Seat) -> Move;
}

/// One of the hostile connections; a seat takes another connection when one has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) nth: u32,
    /// How many moves its connection has made.
    pub(super) moves: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Move {
    Send(Bytes),
    Wait,
    /// Reset the connection.
    HangUp,
}

/// How the connections of an attack read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    /// Nothing after the handshake.
    Nothing,
    /// So many bytes at each move.
    Trickle(usize),
}

/// The server's bound of a message is 16 KiB.
pub(super) const LARGE_TEXT_BYTES: usize = 15_000;

pub(super) fn join(room: &str) -> Vec<u8> {
    wire::text(&format!(r#"{{"type":"join","room":"{room}"}}"#))
}

/// Joins a room and asks for a page of its history.
pub(super) fn join_with_history(room: &str) -> Vec<u8> {
    wire::text(&format!(r#"{{"type":"join","room":"{room}","history":50}}"#))
}

/// Joins a room, and asks for what came after a position.
pub(super) fn resume(room: &str, epoch: &str, seq: u64) -> Vec<u8> {
    let since = format!(r#"{{"epoch":"{epoch}","seq":{seq}}}"#);
    wire::text(&format!(r#"{{"type":"join","room":"{room}","since":{since},"history":50}}"#))
}

pub(super) fn leave(room: &str) -> Vec<u8> {
    wire::text(&format!(r#"{{"type":"leave","room":"{room}"}}"#))
}

pub(super) fn chat(room: &str, text: &str) -> Vec<u8> {
    wire::text(&format!(r#"{{"type":"chat","room":"{room}","text":"{text}"}}"#))
}

pub(super) fn chat_with_id(room: &str, text: &str, id: &str) -> Vec<u8> {
    wire::text(&format!(r#"{{"type":"chat","room":"{room}","text":"{text}","id":"{id}"}}"#))
}
