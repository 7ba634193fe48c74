//! Remembered ids: a message that is sent again is recognised by its sender's id for it.

use std::collections::{HashMap, VecDeque};

use super::message::BusRefusal;
use crate::id::UserId;
use crate::settings::HistoryLimits;
use crate::time::Now;

/// A user, and its id for a message.
pub(crate) type MessageId = (UserId, Box<str>);

/// What all rooms remember, and may remember.
///
/// **Bounds:** ids of all rooms together; beyond these a message with a new id is refused.
#[derive(Debug)]
pub(crate) struct DedupePool {
    ids: usize,
    ids_max: usize,
    window_millis: u64,
}

/// The ids of one room: those of messages in its history, and those within the dedupe window.
#[derive(Debug, Default)]
pub(crate) struct RememberedIds(Option<Box<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    seqs: HashMap<MessageId, u64>,
    /// Oldest first.
    order: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    at_millis: u64,
    seq: u64,
    id: MessageId,
}

impl DedupePool {
    pub(crate) fn new(limits: &HistoryLimits) -> Self {
        let window_millis = limits.dedupe_window.as_millis() as u64;
        Self { ids: 0, ids_max: limits.dedupe_ids_max, window_millis }
    }

    /// Whether one more id may be remembered.
    ///
    /// # Errors
    /// As many are remembered as may be.
    pub(crate) fn check_space(&self) -> Result<(), BusRefusal> {
        if self.ids < self.ids_max {
            return Ok(());
        }
        Err(BusRefusal::storage_full("too many message ids are remembered; try again later"))
    }

    /// Remembers the id of a message that has got its number.
    pub(crate) fn remember(&mut self, now: Now, room: &mut RememberedIds, id: MessageId, seq: u64) {
        let Ids { seqs, order } = &mut **room.0.get_or_insert_default();
        if seqs.insert(id.clone(), seq).is_none() {
            self.ids += 1;
            order.push_back(Remembered { at_millis: now.millis(), seq, id });
        }
    }

    /// Forgets the ids whose window is over, and whose messages are older than `first_seq`, the oldest in history.
    pub(crate) fn trim(&mut self, now: Now, room: &mut RememberedIds, first_seq: u64) {
        let Some(ids) = &mut room.0 else { return };
        let lapsed = now.millis().saturating_sub(self.window_millis);
        let is_over = |id: &Remembered| id.at_millis < lapsed && id.seq < first_seq;
        while ids.order.front().is_some_and(is_over)
            && let Some(forgotten) = ids.order.pop_front()
        {
            ids.seqs.remove(&forgotten.id);
            self.ids -= 1;
        }
        if ids.order.is_empty() {
            room.0 = None;
        }
    }
}

impl RememberedIds {
    /// The number that the message with this id has got.
    pub(crate) fn find(&self, id: &MessageId) -> Option<u64> {
        self.0.as_ref()?.seqs.get(id).copied()
    }

    /// Whether no id is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
