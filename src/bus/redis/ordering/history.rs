//! What Redis tells about a room, and what it can be asked.

use crate::bus::redis::connection::run_id::RunId;
use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::FxHasher;

use crate::bus::message::Numbered;
use crate::id::Epoch;

/// A message of the subscription. With an empty body it is only a notice of the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelMessage {
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) body: Bytes,
}

/// Where a room stands.
#[derive(Clone, Debug)]
pub(crate) struct RoomPosition {
    /// The run of Redis that says so.
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    pub(crate) top: u64,
    /// The fingerprint of message `top`, if Redis has it.
    pub(crate) fingerprint: Option<u64>,
}

/// What Redis says about a room: where it stands, and messages that it holds, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct HistorySlice {
    pub(crate) standing: RoomPosition,
    /// Whether somebody has compared the room with what was delivered before this run of Redis.
    pub(crate) is_confirmed: bool,
    /// Whether the messages reach up to `top`.
    pub(crate) complete: bool,
    pub(crate) messages: Vec<Numbered>,
}

/// What the hub is to be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OrderingStep {
    Deliver(Numbered),
    EpochChanged { epoch: Epoch, top: u64 },
}

/// What Redis is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HistoryQuery {
    /// Where the room stands.
    Position,
    /// The messages from this number on, that one included: it shows whether history is still the one that was delivered.
    Since(u64),
    /// That the room begin a new epoch, if this is the present one: history does not continue what was delivered.
    Renew(Epoch),
    /// That the epoch go on in this run: Redis has what was delivered.
    Confirm(Epoch, RunId),
}

/// How much of a message's end is compared. It holds the time at which it was said; scripts cut off as much.
const ENDING_BYTES: usize = 32;

/// What is remembered of a message, or of its end, to recognise it.
pub(crate) fn fingerprint_of(body: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(&body[body.len().saturating_sub(ENDING_BYTES)..]);
    hasher.finish()
}
