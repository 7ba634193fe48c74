//! Whose frames have come into the logs since these are short of space.

use smallvec::SmallVec;

use crate::owner::Owner;
use crate::quota::Quota;
use crate::sharded_map::ShardedMap;

use super::index::RoomIndex;

/// The last quarter of the space for logs, of which each owner has a [quota](Quota). So owners that say more than can be sent
/// leave space for those that say little.
///
/// Bytes that are promised or appended while less than a quarter is left are charged to their owner until the log of the room is empty
/// and nothing is promised there. At other times nothing is charged, and nothing is looked for.
///
/// **Bound:** half of the quarter, since the memory of a log may be twice as large as its frames.
#[derive(Debug)]
pub(super) struct LogQuota {
    quota: Quota,
    /// The rooms with frames that are charged, and the owners of these.
    rooms: ShardedMap<RoomIndex, SmallVec<[(Owner, u32); 1]>>,
}

impl LogQuota {
    /// The quota for logs that may take so much memory.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { quota: Quota::new(bytes_max / 8), rooms: ShardedMap::default() }
    }

    /// Whether an owner may say so much more.
    pub(super) fn has_space(&self, owner: Owner, bytes: usize) -> bool {
        self.quota.has_space(owner, bytes)
    }

    /// An owner has taken space in the log of a room.
    pub(super) fn charge(&mut self, index: RoomIndex, owner: Owner, bytes: usize) {
        self.quota.charge(owner, bytes);
        let owners = self.rooms.get_or_default(index);
        // They are few, or have said at least one message each, all of which fit into the log.
        match owners.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, charged)) => *charged += bytes as u32,
            None => owners.push((owner, bytes as u32)),
        }
    }

    /// The log of a room is empty and nothing is promised there, or the room is gone.
    #[inline]
    pub(super) fn release(&mut self, index: RoomIndex) {
        if self.rooms.is_empty() {
            return;
        }
        for (owner, charged) in self.rooms.remove(&index).into_iter().flatten() {
            self.quota.release(owner, charged as usize);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.quota.held() == 0
    }
}
