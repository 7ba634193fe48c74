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
    /// The owner of the connection that was lost last.
    owners: ShardedMap<(RoomRef, UserKey), Owner>,
    users: ShardedMap<UserKey, AwaitedUser>,
}

/// A user with graces.
#[derive(Debug)]
struct AwaitedUser {
    /// The owner of the connection that was lost last, and what it is charged for the user.
    owner: Owner,
    bytes: u32,
    graces: u32,
}

impl Graces {
    /// A user's grace in a room begins, perhaps anew, with so many bytes for the user. Says whether it needs a timer.
    pub(super) fn begin(
        &mut self,
        account: &mut Account,
        (room, user): (RoomRef, UserKey),
        (owner, user_bytes): (Owner, usize),
    ) -> bool {
        let before = self.owners.insert((room, user), owner);
        if let Some(before) = before {
            account.release(before, Held::Grace);
        }
        account.charge(owner, Held::Grace);
        let is_new = u32::from(before.is_none());
        if let Some(awaited) = self.users.get_mut(&user) {
            account.release(awaited.owner, Held::User(awaited.bytes as usize));
            *awaited = AwaitedUser { owner, bytes: user_bytes as u32, graces: awaited.graces + is_new };
        } else {
            self.users.insert(user, AwaitedUser { owner, bytes: user_bytes as u32, graces: is_new });
        }
        account.charge(owner, Held::User(user_bytes));
        before.is_none()
    }

    /// The timer of a grace has come up and is not put back. Says which owner was charged for it.
    pub(super) fn end(&mut self, account: &mut Account, room: RoomRef, user: UserKey) -> Option<Owner> {
        let owner = self.owners.remove(&(room, user))?;
        account.release(owner, Held::Grace);
        if let Some(awaited) = self.users.get_mut(&user) {
            awaited.graces -= 1;
            if awaited.graces == 0 {
                account.release(awaited.owner, Held::User(awaited.bytes as usize));
                self.users.remove(&user);
            }
        }
        Some(owner)
    }
}
