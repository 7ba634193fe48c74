//! What is known of a room when a query is sent, and how it compares with the answer.

use super::history::{HistoryQuery, HistorySlice, RoomPosition, fingerprint_of};
use crate::bus::message::Numbered;
use crate::bus::redis::connection::RunId;
use crate::id::Epoch;

#[derive(Debug)]
pub(super) struct Position {
    /// The run of Redis in which all delivered messages are known to exist.
    pub(super) run_id: RunId,
    pub(super) epoch: Epoch,
    pub(super) delivered: u64,
    /// The fingerprint of the message `delivered`, if it is known.
    pub(super) fingerprint: Option<u64>,
    /// Messages up to this number exist in the epoch, but were not delivered here.
    pub(super) skipped: u64,
}

/// A query that is not answered, and what was known when it was sent.
#[derive(Debug)]
pub(super) struct PendingQuery {
    pub(super) kind: HistoryQuery,
    pub(super) epoch: Epoch,
    pub(super) delivered: u64,
    pub(super) fingerprint: Option<u64>,
    /// How many foreign messages had arrived. The answer shows what they are.
    pub(super) foreign_epoch_messages: usize,
}

/// What an answer shows about the message that was the last one when the query was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Differs,
    /// Its fingerprint is unknown here, or history no longer holds it, or it was deleted.
    Unknown,
}

pub(super) fn compare(query: &PendingQuery, slice: &HistorySlice) -> Comparison {
    let RoomPosition { top, fingerprint, .. } = slice.position;
    if query.delivered == 0 {
        return Comparison::Equal;
    }
    // A deleted message has no fingerprint any more.
    let is_it = |first: &&Numbered| first.seq == query.delivered && !first.body.is_empty();
    let entry = slice.messages.first().filter(is_it);
    let found = entry.map(|first| fingerprint_of(&first.body)).or(fingerprint.filter(|_| top == query.delivered));
    match query.fingerprint.zip(found) {
        Some((known, found)) if known == found => Comparison::Equal,
        Some(_) => Comparison::Differs,
        None => Comparison::Unknown,
    }
}
