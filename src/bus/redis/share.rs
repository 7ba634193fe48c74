//! What the nodes tell each other about who is present, and what Redis is asked for it.

use std::collections::BTreeMap;

use super::nodes::NodeId;
use crate::id::UserId;

/// Changes in one share, unless it is a whole set; the rest goes with the next.
pub(super) const CHANGES_MAX: usize = 1024;

/// A user's display name, if it has one.
pub(super) type Name = Option<Box<str>>;

/// Users and their names: about 75 bytes each.
pub(super) type Users = BTreeMap<UserId, Name>;

/// What has become of a user on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Here(Name),
    Gone,
}

/// What a node says about its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) node: NodeId,
    /// What the changes continue; `None` if they are the whole set.
    pub(super) base: Option<u64>,
    pub(super) version: u64,
    /// `None` if they are too many to be told and have to be asked for.
    pub(super) changes: Option<Vec<(UserId, Whereabouts)>>,
}

/// What is to be done in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Say what has changed here.
    Share { base: Option<u64>, version: u64, changes: Vec<(UserId, Whereabouts)> },
    /// Ask for the sets of the other nodes that are not held in this version, and remove those of dead nodes in that version.
    Who { known: Vec<(NodeId, u64)>, graves: Vec<(NodeId, u64)> },
}

/// The set of one node, as Redis has it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) node: NodeId,
    pub(super) version: u64,
    /// Not there if the version is the one that is held, or for want of space.
    pub(super) users: Option<Users>,
}

/// What Redis has.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// Of the own set: its version and how many there are.
    pub(super) own: Option<(u64, usize)>,
    pub(super) others: Vec<Record>,
}
