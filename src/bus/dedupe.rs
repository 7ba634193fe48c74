//! Remembered ids: a message that is sent again is recognised by its sender's id for it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use super::message::BusRefusal;
use crate::id::UserId;
use crate::owner::Owner;
use crate::quota::Quota;
use crate::settings::Config;
use crate::sharded_map::ShardedTable;
use crate::time::Now;

/// The cost of a remembered id, however long it is: its entry in the order and in the table, with the spare room of both. A test
/// compares these numbers with the allocator's count.
const ID_BYTES: usize = 54;

/// The further cost of the first id of a room: the lists, which are short.
const ROOM_BYTES: usize = 136;

/// The further cost of the first id of an owner: its entries in the tables of owners.
const OWNER_BYTES: usize = 56;

/// How many ids of a room are forgotten at once. The window of a crowd's ids is over at one time.
pub(crate) const TRIMMED_MAX: usize = 64;

/// Stands for a user and its id for a message, which may have 192 bytes together.
///
/// It is a hash of 128 bits, by keys of this process. Nobody can aim at another one's, and two of a billion messages have the same one
/// with a probability of about 10^-21.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageId {
    first: u64,
    second: u64,
}

/// What all rooms remember, and may remember.
///
/// **Bounds:** ids of all rooms together, and what they cost; of both each owner has a [quota](Quota). Beyond these a message with a
/// new id is refused; an id within its window is never forgotten.
#[derive(Debug)]
pub(crate) struct DedupePool {
    ids: Quota,
    bytes: Quota,
    window_millis: u64,
    keys: [RandomState; 2],
}

/// The ids of one room: those of messages in its history, and those within the dedupe window.
#[derive(Debug, Default)]
pub(crate) struct RememberedIds(Option<Box<Ids>>);

#[derive(Debug)]
struct Ids {
    /// The owner that the lists are charged to, and the room if it is kept for them alone.
    owner: Owner,
    room_bytes: usize,
    /// Finds ids in the order, by the numbers under which they came. These are counted modulo 2^32.
    numbers: ShardedTable<u32>,
    /// Oldest first.
    order: VecDeque<Remembered>,
    /// The number of the oldest.
    first: u32,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    at_millis: u64,
    seq: u64,
    owner: Owner,
    id: MessageId,
}

impl DedupePool {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            ids: Quota::new(config.history.dedupe_ids_max),
            bytes: Quota::new(config.memory_shares().dedupe),
            window_millis: config.history.dedupe_window.as_millis() as u64,
            keys: [RandomState::new(), RandomState::new()],
        }
    }

    /// What all remembered ids cost, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.held()
    }

    /// A user's id for a message.
    pub(crate) fn message_id(&self, user: &UserId, id: &str) -> MessageId {
        let [first, second] = self.keys.each_ref().map(|key| key.hash_one((user.as_str(), id)));
        MessageId { first, second }
    }

    /// Sees to it that one more id of an owner may be remembered in a room. Ids of the room that are remembered only because their
    /// messages are in history make way.
    ///
    /// # Errors
    /// As many are remembered as may be.
    pub(crate) fn make_space(&mut self, now: Now, room: &mut RememberedIds, owner: Owner) -> Result<(), BusRefusal> {
        if !self.has_space(room, owner) {
            self.trim(now, room, u64::MAX);
        }
        if self.has_space(room, owner) {
            return Ok(());
        }
        Err(BusRefusal::busy("too many message ids are remembered; try again later"))
    }

    fn has_space(&self, room: &RememberedIds, owner: Owner) -> bool {
        let room_bytes = if room.is_empty() { ROOM_BYTES } else { 0 };
        let owner_bytes = if self.bytes.held_by(owner) == 0 { OWNER_BYTES } else { 0 };
        self.ids.has_space(owner, 1) && self.bytes.has_space(owner, ID_BYTES + room_bytes + owner_bytes)
    }

    /// Remembers a new id, of a message that has got its number. There is [space](Self::make_space).
    pub(crate) fn remember(&mut self, now: Now, room: &mut RememberedIds, owner: Owner, (id, seq): (MessageId, u64)) {
        if room.is_empty() {
            self.charge(owner, ROOM_BYTES);
        }
        self.charge(owner, ID_BYTES);
        self.ids.charge(owner, 1);
        let ids = room.0.get_or_insert_with(|| Box::new(Ids::new(owner)));
        ids.push(Remembered { at_millis: now.millis(), seq, owner, id });
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
            && let Some(forgotten) = ids.pop()
        {
            trimmed += 1;
            self.release(forgotten.owner, ID_BYTES);
            self.ids.release(forgotten.owner, 1);
        }
        if ids.order.is_empty() {
            let (owner, bytes) = (ids.owner, ROOM_BYTES + ids.room_bytes);
            room.0 = None;
            self.release(owner, bytes);
        }
        trimmed
    }

    /// A room is kept for its ids alone, and takes so many bytes beside them: 0 if it is kept for something else as well. Its owner is
    /// charged for it, whether there is space or not.
    pub(crate) fn set_room_bytes(&mut self, room: &mut RememberedIds, bytes: usize) {
        let Some(ids) = room.0.as_mut().filter(|ids| ids.room_bytes != bytes) else { return };
        let before = std::mem::replace(&mut ids.room_bytes, bytes);
        let owner = ids.owner;
        self.charge(owner, bytes);
        self.release(owner, before);
    }

    fn charge(&mut self, owner: Owner, bytes: usize) {
        let owner_bytes = if self.bytes.held_by(owner) == 0 { OWNER_BYTES } else { 0 };
        self.bytes.charge(owner, bytes + owner_bytes);
    }

    fn release(&mut self, owner: Owner, bytes: usize) {
        let is_last = self.bytes.held_by(owner) == bytes + OWNER_BYTES;
        self.bytes.release(owner, if is_last { bytes + OWNER_BYTES } else { bytes });
    }
}

impl RememberedIds {
    /// The number that the message with this id has got.
    pub(crate) fn find(&self, id: MessageId) -> Option<u64> {
        self.0.as_ref()?.find(id)
    }

    /// Whether no id is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Ids {
    fn new(owner: Owner) -> Self {
        Self { owner, room_bytes: 0, numbers: ShardedTable::default(), order: VecDeque::new(), first: 0 }
    }

    fn find(&self, id: MessageId) -> Option<u64> {
        let at = |number: u32| number.wrapping_sub(self.first) as usize;
        let number = self.numbers.find(id.first, |number| self.order[at(*number)].id == id)?;
        Some(self.order[at(*number)].seq)
    }

    fn push(&mut self, remembered: Remembered) {
        let Self { numbers, order, first, .. } = self;
        if order.len() == order.capacity() {
            // Not twice as many: half of that would be spare.
            order.reserve_exact(1 + order.len() / 8);
        }
        let number = first.wrapping_add(order.len() as u32);
        order.push_back(remembered);
        numbers.insert(remembered.id.first, number, |number| order[number.wrapping_sub(*first) as usize].id.first);
    }

    /// Takes out the oldest one, and gives back memory if much less is left than there was.
    fn pop(&mut self) -> Option<Remembered> {
        let Self { numbers, order, first, .. } = self;
        let oldest = order.pop_front()?;
        numbers.remove(oldest.id.first, |number| number == first);
        *first = first.wrapping_add(1);
        numbers.shrink(oldest.id.first, |number| order[number.wrapping_sub(*first) as usize].id.first);
        if order.capacity() > order.len() + order.len() / 2 + 8 {
            order.shrink_to(order.len() + order.len() / 8);
        }
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Now {
        Now { uptime: Duration::from_secs(seconds), unix_ms: 0 }
    }

    fn remember(pool: &mut DedupePool, room: &mut RememberedIds, seq: u64) {
        let id = pool.message_id(&UserId::new("ann").unwrap(), &seq.to_string());
        pool.make_space(at(seq), room, Owner::HOST).unwrap();
        assert_eq!(room.find(id), None);
        pool.remember(at(seq), room, Owner::HOST, (id, seq));
    }

    #[test]
    fn ids_of_different_users_are_different_however_they_are_split() {
        let pool = DedupePool::new(&Config::default());
        let id = |user: &str, id: &str| pool.message_id(&UserId::new(user).unwrap(), id);
        assert_eq!(id("ann", "1"), id("ann", "1"));
        assert!(
            id("ann", "1") != id("ann1", "") && id("a", "nn1") != id("ann", "1") && id("ann", "1") != id("ann", "2")
        );
        assert_ne!(id("ann", "1"), DedupePool::new(&Config::default()).message_id(&UserId::new("ann").unwrap(), "1"));
    }

    #[test]
    fn ids_are_found_as_long_as_they_are_remembered_also_when_their_numbers_wrap() {
        let mut pool = DedupePool::new(&Config::default());
        let mut room = RememberedIds::default();
        let mut ids = Box::new(Ids::new(Owner::HOST));
        ids.first = u32::MAX - 1500;
        pool.bytes.charge(Owner::HOST, ROOM_BYTES + OWNER_BYTES);
        room.0 = Some(ids);
        let window = pool.window_millis / 1000;
        for seq in 1..6000 {
            remember(&mut pool, &mut room, seq);
            pool.trim(at(seq), &mut room, u64::MAX);
            let user = UserId::new("ann").unwrap();
            let found = |seq: u64| room.find(pool.message_id(&user, &seq.to_string()));
            assert_eq!(found(seq), Some(seq));
            assert_eq!(found(1), (seq <= window + 1).then_some(1), "{seq}");
        }
        assert_eq!(room.0.as_ref().unwrap().order.len() as u64, window + 1);
        while pool.trim(at(10_000), &mut room, u64::MAX) > 0 {}
        assert!(room.is_empty());
        assert_eq!((pool.bytes(), pool.ids.held()), (0, 0));
    }

    #[test]
    fn a_room_that_remembered_a_crowd_gives_the_memory_back() {
        const CROWD: u64 = 500_000;
        let mut config = Config::default();
        config.memory.total = 1 << 30;
        config.history.dedupe_window = Duration::from_secs(10);
        let mut pool = DedupePool::new(&config);
        let mut room = RememberedIds::default();
        (1..=CROWD).for_each(|seq| remember(&mut pool, &mut room, seq));
        while pool.trim(at(CROWD), &mut room, CROWD - 2) > 0 {}
        let ids = room.0.as_ref().unwrap();
        let (order, numbers) = (ids.order.capacity(), ids.numbers.capacity());
        assert_eq!(ids.order.len(), 11);
        assert!(order < 40 && numbers < 100, "space for {order} in the order, and {numbers} in the table");
        assert_eq!(ids.numbers.shards(), 1);
        assert_eq!(pool.bytes(), 11 * ID_BYTES + ROOM_BYTES + OWNER_BYTES);
    }
}
