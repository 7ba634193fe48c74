//! What this node knows of the users on another node in one room.

use std::time::Duration;

use super::delta::{Name, UserSet};
use super::nodes::NodeId;
use crate::bus::message::PresenceChange;
use crate::id::UserId;
use crate::protocol::PresenceStatus;

/// The set of another node.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) node: NodeId,
    pub(super) version: u64,
    pub(super) users: UserSet,
    pub(super) state: ReplicaState,
    /// Since when Redis lacks it.
    pub(super) missing_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicaState {
    /// Its users count.
    Counted,
    /// It is not known yet whether the node is alive.
    Waiting,
    /// The node is dead, and its users are removed in portions. `is_heard`: the node has
    /// published something since.
    Draining { is_heard: bool },
}

impl Replica {
    /// Whether a user counts as present by this replica.
    pub(super) fn counts(&self, user: &UserId) -> bool {
        self.state != ReplicaState::Waiting && self.users.contains_key(user)
    }
}

pub(super) fn online(user: &UserId, name: &Name) -> PresenceChange {
    PresenceChange { user: user.clone(), name: name.clone(), status: PresenceStatus::Online }
}

pub(super) fn offline(user: UserId) -> PresenceChange {
    PresenceChange { user, name: None, status: PresenceStatus::Offline }
}
