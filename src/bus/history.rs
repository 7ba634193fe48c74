//! History in memory: what a room keeps, and what all rooms may keep together.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::{Numbered, ReadFrom};
use crate::id::{RoomName, name_heap_bytes};
use crate::owner::Owner;
use crate::protocol;
use crate::settings::{Config, RoomLimits};
use crate::sharded_map::ShardedMap;
use crate::time::Now;
use crate::weights::Weights;

/// What a kept message costs beside its bytes: its entry, the spare room of the list, and what an allocator adds. A test compares
/// it with the allocator's count.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// The cost of an owner that has messages in a room: the accounts, and its part of the room itself. The heap of the
/// room's name comes besides.
pub(super) const SHARE_OVERHEAD_BYTES: usize = 300;

/// Memory of an owner in a room beside messages, as long as it has any there.
fn share_bytes(name: &RoomName) -> usize {
    SHARE_OVERHEAD_BYTES + name_heap_bytes(name.as_str())
}

/// What the histories of all rooms hold, and may hold.
///
/// **Bounds:** messages of a room by number and age; bytes of all rooms. Beyond these the owner with the most bytes gives way, in
/// the room where it has the most: the room loses its oldest messages up to the oldest of that owner, so that no hole is left.
/// An owner that holds little loses nothing unless it speaks in the same room.
#[derive(Debug)]
pub(crate) struct HistoryPool {
    bytes_max: usize,
    bytes: usize,
    owners: Weights<Owner>,
    /// What each owner has in each room.
    rooms: ShardedMap<Owner, Weights<RoomKey>>,
}

/// The number by which a bus calls a room, for as long as the room has any history.
pub(crate) type RoomKey = u32;

/// What a room may keep. Without a number or an age it keeps nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryBounds {
    messages_max: usize,
    age_millis: u64,
}

impl HistoryBounds {
    pub(crate) fn new(limits: &RoomLimits) -> Self {
        let messages_max = if limits.history_age.is_zero() { 0 } else { limits.history_messages as usize };
        Self { messages_max, age_millis: limits.history_age.as_millis() as u64 }
    }
}

/// The history of a room, and how a pool is to treat it.
#[derive(Debug)]
pub(crate) struct RoomHistory<'a> {
    pub(crate) room: RoomKey,
    /// Its name stays as long as its history.
    pub(crate) name: &'a RoomName,
    pub(crate) bounds: HistoryBounds,
    pub(crate) history: &'a mut History,
}

/// The entry of history under a number that is to be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Erased {
    /// A message, in whose place there is a tombstone now.
    Message,
    /// A tombstone.
    Tombstone,
    /// Nothing any more.
    Nothing,
    /// An announcement, which stays.
    Announcement,
    /// Nothing yet.
    Unused,
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
    owner: Owner,
    body: Bytes,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.body.len() + MESSAGE_OVERHEAD_BYTES
    }
}

impl HistoryPool {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bytes_max: config.memory_shares().history,
            bytes: 0,
            owners: Weights::default(),
            rooms: ShardedMap::default(),
        }
    }

    /// What all histories cost, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers a message of a room, and keeps it if anything is kept.
    pub(crate) fn append(
        &mut self,
        now: Now,
        RoomHistory { room, name, bounds, history }: RoomHistory<'_>,
        owner: Owner,
        body: Bytes,
    ) -> u64 {
        history.top += 1;
        if bounds.messages_max > 0 {
            let kept = Kept { at_millis: now.millis(), owner, body };
            self.charge(owner, (room, name), kept.bytes());
            history.messages.push_back(kept);
        }
        history.top
    }

    /// Puts a tombstone in place of a message. Nothing of the message stays. Its owner is charged for the tombstone.
    pub(crate) fn erase(
        &mut self,
        RoomHistory { room, name, history, .. }: RoomHistory<'_>,
        seq: u64,
        tombstone: &Bytes,
    ) -> Erased {
        let first_seq = history.first_seq();
        if seq == 0 || seq > history.top {
            return Erased::Unused;
        }
        let at = seq.checked_sub(first_seq);
        let Some(kept) = at.and_then(|at| history.messages.get_mut(at as usize)) else { return Erased::Nothing };
        if kept.body == tombstone {
            return Erased::Tombstone;
        }
        if protocol::is_deletion(&kept.body) {
            return Erased::Announcement;
        }
        let before = kept.bytes();
        kept.body = tombstone.clone();
        let (owner, bytes) = (kept.owner, kept.bytes());
        self.charge(owner, (room, name), bytes);
        self.release(owner, (room, name), before);
        Erased::Message
    }

    /// Drops the messages of a room that are too many or too old. Says how many that were.
    pub(crate) fn trim(&mut self, now: Now, RoomHistory { room, name, bounds, history }: RoomHistory<'_>) -> usize {
        let before = history.messages.len();
        let oldest = now.millis().saturating_sub(bounds.age_millis);
        let is_old = |kept: &Kept| kept.at_millis < oldest;
        while history.messages.len() > bounds.messages_max || history.messages.front().is_some_and(is_old) {
            self.drop_oldest((room, name), history);
        }
        before - history.messages.len()
    }

    /// While there are too many bytes: the owner that gives way, and the room in which it does, by
    /// [`drop_oldest_of`](Self::drop_oldest_of).
    pub(crate) fn next_surplus(&self) -> Option<(Owner, RoomKey)> {
        let owner = self.owners.heaviest().filter(|_| self.bytes > self.bytes_max)?;
        Some((owner, self.rooms.get(&owner)?.heaviest()?))
    }

    /// Drops the oldest messages of a room up to the oldest one of an owner. Says whether there was any.
    pub(crate) fn drop_oldest_of(&mut self, owner: Owner, room: (RoomKey, &RoomName), history: &mut History) -> bool {
        while let Some(dropped) = self.drop_oldest(room, history) {
            if dropped == owner {
                return true;
            }
        }
        false
    }

    fn drop_oldest(&mut self, room: (RoomKey, &RoomName), history: &mut History) -> Option<Owner> {
        let kept = history.messages.pop_front()?;
        self.release(kept.owner, room, kept.bytes());
        Some(kept.owner)
    }

    fn charge(&mut self, owner: Owner, (room, name): (RoomKey, &RoomName), bytes: usize) {
        let rooms = self.rooms.get_or_default(owner);
        let bytes = if rooms.get(room) == 0 { bytes + share_bytes(name) } else { bytes };
        rooms.add(room, bytes);
        self.owners.add(owner, bytes);
        self.bytes += bytes;
    }

    fn release(&mut self, owner: Owner, (room, name): (RoomKey, &RoomName), bytes: usize) {
        let Some(rooms) = self.rooms.get_mut(&owner) else { return };
        let whole_share = bytes + share_bytes(name);
        let bytes = if rooms.get(room) == whole_share { whole_share } else { bytes };
        rooms.take(room, bytes);
        if rooms.is_empty() {
            self.rooms.remove(&owner);
        }
        self.owners.take(owner, bytes);
        self.bytes -= bytes;
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

    /// Consecutive messages, oldest first, and whether nothing is held beyond them in the direction of the read. The bodies add up
    /// to `bytes_max` at most, but for a first message that is larger; with 0 no messages are wanted.
    pub(crate) fn page(&self, from: ReadFrom, bytes_max: usize) -> (Vec<Numbered>, bool) {
        let after = match from {
            ReadFrom::After(seq) => seq,
            ReadFrom::Newest(count) => self.top.saturating_sub(count.into()),
            ReadFrom::Before { seq, count } => return self.page_before(seq, count, bytes_max),
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
    fn page_before(&self, seq: Option<u64>, count: u32, bytes_max: usize) -> (Vec<Numbered>, bool) {
        let (first, next) = (self.first_seq(), self.top + 1);
        let end = seq.unwrap_or(next).clamp(first, next);
        let older = self.messages.range(..(end - first) as usize);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for (seq, kept) in (first..end).rev().zip(older.rev()).take(count as usize) {
            bytes += kept.body.len();
            if bytes_max == 0 || (bytes > bytes_max && !messages.is_empty()) {
                break;
            }
            messages.push(Numbered { seq, body: kept.body.clone() });
        }
        messages.reverse();
        let reached = messages.first().map_or(end, |oldest| oldest.seq);
        (messages, reached == first || bytes_max == 0)
    }
}
