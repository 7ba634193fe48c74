//! The rooms: by index, by name, and what their logs hold together.

use std::ops::{Index, IndexMut};

use crate::block_slab::BlockSlab;
use crate::bus::message::ReadFrom;
use crate::id::{ConnectionId, RoomName, Slot};
use crate::name_index::NameIndex;
use crate::name_order::NameOrder;
use crate::owner::Owner;
use crate::protocol::ErrorCode;
use crate::rights::{Rights, RoomPattern};
use crate::room_log::{LogBuffer, Offset};
use crate::settings::{Config, RoomLimits, RoomLimitsTable};
use crate::steps;
use crate::time::Now;

use super::account::{Account, Held};
use super::budget::SliceBudget;
use super::connection::Connections;
use super::error_reply::Refused;
use super::fanout::{FrameSize, Sent};
use super::index::{LiveIndex, Place, RoomIndex, RoomRef};
use super::leaving::AfterLeave;
use super::log_quota::LogQuota;
use super::reader::{CatchUp, CatchUpReason, CatchUpStep, Shown};
use super::room::{HolderPlace, Position, Room};

/// How many empty buffers are kept for logs to come, and how large one may be to be kept.
const BUFFERS_KEPT_MAX: usize = 4;
const BUFFER_KEPT_BYTES_MAX: usize = 256 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Rooms {
    rooms: BlockSlab<Room>,
    rooms_max: usize,
    limits: RoomLimitsTable,
    names: NameIndex,
    order: NameOrder,
    /// Rooms about which somebody waits for an answer, once for each question.
    questioned: Vec<RoomIndex>,
    generations: u32,
    pub(super) logs: Logs,
    pub(super) log_quota: LogQuota,
    pub(super) account: Account,
    /// Rooms whose logs may hold bytes for blocked members or pins, each once. Others need not be looked at when all
    /// logs together are full.
    pub(super) holders: Vec<RoomIndex>,
    counts: LogCounts,
}

/// What has come into logs and out of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogCounts {
    pub(super) messages: u64,
    pub(super) appended_bytes: u64,
    pub(super) sends: u64,
    pub(super) sent_bytes: u64,
    pub(super) fallbacks: u64,
}

/// What the logs of all rooms hold, and may hold.
#[derive(Debug)]
pub(super) struct Logs {
    /// The memory that they take together, used or not.
    pub(super) bytes: usize,
    /// The bytes of frames that are on their way to the bus and back, for which there has to be space.
    pub(super) promised: usize,
    /// The most that one log may hold of frames.
    pub(super) room_bytes_max: usize,
    /// The most memory that they may take together.
    pub(super) bytes_max: usize,
    /// Empty buffers that logs are lent.
    #[expect(clippy::vec_box, reason = "logs hold boxes, which go back and forth")]
    buffers: Vec<Box<LogBuffer>>,
}

impl Logs {
    fn keep(&mut self, buffer: Option<Box<LogBuffer>>) {
        let kept = buffer.filter(|buffer| buffer.held_bytes() <= BUFFER_KEPT_BYTES_MAX);
        if self.buffers.len() < BUFFERS_KEPT_MAX {
            self.buffers.extend(kept);
        }
    }

    /// A buffer of the stock, if there is space for it.
    fn lend(&mut self) -> Option<Box<LogBuffer>> {
        let space = self.space();
        self.buffers.pop_if(|buffer| buffer.held_bytes() <= space)
    }

    /// By how many bytes a log grows at most beyond what it needs. What is spare of one would make others let go of theirs.
    fn growth_max(&self) -> usize {
        self.space() / 4
    }

    /// By how many bytes all logs together may grow.
    pub(super) fn space(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }
}

impl Rooms {
    pub(super) fn new(config: &Config) -> Self {
        let logs = Logs {
            bytes: 0,
            promised: 0,
            room_bytes_max: config.hub.log_bytes_max,
            bytes_max: config.memory_shares().logs,
            buffers: Vec::new(),
        };
        Self {
            rooms: BlockSlab::default(),
            rooms_max: config.hub.rooms_max as usize,
            limits: config.room_limits(),
            names: NameIndex::default(),
            order: NameOrder::default(),
            questioned: Vec::new(),
            generations: 0,
            log_quota: LogQuota::new(logs.bytes_max),
            logs,
            account: Account::new(config.memory_shares().rooms),
            holders: Vec::new(),
            counts: LogCounts::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// The memory of all logs, used or not.
    pub(super) fn log_bytes(&self) -> usize {
        self.logs.bytes
    }

    pub(super) fn counts(&self) -> LogCounts {
        self.counts
    }

    pub(super) fn named(&self, name: &str) -> Option<RoomIndex> {
        self.names.find(name, |index| self.rooms[index].name.as_str()).map(RoomIndex)
    }

    /// The rooms of a pattern in the order of their names, from the one that follows `after`.
    pub(super) fn listed<'a>(
        &'a self,
        rooms: &'a RoomPattern,
        after: Option<&'a RoomName>,
    ) -> impl Iterator<Item = &'a Room> {
        let after = after.map_or("", RoomName::as_str);
        let found = self.order.starting_at(rooms.beginning().max(after), |index| self.rooms[index].name.as_str());
        let found = found.map(|index| &self.rooms[index]).skip_while(move |room| room.name.as_str() == after);
        found.take_while(|room| rooms.matches(&room.name))
    }

    /// A room does not end before [`Rooms::end_question`].
    pub(super) fn begin_question(&mut self, index: RoomIndex) {
        self.questioned.push(index);
    }

    /// A question about a room is answered.
    pub(super) fn end_question(&mut self, index: RoomIndex) {
        if let Some(at) = self.questioned.iter().position(|questioned| *questioned == index) {
            self.questioned.swap_remove(at);
        }
    }

    /// The first room that has this index or a later one.
    pub(super) fn next_from(&self, index: RoomIndex) -> Option<RoomIndex> {
        self.rooms.next_from(index.0).map(RoomIndex)
    }

    /// What holds for a room, by its rule.
    pub(super) fn limits(&self, index: RoomIndex) -> &RoomLimits {
        self.limits.get(self[index].rule())
    }

    /// What would hold for a room of this name.
    pub(super) fn limits_of(&self, name: &RoomName) -> &RoomLimits {
        self.limits.get(self.limits.find(name))
    }

    pub(super) fn reference(&self, index: RoomIndex) -> RoomRef {
        RoomRef { index, generation: self[index].generation }
    }

    /// The room that is meant, if it is still there.
    pub(super) fn find(&self, room: RoomRef) -> Option<RoomIndex> {
        let found = self.get(room.index)?;
        (found.generation == room.generation).then_some(room.index)
    }

    fn get(&self, index: RoomIndex) -> Option<&Room> {
        self.rooms.get(index.0)
    }

    /// The room with this name, if the connection is in it and has not asked to leave, or has joined again since; and what it may
    /// do there.
    pub(super) fn joined(
        &self,
        connections: &Connections,
        id: ConnectionId,
        name: &str,
    ) -> Result<(RoomIndex, Rights), Refused> {
        let member = || {
            let index = self.named(name)?;
            let rights = connections.get(id)?.rights_in(index)?;
            let after_leave = self[index].members.after_leave(id.slot);
            after_leave.is_none_or(|then| matches!(then, AfterLeave::Join(_))).then_some((index, rights))
        };
        member().ok_or_else(|| (ErrorCode::NotJoined, format!("not in room {name}; join it first")))
    }

    /// The room with this name, if the connection reads its log.
    pub(super) fn read_by(&self, connections: &Connections, id: ConnectionId, name: &str) -> Option<&Room> {
        let index = self.named(name)?;
        let place = connections.get(id)?.place_in(index)?;
        matches!(place, Place::Live(_)).then(|| &self[index])
    }

    /// A new room with a name that no room has, which is charged to an owner.
    pub(super) fn open(&mut self, name: &RoomName, owner: Owner) -> Result<RoomIndex, Refused> {
        if self.len() >= self.rooms_max {
            let message = format!("there are {} rooms; no new one can be opened", self.rooms_max);
            return Err((ErrorCode::ServerBusy, message));
        }
        self.generations = self.generations.wrapping_add(1);
        let rule = self.limits.find(name);
        let index = self.rooms.insert(Room::new((name.clone(), rule), self.generations, owner));
        self.account.charge(owner, Held::Room(name));
        let rooms = &self.rooms;
        let name_of = |index: u32| rooms[index].name.as_str();
        self.names.insert(name.as_str(), index, name_of);
        self.order.insert(name.as_str(), index, name_of);
        Ok(RoomIndex(index))
    }

    /// Takes out a room that nothing holds any more.
    pub(super) fn take_unused(&mut self, index: RoomIndex) -> Option<Room> {
        self.get(index).filter(|room| room.is_unused() && !self.questioned.contains(&index))?;
        let rooms = &self.rooms;
        self.order.remove(rooms[index.0].name.as_str(), |index| rooms[index].name.as_str());
        let room = self.rooms.remove(index.0)?;
        self.logs.bytes -= room.fanout.held_bytes();
        self.log_quota.release(index);
        self.names.remove(room.name.as_str(), index.0);
        self.account.release(room.owner, Held::Room(&room.name));
        if let Some(place) = room.holder_place.index() {
            self.holders.swap_remove(place);
            if let Some(moved) = self.holders.get(place).copied() {
                steps::note(1);
                self[moved].holder_place = HolderPlace::new(place);
            }
        }
        Some(room)
    }

    /// Appends a frame to a room's log.
    pub(super) fn append(&mut self, index: RoomIndex, frame: FrameSize, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { rooms, logs, counts, .. } = self;
        let fanout = &mut rooms[index.0].fanout;
        let held_before = fanout.held_bytes();
        fanout.prepare(frame.bytes, logs.growth_max(), || logs.lend());
        fanout.append(frame, write);
        logs.bytes += fanout.held_bytes() - held_before;
        counts.appended_bytes += frame.bytes as u64;
    }

    /// A message was delivered to a room.
    pub(super) fn note_delivered(&mut self, index: RoomIndex, seq: u64) {
        self.counts.messages += 1;
        if let Position::At { delivered, .. } = &mut self[index].position {
            *delivered = seq;
        }
    }

    /// Serves the next members of a room's round, as far as the budget goes.
    #[inline]
    pub(super) fn serve_slice(
        &mut self,
        index: RoomIndex,
        budget: &mut SliceBudget<'_, '_, impl FnMut() -> Now>,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) {
        let mut total = Sent::default();
        let Room { fanout, members, .. } = &mut self[index];
        while !total.is_over
            && let Some(sends_max) = budget.stride()
        {
            let sent = fanout.serve(members, sends_max, send);
            total.add(sent);
            budget.spend(sent);
        }
        self.note_sent(index, total);
    }

    /// Sends a blocked member what the log holds for it.
    pub(super) fn serve_blocked(
        &mut self,
        index: RoomIndex,
        at: LiveIndex,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) -> Sent {
        let Room { fanout, members, .. } = &mut self[index];
        let sent = fanout.serve_blocked(members, at, send);
        self.note_sent(index, sent);
        self.trim_log(index);
        sent
    }

    fn note_sent(&mut self, index: RoomIndex, sent: Sent) {
        self.counts.sends += u64::from(sent.sends);
        self.counts.sent_bytes += sent.bytes as u64;
        if sent.has_blocked {
            self.note_holder(index);
        }
    }

    /// Drops what no member needs any more from a room's log.
    pub(super) fn trim_log(&mut self, index: RoomIndex) {
        let Self { rooms, logs, .. } = self;
        let room = &mut rooms[index.0];
        let held_before = room.fanout.held_bytes();
        let buffer = room.fanout.trim(&room.members);
        logs.bytes -= held_before - room.fanout.held_bytes();
        logs.keep(buffer);
        if room.fanout.log_bytes() + room.fanout.reserved_bytes() == 0 {
            self.log_quota.release(index);
        }
    }

    /// A live member gives up its place in the log and reads history instead, at its own speed.
    pub(super) fn fall_back(
        &mut self,
        index: RoomIndex,
        at: LiveIndex,
        connections: &mut Connections,
    ) -> Option<ConnectionId> {
        let Room { members, fanout, position, .. } = &mut self[index];
        let (epoch, delivered) = (position.epoch().cloned(), position.delivered().unwrap_or(0));
        let catch_up = |connection, cursor: Offset| {
            let gap = fanout.is_of_older_epoch(cursor);
            let next = fanout.next_seq(cursor).unwrap_or(delivered + 1);
            // What the member has not seen of the old epoch is gone, and it has not asked for history of the new one.
            let from = if gap { ReadFrom::Newest(0) } else { ReadFrom::After(next - 1) };
            let (reason, shown, step) = (CatchUpReason::FellBack, Shown::Nothing, CatchUpStep::Output);
            CatchUp { connection, reason, epoch, from, gap, shown, step }
        };
        let id = members.fall_back(index, at, connections, catch_up)?;
        self.charge_fall_back(id.slot, connections);
        self.counts.fallbacks += 1;
        Some(id)
    }
}

/// Panics if the room has ended, which the rules of [`RoomIndex`] exclude.
impl Index<RoomIndex> for Rooms {
    type Output = Room;

    #[inline]
    fn index(&self, index: RoomIndex) -> &Room {
        &self.rooms[index.0]
    }
}

impl IndexMut<RoomIndex> for Rooms {
    #[inline]
    fn index_mut(&mut self, index: RoomIndex) -> &mut Room {
        &mut self.rooms[index.0]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::hub::connection::Connection;
    use crate::hub::index::CatchUpIndex;
    use crate::hub::users::tests::key;
    use crate::id::ConnectionSerial;

    /// A room with one live member in the slot with the room's number.
    fn room(rooms: &mut Rooms, connections: &mut Connections, number: u32) -> RoomIndex {
        let index = rooms.open(&RoomName::new(&format!("room-{number}")).unwrap(), Owner::HOST).unwrap();
        add_live_member(rooms, connections, index, number);
        index
    }

    /// A new connection in a slot, which reads a room's log from its end on.
    pub(in crate::hub) fn add_live_member(
        rooms: &mut Rooms,
        connections: &mut Connections,
        index: RoomIndex,
        slot: u32,
    ) {
        let connection = ConnectionId::new(slot, slot);
        connections.insert(connection, Connection::new(ConnectionSerial(slot), key(slot), Owner::HOST));
        let (reason, shown, step) = (CatchUpReason::FellBack, Shown::Nothing, CatchUpStep::Output);
        let from = ReadFrom::Newest(0);
        let member = CatchUp { connection, reason, epoch: None, from, gap: false, shown, step };
        let tail = rooms[index].fanout.tail();
        rooms.enter(index, member, Rights::ALL, connections);
        rooms.go_live(index, CatchUpIndex(0), tail, connections).unwrap();
    }

    /// A room's socket refuses a frame, which stays in the log.
    fn block(rooms: &mut Rooms, index: RoomIndex) {
        rooms.append(index, FrameSize { seq: None, bytes: 1000 }, |out| out.extend([0; 1000]));
        let Room { fanout, members, .. } = &mut rooms[index];
        fanout.begin_round(members);
        assert!(fanout.serve(members, 1, &mut |_: Slot, _: &[u8]| 0).has_blocked);
        fanout.end_round();
        rooms.note_holder(index);
    }

    #[test]
    fn a_room_that_ends_is_looked_at_no_more() {
        let (mut rooms, mut connections) = (Rooms::new(&Config::default()), Connections::new(0));
        let index = room(&mut rooms, &mut connections, 0);
        block(&mut rooms, index);
        rooms.remove_member(index, Slot(0), &mut connections).unwrap();
        assert!(rooms.take_unused(index).is_some());
        assert_eq!(rooms.account.held(), 0);
        assert_eq!((rooms.holders.len(), rooms.log_bytes(), rooms.len()), (0, 0, 0));
    }

    #[test]
    fn rooms_that_hold_end_in_any_order() {
        let (mut rooms, mut connections) = (Rooms::new(&Config::default()), Connections::new(0));
        let mut all: Vec<_> = (0..7).map(|number| (number, room(&mut rooms, &mut connections, number))).collect();
        all.iter().for_each(|(_, index)| block(&mut rooms, *index));
        for at in [3, 0, 4, 0] {
            let (number, index) = all.remove(at);
            rooms.remove_member(index, Slot(number), &mut connections).unwrap();
            assert!(rooms.take_unused(index).is_some());
        }
        let mut holders = rooms.holders.clone();
        holders.sort();
        assert_eq!(holders, all.iter().map(|(_, index)| *index).collect::<Vec<_>>());
    }
}
