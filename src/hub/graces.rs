//! Users who are awaited back in rooms, and the owners that are charged for it.

use crate::owner::Owner;
use crate::sharded_map::ShardedMap;

use super::account::{Account, Held};
use super::index::RoomRef;
use super::users::UserKey;

/// Graces that have a timer. A user that is lost again and again would otherwise get one more timer each time, all of which
/// would be put back for as long as the latest grace lasts.
#[derive(Debug, Default)]
pub(super) struct Graces {
    users: ShardedMap<UserKey, AwaitedUser>,
    /// The owners of further graces of users that have several.
    further: ShardedMap<(RoomRef, UserKey), Owner>,
}

/// A user with graces.
#[derive(Debug)]
struct AwaitedUser {
    /// The owner of the connection that was lost last, and what it is charged for the user.
    owner: Owner,
    bytes: u32,
    graces: u32,
    /// One of the graces. Most users have only this one, so that they take one place in memory.
    first: Option<(RoomRef, Owner)>,
}

impl Graces {
    /// A user's grace in a room begins, perhaps anew, with so many bytes for the user. Says whether it needs a timer.
    pub(super) fn begin(
        &mut self,
        account: &mut Account,
        (room, user): (RoomRef, UserKey),
        (owner, user_bytes): (Owner, usize),
    ) -> bool {
        account.charge(owner, Held::Grace);
        account.charge(owner, Held::User(user_bytes));
        let bytes = user_bytes as u32;
        let Some(awaited) = self.users.get_mut(&user) else {
            self.users.insert(user, AwaitedUser { owner, bytes, graces: 1, first: Some((room, owner)) });
            return true;
        };
        account.release(awaited.owner, Held::User(awaited.bytes as usize));
        (awaited.owner, awaited.bytes) = (owner, bytes);
        let before = match &mut awaited.first {
            Some((first, of_first)) if *first == room => Some(std::mem::replace(of_first, owner)),
            _ => self.further.insert((room, user), owner),
        };
        if let Some(before) = before {
            account.release(before, Held::Grace);
        }
        awaited.graces += u32::from(before.is_none());
        before.is_none()
    }

    /// The timer of a grace has come up and is not put back. Says which owner was charged for it.
    pub(super) fn end(&mut self, account: &mut Account, room: RoomRef, user: UserKey) -> Option<Owner> {
        let awaited = self.users.get_mut(&user)?;
        let owner = match awaited.first.take_if(|(first, _)| *first == room) {
            Some((_, owner)) => owner,
            None => self.further.remove(&(room, user))?,
        };
        account.release(owner, Held::Grace);
        awaited.graces -= 1;
        if awaited.graces == 0 {
            account.release(awaited.owner, Held::User(awaited.bytes as usize));
            self.users.remove(&user);
        }
        Some(owner)
    }
}
