//! The set of this node in one room, and what Redis has yet to be told of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::super::share::{CHANGES_MAX, Users, Whereabouts, Wish};
use crate::id::UserId;

/// The least time between two shares of a room: what happens meanwhile goes together.
const PACE: Duration = Duration::from_millis(50);

/// The set of this node.
#[derive(Debug, Default)]
pub(super) struct Own {
    users: Users,
    /// Where Redis was told something else: what it was told.
    untold: BTreeMap<UserId, Whereabouts>,
    /// What Redis was told last; 0 if nothing since the room was opened.
    pub(super) version: u64,
    /// Redis does not have what it was told.
    pub(super) is_doubted: bool,
    /// Nothing is said before.
    pub(super) at: Duration,
}

impl Own {
    fn whereabouts(&self, user: &UserId) -> Whereabouts {
        self.users.get(user).map_or(Whereabouts::Gone, |name| Whereabouts::Here(name.clone()))
    }

    /// A user has come or gone.
    pub(super) fn change(&mut self, user: UserId, whereabouts: Whereabouts) {
        let before = self.whereabouts(&user);
        if before == whereabouts {
            return;
        }
        match self.untold.entry(user.clone()) {
            // Who comes and goes again has not been there.
            Entry::Occupied(told) if *told.get() == whereabouts => drop(told.remove()),
            Entry::Occupied(_) => {}
            Entry::Vacant(told) => drop(told.insert(before)),
        }
        match whereabouts {
            Whereabouts::Here(name) => drop(self.users.insert(user, name)),
            Whereabouts::Gone => drop(self.users.remove(&user)),
        }
    }

    pub(super) fn wants_to_share(&self) -> bool {
        self.is_doubted || !self.untold.is_empty()
    }

    /// How many Redis was told of.
    fn told(&self) -> usize {
        let is_present = |whereabouts: &Whereabouts| *whereabouts != Whereabouts::Gone;
        let more =
            self.untold.iter().filter(|(user, told)| is_present(told) && !self.users.contains_key(*user)).count();
        let less =
            self.untold.iter().filter(|(user, told)| !is_present(told) && self.users.contains_key(*user)).count();
        self.users.len() + more - less
    }

    /// What Redis is to be told, under this version.
    pub(super) fn share(&mut self, now: Duration, version: u64) -> Wish {
        self.at = now + PACE;
        let told = std::mem::replace(&mut self.version, version);
        if std::mem::take(&mut self.is_doubted) || told == 0 {
            self.untold.clear();
            let all = self.users.iter().map(|(user, name)| (user.clone(), Whereabouts::Here(name.clone())));
            return Wish::Share { base: None, version, changes: all.collect() };
        }
        let mut changes = Vec::with_capacity(self.untold.len().min(CHANGES_MAX));
        while changes.len() < CHANGES_MAX
            && let Some((user, _)) = self.untold.pop_first()
        {
            let whereabouts = self.whereabouts(&user);
            changes.push((user, whereabouts));
        }
        Wish::Share { base: Some(told), version, changes }
    }

    /// Compares with what Redis has; says whether it has to be told again.
    pub(super) fn compare(&mut self, found: Option<(u64, usize)>) -> bool {
        let told = self.told();
        let is_same = match found {
            Some((version, count)) => (version == self.version || count == 0) && count == told,
            None => told == 0,
        };
        self.is_doubted |= !is_same;
        !is_same
    }
}
