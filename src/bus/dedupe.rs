//! Remembered ids: a message that is sent again is recognised by its sender's id for it.

use std::collections::VecDeque;
use std::hash::RandomState;

use super::message::BusRefusal;
use crate::id::UserId;
use crate::owner::Owner;
use crate::quota::Quota;
use crate::settings::Config;
use crate::sharded_map::ShardedMap;
use crate::time::Now;

/// What a remembered id costs, with a user and an id of medium length, and with the spare room of tables. A test compares it with the
/// allocator's count.
const ID_BYTES: usize = 240;

/// How many ids of a room are forgotten at once. The window of a crowd's ids is over at one time.
pub(crate) const TRIMMED_MAX: usize = 64;

/// A user, and its id for a message.
pub(crate) type MessageId = (UserId, Box<str>);

/// What all rooms remember, and may remember.
///
/// **Bounds:** ids of all rooms together, and for each owner as many as are still free. Beyond these a message with a new id is
/// refused; an id within its window is never forgotten.
#[derive(Debug)]
pub(crate) struct DedupePool {
    ids: Quota,
    window_millis: u64,
}

/// The ids of one room: those of messages in its history, and those within the dedupe window.
#[derive(Debug, Default)]
pub(crate) struct RememberedIds(Option<Box<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    seqs: ShardedMap<MessageId, u64, RandomState>,
    /// Oldest first.
    order: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    at_millis: u64,
    seq: u64,
    owner: Owner,
    id: MessageId,
}

impl DedupePool {
    pub(crate) fn new(config: &Config) -> Self {
        let ids_max = config.history.dedupe_ids_max.min(config.memory_shares().dedupe / ID_BYTES);
        Self { ids: Quota::new(ids_max), window_millis: config.history.dedupe_window.as_millis() as u64 }
    }

    /// What all remembered ids cost, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.ids.held() * ID_BYTES
    }

    /// Sees to it that one more id of an owner may be remembered in a room. Ids of the room that are remembered only because their
    /// messages are in history make way.
    ///
    /// # Errors
    /// As many are remembered as may be.
    pub(crate) fn make_space(&mut self, now: Now, room: &mut RememberedIds, owner: Owner) -> Result<(), BusRefusal> {
        if !self.ids.has_space(owner, 1) {
            self.trim(now, room, u64::MAX);
        }
        if self.ids.has_space(owner, 1) {
            return Ok(());
        }
        Err(BusRefusal::busy("too many message ids are remembered; try again later"))
    }

    /// Remembers the id of a message that has got its number. There is [space](Self::make_space).
    pub(crate) fn remember(&mut self, now: Now, room: &mut RememberedIds, owner: Owner, (id, seq): (MessageId, u64)) {
        let Ids { seqs, order } = &mut **room.0.get_or_insert_default();
        if seqs.insert(id.clone(), seq).is_none() {
            self.ids.charge(owner, 1);
            order.push_back(Remembered { at_millis: now.millis(), seq, owner, id });
        }
    }

    /// Forgets some of the ids whose window is over, and whose messages are older than `first_seq`, the oldest in history. Says how
    /// many; [`TRIMMED_MAX`] if there may be more.
    pub(crate) fn trim(&mut self, now: Now, room: &mut RememberedIds, first_seq: u64) -> usize {
        let Some(ids) = &mut room.0 else { return 0 };
        let lapsed = now.millis().saturating_sub(self.window_millis);
        let is_over = |id: &Remembered| id.at_millis < lapsed && id.seq < first_seq;
        let mut trimmed = 0;
        while trimmed < TRIMMED_MAX
            && ids.order.front().is_some_and(is_over)
            && let Some(forgotten) = ids.order.pop_front()
        {
            trimmed += 1;
            ids.seqs.remove(&forgotten.id);
            self.ids.release(forgotten.owner, 1);
        }
        if ids.order.is_empty() {
            room.0 = None;
        } else if ids.order.capacity() > 8 * ids.order.len() + 64 {
            ids.order.shrink_to(2 * ids.order.len());
        }
        trimmed
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
