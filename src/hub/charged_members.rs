//! Changes of memberships, and what owners are charged for them: both change here, together.

use crate::id::Slot;
use crate::rights::Rights;
use crate::room_log::Offset;

use super::account::Held;
use super::connection::Connections;
use super::index::{CatchUpIndex, LiveIndex, RoomIndex};
use super::leaving::Leaving;
use super::members::FormerMember;
use super::reader::CatchUp;
use super::rooms::Rooms;

impl Rooms {
    /// A connection becomes a member, and catches up.
    pub(super) fn enter(&mut self, index: RoomIndex, member: CatchUp, rights: Rights, connections: &mut Connections) {
        let Some(owner) = connections.get(member.connection).map(|connection| connection.owner) else { return };
        self.account.charge(owner, Held::Membership);
        self.account.charge(owner, Held::CatchUp);
        self[index].members.enter(index, member, rights, connections);
    }

    /// A member has caught up, and reads the log from `cursor` on.
    pub(super) fn go_live(
        &mut self,
        index: RoomIndex,
        at: CatchUpIndex,
        cursor: Offset,
        connections: &mut Connections,
    ) -> Option<(CatchUp, LiveIndex)> {
        let (member, live) = self[index].members.go_live(index, at, cursor, connections)?;
        if let Some(owner) = connections.owner(member.connection.slot) {
            self.account.release(owner, Held::CatchUp);
        }
        Some((member, live))
    }

    /// A live member has fallen back, and catches up.
    pub(super) fn charge_fall_back(&mut self, slot: Slot, connections: &Connections) {
        if let Some(owner) = connections.owner(slot) {
            self.account.charge(owner, Held::CatchUp);
        }
    }

    /// A connection is no member any more.
    pub(super) fn remove_member(
        &mut self,
        index: RoomIndex,
        slot: Slot,
        connections: &mut Connections,
    ) -> Option<FormerMember> {
        self.take_leaving(index, slot, connections);
        let owner = connections.owner(slot)?;
        let former = self[index].members.remove(index, slot, connections)?;
        self.account.release(owner, Held::Membership);
        if let FormerMember::CatchingUp(_) = former {
            self.account.release(owner, Held::CatchUp);
        }
        Some(former)
    }

    /// A member asks to leave, and does so once it has read the log.
    pub(super) fn start_leaving(&mut self, index: RoomIndex, slot: Slot, id: Option<&str>, connections: &Connections) {
        let (Some(owner), Some(place)) = (connections.owner(slot), connections.place(slot, index)) else { return };
        self.account.charge(owner, Held::Leaving);
        let room = &mut self[index];
        let is_level = room.is_level(place);
        room.members.start_leaving(slot, id, is_level);
    }

    /// A member does not leave by its own request any more; gives the request.
    pub(super) fn take_leaving(&mut self, index: RoomIndex, slot: Slot, connections: &Connections) -> Option<Leaving> {
        let leaving = self[index].members.take_leaving(slot)?;
        self.release_leaving(slot, connections);
        Some(leaving)
    }

    /// The request of a member that asked to leave, if it has read the whole log.
    pub(super) fn take_leaving_if_level(
        &mut self,
        index: RoomIndex,
        slot: Slot,
        connections: &Connections,
    ) -> Option<Leaving> {
        let place = connections.place(slot, index);
        let room = &mut self[index];
        let tail = room.fanout.tail();
        let leaving = room.members.take_leaving_if_level(slot, place, tail)?;
        self.release_leaving(slot, connections);
        Some(leaving)
    }

    fn release_leaving(&mut self, slot: Slot, connections: &Connections) {
        if let Some(owner) = connections.owner(slot) {
            self.account.release(owner, Held::Leaving);
        }
    }
}
