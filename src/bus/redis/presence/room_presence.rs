//! The present users of one room: those on this node, with what Redis knows about them, and those
//! on other nodes. Sans-IO.
//!
//! Each node owns the set of users on it, and is the only one to change it. Each change has a
//! version. The other nodes hold replicas: a [`PresenceDelta`] is applied if its base is the
//! version of the replica; otherwise the set is queried. So a lost, repeated or late delta does
//! no harm, and sending a whole set again repairs whatever Redis has lost.
//!
//! The loop contract in one sentence: *hand in what happened, tell the hub the changes, send what
//! [`RoomPresence::poll`] returns when [`RoomPresence::next`] says.*

mod node_changes;

use std::time::Duration;

use super::check::Check;
use super::delta::{NodeSet, NodeSets, PresenceDelta, PresenceRequest, UserSet, UserState};
use super::local_users::LocalUsers;
use super::moves::leave_out_moves;
use super::nodes::{Liveness, NodeId, Nodes};
use super::replica::{Replica, ReplicaState, offline, online};
use crate::bus::message::PresenceChange;
use crate::id::UserId;
use crate::protocol::PresenceStatus;

/// Changes in deltas that wait for an answer. Beyond it, deltas are dropped and their set is
/// queried.
const WAITING_CHANGES_MAX: usize = 4096;

/// How long a room waits after Redis refused a request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long Redis may lack the set of a living node before it counts as empty. By then that node
/// has compared it twice.
const MISSING_MAX: Duration = Duration::from_secs(120);

/// All users of another node.
struct NodeUsers {
    node: NodeId,
    version: u64,
    users: UserSet,
}

#[derive(Debug, Default)]
pub(crate) struct RoomPresence {
    local: LocalUsers,
    replicas: Vec<Replica>,
    /// Deltas that wait for an answer.
    waiting_deltas: Vec<PresenceDelta>,
    waiting_changes: usize,
    /// Dead nodes whose sets are to be removed, if they still have this version.
    tombstones: Vec<(NodeId, u64)>,
    wants_query: bool,
    query_at: Duration,
    is_loaded: bool,
    /// The request under way.
    under_way: Option<RequestKind>,
    /// The last request.
    last: Option<RequestKind>,
    check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Update,
    Query,
}

impl RoomPresence {
    /// Whether Redis was queried and has answered completely.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Whether Redis knows all of the local users, and no request is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.under_way.is_none() && !self.local.wants_update()
    }

    /// How many users the replicas have.
    pub(crate) fn len_elsewhere(&self) -> usize {
        self.replicas.iter().map(|replica| replica.users.len()).sum()
    }

    fn is_draining(&self, node: &NodeId) -> bool {
        self.find(node).is_some_and(|index| matches!(self.replicas[index].state, ReplicaState::Draining { .. }))
    }

    pub(crate) fn has_unknown(&self) -> bool {
        self.replicas.iter().any(|replica| replica.state == ReplicaState::Waiting)
    }

    /// Announces all users on other nodes, to a hub that knows none.
    pub(crate) fn announce_all(&self, out: &mut Vec<PresenceChange>) {
        for (index, replica) in
            self.replicas.iter().enumerate().filter(|(_, replica)| replica.state != ReplicaState::Waiting)
        {
            let earlier = &self.replicas[..index];
            let is_told = |user: &UserId| earlier.iter().any(|other| other.counts(user));
            let unsent = replica.users.iter().filter(|(user, _)| !is_told(user));
            out.extend(unsent.map(|(user, name)| online(user, name)));
        }
    }

    /// A user has come to this node, or has left it.
    pub(crate) fn change_own(&mut self, change: PresenceChange) {
        let state = match change.status {
            PresenceStatus::Online => UserState::Here(change.name),
            PresenceStatus::Offline => UserState::Gone,
        };
        self.local.change(change.user, state);
    }

    /// Something may have been missed.
    pub(crate) fn query_soon(&mut self) {
        self.wants_query = true;
    }

    /// The hub wants to know who is on other nodes now.
    pub(crate) fn check(&mut self) {
        self.check = Check::Wanted;
        self.wants_query = true;
    }

    /// Whether all has come that the hub wanted to know.
    pub(crate) fn is_checked(&self) -> bool {
        self.check == Check::Done
    }

    /// The same, once.
    pub(crate) fn take_checked(&mut self) -> bool {
        self.check.take_done()
    }

    /// When the next request is due, if there is one.
    pub(crate) fn next(&self) -> Option<Duration> {
        if self.under_way.is_some() {
            return None;
        }
        let query = self.wants_query.then_some(self.query_at);
        let update = self.local.wants_update().then_some(self.local.at);
        query.into_iter().chain(update).min()
    }

    /// The next request. It has to be answered by one of the following three methods before there
    /// is another. `versions` counts the versions of all rooms, so that a room that is opened
    /// again continues.
    pub(crate) fn poll(&mut self, now: Duration, versions: &mut u64) -> Option<PresenceRequest> {
        if self.under_way.is_some() {
            return None;
        }
        let wants_update = self.local.wants_update() && self.local.at <= now;
        // They alternate, so that a room with many queries still announces its own changes.
        if self.wants_query && self.query_at <= now && !(wants_update && self.last == Some(RequestKind::Query)) {
            self.begin(RequestKind::Query);
            self.wants_query = false;
            self.check.begin();
            let known = self.replicas.iter().map(|replica| (replica.node.clone(), replica.version));
            return Some(PresenceRequest::Query {
                known: known.collect(),
                tombstones: std::mem::take(&mut self.tombstones),
            });
        }
        wants_update.then(|| {
            self.begin(RequestKind::Update);
            *versions += 1;
            self.local.next_update(now, *versions)
        })
    }

    /// Takes the answer to an update: whether Redis had its base. Returns whether the whole set
    /// has to be sent again.
    pub(crate) fn update_answered(&mut self, is_done: bool) -> bool {
        self.under_way = None;
        self.local.needs_resend |= !is_done;
        !is_done
    }

    /// Redis refused the last request.
    pub(crate) fn fail(&mut self, now: Duration) {
        match self.under_way.take() {
            Some(RequestKind::Query) => {
                (self.wants_query, self.query_at) = (true, now + RETRY_AFTER);
                self.check.repeat();
            }
            Some(RequestKind::Update) => (self.local.needs_resend, self.local.at) = (true, now + RETRY_AFTER),
            None => {}
        }
    }

    /// Takes the sets that Redis has. Returns whether the own set has to be sent again.
    pub(crate) fn apply_sets(
        &mut self,
        now: Duration,
        sets: NodeSets,
        nodes: &mut Nodes,
        out: &mut Vec<PresenceChange>,
    ) -> bool {
        self.under_way = None;
        let (must_mend, told) = (self.local.compare(sets.local), out.len());
        // Redis may have restored them from an old copy.
        let others: Vec<NodeSet> =
            sets.others.into_iter().filter(|set| set.version >= nodes.floor(&set.node)).collect();
        for index in (0..self.replicas.len()).rev() {
            let is_there = others.iter().any(|set| set.node == self.replicas[index].node);
            let replica = &mut self.replicas[index];
            if is_there {
                replica.missing_since = None;
            } else if now >= *replica.missing_since.get_or_insert(now) + MISSING_MAX
                && replica.state == ReplicaState::Counted
            {
                self.replace(index, 0, UserSet::new(), out);
                self.replicas.swap_remove(index);
            }
        }
        for NodeSet { node, version, users } in others {
            let is_newer = self.find(&node).is_none_or(|index| self.replicas[index].version < version);
            match users {
                Some(users) if is_newer => self.set(NodeUsers { node, version, users }, nodes, out),
                None if is_newer => self.wants_query = true,
                _ => {}
            }
        }
        if self.wants_query {
            self.check.repeat();
        } else {
            self.is_loaded = true;
            self.check.complete();
        }
        self.waiting_changes = 0;
        for delta in std::mem::take(&mut self.waiting_deltas) {
            self.apply_delta(delta, nodes, out);
        }
        leave_out_moves(out, told);
        must_mend
    }

    /// Takes a delta of another node.
    pub(crate) fn apply_delta(&mut self, delta: PresenceDelta, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        let PresenceDelta { node, base, version, .. } = &delta;
        nodes.node_spoke(node);
        let known = self.find(node).map(|index| (index, self.replicas[index].version));
        match (known, &delta.changes) {
            (Some((_, known)), _) if *version <= known => {}
            // Something may have been missed. The answer may have a user elsewhere whom this delta says to be gone.
            _ if self.awaits_sets() => self.hold_back(delta),
            (_, Some(_)) if base.is_none() => {
                let here = delta.changes.into_iter().flatten().filter_map(|(user, state)| match state {
                    UserState::Here(name) => Some((user, name)),
                    UserState::Gone => None,
                });
                let users = here.collect();
                self.set(NodeUsers { node: delta.node, version: delta.version, users }, nodes, out);
            }
            (Some((index, known)), Some(_)) if *base == Some(known) => {
                if let ReplicaState::Draining { is_heard } = &mut self.replicas[index].state {
                    *is_heard = true;
                    return;
                }
                self.replicas[index].version = delta.version;
                for (user, state) in delta.changes.into_iter().flatten() {
                    self.change(index, user, state, out);
                }
            }
            _ => self.hold_back(delta),
        }
    }

    /// Whether the sets of other nodes are queried, or about to be.
    fn awaits_sets(&self) -> bool {
        self.wants_query || self.under_way == Some(RequestKind::Query)
    }

    /// A delta waits for the next answer.
    fn hold_back(&mut self, delta: PresenceDelta) {
        let changes = delta.changes.as_ref().map_or(0, Vec::len);
        let is_kept = self.waiting_changes + changes <= WAITING_CHANGES_MAX
            && self.waiting_deltas.len() < WAITING_CHANGES_MAX
            && delta.changes.is_some();
        if is_kept {
            self.waiting_changes += changes;
            self.waiting_deltas.push(delta);
        }
        self.wants_query |= !is_kept || !self.awaits_sets();
    }

    fn begin(&mut self, kind: RequestKind) {
        (self.under_way, self.last) = (Some(kind), Some(kind));
    }

    fn find(&self, node: &NodeId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.node == *node)
    }

    /// Whether a user counts as present by another replica than this one.
    fn is_elsewhere(&self, index: usize, user: &UserId) -> bool {
        self.replicas.iter().enumerate().any(|(other, replica)| other != index && replica.counts(user))
    }

    /// Sets the users of a node that may be new.
    fn set(&mut self, of: NodeUsers, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        let NodeUsers { node, version, users } = of;
        if let Some(index) = self.find(&node) {
            match &mut self.replicas[index].state {
                ReplicaState::Draining { is_heard } => *is_heard = true,
                ReplicaState::Counted | ReplicaState::Waiting => self.replace(index, version, users, out),
            }
            return;
        }
        let state = match nodes.liveness(&node) {
            Liveness::Dead => return self.add_tombstone(node, version),
            Liveness::Alive => ReplicaState::Counted,
            Liveness::Unknown => ReplicaState::Waiting,
        };
        self.replicas.push(Replica { node, version: 0, users: UserSet::new(), state, missing_since: None });
        self.replace(self.replicas.len() - 1, version, users, out);
    }

    /// Replaces a set. Arrivals are announced before departures.
    fn replace(&mut self, index: usize, version: u64, users: UserSet, out: &mut Vec<PresenceChange>) {
        let replica = &mut self.replicas[index];
        replica.version = version;
        let before = std::mem::replace(&mut replica.users, users);
        let replica = &self.replicas[index];
        if replica.state == ReplicaState::Waiting {
            return;
        }
        let new = replica.users.iter().filter(|(user, _)| !before.contains_key(*user));
        out.extend(new.filter(|(user, _)| !self.is_elsewhere(index, user)).map(|(user, name)| online(user, name)));
        let old = before.into_keys().filter(|user| !replica.users.contains_key(user));
        out.extend(old.filter(|user| !self.is_elsewhere(index, user)).map(offline));
    }

    fn change(&mut self, index: usize, user: UserId, state: UserState, out: &mut Vec<PresenceChange>) {
        let is_told = self.replicas[index].state != ReplicaState::Waiting && !self.is_elsewhere(index, &user);
        let users = &mut self.replicas[index].users;
        match state {
            UserState::Here(name) => {
                let change = online(&user, &name);
                if users.insert(user, name).is_none() && is_told {
                    out.push(change);
                }
            }
            UserState::Gone => {
                if users.remove(&user).is_some() && is_told {
                    out.push(offline(user));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
