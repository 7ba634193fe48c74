//! Space in the rooms' logs: how much there is, and who gives up what it holds when it is short.
//!
//! A blocked member holds the log from its cursor on, a pin from where a reader of pages will go on. Both can read history
//! instead. Thousands may hold the log of one room, so they do not all let go at once when it is full: in the last quarter of
//! the space each append has some of them let go, in proportion to its bytes, so that nobody holds anything when none is
//! left. What is left to do at that moment is done at once.

use super::connection::Connections;
use super::index::RoomIndex;
use super::room::HolderPlace;
use super::rooms::Rooms;

/// While all logs together are short of space, one holder lets go for so many bytes that are appended.
///
/// A membership takes 25 bytes of a share of 15 % of the memory, and the last quarter of the logs is 6 % of it. So all that hold
/// anything have let go when so much has been appended.
const BYTES_A_HOLD: usize = 8;

impl Rooms {
    /// Whether a room's log may grow by so much.
    pub(super) fn has_space(&self, index: RoomIndex, bytes: usize) -> bool {
        self[index].fanout.log_bytes() + bytes <= self.logs.room_bytes_max && !self.are_full(bytes)
    }

    /// Whether all logs together may not grow by so much.
    fn are_full(&self, bytes: usize) -> bool {
        self.logs.bytes + bytes > self.logs.bytes_max
    }

    /// Whether all logs together are half full.
    pub(super) fn are_half_full(&self) -> bool {
        self.logs.bytes > self.logs.bytes_max / 2
    }

    /// Whether a log is half full, the room's or all logs together. The other half is left for messages that arrive
    /// before the room's turn comes.
    ///
    /// Of the room's log only the bytes since its last round count: blocked members give up the older ones when the
    /// space is needed.
    pub(super) fn has_much_waiting(&self, index: RoomIndex) -> bool {
        self[index].fanout.waiting_bytes() > self.logs.room_bytes_max / 2 || self.are_half_full()
    }

    /// A room's log may hold bytes for a blocked member or a pin from now on.
    pub(super) fn note_holder(&mut self, index: RoomIndex) {
        let place = HolderPlace::new(self.holders.len());
        let room = &mut self[index];
        if room.holder_place == HolderPlace::NONE {
            room.holder_place = place;
            self.holders.push(index);
        }
    }

    /// Makes space for so many `bytes` in a room's log beside those that are `promised`, by letting those read history that hold
    /// it. Some let go before the space is short. Says how many did.
    pub(super) fn make_log_space(
        &mut self,
        index: RoomIndex,
        (promised, bytes): (usize, usize),
        connections: &mut Connections,
    ) -> u32 {
        let room_freed = self.make_space_in_log(index, (promised, bytes), connections);
        room_freed + self.make_space_in_all_logs(promised + bytes, connections)
    }

    fn make_space_in_log(
        &mut self,
        index: RoomIndex,
        (promised, bytes): (usize, usize),
        connections: &mut Connections,
    ) -> u32 {
        let (room, max) = (&self[index], self.logs.room_bytes_max);
        let left = max.saturating_sub(room.fanout.log_bytes() + promised);
        if left > max / 4 {
            return 0;
        }
        let due = (room.members.holds_count() * bytes).div_ceil(left.max(bytes).max(1)) as u32;
        let mut freed = 0;
        while freed < due && self.drop_lowest_hold(index, connections) {
            freed += 1;
        }
        if freed > 0 {
            self.trim_log(index);
        }
        freed
    }

    fn make_space_in_all_logs(&mut self, bytes: usize, connections: &mut Connections) -> u32 {
        let (mut freed, mut looks) = (0, 0);
        loop {
            let left = self.logs.bytes_max.saturating_sub(self.logs.bytes);
            let is_paid = looks > bytes / BYTES_A_HOLD && bytes <= left;
            if left > self.logs.bytes_max / 4 || is_paid {
                return freed;
            }
            let Some(holder) = self.holders.last().copied() else { return freed };
            looks += 1;
            if self.drop_lowest_hold(holder, connections) {
                freed += 1;
            } else {
                // It was noted once since the last time, which pays for the look.
                self.holders.pop();
                self[holder].holder_place = HolderPlace::NONE;
            }
            self.trim_log(holder);
        }
    }

    /// Whoever holds most of a room's log lets it go. Says whether anybody did.
    fn drop_lowest_hold(&mut self, index: RoomIndex, connections: &mut Connections) -> bool {
        let front = self[index].fanout.front();
        if self[index].members.drop_lowest_pin(front) {
            return true;
        }
        let Some(at) = self[index].members.lowest_blocked() else { return false };
        self.fall_back(index, at, connections).is_some()
    }
}
