//! Space in the rooms' logs: how much there is, and who gives up what it holds when it is short.
//!
//! A blocked member holds the log from its cursor on, a pin from where a reader of pages will go on. Both can read history
//! instead. Thousands may hold the log of one room, so they do not all let go at once when it is full: in the last quarter of
//! the space each append has some of them let go, in proportion to its bytes, so that nobody holds anything when none is
//! left. What is left to do at that moment is done at once.

use crate::owner::Owner;

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
        let fanout = &self[index].fanout;
        fanout.log_bytes() + bytes <= self.logs.room_bytes_max && fanout.growth(bytes) <= self.logs.space()
    }

    /// Whether a room's log may grow by so much beside all that is promised.
    pub(super) fn has_space_to_promise(&self, index: RoomIndex, bytes: usize) -> bool {
        let (fanout, logs) = (&self[index].fanout, &self.logs);
        let promised_here = fanout.reserved_bytes();
        let (wanted, promised_elsewhere) = (promised_here + bytes, logs.promised - promised_here);
        fanout.log_bytes() + wanted <= logs.room_bytes_max && fanout.growth(wanted) + promised_elsewhere <= logs.space()
    }

    /// Promises an owner space in the log of a room.
    pub(super) fn promise_space(&mut self, (index, owner): (RoomIndex, Owner), bytes: usize) {
        self.note_taken((index, owner), bytes);
        self[index].fanout.reserve(bytes);
        self.logs.promised += bytes;
    }

    /// Space that was promised is used, or not needed.
    pub(super) fn release_promise(&mut self, index: RoomIndex, bytes: usize) {
        let fanout = &mut self[index].fanout;
        fanout.release(bytes);
        let is_empty = fanout.log_bytes() + fanout.reserved_bytes() == 0;
        self.logs.promised -= bytes;
        if is_empty {
            self.log_quota.release(index);
        }
    }

    /// Whether less than a quarter of the space of all logs is left.
    pub(super) fn are_nearly_full(&self) -> bool {
        self.logs.space() < self.logs.promised + self.logs.bytes_max / 4
    }

    /// Whether an owner may take so much more of the space of all logs.
    pub(super) fn has_space_for(&self, owner: Owner, bytes: usize) -> bool {
        !self.are_nearly_full() || self.log_quota.has_space(owner, bytes)
    }

    /// An owner has taken space in the log of a room.
    pub(super) fn note_taken(&mut self, (index, owner): (RoomIndex, Owner), bytes: usize) {
        if self.are_nearly_full() {
            self.log_quota.charge(index, owner, bytes);
        }
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
        room_freed + self.make_space_in_all_logs(index, promised + bytes, connections)
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

    fn make_space_in_all_logs(&mut self, index: RoomIndex, bytes: usize, connections: &mut Connections) -> u32 {
        let (mut freed, mut looks) = (0, 0);
        loop {
            let left = self.logs.space();
            let is_paid = looks > bytes / BYTES_A_HOLD && self[index].fanout.growth(bytes) <= left;
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

    /// The member that holds most of a room's log lets it go. Says whether there was one.
    fn drop_lowest_hold(&mut self, index: RoomIndex, connections: &mut Connections) -> bool {
        let front = self[index].fanout.front();
        if self[index].members.drop_lowest_pin(front) {
            return true;
        }
        let Some(at) = self[index].members.lowest_blocked() else { return false };
        self.fall_back(index, at, connections).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fanout::FrameSize;
    use crate::hub::room::Room;
    use crate::hub::rooms::tests::add_live_member;
    use crate::id::RoomName;
    use crate::owner::Owners;
    use crate::settings::Config;

    const LOG_BYTES: usize = 64 * 1024;
    const FRAME_BYTES: usize = 200;

    struct Fixture {
        rooms: Rooms,
        connections: Connections,
        slots: u32,
    }

    impl Fixture {
        fn new(bytes_total: usize) -> Self {
            let mut config = Config::default();
            (config.hub.log_bytes_max, config.hub.log_bytes_total_max) = (LOG_BYTES, bytes_total);
            Self { rooms: Rooms::new(&config), connections: Connections::new(0), slots: 0 }
        }

        /// A room whose members all refused the first frame, one that reads all of them excepted.
        fn room(&mut self, blocked: u32) -> RoomIndex {
            let Self { rooms, connections, slots } = self;
            let index = rooms.open(&RoomName::new(&format!("room-{slots}")).unwrap(), Owner::HOST).unwrap();
            for _ in 0..=blocked {
                add_live_member(rooms, connections, index, *slots);
                *slots += 1;
            }
            self.append(index);
            self.round(index);
            assert_eq!(self.rooms[index].members.holds_count(), blocked as usize);
            index
        }

        fn append(&mut self, index: RoomIndex) {
            let frame = FrameSize { seq: None, bytes: FRAME_BYTES };
            self.rooms.append(index, frame, |out| out.extend([0; FRAME_BYTES]));
        }

        /// The first member takes all that it is sent, no other anything.
        fn round(&mut self, index: RoomIndex) {
            let Room { fanout, members, .. } = &mut self.rooms[index];
            let reader = members.live(crate::hub::index::LiveIndex(0)).unwrap().slot();
            fanout.begin_round(members);
            fanout.serve(members, u32::MAX, &mut |slot, owed: &[u8]| if slot == reader { owed.len() } else { 0 });
            fanout.end_round();
            self.rooms.note_holder(index);
            self.rooms.trim_log(index);
        }

        fn make_space(&mut self, index: RoomIndex) -> u32 {
            self.rooms.make_log_space(index, (0, FRAME_BYTES), &mut self.connections)
        }
    }

    #[test]
    fn members_that_hold_a_log_let_go_by_parts_before_it_is_full() {
        let mut fixture = Fixture::new(64 * LOG_BYTES);
        let index = fixture.room(2000);
        let mut freed = Vec::new();
        while fixture.rooms[index].members.holds_count() > 0 {
            freed.push(fixture.make_space(index));
            assert!(fixture.rooms.has_space(index, FRAME_BYTES), "{} bytes", fixture.rooms.log_bytes());
            fixture.append(index);
            fixture.round(index);
        }
        let quiet = freed.iter().take_while(|freed| **freed == 0).count();
        assert!(
            quiet * FRAME_BYTES > LOG_BYTES * 3 / 4 - 2 * FRAME_BYTES,
            "they hold on while there is space: {quiet}"
        );
        let most = freed.iter().max().copied().unwrap();
        assert!((1..2000 / 60).contains(&most), "{most} of 2000 at once");
        assert_eq!((freed.iter().sum::<u32>(), fixture.rooms.log_bytes()), (2000, 0));
    }

    #[test]
    fn rooms_that_hold_logs_let_go_by_parts_before_all_are_full() {
        let mut fixture = Fixture::new(2 * LOG_BYTES);
        let quiet: Vec<_> = (0..300).map(|_| fixture.room(1)).collect();
        let busy = fixture.room(0);
        let before = fixture.rooms.log_bytes();
        assert!(before > LOG_BYTES && before < LOG_BYTES * 3 / 2, "{before} bytes");
        let mut most = 0;
        for _ in 0..LOG_BYTES / FRAME_BYTES {
            most = most.max(fixture.make_space(busy));
            assert!(fixture.rooms.has_space(busy, FRAME_BYTES));
            // Nobody has had a turn, so nothing of it is dropped.
            fixture.append(busy);
        }
        assert!((1..=FRAME_BYTES as u32 / 8 + 1).contains(&most), "{most} at once");
        let holding = quiet.iter().filter(|index| fixture.rooms[**index].members.holds_count() > 0).count();
        assert!((1..300).contains(&holding), "{holding} hold on, for whom there is space");
        // The room that let go last may be looked at once more.
        let looked_at = fixture.rooms.holders.len();
        assert!(
            (holding..=holding + 1).contains(&looked_at),
            "{looked_at} rooms are looked at, {holding} hold anything"
        );
    }
    #[test]
    fn owners_that_say_more_than_can_be_sent_leave_space_for_others() {
        let owner = |number: u8| Owners::new(1).api_key(&[number; 32]);
        let mut fixture = Fixture::new(32 * LOG_BYTES);
        let rooms: Vec<_> = (0..100).map(|_| fixture.room(0)).collect();
        // Nobody is sent anything meanwhile.
        let mut say = |number: u8, index: RoomIndex| {
            let has_space = fixture.rooms.has_space_to_promise(index, FRAME_BYTES)
                && fixture.rooms.has_space_for(owner(number), FRAME_BYTES);
            if has_space {
                fixture.rooms.promise_space((index, owner(number)), FRAME_BYTES);
                fixture.append(index);
                fixture.rooms.release_promise(index, FRAME_BYTES);
            }
            has_space
        };
        for number in 1..=10 {
            for index in &rooms[..90] {
                while say(number, *index) {}
            }
        }
        assert!(!say(1, rooms[90]), "it has said more than its part");
        assert!((31..39).all(|number| say(number, rooms[90])), "each of the others has a part");
        for index in &rooms {
            fixture.round(*index);
        }
        assert!(fixture.rooms.log_quota.is_empty(), "all has been sent");
    }
}
