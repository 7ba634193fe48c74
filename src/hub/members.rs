//! The members of a room, and where each stands: it reads the log live, or it catches up.
//!
//! A member is in one of the two lists, and its connection knows at which place. Both change only here, together, so a
//! membership cannot be half there. A live member whose socket refused bytes is *blocked*: rounds pass it over, and it goes
//! on when its socket takes bytes again.

use thin_vec::ThinVec;

use crate::id::{ConnectionId, Epoch, Slot};
use crate::room_log::Offset;

use super::connection::Connections;
use super::index::{CatchUpIndex, LiveIndex, Place, RoomIndex};
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

/// A member that asked to leave while the log held something for it.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) slot: Slot,
    pub(super) id: Option<Box<str>>,
    pub(super) then: AfterLeave,
}

/// The request that a member sent behind a `leave` that is not answered yet.
#[derive(Debug)]
pub(super) enum AfterLeave {
    Nothing,
    /// To join again, which begins after `left`.
    Join(Rejoin),
    /// To join and to leave again. The second `leave`, with this id, is answered right after the first.
    Leave(Option<Box<str>>),
}

/// A `join` that waits for a `leave`.
#[derive(Debug)]
pub(super) struct Rejoin {
    pub(super) id: Option<Box<str>>,
    /// The position to resume after.
    pub(super) since: Option<(Epoch, u64)>,
    pub(super) history: u32,
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
    blocked: ThinVec<LiveIndex>,
    catching_up: ThinVec<CatchUp>,
    leaving: ThinVec<Leaving>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.catching_up.is_empty()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.live.len() + self.catching_up.len()
    }

    pub(super) fn has_live(&self) -> bool {
        !self.live.is_empty()
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

    pub(super) fn blocked(&self) -> impl Iterator<Item = LiveMember> {
        self.blocked.iter().filter_map(|at| self.live(*at))
    }

    /// The place of a live member whose socket refused bytes.
    pub(super) fn blocked_at(&self, place: Place) -> Option<LiveIndex> {
        match place {
            Place::CatchingUp(_) => None,
            Place::Live(at) => self.live(at).is_some_and(LiveMember::is_blocked).then_some(at),
        }
    }

    /// The blocked member that was blocked last.
    pub(super) fn last_blocked(&self) -> Option<LiveIndex> {
        self.blocked.last().copied()
    }

    /// The socket of a live member refused bytes.
    pub(super) fn block(&mut self, at: LiveIndex) {
        if let Some(member) = self.live.get_mut(at.0 as usize).filter(|member| !member.is_blocked()) {
            member.slot_and_blocked |= BLOCKED;
            self.blocked.push(at);
        }
    }

    /// The socket of a live member has taken all that the log holds for it.
    pub(super) fn unblock(&mut self, at: LiveIndex) {
        if let Some(member) = self.live.get_mut(at.0 as usize).filter(|member| member.is_blocked()) {
            member.slot_and_blocked &= !BLOCKED;
            self.blocked.retain(|blocked| *blocked != at);
        }
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

    pub(super) fn catching_up_mut(&mut self) -> impl Iterator<Item = &mut CatchUp> {
        self.catching_up.iter_mut()
    }

    /// Where members that wait for a page will go on in the log.
    pub(super) fn pins(&self) -> impl Iterator<Item = Offset> {
        self.catching_up.iter().filter_map(|member| match member.step {
            CatchUpStep::Page { pin: Some(pin), .. } => Some(pin.offset),
            _ => None,
        })
    }

    /// Members that catch up lose their place in the log; they will read more pages instead.
    pub(super) fn drop_pins(&mut self) {
        for member in &mut self.catching_up {
            if let CatchUpStep::Page { pin, .. } = &mut member.step {
                *pin = None;
            }
        }
    }

    /// A connection becomes a member, and catches up.
    pub(super) fn enter(&mut self, room: RoomIndex, member: CatchUp, connections: &mut Connections) {
        let (id, at) = (member.connection, CatchUpIndex(self.catching_up.len() as u32));
        if let Some(connection) = connections.get_mut(id) {
            connection.enter(room, Place::CatchingUp(at));
            self.catching_up.push(member);
        }
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
        self.catching_up.push(read(id, member.cursor));
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
        let former = match connections.leave(slot, room)? {
            Place::Live(at) => self.take_live(room, at, connections).map(|_| FormerMember::Live),
            Place::CatchingUp(at) => self.take_catching_up(room, at, connections).map(FormerMember::CatchingUp),
        };
        self.leaving.retain(|leaving| leaving.slot != slot);
        former
    }

    /// The last of the list takes the place.
    fn take_live(&mut self, room: RoomIndex, at: LiveIndex, connections: &mut Connections) -> Option<LiveMember> {
        self.unblock(at);
        let member = self.live(at)?;
        self.live.swap_remove(at.0 as usize);
        if let Some(moved) = self.live(at) {
            connections.set_place(moved.slot(), room, Place::Live(at));
            if moved.is_blocked() {
                let before = LiveIndex(self.live.len() as u32);
                self.blocked.iter_mut().filter(|blocked| **blocked == before).for_each(|blocked| *blocked = at);
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
        self.catch_up(at)?;
        let member = self.catching_up.swap_remove(at.0 as usize);
        if let Some(moved) = self.catch_up(at) {
            connections.set_place(moved.connection.slot, room, Place::CatchingUp(at));
        }
        if self.catching_up.is_empty() {
            // Most of the time nobody catches up, and each place is a hundred bytes.
            self.catching_up = ThinVec::new();
        }
        Some(member)
    }

    /// A member asks to leave, and does so once it has read the log.
    pub(super) fn start_leaving(&mut self, slot: Slot, id: Option<&str>) {
        self.leaving.push(Leaving { slot, id: id.map(Into::into), then: AfterLeave::Nothing });
    }

    pub(super) fn is_leaving(&self, slot: Slot) -> bool {
        self.leaving.iter().any(|leaving| leaving.slot == slot)
    }

    /// The request behind a `leave` of a member, if it is leaving.
    pub(super) fn after_leave(&self, slot: Slot) -> Option<&AfterLeave> {
        self.leaving.iter().find(|leaving| leaving.slot == slot).map(|leaving| &leaving.then)
    }

    pub(super) fn set_after_leave(&mut self, slot: Slot, then: AfterLeave) {
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.slot == slot) {
            leaving.then = then;
        }
    }

    /// A member does not leave by its own request any more; gives the request.
    pub(super) fn take_leaving(&mut self, slot: Slot) -> Option<Leaving> {
        let at = self.leaving.iter().position(|leaving| leaving.slot == slot)?;
        Some(self.leaving.swap_remove(at))
    }

    /// A member that asked to leave and has read the log up to `tail`.
    pub(super) fn next_to_leave(
        &mut self,
        room: RoomIndex,
        tail: Offset,
        connections: &Connections,
    ) -> Option<Leaving> {
        let at = self.leaving.iter().position(|leaving| match connections.place(leaving.slot, room) {
            Some(Place::Live(at)) => self.live(at).is_some_and(|member| member.cursor == tail),
            _ => false,
        })?;
        Some(self.leaving.swap_remove(at))
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
