//! What the nodes tell each other about present users, and the requests to Redis for it.

use std::collections::BTreeMap;

use super::nodes::NodeId;
use crate::id::UserId;

/// Changes in one delta, unless it is a whole set. Further changes go with the next one.
pub(crate) const CHANGES_MAX: usize = 1024;

pub(crate) type Name = Option<Box<str>>;

/// Users and their display names: about 75 bytes each.
pub(crate) type UserSet = BTreeMap<UserId, Name>;

/// The state of a user on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserState {
    Here(Name),
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresenceDelta {
    pub(crate) node: NodeId,
    /// The version that the changes are based on; `None` for a whole set.
    pub(crate) base: Option<u64>,
    pub(crate) version: u64,
    /// `None` if they are too many to be published, and have to be queried.
    pub(crate) changes: Option<Vec<(UserId, UserState)>>,
}

/// A request to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PresenceRequest {
    /// Announce what has changed here.
    Update { base: Option<u64>, version: u64, changes: Vec<(UserId, UserState)> },
    /// Query the sets of other nodes that are not known in this version, and remove those of dead
    /// nodes that are still in this version.
    Query { known: Vec<(NodeId, u64)>, tombstones: Vec<(NodeId, u64)> },
}

/// The set of one node, as Redis has it.
#[derive(Clone, Debug)]
pub(crate) struct NodeSet {
    pub(crate) node: NodeId,
    pub(crate) version: u64,
    /// `None` if the version is known, or if there were too many users.
    pub(crate) users: Option<UserSet>,
}

/// The sets of all nodes in a room.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSets {
    /// The version and size of this node's own set.
    pub(crate) local: Option<(u64, usize)>,
    pub(crate) others: Vec<NodeSet>,
}

/// The answer to a [`PresenceRequest`].
#[derive(Debug)]
pub(crate) enum PresenceAnswer {
    /// Whether Redis had the version that the update is based on.
    Updated(bool),
    Sets(NodeSets),
    Refused,
}
