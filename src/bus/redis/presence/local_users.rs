//! The users on this node in one room, and the changes that Redis has yet to be told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::delta::{CHANGES_MAX, PresenceRequest, UserSet, UserState};
use crate::id::UserId;

/// The least time between two updates of a room. Changes in between go together.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct LocalUsers {
    users: UserSet,
    /// Users whose state differs from what Redis was told, with the state that it was told.
    unsent: BTreeMap<UserId, UserState>,
    /// The version that Redis was told last; 0 if none since the room was opened.
    pub(crate) version: u64,
    /// Redis does not have what it was told.
    pub(crate) needs_resend: bool,
    /// The earliest time of the next update.
    pub(crate) at: Duration,
}

impl LocalUsers {
    fn state_of(&self, user: &UserId) -> UserState {
        self.users.get(user).map_or(UserState::Gone, |name| UserState::Here(name.clone()))
    }

    pub(crate) fn change(&mut self, user: UserId, state: UserState) {
        let before = self.state_of(&user);
        if before == state {
            return;
        }
        match self.unsent.entry(user.clone()) {
            // A user who came and left again need not be mentioned.
            Entry::Occupied(known) if *known.get() == state => drop(known.remove()),
            Entry::Occupied(_) => {}
            Entry::Vacant(entry) => drop(entry.insert(before)),
        }
        match state {
            UserState::Here(name) => drop(self.users.insert(user, name)),
            UserState::Gone => drop(self.users.remove(&user)),
        }
    }

    pub(crate) fn wants_update(&self) -> bool {
        self.needs_resend || !self.unsent.is_empty()
    }

    /// How many users Redis was told about.
    fn sent_count(&self) -> usize {
        let is_present = |state: &UserState| *state != UserState::Gone;
        let more =
            self.unsent.iter().filter(|(user, known)| is_present(known) && !self.users.contains_key(*user)).count();
        let less =
            self.unsent.iter().filter(|(user, known)| !is_present(known) && self.users.contains_key(*user)).count();
        self.users.len() + more - less
    }

    /// The next update, under this version.
    pub(crate) fn next_update(&mut self, now: Duration, version: u64) -> PresenceRequest {
        self.at = now + UPDATE_INTERVAL;
        let base = std::mem::replace(&mut self.version, version);
        if std::mem::take(&mut self.needs_resend) || base == 0 {
            self.unsent.clear();
            let all = self.users.iter().map(|(user, name)| (user.clone(), UserState::Here(name.clone())));
            return PresenceRequest::Update { base: None, version, changes: all.collect() };
        }
        let mut changes = Vec::with_capacity(self.unsent.len().min(CHANGES_MAX));
        while changes.len() < CHANGES_MAX
            && let Some((user, _)) = self.unsent.pop_first()
        {
            let state = self.state_of(&user);
            changes.push((user, state));
        }
        PresenceRequest::Update { base: Some(base), version, changes }
    }

    /// Compares with what Redis has. Returns whether the whole set has to be sent again.
    pub(crate) fn compare(&mut self, found: Option<(u64, usize)>) -> bool {
        let sent = self.sent_count();
        let is_same = match found {
            Some((version, count)) => (version == self.version || count == 0) && count == sent,
            None => sent == 0,
        };
        self.needs_resend |= !is_same;
        !is_same
    }
}
