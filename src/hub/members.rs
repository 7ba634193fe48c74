//! The members of a room, and where each stands: it reads the log live, or it catches up.
//!
//! A member is in one of the two lists, and its connection knows at which place. Both change only here, together, so a
//! membership cannot be half there. A live member whose socket refused bytes is *blocked*: rounds pass it over, and it goes
//! on when its socket takes bytes again.

mod holding;

use thin_vec::ThinVec;

use crate::id::{ConnectionId, Slot};
use crate::rights::Rights;
use crate::room_log::Offset;

use super::connection::Connections;
use super::holds::Holds;
use super::index::{CatchUpIndex, LiveIndex, Place, RoomIndex};
use super::leaving::{AfterLeave, Leavers, Leaving};
use super::reader::{CatchUp, CatchUpStep};

/// A member that reads the log: eight bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveMember {
    slot_and_blocked: u32,
    cursor: Offset,
}

const BLOCKED: u32 = 1 << 31;

impl LiveMember {
    fn new(slot: Slot, cursor: Offset) -> Self {
        debug_assert!(slot.0 < BLOCKED);
        Self { slot_and_blocked: slot.0, cursor }
    }

    #[inline]
    pub(super) fn slot(self) -> Slot {
        Slot(self.slot_and_blocked & !BLOCKED)
    }

    /// Everything in the log before this was taken by its socket.
    #[inline]
    pub(super) fn cursor(self) -> Offset {
        self.cursor
    }

    /// Its socket has taken everything up to `cursor`.
    #[inline]
    pub(super) fn advance(&mut self, cursor: Offset) {
        self.cursor = cursor;
    }

    /// Whether its socket refused bytes. Rounds pass it over.
    #[inline]
    pub(super) fn is_blocked(self) -> bool {
        self.slot_and_blocked & BLOCKED != 0
    }
}

/// How a connection leaves a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The client said so.
    Left,
    /// The connection was lost; perhaps its user comes back.
    Lost,
}

/// A member that was taken out of its room.
#[derive(Debug)]
pub(super) enum FormerMember {
    Live,
    CatchingUp(CatchUp),
}

impl FormerMember {
    /// Whether it had been present in the room.
    pub(super) fn has_joined(&self) -> bool {
        match self {
            Self::Live => true,
            Self::CatchingUp(member) => member.has_joined(),
        }
    }

    /// The id of the join that was not answered.
    pub(super) fn join_id(self) -> Option<Box<str>> {
        match self {
            Self::Live => None,
            Self::CatchingUp(mut member) => member.take_join_id(),
        }
    }
}

/// See the [module](self). All but the live members are empty in most rooms: one word each.
#[derive(Debug, Default)]
pub(super) struct Members {
    live: Vec<LiveMember>,
    catching_up: ThinVec<CatchUp>,
    /// Which live members are blocked and which members that catch up have a pin, by where they hold the log.
    holds: Option<Box<Holds>>,
    leaving: Option<Box<Leavers>>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.catching_up.is_empty()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.live.len() + self.catching_up.len()
    }

    pub(super) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    pub(super) fn catching_up_count(&self) -> usize {
        self.catching_up.len()
    }

    pub(super) fn live_count(&self) -> u32 {
        self.live.len() as u32
    }

    pub(super) fn live(&self, at: LiveIndex) -> Option<LiveMember> {
        self.live.get(at.0 as usize).copied()
    }

    #[inline]
    pub(super) fn live_mut(&mut self, at: LiveIndex) -> Option<&mut LiveMember> {
        self.live.get_mut(at.0 as usize)
    }

    pub(super) fn catch_up(&self, at: CatchUpIndex) -> Option<&CatchUp> {
        self.catching_up.get(at.0 as usize)
    }

    pub(super) fn catch_up_mut(&mut self, at: CatchUpIndex) -> Option<&mut CatchUp> {
        self.catching_up.get_mut(at.0 as usize)
    }

    /// What a member that catches up waits for.
    pub(super) fn step(&self, place: Place) -> Option<CatchUpStep> {
        match place {
            Place::CatchingUp(at) => self.catch_up(at).map(|member| member.step),
            Place::Live(_) => None,
        }
    }

    /// What a member that catches up waits for from now on.
    pub(super) fn set_step(&mut self, at: CatchUpIndex, step: CatchUpStep) {
        let Some(member) = self.catching_up.get_mut(at.0 as usize) else { return };
        let (before, after) = (member.step.pinned(), step.pinned());
        member.step = step;
        if before == after {
            return;
        }
        let holds = self.holds.get_or_insert_default();
        if let Some(before) = before {
            holds.pinned.remove(before, at);
        }
        if let Some(after) = after {
            holds.pinned.insert(after, at);
        }
        self.forget_holds();
    }

    pub(super) fn lose_epoch(&mut self) {
        self.catching_up.iter_mut().for_each(CatchUp::lose_epoch);
    }

    /// A connection becomes a member, and catches up.
    pub(super) fn enter(&mut self, room: RoomIndex, member: CatchUp, rights: Rights, connections: &mut Connections) {
        let (id, at) = (member.connection, CatchUpIndex(self.catching_up.len() as u32));
        if let Some(connection) = connections.get_mut(id) {
            connection.enter(room, Place::CatchingUp(at), rights);
            self.push_catching_up(member);
        }
    }

    /// Most often one member catches up, and each is a hundred bytes: no room is kept for three more.
    fn push_catching_up(&mut self, member: CatchUp) {
        if self.catching_up.is_empty() {
            self.catching_up.reserve_exact(1);
        }
        self.catching_up.push(member);
    }

    /// A member has caught up, and reads the log from `cursor` on.
    pub(super) fn go_live(
        &mut self,
        room: RoomIndex,
        at: CatchUpIndex,
        cursor: Offset,
        connections: &mut Connections,
    ) -> Option<(CatchUp, LiveIndex)> {
        let member = self.take_catching_up(room, at, connections)?;
        let live = LiveIndex(self.live.len() as u32);
        push_tightly(&mut self.live, LiveMember::new(member.connection.slot, cursor));
        connections.set_place(member.connection.slot, room, Place::Live(live));
        Some((member, live))
    }

    /// A live member gives up its place in the log, and catches up with what `read` makes of it.
    pub(super) fn fall_back(
        &mut self,
        room: RoomIndex,
        at: LiveIndex,
        connections: &mut Connections,
        read: impl FnOnce(ConnectionId, Offset) -> CatchUp,
    ) -> Option<ConnectionId> {
        let member = self.take_live(room, at, connections)?;
        let id = connections.id(member.slot())?;
        let place = Place::CatchingUp(CatchUpIndex(self.catching_up.len() as u32));
        self.push_catching_up(read(id, member.cursor));
        connections.set_place(member.slot(), room, place);
        Some(id)
    }

    /// A connection is no member any more.
    pub(super) fn remove(
        &mut self,
        room: RoomIndex,
        slot: Slot,
        connections: &mut Connections,
    ) -> Option<FormerMember> {
        match connections.leave(slot, room)? {
            Place::Live(at) => self.take_live(room, at, connections).map(|_| FormerMember::Live),
            Place::CatchingUp(at) => self.take_catching_up(room, at, connections).map(FormerMember::CatchingUp),
        }
    }

    /// The last of the list takes the place.
    fn take_live(&mut self, room: RoomIndex, at: LiveIndex, connections: &mut Connections) -> Option<LiveMember> {
        self.unblock(at);
        let member = self.live(at)?;
        self.live.swap_remove(at.0 as usize);
        if let Some(moved) = self.live(at) {
            connections.set_place(moved.slot(), room, Place::Live(at));
            if let Some(holds) = self.holds.as_mut().filter(|_| moved.is_blocked()) {
                holds.blocked.remove(moved.cursor, LiveIndex(self.live.len() as u32));
                holds.blocked.insert(moved.cursor, at);
            }
        }
        Some(member)
    }

    /// The last of the list takes the place.
    fn take_catching_up(
        &mut self,
        room: RoomIndex,
        at: CatchUpIndex,
        connections: &mut Connections,
    ) -> Option<CatchUp> {
        self.drop_pin(at);
        self.catch_up(at)?;
        let member = self.catching_up.swap_remove(at.0 as usize);
        if let Some(moved) = self.catch_up(at) {
            connections.set_place(moved.connection.slot, room, Place::CatchingUp(at));
            if let Some((pinned, holds)) = moved.step.pinned().zip(self.holds.as_mut()) {
                holds.pinned.remove(pinned, CatchUpIndex(self.catching_up.len() as u32));
                holds.pinned.insert(pinned, at);
            }
        }
        if self.catching_up.is_empty() {
            // Most of the time nobody catches up, and each place is a hundred bytes.
            self.catching_up = ThinVec::new();
        }
        Some(member)
    }

    /// A member asks to leave, and does so once it has read the log.
    ///
    /// If it has done so already, messages on their way to the bus are awaited: see [`Members::take_level_leavers`].
    pub(super) fn start_leaving(&mut self, slot: Slot, id: Option<&str>, is_level: bool) {
        let leaving = Leaving { id: id.map(Into::into), then: AfterLeave::Nothing };
        self.leaving.get_or_insert_default().insert(slot, leaving, is_level);
    }

    pub(super) fn is_leaving(&self, slot: Slot) -> bool {
        self.after_leave(slot).is_some()
    }

    /// The request behind a `leave` of a member, if it is leaving.
    pub(super) fn after_leave(&self, slot: Slot) -> Option<&AfterLeave> {
        self.leaving.as_ref()?.get(slot).map(|leaving| &leaving.then)
    }

    pub(super) fn set_after_leave(&mut self, slot: Slot, then: AfterLeave) {
        if let Some(leaving) = self.leaving.as_mut().and_then(|leavers| leavers.get_mut(slot)) {
            leaving.then = then;
        }
    }

    /// A member does not leave by its own request any more; gives the request.
    pub(super) fn take_leaving(&mut self, slot: Slot) -> Option<Leaving> {
        let leavers = self.leaving.as_mut()?;
        let leaving = leavers.remove(slot);
        if leavers.is_empty() {
            self.leaving = None;
        }
        leaving
    }

    /// Whether any member is leaving.
    pub(super) fn has_leavers(&self) -> bool {
        self.leaving.is_some()
    }

    /// Up to `max` slots of members that had read the whole log when they asked to leave, each once; some may be gone, or owed
    /// something since.
    pub(super) fn take_level_leavers(&mut self, max: usize) -> Vec<Slot> {
        self.leaving.as_mut().map(|leavers| leavers.take_level(max)).unwrap_or_default()
    }

    /// Whether [`Members::take_level_leavers`] has any.
    pub(super) fn has_level_leavers(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leavers| leavers.has_level())
    }

    /// The request of a member that asked to leave, if it has read the log up to `tail`.
    pub(super) fn take_leaving_if_level(&mut self, slot: Slot, place: Option<Place>, tail: Offset) -> Option<Leaving> {
        let Some(Place::Live(at)) = place else { return None };
        let is_level = self.live(at).is_some_and(|member| member.cursor == tail);
        if is_level { self.take_leaving(slot) } else { None }
    }
}

/// Appends to a list of members: eight bytes each. It grows by six, then by half at a time: there are many short ones, so
/// that the spare room of doubling would add up. Odd numbers, because allocators round up to 16 bytes after adding eight of
/// their own; and two such lists of five leave the gap that one of eleven fills.
pub(super) fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(if list.is_empty() { 5 } else { (list.len() / 2).max(6) });
    }
    list.push(item);
}
