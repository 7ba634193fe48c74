//! The numbers by which the hub's tables speak of each other, each of its own type.

/// A room's place in the table of rooms. The table is indexed with it and does not ask whether the room is there, because
/// no index outlives its room:
///
/// - The table hands it out: [`Rooms::named`], [`Rooms::find`], [`Rooms::next_from`](super::rooms::Rooms::next_from) and
///   [`Rooms::open`](super::rooms::Rooms::open).
/// - It is kept in four places that forget it before it ends. A connection keeps those of its rooms, and a room with members
///   does not end. The scheduler's lists and the list of holders drop a room that ends. A room about which somebody has asked
///   does not end before the answer.
/// - It ends with its room in `Hub::forget_if_unused`. That happens where the last thing that held the room goes: a member that
///   was removed, a promise that was released, a grace that is over, a question that is answered. These functions use the index
///   no more afterwards, and neither do their callers. To append to a log, to announce a user or to make members fall back ends
///   no room.
/// - What outlives a call or calls one of these functions in a loop keeps a [`RoomRef`].
///
/// [`Rooms::named`]: super::rooms::Rooms::named
/// [`Rooms::find`]: super::rooms::Rooms::find
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RoomIndex(pub(super) u32);

/// Names a room for as long as anything may speak of it: a later room with the same index has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RoomRef {
    pub(super) index: RoomIndex,
    pub(super) generation: u32,
}

/// Names a purge for as long as the bus is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PurgeKey(pub(super) u64);

/// A place in a room's list of live members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LiveIndex(pub(super) u32);

/// A place in a room's list of members that catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CatchUpIndex(pub(super) u32);

/// Where a member stands in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Live(LiveIndex),
    CatchingUp(CatchUpIndex),
}
