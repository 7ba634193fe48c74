//! Who is present in one room: here, as Redis has been told or is to be, and on other nodes, as they have said. Sans-IO.
//!
//! Every node owns the set of users that are present on it; nobody else changes it. It gives each change a version, and the others
//! hold replicas: a [`PresenceDelta`] is applied if it continues the version that is held, and what does not is asked for. So a lost,
//! doubled or late share does no harm, and a whole set that is said again repairs whatever Redis has lost. The loop contract in one
//! sentence: *hand in what happened, tell the hub the changes, ask what [`RoomPresence::poll`] wants when [`RoomPresence::next`] says.*

use super::delta::{Name, NodeSet, NodeSets, PresenceDelta, PresenceRequest, UserSet, UserState};
use super::local_users::LocalUsers;
use super::nodes::{Liveness, NodeId, Nodes};
use std::time::Duration;

use crate::bus::message::PresenceChange;
use crate::id::UserId;
use crate::protocol::PresenceStatus;

/// Changes of shares that wait for an answer; beyond them they are dropped and asked for.
const HELD_MAX: usize = 4096;

/// How long a room rests after Redis refused something.
const REST: Duration = Duration::from_secs(1);

/// How long Redis may not know a living node's set before it counts as empty: the node itself has noticed twice by then.
const MISSING_MAX: Duration = Duration::from_secs(120);

/// The set of another node.
#[derive(Debug)]
struct Replica {
    node: NodeId,
    version: u64,
    users: UserSet,
    phase: ReplicaState,
    /// Since when Redis does not know it.
    missing_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplicaState {
    /// Its users count.
    Counted,
    /// Nobody knows yet whether the node lives.
    Waiting,
    /// The node is dead, and its users are told to be gone, some at a time. `is_heard`: something was heard from it meanwhile.
    Draining { is_heard: bool },
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct RoomPresence {
    own: LocalUsers,
    replicas: Vec<Replica>,
    /// Shares that wait for an answer.
    held: Vec<PresenceDelta>,
    held_changes: usize,
    /// Dead nodes whose sets are to be removed, if they still have this version.
    tombstones: Vec<(NodeId, u64)>,
    wants_who: bool,
    who_at: Duration,
    is_loaded: bool,
    /// What was asked and is not answered.
    under_way: Option<RequestKind>,
    /// What was asked last.
    last: Option<RequestKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Update,
    Query,
}

impl RoomPresence {
    /// Whether Redis was asked and has told all of it.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Whether Redis has been told all of the own set, and nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.under_way.is_none() && !self.own.wants_to_share()
    }

    /// How many users the replicas have.
    pub(crate) fn len_elsewhere(&self) -> usize {
        self.replicas.iter().map(|replica| replica.users.len()).sum()
    }

    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.find(node).is_some()
    }

    pub(crate) fn is_draining(&self, node: &NodeId) -> bool {
        self.find(node).is_some_and(|index| matches!(self.replicas[index].phase, ReplicaState::Draining { .. }))
    }

    pub(crate) fn has_unknown(&self) -> bool {
        self.replicas.iter().any(|replica| replica.phase == ReplicaState::Waiting)
    }

    pub(crate) fn has_own(&self) -> bool {
        self.own.version > 0
    }

    /// All users that are on other nodes, as for somebody who has forgotten them.
    pub(crate) fn tell_all(&self, out: &mut Vec<PresenceChange>) {
        for (index, replica) in
            self.replicas.iter().enumerate().filter(|(_, replica)| replica.phase != ReplicaState::Waiting)
        {
            let earlier = &self.replicas[..index];
            let is_told = |user: &UserId| earlier.iter().any(|other| counts(other, user));
            let untold = replica.users.iter().filter(|(user, _)| !is_told(user));
            out.extend(untold.map(|(user, name)| online(user, name)));
        }
    }

    /// A user has come here, or has gone.
    pub(crate) fn change_own(&mut self, change: PresenceChange) {
        let whereabouts = match change.status {
            PresenceStatus::Online => UserState::Here(change.name),
            PresenceStatus::Offline => UserState::Gone,
        };
        self.own.change(change.user, whereabouts);
    }

    /// Redis has forgotten this node, or the others have: the whole set is to be said again.
    pub(crate) fn say_again(&mut self) {
        self.own.is_doubted |= self.own.version > 0;
    }

    /// Something may have been missed.
    pub(crate) fn query_soon(&mut self) {
        self.wants_who = true;
    }

    /// When something is to be asked, if at all.
    pub(crate) fn next(&self) -> Option<Duration> {
        if self.under_way.is_some() {
            return None;
        }
        let who = self.wants_who.then_some(self.who_at);
        let share = self.own.wants_to_share().then_some(self.own.at);
        who.into_iter().chain(share).min()
    }

    /// What is to be asked now; it is to be answered by one of the following three before there is another. `versions`
    /// counts those of all rooms, so that a room which is opened again does not begin anew.
    pub(crate) fn poll(&mut self, now: Duration, versions: &mut u64) -> Option<PresenceRequest> {
        if self.under_way.is_some() {
            return None;
        }
        let wants_share = self.own.wants_to_share() && self.own.at <= now;
        // They take turns, so that a room in which much is amiss still says what happens here.
        if self.wants_who && self.who_at <= now && !(wants_share && self.last == Some(RequestKind::Query)) {
            self.begin(RequestKind::Query);
            self.wants_who = false;
            let known = self.replicas.iter().map(|replica| (replica.node.clone(), replica.version));
            return Some(PresenceRequest::Query {
                known: known.collect(),
                tombstones: std::mem::take(&mut self.tombstones),
            });
        }
        wants_share.then(|| {
            self.begin(RequestKind::Update);
            *versions += 1;
            self.own.share(now, *versions)
        })
    }

    /// Whether Redis has taken a share; if not, it did not have what the share continues. Says whether that has to be mended.
    pub(crate) fn take_shared(&mut self, is_done: bool) -> bool {
        self.under_way = None;
        self.own.is_doubted |= !is_done;
        !is_done
    }

    /// Redis refused what was asked last.
    pub(crate) fn fail(&mut self, now: Duration) {
        match self.under_way.take() {
            Some(RequestKind::Query) => (self.wants_who, self.who_at) = (true, now + REST),
            Some(RequestKind::Update) => (self.own.is_doubted, self.own.at) = (true, now + REST),
            None => {}
        }
    }

    /// The sets that Redis has. Says whether the own has to be mended.
    pub(crate) fn take_records(
        &mut self,
        now: Duration,
        records: NodeSets,
        nodes: &mut Nodes,
        out: &mut Vec<PresenceChange>,
    ) -> bool {
        self.under_way = None;
        let must_mend = self.own.compare(records.own);
        // What Redis has brought back from an old copy is not true, however much it looks like it.
        let others: Vec<NodeSet> =
            records.others.into_iter().filter(|record| record.version >= nodes.floor(&record.node)).collect();
        for index in (0..self.replicas.len()).rev() {
            let is_there = others.iter().any(|record| record.node == self.replicas[index].node);
            let replica = &mut self.replicas[index];
            if is_there {
                replica.missing_since = None;
            } else if now >= *replica.missing_since.get_or_insert(now) + MISSING_MAX
                && replica.phase == ReplicaState::Counted
            {
                self.replace(index, 0, UserSet::new(), out);
                self.replicas.swap_remove(index);
            }
        }
        for NodeSet { node, version, users } in others {
            let is_newer = self.find(&node).is_none_or(|index| self.replicas[index].version < version);
            match users {
                Some(users) if is_newer => self.set(node, version, users, nodes, out),
                None if is_newer => self.wants_who = true,
                _ => {}
            }
        }
        self.is_loaded |= !self.wants_who;
        self.held_changes = 0;
        for share in std::mem::take(&mut self.held) {
            self.take_share(share, nodes, out);
        }
        must_mend
    }

    /// Another node has said something.
    pub(crate) fn take_share(&mut self, share: PresenceDelta, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        let PresenceDelta { node, base, version, .. } = &share;
        nodes.hear_from(node);
        let held = self.find(node).map(|index| (index, self.replicas[index].version));
        match (held, &share.changes) {
            (Some((_, held)), _) if *version <= held => {}
            (_, Some(_)) if base.is_none() => {
                let here = share.changes.into_iter().flatten().filter_map(|(user, whereabouts)| match whereabouts {
                    UserState::Here(name) => Some((user, name)),
                    UserState::Gone => None,
                });
                self.set(share.node, share.version, here.collect(), nodes, out);
            }
            (Some((index, held)), Some(_)) if *base == Some(held) => {
                if let ReplicaState::Draining { is_heard } = &mut self.replicas[index].phase {
                    *is_heard = true;
                    return;
                }
                self.replicas[index].version = share.version;
                for (user, whereabouts) in share.changes.into_iter().flatten() {
                    self.change(index, user, whereabouts, out);
                }
            }
            _ => {
                let changes = share.changes.as_ref().map_or(0, Vec::len);
                if self.held_changes + changes <= HELD_MAX && self.held.len() < HELD_MAX {
                    self.held_changes += changes;
                    self.held.push(share);
                }
                self.wants_who = true;
            }
        }
    }

    /// A node lives: whom it has count.
    pub(crate) fn confirm(&mut self, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if replica.phase == ReplicaState::Waiting && nodes.liveness(&replica.node) == Liveness::PresenceCounts {
                let absent = replica.users.iter().filter(|(user, _)| !self.is_elsewhere(index, user));
                out.extend(absent.map(|(user, name)| online(user, name)));
                self.replicas[index].phase = ReplicaState::Counted;
            }
        }
    }

    /// A node is dead: at most `most` of its users go. Says whether none are left.
    pub(crate) fn drain(&mut self, node: &NodeId, most: usize, nodes: &Nodes, out: &mut Vec<PresenceChange>) -> bool {
        let Some(index) = self.find(node) else { return true };
        let is_heard = match self.replicas[index].phase {
            ReplicaState::Waiting => {
                self.replicas[index].users.clear();
                false
            }
            ReplicaState::Counted => false,
            ReplicaState::Draining { is_heard } => is_heard,
        };
        self.replicas[index].phase = ReplicaState::Draining { is_heard };
        for _ in 0..most {
            let Some((user, _)) = self.replicas[index].users.pop_first() else { break };
            if !self.is_elsewhere(index, &user) {
                out.push(offline(user));
            }
        }
        if !self.replicas[index].users.is_empty() {
            return false;
        }
        let replica = self.replicas.swap_remove(index);
        if nodes.counts(node) {
            // It came back too late for its users, but what it has is true.
            self.wants_who = true;
        } else {
            self.add_tombstone(replica.node, replica.version);
            self.wants_who |= is_heard;
        }
        true
    }

    /// A node that was taken for dead lives: what it has is asked for, not removed.
    pub(crate) fn remove_tombstone(&mut self, node: &NodeId) {
        self.tombstones.retain(|(dead, _)| dead != node);
        self.wants_who = true;
    }

    fn begin(&mut self, topic: RequestKind) {
        (self.under_way, self.last) = (Some(topic), Some(topic));
    }

    /// Has the set of a dead node removed, with the next question.
    fn add_tombstone(&mut self, node: NodeId, version: u64) {
        self.tombstones.retain(|(dead, _)| *dead != node);
        self.tombstones.push((node, version));
    }

    fn find(&self, node: &NodeId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.node == *node)
    }

    /// Whether a user counts as present by another replica than this one.
    fn is_elsewhere(&self, index: usize, user: &UserId) -> bool {
        self.replicas.iter().enumerate().any(|(other, replica)| other != index && counts(replica, user))
    }

    /// Sets what a node has, known or not.
    fn set(&mut self, node: NodeId, version: u64, users: UserSet, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        if let Some(index) = self.find(&node) {
            match &mut self.replicas[index].phase {
                ReplicaState::Draining { is_heard } => *is_heard = true,
                ReplicaState::Counted | ReplicaState::Waiting => self.replace(index, version, users, out),
            }
            return;
        }
        let phase = match nodes.liveness(&node) {
            Liveness::Gone => return self.add_tombstone(node, version),
            Liveness::PresenceCounts => ReplicaState::Counted,
            Liveness::Unknown => ReplicaState::Waiting,
        };
        self.replicas.push(Replica { node, version: 0, users: UserSet::new(), phase, missing_since: None });
        self.replace(self.replicas.len() - 1, version, users, out);
    }

    /// Puts a new set in the place of an old one. Who comes is told before who goes.
    fn replace(&mut self, index: usize, version: u64, users: UserSet, out: &mut Vec<PresenceChange>) {
        let replica = &mut self.replicas[index];
        replica.version = version;
        let before = std::mem::replace(&mut replica.users, users);
        let replica = &self.replicas[index];
        if replica.phase == ReplicaState::Waiting {
            return;
        }
        let new = replica.users.iter().filter(|(user, _)| !before.contains_key(*user));
        out.extend(new.filter(|(user, _)| !self.is_elsewhere(index, user)).map(|(user, name)| online(user, name)));
        let old = before.into_keys().filter(|user| !replica.users.contains_key(user));
        out.extend(old.filter(|user| !self.is_elsewhere(index, user)).map(offline));
    }

    fn change(&mut self, index: usize, user: UserId, whereabouts: UserState, out: &mut Vec<PresenceChange>) {
        let is_told = self.replicas[index].phase != ReplicaState::Waiting && !self.is_elsewhere(index, &user);
        let users = &mut self.replicas[index].users;
        match whereabouts {
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

fn counts(replica: &Replica, user: &UserId) -> bool {
    replica.phase != ReplicaState::Waiting && replica.users.contains_key(user)
}

fn online(user: &UserId, name: &Name) -> PresenceChange {
    PresenceChange { user: user.clone(), name: name.clone(), status: PresenceStatus::Online }
}

fn offline(user: UserId) -> PresenceChange {
    PresenceChange { user, name: None, status: PresenceStatus::Offline }
}

#[cfg(test)]
mod tests;
