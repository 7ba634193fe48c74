//! Output for single connections, until the server collects it.

use std::ops::Range;

use crate::id::ConnectionId;
use crate::protocol::{self, CloseReason, HistoryMessage, ServerMessage};

use super::connection::Connection;

/// Something for one connection, in the order in which it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Whole frames for its own output.
    Frames(ConnectionId, &'a [u8]),
    /// It is to be closed; the hub has forgotten it already.
    Close(ConnectionId, CloseReason),
}

#[derive(Debug)]
enum Entry {
    Frames(ConnectionId, Range<usize>),
    Close(ConnectionId, CloseReason),
}

/// So many bytes should be collected before more are added: a page of history, mostly. They go to a socket, or into a buffer whose
/// memory may be new and then costs a page fault for every 4 KiB, so more of them would take longer than a phase may.
const COLLECT_BYTES: usize = 64 * 1024;

/// Frames lie in one piece of memory that is used again, so that an answer allocates nothing once warm.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// What a burst made the outbox grow to beyond this is given back.
const KEPT_BYTES_MAX: usize = 4 * COLLECT_BYTES;
const KEPT_ENTRIES_MAX: usize = 4096;

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether much waits.
    pub(super) fn is_large(&self) -> bool {
        self.bytes.len() >= COLLECT_BYTES
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn message(&mut self, id: ConnectionId, connection: &mut Connection, message: &ServerMessage<'_>) {
        self.frames(id, connection, |out| message.append_frame(out));
    }

    pub(super) fn chat(&mut self, id: ConnectionId, connection: &mut Connection, body: &[u8], seq: u64) {
        self.frames(id, connection, |out| protocol::append_chat(out, body, seq));
    }

    /// The answer to `history`, with the bodies and numbers of its messages.
    pub(super) fn history<'m>(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        message: &HistoryMessage<'_>,
        bodies: impl Iterator<Item = (&'m [u8], u64)>,
    ) {
        self.frames(id, connection, |out| message.append_frame(out, bodies));
    }

    fn frames(&mut self, id: ConnectionId, connection: &mut Connection, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        connection.add_queued(end - start);
        match self.entries.last_mut() {
            Some(Entry::Frames(last, range)) if *last == id => range.end = end,
            _ => self.entries.push(Entry::Frames(id, start..end)),
        }
    }

    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.entries.push(Entry::Close(id, reason));
    }

    /// Hands everything to `each` and is empty again.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Output<'_>)) {
        for entry in self.entries.drain(..) {
            match entry {
                Entry::Frames(id, range) => each(Output::Frames(id, &self.bytes[range])),
                Entry::Close(id, reason) => each(Output::Close(id, reason)),
            }
        }
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        if self.entries.capacity() > KEPT_ENTRIES_MAX {
            self.entries = Vec::new();
        }
    }
}
