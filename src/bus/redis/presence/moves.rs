//! Users that have changed nodes, as the hub is told of them.

use std::collections::BTreeMap;

use crate::bus::message::PresenceChange;
use crate::id::UserId;
use crate::protocol::PresenceStatus;

/// Leaves out of what is told, from an index on, that a user is gone from one node and has come to another.
pub(super) fn leave_out_moves(out: &mut Vec<PresenceChange>, from: usize) {
    // The first change of each user, and the place of the last. If they differ, it was before as it is now.
    let mut users: BTreeMap<UserId, (PresenceStatus, usize)> = BTreeMap::new();
    let mut has_moves = false;
    for (place, PresenceChange { user, status, .. }) in out[from..].iter().enumerate() {
        let (first, last) = users.entry(user.clone()).or_insert((*status, place));
        *last = place;
        has_moves |= first != status;
    }
    if has_moves {
        let told: Vec<_> = out.drain(from..).enumerate().collect();
        let holds = |(place, change): &(usize, PresenceChange)| users[&change.user] == (change.status, *place);
        out.extend(told.into_iter().filter(holds).map(|(_, change)| change));
    }
}
