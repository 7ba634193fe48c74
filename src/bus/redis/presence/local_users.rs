//! The set of this node in one room, and what Redis has yet to be told of it.

use super::delta::{CHANGES_MAX, PresenceRequest, UserSet, UserState};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use crate::id::UserId;

/// The least time between two shares of a room: what happens meanwhile goes together.
const PACE: Duration = Duration::from_millis(50);

/// The set of this node.
#[derive(Debug, Default)]
pub(crate) struct LocalUsers {
    users: UserSet,
    /// Where Redis was told something else: what it was told.
    untold: BTreeMap<UserId, UserState>,
    /// What Redis was told last; 0 if nothing since the room was opened.
    pub(crate) version: u64,
    /// Redis does not have what it was told.
    pub(crate) is_doubted: bool,
    /// Nothing is said before.
    pub(crate) at: Duration,
}

impl LocalUsers {
    fn whereabouts(&self, user: &UserId) -> UserState {
        self.users.get(user).map_or(UserState::Gone, |name| UserState::Here(name.clone()))
    }

    /// A user has come or gone.
    pub(crate) fn change(&mut self, user: UserId, whereabouts: UserState) {
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
            UserState::Here(name) => drop(self.users.insert(user, name)),
            UserState::Gone => drop(self.users.remove(&user)),
        }
    }

    pub(crate) fn wants_to_share(&self) -> bool {
        self.is_doubted || !self.untold.is_empty()
    }

    /// How many Redis was told of.
    fn told(&self) -> usize {
        let is_present = |whereabouts: &UserState| *whereabouts != UserState::Gone;
        let more =
            self.untold.iter().filter(|(user, told)| is_present(told) && !self.users.contains_key(*user)).count();
        let less =
            self.untold.iter().filter(|(user, told)| !is_present(told) && self.users.contains_key(*user)).count();
        self.users.len() + more - less
    }

    /// What Redis is to be told, under this version.
    pub(crate) fn share(&mut self, now: Duration, version: u64) -> PresenceRequest {
        self.at = now + PACE;
        let told = std::mem::replace(&mut self.version, version);
        if std::mem::take(&mut self.is_doubted) || told == 0 {
            self.untold.clear();
            let all = self.users.iter().map(|(user, name)| (user.clone(), UserState::Here(name.clone())));
            return PresenceRequest::Update { base: None, version, changes: all.collect() };
        }
        let mut changes = Vec::with_capacity(self.untold.len().min(CHANGES_MAX));
        while changes.len() < CHANGES_MAX
            && let Some((user, _)) = self.untold.pop_first()
        {
            let whereabouts = self.whereabouts(&user);
            changes.push((user, whereabouts));
        }
        PresenceRequest::Update { base: Some(told), version, changes }
    }

    /// Compares with what Redis has; says whether it has to be told again.
    pub(crate) fn compare(&mut self, found: Option<(u64, usize)>) -> bool {
        let told = self.told();
        let is_same = match found {
            Some((version, count)) => (version == self.version || count == 0) && count == told,
            None => told == 0,
        };
        self.is_doubted |= !is_same;
        !is_same
    }
}
