//! What rooms, memberships and graces take of memory, charged to owners.
//!
//! | what | charged to | until |
//! |---|---|---|
//! | a room, here and in the bus | the owner whose join opens it | the room ends, even if other members hold it by then |
//! | a membership, and its state while it catches up or leaves | the owner of its connection | it is over |
//! | a grace, and the id of the user that it keeps | the owner of the connection that was lost | its timer comes up |
//! | a display name | the owner of the connection that has brought it | it is replaced, or the user is forgotten |
//! | the id of a user on the heap; a token's claims, its grants, its refresh | the owner of the connection | it is gone |
//!
//! A join that finds no space is refused. A grace that finds none ends at once. A member that falls back or leaves is charged
//! whether there is space or not, which adds a fixed amount to each membership at most; so is what a connection brings along. The
//! connections of a user share one id, for which each is charged. Users of other nodes are not charged:
//! each node bounds its own, and they hold no room.

use crate::id::{RoomName, name_heap_bytes};
use crate::owner::Owner;
use crate::protocol::{ErrorCode, UserView};
use crate::quota::Quota;

use super::error_reply::Refused;
use super::leaving::Leaving;
use super::reader::CatchUp;
use super::room::Room;

/// A room: its place in the table, an index entry, one in the order of names, and most of the spare space of its lists while they
/// are short; and what the bus has of it.
const ROOM_BYTES: usize = size_of::<Room>() + 8 + 6 + 2 * 22 + BUS_ROOM_BYTES;

/// The memory that a bus takes for an open room: its place in a table, an index entry, one on a timer wheel. The name is the hub's.
const BUS_ROOM_BYTES: usize = 128;

/// A place in the lists of the room and in the list of the connection, with the spare space of these lists.
const MEMBERSHIP_BYTES: usize = 25;

/// What catching up adds to a membership: an entry in a list with spare space, an id, an epoch.
const CATCH_UP_BYTES: usize = size_of::<CatchUp>() * 4 / 3 + 2 * NAME_BYTES;

/// What leaving adds to a membership: an entry in a tree, two ids, an epoch.
const LEAVING_BYTES: usize = 2 * size_of::<Leaving>() + 3 * NAME_BYTES;

/// An id or an epoch at its longest.
const NAME_BYTES: usize = 64 + 16;

/// A grace: an entry in a table, which the first grace of a user does not need, on the timer wheel and in the list of users of the room.
const GRACE_BYTES: usize = 92;

/// A user who is only awaited back: an entry in the table of users, in an index, and in a table of such users.
const USER_BYTES: usize = 84;

/// What an owner is charged for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held<'a> {
    Room(&'a RoomName),
    Membership,
    /// That a member catches up.
    CatchUp,
    /// That a member leaves.
    Leaving,
    Grace,
    /// The user of a grace, by [`user_bytes`].
    User(usize),
    /// The memory of an identity, or a part of that.
    Identity(usize),
}

impl Held<'_> {
    fn bytes(self) -> usize {
        match self {
            Self::Room(name) => ROOM_BYTES + name_heap_bytes(name.as_str()),
            Self::Membership => MEMBERSHIP_BYTES,
            Self::CatchUp => CATCH_UP_BYTES,
            Self::Leaving => LEAVING_BYTES,
            Self::Grace => GRACE_BYTES,
            Self::User(bytes) | Self::Identity(bytes) => bytes,
        }
    }
}

/// The memory of a user that is only awaited back. Its display name is charged apart.
pub(super) fn user_bytes(user: UserView<'_>) -> usize {
    USER_BYTES + name_heap_bytes(user.user_id)
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Account {
    quota: Quota,
}

impl Account {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { quota: Quota::new(bytes_max) }
    }

    /// What all owners are charged together.
    pub(super) fn held(&self) -> usize {
        self.quota.held()
    }

    pub(super) fn has_space(&self, owner: Owner, more: &[Held<'_>]) -> bool {
        self.quota.has_space(owner, more.iter().map(|held| held.bytes()).sum())
    }

    /// Whether an owner may join a room, which has to be opened if it has a new name.
    pub(super) fn check_join(&self, owner: Owner, new_room: Option<&RoomName>) -> Result<(), Refused> {
        let has_space = match new_room {
            Some(name) => self.has_space(owner, &[Held::Room(name), Held::Membership, Held::CatchUp]),
            None => self.has_space(owner, &[Held::Membership, Held::CatchUp]),
        };
        if has_space {
            return Ok(());
        }
        let held = self.quota.held_by(owner);
        let message =
            format!("rooms and memberships of the user or address take {held} bytes; there is no space for more");
        Err((ErrorCode::ServerBusy, message))
    }

    /// Charges an owner, whether it has space or not.
    pub(super) fn charge(&mut self, owner: Owner, held: Held<'_>) {
        // An owner that holds nothing has no entry.
        if held.bytes() > 0 {
            self.quota.charge(owner, held.bytes());
        }
    }

    /// Takes back what an owner was charged.
    pub(super) fn release(&mut self, owner: Owner, held: Held<'_>) {
        if held.bytes() > 0 {
            self.quota.release(owner, held.bytes());
        }
    }
}

#[cfg(test)]
mod tests;
