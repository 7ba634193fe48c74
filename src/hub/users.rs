//! Users, each with a number, so that rooms and connections need not carry names.

use crate::block_slab::BlockSlab;
use crate::id::UserId;
use crate::name_index::NameIndex;
use crate::owner::Owner;
use crate::protocol::UserView;
use crate::sharded_map::ShardedMap;
use crate::time::Now;

use super::stalls::Stalls;

/// A user's number, for as long as something holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UserKey(u32);

#[derive(Debug)]
struct User {
    id: UserId,
    holders: u32,
    /// Whether it may be muted in some room. If not, none is looked for.
    may_be_muted: bool,
}

/// The entry of a display name in its table, with the spare room of that.
const DISPLAY_NAME_BYTES: usize = 56;

/// A name to show, and the owner that it is charged to: none if another node has told it.
#[derive(Debug)]
struct DisplayName {
    text: Box<str>,
    owner: Option<Owner>,
}

impl DisplayName {
    fn owner_and_bytes(&self) -> Option<(Owner, usize)> {
        Some((self.owner?, DISPLAY_NAME_BYTES + self.text.len()))
    }
}

/// A name that has come or gone: its owner, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameCharge {
    Charged(Owner, usize),
    Released(Owner, usize),
}

/// Users by number and by name, counted by their holders: connections, and rooms in which they are present.
#[derive(Debug, Default)]
pub(super) struct Users {
    users: BlockSlab<User>,
    keys: NameIndex,
    /// Display names of users that have one.
    names: ShardedMap<UserKey, DisplayName>,
    /// What owners are to be charged for names, and what they are to be released from, in this order.
    name_charges: Vec<NameCharge>,
    stalls: Stalls,
    stalled: u64,
}

impl Users {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// How often a connection has stalled.
    pub(super) fn stalled(&self) -> u64 {
        self.stalled
    }

    /// The number of a user of another node, new or not; the caller holds it from now on. The latest display name counts.
    pub(super) fn hold_named(&mut self, id: &UserId, name: Option<&str>) -> UserKey {
        let key = self.hold_id(id);
        self.set_name(key, name.map(|name| DisplayName { text: name.into(), owner: None }));
        key
    }

    /// The same for the user of a connection, whose owner is to be charged for the name.
    pub(super) fn hold_connected(&mut self, id: &UserId, name: Option<&str>, owner: Owner) -> UserKey {
        let key = self.hold_id(id);
        self.rename(key, name, owner);
        key
    }

    fn hold_id(&mut self, id: &UserId) -> UserKey {
        let key = self.find(id.as_str()).unwrap_or_else(|| self.insert(id));
        self.hold(key);
        key
    }

    /// A user has another display name, or none, by a connection of this owner.
    pub(super) fn rename(&mut self, key: UserKey, name: Option<&str>, owner: Owner) {
        self.set_name(key, name.map(|name| DisplayName { text: name.into(), owner: Some(owner) }));
    }

    fn set_name(&mut self, key: UserKey, name: Option<DisplayName>) {
        if let Some((owner, bytes)) = name.as_ref().and_then(DisplayName::owner_and_bytes) {
            self.name_charges.push(NameCharge::Charged(owner, bytes));
        }
        let before = match name {
            Some(name) => self.names.insert(key, name),
            None => self.names.remove(&key),
        };
        if let Some((owner, bytes)) = before.and_then(|before| before.owner_and_bytes()) {
            self.name_charges.push(NameCharge::Released(owner, bytes));
        }
    }

    /// The names that have come and gone since this was asked last. It is asked at least once a turn.
    pub(super) fn take_name_charges(&mut self) -> Vec<NameCharge> {
        std::mem::take(&mut self.name_charges)
    }

    fn insert(&mut self, id: &UserId) -> UserKey {
        let key = self.users.insert(User { id: id.clone(), holders: 0, may_be_muted: false });
        let users = &self.users;
        self.keys.insert(id.as_str(), key, |key| users[key].id.as_str());
        UserKey(key)
    }

    /// One more holds a user.
    pub(super) fn hold(&mut self, key: UserKey) {
        self.users[key.0].holders += 1;
    }

    /// One less holds a user; the last one ends its number.
    pub(super) fn release(&mut self, key: UserKey) {
        let user = &mut self.users[key.0];
        user.holders -= 1;
        if user.holders == 0 {
            if let Some(user) = self.users.remove(key.0) {
                self.keys.remove(user.id.as_str(), key.0);
            }
            self.set_name(key, None);
        }
    }

    pub(super) fn id(&self, key: UserKey) -> &UserId {
        &self.users[key.0].id
    }

    /// Whether a user may be muted in some room.
    pub(super) fn may_be_muted(&self, key: UserKey) -> bool {
        self.users[key.0].may_be_muted
    }

    pub(super) fn note_mutes(&mut self, key: UserKey, may_be_muted: bool) {
        self.users[key.0].may_be_muted = may_be_muted;
    }

    pub(super) fn find(&self, id: &str) -> Option<UserKey> {
        self.keys.find(id, |key| self.users[key].id.as_str()).map(UserKey)
    }

    /// A user's connection stalls. Says how often that has happened lately, before now.
    pub(super) fn note_stall(&mut self, now: Now, key: UserKey) -> usize {
        let user = self.id(key).clone();
        self.stalled += 1;
        self.stalls.note(now, user)
    }

    pub(super) fn view(&self, key: UserKey) -> UserView<'_> {
        UserView { user_id: self.id(key).as_str(), name: self.names.get(&key).map(|name| &*name.text) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A user's number out of nothing.
    pub(in crate::hub) fn key(number: u32) -> UserKey {
        UserKey(number)
    }

    #[test]
    fn a_user_is_small() {
        let bytes = std::mem::size_of::<User>();
        assert!(bytes <= 32, "{bytes} bytes");
    }
}
