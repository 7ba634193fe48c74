//! The numbers by which the hub's tables speak of each other, each of its own type.

/// A room's place in the table of rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RoomIndex(pub(super) u32);

/// Names a room for as long as anything may speak of it: a later room with the same index has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoomRef {
    pub(super) index: RoomIndex,
    pub(super) generation: u32,
}

/// A place in a room's list of live members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveIndex(pub(super) u32);

/// A place in a room's list of members that catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CatchUpIndex(pub(super) u32);

/// Where a member stands in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Live(LiveIndex),
    CatchingUp(CatchUpIndex),
}
