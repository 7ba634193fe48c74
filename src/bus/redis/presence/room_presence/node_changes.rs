//! The fate of a room's replicas when a node dies, comes back, or turns out to be alive.

use super::{RoomPresence, offline, online};
use crate::bus::message::PresenceChange;
use crate::bus::redis::presence::nodes::{Liveness, NodeChange, NodeId, Nodes};
use crate::bus::redis::presence::replica::ReplicaState;

impl RoomPresence {
    /// Whether a change of a node has to be applied to the room.
    pub(crate) fn is_concerned(&self, change: &NodeChange) -> bool {
        match change {
            NodeChange::Alive(_) => self.has_unknown(),
            NodeChange::Gone(node) => self.find(node).is_some(),
            NodeChange::Returned(_) => true,
            NodeChange::Forgotten => self.local.version > 0,
        }
    }

    /// Applies a change of a node. At most `users_max` users are removed; returns whether none are
    /// left.
    pub(crate) fn apply_node_change(
        &mut self,
        change: &NodeChange,
        users_max: usize,
        nodes: &mut Nodes,
        out: &mut Vec<PresenceChange>,
    ) -> bool {
        match change {
            NodeChange::Alive(_) => self.confirm(nodes, out),
            // The node has come back, and its deltas were applied all the time.
            NodeChange::Gone(node) if nodes.counts(node) && !self.is_draining(node) => {}
            NodeChange::Gone(node) => return self.drain(node, users_max, nodes, out),
            NodeChange::Returned(node) => {
                self.remove_tombstone(node);
                self.confirm(nodes, out);
            }
            NodeChange::Forgotten => self.local.needs_resend |= self.local.version > 0,
        }
        true
    }

    /// Nodes have turned out to be alive: their users count.
    pub(crate) fn confirm(&mut self, nodes: &mut Nodes, out: &mut Vec<PresenceChange>) {
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if replica.state == ReplicaState::Waiting && nodes.liveness(&replica.node) == Liveness::Alive {
                let absent = replica.users.iter().filter(|(user, _)| !self.is_elsewhere(index, user));
                out.extend(absent.map(|(user, name)| online(user, name)));
                self.replicas[index].state = ReplicaState::Counted;
            }
        }
    }

    /// A node is dead: removes at most `users_max` of its users. Returns whether none are left.
    pub(crate) fn drain(
        &mut self,
        node: &NodeId,
        users_max: usize,
        nodes: &Nodes,
        out: &mut Vec<PresenceChange>,
    ) -> bool {
        let Some(index) = self.find(node) else { return true };
        let is_heard = match self.replicas[index].state {
            ReplicaState::Waiting => {
                self.replicas[index].users.clear();
                false
            }
            ReplicaState::Counted => false,
            ReplicaState::Draining { is_heard } => is_heard,
        };
        self.replicas[index].state = ReplicaState::Draining { is_heard };
        for _ in 0..users_max {
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
            // It came back too late for its users, but its set is valid.
            self.wants_query = true;
        } else {
            self.add_tombstone(replica.node, replica.version);
            self.wants_query |= is_heard;
        }
        true
    }

    /// A node that was taken for dead is alive: its set is queried, not removed.
    pub(crate) fn remove_tombstone(&mut self, node: &NodeId) {
        self.tombstones.retain(|(dead, _)| dead != node);
        self.wants_query = true;
    }

    /// Has the set of a dead node removed with the next query.
    pub(super) fn add_tombstone(&mut self, node: NodeId, version: u64) {
        self.tombstones.retain(|(dead, _)| *dead != node);
        self.tombstones.push((node, version));
    }
}
