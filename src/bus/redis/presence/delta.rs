//! What the nodes tell each other about who is present, and what Redis is asked for it.

use super::nodes::NodeId;
use std::collections::BTreeMap;

use crate::id::UserId;

/// Changes in one share, unless it is a whole set; the rest goes with the next.
pub(crate) const CHANGES_MAX: usize = 1024;

/// A user's display name, if it has one.
pub(crate) type Name = Option<Box<str>>;

/// UserSet and their names: about 75 bytes each.
pub(crate) type UserSet = BTreeMap<UserId, Name>;

/// What has become of a user on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserState {
    Here(Name),
    Gone,
}

/// What a node says about its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresenceDelta {
    pub(crate) node: NodeId,
    /// What the changes continue; `None` if they are the whole set.
    pub(crate) base: Option<u64>,
    pub(crate) version: u64,
    /// `None` if they are too many to be told and have to be asked for.
    pub(crate) changes: Option<Vec<(UserId, UserState)>>,
}

/// What is to be done in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PresenceRequest {
    /// Say what has changed here.
    Update { base: Option<u64>, version: u64, changes: Vec<(UserId, UserState)> },
    /// Ask for the sets of the other nodes that are not held in this version, and remove those of dead nodes in that version.
    Query { known: Vec<(NodeId, u64)>, tombstones: Vec<(NodeId, u64)> },
}

/// The set of one node, as Redis has it.
#[derive(Clone, Debug)]
pub(crate) struct NodeSet {
    pub(crate) node: NodeId,
    pub(crate) version: u64,
    /// Not there if the version is the one that is held, or for want of space.
    pub(crate) users: Option<UserSet>,
}

/// What Redis has.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSets {
    /// Of the own set: its version and how many there are.
    pub(crate) own: Option<(u64, usize)>,
    pub(crate) others: Vec<NodeSet>,
}
