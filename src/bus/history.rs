//! History in memory: what a room keeps, and what all rooms may keep together.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::{Numbered, ReadFrom};
use crate::id::RoomName;
use crate::settings::HistoryLimits;
use crate::time::Now;

/// What a kept message costs beside its bytes, roughly; counted so that many small ones cannot outgrow the bound.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// What the histories of all rooms hold, and may hold.
///
/// **Bounds:** messages of a room by number and age; bytes of all rooms. Beyond these the oldest messages of all go first.
#[derive(Debug)]
pub(crate) struct HistoryPool {
    messages_max: usize,
    bytes_max: usize,
    age_millis: u64,
    /// All kept messages, oldest first; names of ones that are gone already are passed over.
    order: VecDeque<(RoomName, u64)>,
    messages: usize,
    bytes: usize,
}

/// The messages of one room, numbered without a gap. The newest ones are kept.
#[derive(Debug, Default)]
pub(crate) struct History {
    top: u64,
    messages: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    at_millis: u64,
    body: Bytes,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.body.len() + MESSAGE_OVERHEAD_BYTES
    }
}

impl HistoryPool {
    pub(crate) fn new(limits: &HistoryLimits) -> Self {
        Self {
            messages_max: limits.messages_max as usize,
            bytes_max: limits.bytes_max,
            age_millis: limits.age_max.as_millis() as u64,
            order: VecDeque::new(),
            messages: 0,
            bytes: 0,
        }
    }

    /// Numbers a message of a room, and keeps it if anything is kept.
    pub(crate) fn append(&mut self, now: Now, room: &RoomName, history: &mut History, body: Bytes) -> u64 {
        history.top += 1;
        if self.messages_max > 0 && self.age_millis > 0 {
            let kept = Kept { at_millis: now.millis(), body };
            self.bytes += kept.bytes();
            self.messages += 1;
            history.messages.push_back(kept);
            self.order.push_back((room.clone(), history.top));
        }
        history.top
    }

    /// Drops the messages of a room that are too many or too old.
    pub(crate) fn trim(&mut self, now: Now, history: &mut History) {
        let oldest = now.millis().saturating_sub(self.age_millis);
        let is_old = |kept: &Kept| kept.at_millis < oldest;
        while history.messages.len() > self.messages_max || history.messages.front().is_some_and(is_old) {
            self.drop_oldest(history);
        }
    }

    fn drop_oldest(&mut self, history: &mut History) {
        if let Some(kept) = history.messages.pop_front() {
            self.bytes -= kept.bytes();
            self.messages -= 1;
        }
    }

    /// While there are too many bytes: the oldest message of all, which is to be [dropped](Self::drop_if_oldest).
    pub(crate) fn next_surplus(&mut self) -> Option<(RoomName, u64)> {
        if self.bytes > self.bytes_max { self.order.pop_front() } else { None }
    }

    /// Drops a message, unless the room has dropped it already.
    pub(crate) fn drop_if_oldest(&mut self, history: &mut History, seq: u64) {
        if history.first_seq() == seq {
            self.drop_oldest(history);
        }
    }

    /// Forgets the order of messages that are gone, once these are about as many as the others. Rooms drop messages by number
    /// and age on their own. `first_seq` gives the oldest that a room holds, if there is such a room.
    pub(crate) fn sweep(&mut self, first_seq: impl Fn(&RoomName) -> Option<u64>) {
        if self.order.len() > 2 * self.messages + 1024 {
            self.order.retain(|(room, seq)| first_seq(room).is_some_and(|first| first <= *seq));
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.messages, self.order.len())
    }
}

impl History {
    /// The number of the newest message, 0 if there was none.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// The number of the oldest message held, or of the next one if none is.
    pub(crate) fn first_seq(&self) -> u64 {
        self.top + 1 - self.messages.len() as u64
    }

    /// Whether no message is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Gives back memory that is not needed any more.
    pub(crate) fn give_back(&mut self) {
        if self.messages.capacity() > 4 * self.messages.len() {
            self.messages.shrink_to(2 * self.messages.len());
        }
    }

    /// Consecutive messages, oldest first, and whether they reach up to the newest one. The bodies add up to `bytes_max` at
    /// most, but for a first message that is larger; with 0 no messages are wanted.
    pub(crate) fn page(&self, from: ReadFrom, bytes_max: usize) -> (Vec<Numbered>, bool) {
        let after = match from {
            ReadFrom::After(seq) => seq,
            ReadFrom::Newest(count) => self.top.saturating_sub(count.into()),
        };
        let skipped = after.saturating_add(1).saturating_sub(self.first_seq()) as usize;
        let mut messages = Vec::new();
        let mut bytes = 0;
        for (seq, kept) in (self.first_seq()..).zip(&self.messages).skip(skipped) {
            bytes += kept.body.len();
            if bytes_max == 0 || (bytes > bytes_max && !messages.is_empty()) {
                return (messages, bytes_max == 0);
            }
            messages.push(Numbered { seq, body: kept.body.clone() });
        }
        (messages, true)
    }
}
