//! The list of the rooms of this node.

use crate::id::RoomName;
use crate::rights::RoomPattern;

use super::Hub;
use super::room::Room;

/// A room in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomSummary<'a> {
    pub(crate) name: &'a RoomName,
    /// Users that are present, on all nodes.
    pub(crate) users: usize,
    /// Connections on this node that are members.
    pub(crate) connections: usize,
    /// The number of the last message, unless the bus has yet to tell it.
    pub(crate) seq: Option<u64>,
}

impl<'a> RoomSummary<'a> {
    pub(super) fn of(room: &'a Room) -> Self {
        let (users, connections) = (room.users.len(), room.members.count());
        Self { name: &room.name, users, connections, seq: room.position.delivered() }
    }
}

/// So many entries of a list count as one unit of work.
const ENTRIES_A_UNIT: usize = 8;

impl Hub {
    /// The rooms of this node that a pattern matches, by their names, from the one that follows `after`. To find the first costs
    /// a look at some twenty names among a million, and each of the others one more.
    pub(crate) fn list_rooms<'a>(
        &'a self,
        rooms: &'a RoomPattern,
        after: Option<&'a RoomName>,
    ) -> impl Iterator<Item = RoomSummary<'a>> {
        self.rooms.listed(rooms, after).map(RoomSummary::of)
    }

    /// So many entries of a list were told.
    pub(crate) fn note_listed(&mut self, entries: usize) {
        self.work += (entries / ENTRIES_A_UNIT) as u32;
    }
}
