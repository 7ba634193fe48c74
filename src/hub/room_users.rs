//! The users that are present in a room, what others learn when that changes, and whether they are named or counted.
//!
//! The order of users depends on arrivals and departures, never on a hash.

use std::hash::BuildHasher;
use std::num::NonZeroU32;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::protocol::{PresenceStatus, UserView};
use crate::settings::RuleIndex;
use crate::timer_wheel::Tick;

use super::members::push_tightly;
use super::users::{UserKey, Users};

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

/// What others learn when the presence of a user changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct PresenceNews {
    /// For the other nodes: whether the user is on this one.
    pub(super) for_nodes: Option<PresenceStatus>,
    /// For the members: whether the user is in the room, on whatever node.
    pub(super) for_members: Option<PresenceStatus>,
}

/// How members learn that a user has come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    /// By the user's name.
    User,
    /// By a list of all users: there are few enough again.
    List,
    /// By a count, soon, for whatever happens until then.
    Count,
}

/// The users of a room.
#[derive(Debug, Default)]
pub(super) struct RoomUsers {
    users: Vec<Present>,
    /// Whether there are so many that they are counted instead of named.
    are_counted: bool,
    /// Whether members are to be sent a count soon.
    count_is_due: bool,
    /// The rule of the room, which decides how many are listed. It costs no byte here, and eight in the room itself.
    rule: RuleIndex,
    /// Where each user stands in `users`; there only in rooms with more than [`SEARCHED_MAX`].
    places: Option<Box<HashTable<u32>>>,
}

impl RoomUsers {
    /// Nobody yet, in a room with this rule.
    pub(super) fn new(rule: RuleIndex) -> Self {
        Self { rule, ..Self::default() }
    }

    pub(super) fn rule(&self) -> RuleIndex {
        self.rule
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether all that are present are elsewhere.
    pub(super) fn is_nobody_here(&self) -> bool {
        self.users.iter().all(|present| present.presence().here == Here::Nobody)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = UserKey> {
        self.users.iter().map(|present| present.user)
    }

    /// Up to `max` users in the places before `end`, the nearest ones, and the first of their places.
    ///
    /// A search from the end to the beginning meets every user that is present all the time: only the last one takes the place of one
    /// that goes, and a new one comes last.
    pub(super) fn before(&self, end: usize, max: usize) -> (usize, impl Iterator<Item = UserKey>) {
        let end = end.min(self.users.len());
        let start = end.saturating_sub(max);
        (start, self.users[start..end].iter().map(|present| present.user))
    }

    /// Whether there are so many that they are counted instead of named.
    pub(super) fn are_counted(&self) -> bool {
        self.are_counted
    }

    /// All users, unless they are counted.
    pub(super) fn list<'a>(&self, users: &'a Users) -> Option<Vec<UserView<'a>>> {
        (!self.are_counted).then(|| self.users.iter().map(|present| users.view(present.user)).collect())
    }

    /// How members learn of the user who has just come or gone, in a room that lists so many users at most.
    pub(super) fn announcement(&mut self, listed_max: u32) -> Announcement {
        let listed_max = listed_max as usize;
        if self.are_counted && self.len() < listed_max * 3 / 4 {
            self.are_counted = false;
            return Announcement::List;
        }
        if self.len() > listed_max {
            self.are_counted = true;
        }
        if self.are_counted { Announcement::Count } else { Announcement::User }
    }

    /// A count is to be sent soon. Says whether that was not so before.
    pub(super) fn begin_count(&mut self) -> bool {
        !std::mem::replace(&mut self.count_is_due, true)
    }

    /// The count that was due is sent now.
    pub(super) fn end_count(&mut self) {
        self.count_is_due = false;
    }

    /// One more connection of a user is live here.
    pub(super) fn connect(&mut self, user: UserKey) -> PresenceNews {
        let before = self.get(user);
        let Presence { here, is_elsewhere } = before.unwrap_or(Presence { here: Here::Nobody, is_elsewhere: false });
        let connections = if let Here::Connected(connections) = here { connections } else { 0 };
        self.set(user, Presence { here: Here::Connected(connections + 1), is_elsewhere });
        PresenceNews {
            for_nodes: (here == Here::Nobody).then_some(PresenceStatus::Online),
            for_members: before.is_none().then_some(PresenceStatus::Online),
        }
    }

    /// One connection less of a user is here. The last one stays counted until [`RoomUsers::await_back`] or
    /// [`RoomUsers::leave_node`]; says whether it is that one.
    pub(super) fn disconnect(&mut self, user: UserKey) -> bool {
        let Some(Presence { here: Here::Connected(connections), is_elsewhere }) = self.get(user) else { return false };
        if connections > 1 {
            self.set(user, Presence { here: Here::Connected(connections - 1), is_elsewhere });
        }
        connections <= 1
    }

    /// The last connection of a user was lost; it is present until then.
    pub(super) fn await_back(&mut self, user: UserKey, until: Tick) {
        if let Some(presence) = self.get(user) {
            self.set(user, Presence { here: Here::Grace(until), ..presence });
        }
    }

    /// Until when a user without a connection is awaited back.
    pub(super) fn grace(&self, user: UserKey) -> Option<Tick> {
        match self.get(user)?.here {
            Here::Grace(until) => Some(until),
            Here::Nobody | Here::Connected(_) => None,
        }
    }

    /// A user has no connection here any more, and is not awaited back.
    pub(super) fn leave_node(&mut self, user: UserKey) -> PresenceNews {
        let Some(Presence { here, is_elsewhere }) = self.get(user) else { return PresenceNews::default() };
        let for_nodes = (here != Here::Nobody).then_some(PresenceStatus::Offline);
        if is_elsewhere {
            self.set(user, Presence { here: Here::Nobody, is_elsewhere });
            return PresenceNews { for_nodes, for_members: None };
        }
        self.remove(user);
        PresenceNews { for_nodes, for_members: Some(PresenceStatus::Offline) }
    }

    /// A user has come to the room on another node.
    pub(super) fn come_elsewhere(&mut self, user: UserKey) -> PresenceNews {
        let before = self.get(user);
        let here = before.map_or(Here::Nobody, |before| before.here);
        self.set(user, Presence { here, is_elsewhere: true });
        PresenceNews { for_nodes: None, for_members: before.is_none().then_some(PresenceStatus::Online) }
    }

    /// A user is in the room on no other node any more.
    pub(super) fn leave_elsewhere(&mut self, user: UserKey) -> PresenceNews {
        match self.get(user) {
            Some(Presence { here: Here::Nobody, .. }) => {
                self.remove(user);
                PresenceNews { for_nodes: None, for_members: Some(PresenceStatus::Offline) }
            }
            Some(Presence { here, .. }) => {
                self.set(user, Presence { here, is_elsewhere: false });
                PresenceNews::default()
            }
            None => PresenceNews::default(),
        }
    }

    pub(super) fn get(&self, user: UserKey) -> Option<Presence> {
        self.place(user).map(|place| self.users[place].presence())
    }

    /// Sets how a user is present; a new one comes last.
    fn set(&mut self, user: UserKey, presence: Presence) {
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
    fn remove(&mut self, user: UserKey) {
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
        assert!(room_users.keys().eq(model.iter().map(|(user, _)| *user)));
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

    /// What somebody knows who is told all news: whether a user is there. Nothing is told that is known.
    fn learn(known: &mut bool, news: Option<PresenceStatus>) {
        if let Some(status) = news {
            assert_ne!(*known, status == PresenceStatus::Online, "{news:?}");
            *known = status == PresenceStatus::Online;
        }
    }

    #[test]
    fn whatever_happens_to_a_user_nodes_and_members_know_whether_it_is_there() {
        const STEPS: u32 = 7;
        for sequence in 0..5_u32.pow(STEPS) {
            let (mut room_users, user) = (RoomUsers::default(), key(7));
            let (mut connections, mut is_awaited, mut is_elsewhere) = (0, false, false);
            let (mut nodes, mut members) = (false, false);
            for step in 0..STEPS {
                let news = match sequence / 5_u32.pow(step) % 5 {
                    0 => {
                        (connections, is_awaited) = (connections + 1, false);
                        room_users.connect(user)
                    }
                    kind @ (1 | 2) if connections > 0 => {
                        connections -= 1;
                        assert_eq!(room_users.disconnect(user), connections == 0);
                        if connections > 0 {
                            PresenceNews::default()
                        } else if kind == 1 {
                            room_users.leave_node(user)
                        } else {
                            is_awaited = true;
                            room_users.await_back(user, tick(step + 1));
                            PresenceNews::default()
                        }
                    }
                    1 if is_awaited => {
                        is_awaited = false;
                        room_users.leave_node(user)
                    }
                    3 => {
                        is_elsewhere = true;
                        room_users.come_elsewhere(user)
                    }
                    4 => {
                        is_elsewhere = false;
                        room_users.leave_elsewhere(user)
                    }
                    _ => continue,
                };
                learn(&mut nodes, news.for_nodes);
                learn(&mut members, news.for_members);
                let is_here = connections > 0 || is_awaited;
                assert_eq!((nodes, members), (is_here, is_here || is_elsewhere), "{sequence}");
                assert_eq!(room_users.get(user).is_some(), members);
                assert_eq!((room_users.grace(user).is_some(), room_users.is_nobody_here()), (is_awaited, !is_here));
            }
        }
    }

    #[test]
    fn presence_is_small() {
        assert_eq!(std::mem::size_of::<Present>(), 8);
        assert_eq!(std::mem::size_of::<RoomUsers>(), 40);
    }
}
