//! What Redis tells about a room, and the queries for it.

use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::FxHasher;

use crate::bus::message::{Numbered, Page, ReadFrom, tombstone};
use crate::bus::redis::connection::RunId;
use crate::id::{Epoch, RoomName};

/// A message of the subscription. Without a body it only announces the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelMessage {
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct RoomPosition {
    /// The run of Redis that reports it.
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    pub(crate) top: u64,
    /// The fingerprint of message `top`, if Redis has it.
    pub(crate) fingerprint: Option<u64>,
}

/// The position of a room, and messages that Redis holds, oldest first. A deleted one has an empty body.
#[derive(Clone, Debug)]
pub(crate) struct HistorySlice {
    pub(crate) position: RoomPosition,
    /// Whether a node has compared the room with what it delivered before this run of Redis.
    pub(crate) is_confirmed: bool,
    /// Whether the messages reach up to `top`; if they were read backwards, whether no older one is kept.
    pub(crate) complete: bool,
    pub(crate) messages: Vec<Numbered>,
}

impl HistorySlice {
    /// The page of a read, with tombstones. Messages that were read forwards are limited to `bytes_max` here, but for the first.
    pub(crate) fn into_page(self, room: &RoomName, from: ReadFrom, bytes_max: usize) -> Page {
        let Self { position: RoomPosition { epoch, top, .. }, mut complete, mut messages, .. } = self;
        if messages.iter().any(|message| message.body.is_empty()) {
            let tombstone = tombstone(room);
            let deleted = messages.iter_mut().filter(|message| message.body.is_empty());
            deleted.for_each(|message| message.body = tombstone.clone());
        }
        if !from.is_backwards() {
            let mut bytes = 0;
            let fits = messages.iter().take_while(|message| {
                bytes += message.body.len();
                bytes <= bytes_max
            });
            let count_max = fits.count().max(usize::from(bytes_max > 0));
            if count_max < messages.len() {
                messages.truncate(count_max);
                complete = false;
            }
        }
        Page { epoch, top, messages, complete }
    }
}

/// The messages that the hub is told, in this order. A deleted message has an empty body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OrderingStep {
    Deliver(Numbered),
    EpochChanged { epoch: Epoch, top: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HistoryQuery {
    Position,
    /// The messages from this number on. The first of them shows whether history is still the one
    /// that was delivered.
    Since(u64),
    /// Begin a new epoch if this is the present one, because history does not continue what was
    /// delivered.
    Renew(Epoch),
    /// Let the epoch go on in this run, because Redis has what was delivered.
    Confirm(Epoch, RunId),
}

/// Bytes at the end of a message that are compared. They contain the time of the message. The
/// scripts use the same number.
const ENDING_BYTES: usize = 32;

/// Identifies a message, given all of it or its end.
pub(crate) fn fingerprint_of(body: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(&body[body.len().saturating_sub(ENDING_BYTES)..]);
    hasher.finish()
}
