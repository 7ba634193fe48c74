//! What the nodes are given: a small Redis that does what the scripts do, and links to it.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::bus::redis::presence::delta::{
    CHANGES_MAX, NodeSet, NodeSets, PresenceAnswer, PresenceDelta, PresenceRequest, UserSet, UserState,
};
use crate::bus::redis::presence::nodes::{Heartbeat, HeartbeatReply, NodeId};
use crate::id::{RoomName, UserId};

pub(crate) fn room(number: u64) -> RoomName {
    RoomName::new(&format!("room{number}")).unwrap()
}

pub(crate) fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

/// What is under way on the link that asks.
pub(crate) enum Call {
    Room(RoomName, u32, PresenceRequest),
    Heartbeat(Heartbeat),
    Answered(RoomName, u32, PresenceAnswer),
    HeartbeatReply(Option<HeartbeatReply>),
}

/// What the scripts keep and do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redis {
    pub(crate) versions: BTreeMap<(RoomName, NodeId), u64>,
    pub(crate) sets: BTreeMap<(RoomName, NodeId), UserSet>,
    pub(crate) beats: BTreeMap<NodeId, SmolStr>,
    /// UserSet in an answer beyond the first node's.
    pub(crate) users_max: usize,
}

impl Redis {
    pub(crate) fn delta(
        &mut self,
        by: &NodeId,
        name: &RoomName,
        request: &PresenceRequest,
    ) -> (bool, Option<PresenceDelta>) {
        let PresenceRequest::Update { base, version, changes } = request else { panic!("{request:?}") };
        let key = (name.clone(), by.clone());
        let had = self.versions.get(&key).copied();
        if had == Some(*version) {
            return (true, None);
        }
        match base {
            None => drop(self.sets.remove(&key)),
            base if had != *base => return (false, None),
            Some(_) => {}
        }
        self.versions.insert(key.clone(), *version);
        let set = self.sets.entry(key.clone()).or_default();
        for (user, state) in changes {
            match state {
                UserState::Here(name) => drop(set.insert(user.clone(), name.clone())),
                UserState::Gone => drop(set.remove(user)),
            }
        }
        if set.is_empty() {
            self.sets.remove(&key);
        }
        let changes = (changes.len() <= CHANGES_MAX).then(|| changes.clone());
        (true, Some(PresenceDelta { node: by.clone(), base: *base, version: *version, changes }))
    }

    pub(crate) fn who(
        &mut self,
        by: &NodeId,
        name: &RoomName,
        known: &[(NodeId, u64)],
        tombstones: &[(NodeId, u64)],
    ) -> NodeSets {
        for (node, version) in tombstones {
            let key = (name.clone(), node.clone());
            if self.versions.get(&key) == Some(version) {
                self.versions.remove(&key);
                self.sets.remove(&key);
            }
        }
        let (mut records, mut total) = (NodeSets::default(), 0);
        for ((_, node), version) in self.versions.iter().filter(|((room, _), _)| room == name) {
            let set = self.sets.get(&(name.clone(), node.clone())).cloned().unwrap_or_default();
            if node == by {
                records.local = Some((*version, set.len()));
                continue;
            }
            let is_known = known.contains(&(node.clone(), *version));
            let users = (!is_known && (total == 0 || total + set.len() <= self.users_max)).then(|| {
                total += set.len().max(1);
                set
            });
            records.others.push(NodeSet { node: node.clone(), version: *version, users });
        }
        records
    }
}
