//! The users that are present in a room, in an order that depends on arrivals and departures, never on a hash.

use std::hash::BuildHasher;
use std::num::NonZeroU32;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::timer_wheel::Tick;

use super::members::push_tightly;
use super::users::UserKey;

/// How a user is present: here, elsewhere, or both. A user that is neither is not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) here: Here,
    /// Whether it is on another node.
    pub(super) is_elsewhere: bool,
}

/// How a user is present on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Nobody,
    /// By so many connections, at least one.
    Connected(u32),
    /// By none; it may come back until then.
    Grace(Tick),
}

/// A user that is present: eight bytes.
#[derive(Clone, Copy, Debug)]
struct Present {
    user: UserKey,
    state: u32,
}

/// In `state`: that the rest is a tick instead of a number of connections.
const GRACE: u32 = 1 << 31;

/// In `state`: that the user is elsewhere too.
const ELSEWHERE: u32 = 1 << 30;

/// In `state`: the rest.
const NUMBER_MAX: u32 = ELSEWHERE - 1;

impl Present {
    fn new(user: UserKey, presence: Presence) -> Self {
        let here = match presence.here {
            Here::Nobody => 0,
            Here::Connected(connections) => connections & NUMBER_MAX,
            Here::Grace(until) => until.number().get().min(NUMBER_MAX) | GRACE,
        };
        Self { user, state: if presence.is_elsewhere { here | ELSEWHERE } else { here } }
    }

    fn presence(self) -> Presence {
        let here = match NonZeroU32::new(self.state & NUMBER_MAX) {
            None => Here::Nobody,
            Some(tick) if self.state & GRACE != 0 => Here::Grace(Tick::numbered(tick)),
            Some(connections) => Here::Connected(connections.get()),
        };
        Presence { here, is_elsewhere: self.state & ELSEWHERE != 0 }
    }
}

/// Up to so many users are looked for one by one, which takes less time than hashing and no memory.
const SEARCHED_MAX: usize = 32;

/// The users of a room.
#[derive(Debug, Default)]
pub(super) struct RoomUsers {
    users: Vec<Present>,
    /// Where each user stands in `users`; there only in rooms with more than [`SEARCHED_MAX`].
    places: Option<Box<HashTable<u32>>>,
}

impl RoomUsers {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether all that are present are elsewhere.
    pub(super) fn is_nobody_here(&self) -> bool {
        self.users.iter().all(|present| present.presence().here == Here::Nobody)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (UserKey, Presence)> {
        self.users.iter().map(|present| (present.user, present.presence()))
    }

    pub(super) fn get(&self, user: UserKey) -> Option<Presence> {
        self.place(user).map(|place| self.users[place].presence())
    }

    /// Sets how a user is present; a new one comes last.
    pub(super) fn set(&mut self, user: UserKey, presence: Presence) {
        let present = Present::new(user, presence);
        if let Some(place) = self.place(user) {
            self.users[place] = present;
            return;
        }
        push_tightly(&mut self.users, present);
        let users = &self.users;
        let hash_at = |place: &u32| hash(users[*place as usize].user);
        if let Some(places) = &mut self.places {
            places.insert_unique(hash(user), users.len() as u32 - 1, hash_at);
        } else if users.len() > SEARCHED_MAX {
            let mut places = HashTable::with_capacity(users.len());
            for place in 0..users.len() as u32 {
                places.insert_unique(hash_at(&place), place, hash_at);
            }
            self.places = Some(Box::new(places));
        }
    }

    /// A user is not present any more; the last one takes its place.
    pub(super) fn remove(&mut self, user: UserKey) {
        let Some(place) = self.place(user) else { return };
        self.users.swap_remove(place);
        if let Some(places) = &mut self.places {
            if let Ok(entry) = places.find_entry(hash(user), |found| *found == place as u32) {
                entry.remove();
            }
            let before = self.users.len() as u32;
            if let Some(moved) = self.users.get(place)
                && let Some(found) = places.find_mut(hash(moved.user), |found| *found == before)
            {
                *found = place as u32;
            }
        }
        if self.users.len() <= SEARCHED_MAX / 2 {
            self.places = None;
        }
        if self.users.len() * 4 < self.users.capacity() {
            self.users.shrink_to(self.users.len() * 2);
        }
    }

    fn place(&self, user: UserKey) -> Option<usize> {
        match &self.places {
            None => self.users.iter().position(|present| present.user == user),
            Some(places) => {
                let is_user = |place: &u32| self.users[*place as usize].user == user;
                places.find(hash(user), is_user).map(|place| *place as usize)
            }
        }
    }
}

/// Not keyed by chance: the numbers are ours, no peer chooses them.
fn hash(user: UserKey) -> u64 {
    FxBuildHasher.hash_one(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::users::tests::key;

    fn tick(number: u32) -> Tick {
        NonZeroU32::new(number).map_or(Tick::FIRST, Tick::numbered)
    }

    /// What it has to be like: a list that is searched from the front.
    fn check(room_users: &RoomUsers, model: &[(UserKey, Presence)]) {
        assert_eq!(room_users.iter().collect::<Vec<_>>(), model);
        assert_eq!(room_users.len(), model.len());
        for (user, presence) in model {
            assert_eq!(room_users.get(*user), Some(*presence));
        }
    }

    #[test]
    fn it_is_an_ordered_list_of_any_length() {
        let mut room_users = RoomUsers::default();
        let mut model = Vec::new();
        // Up across both thresholds and down again, removing from the middle.
        for i in 0..4 * SEARCHED_MAX as u32 {
            let connected = Presence { here: Here::Connected(i + 1), is_elsewhere: i % 3 == 0 };
            room_users.set(key(i * 7), connected);
            model.push((key(i * 7), connected));
            let grace = Presence { here: Here::Grace(tick(i + 1)), is_elsewhere: i % 5 == 0 };
            let user = key(i / 2 * 7);
            room_users.set(user, grace);
            model[i as usize / 2].1 = grace;
            check(&room_users, &model);
        }
        while !model.is_empty() {
            let place = model.len() * 2 / 3;
            room_users.remove(model[place].0);
            let gone = model.swap_remove(place);
            assert_eq!(room_users.get(gone.0), None);
            check(&room_users, &model);
        }
    }

    #[test]
    fn a_user_that_is_only_elsewhere_is_not_here() {
        let mut room_users = RoomUsers::default();
        assert!(room_users.is_nobody_here());
        room_users.set(key(1), Presence { here: Here::Nobody, is_elsewhere: true });
        assert!(room_users.is_nobody_here());
        for here in [Here::Connected(1), Here::Grace(Tick::FIRST)] {
            room_users.set(key(2), Presence { here, is_elsewhere: false });
            assert!(!room_users.is_nobody_here());
        }
    }

    #[test]
    fn presence_is_small() {
        assert_eq!(std::mem::size_of::<Present>(), 8);
        assert_eq!(std::mem::size_of::<RoomUsers>(), 32);
    }
}
