//! The end of a simulation: when nothing goes wrong any more, all nodes agree.

use std::collections::BTreeSet;
use std::time::Duration;

use super::World;
use crate::bus::redis::presence::delta::UserSet;
use crate::id::{RoomName, UserId};

impl World {
    /// Nothing goes wrong any more, for so long that everything has been looked at.
    pub(super) fn settle(&mut self) {
        self.is_calm = true;
        self.nodes.iter_mut().for_each(|node| node.frozen_until = Duration::ZERO);
        for turn in 0..6000u64 {
            self.step();
            if turn % 500 == 0 {
                for index in 0..self.nodes.len() {
                    let names: Vec<RoomName> = self.nodes[index].rooms.keys().cloned().collect();
                    names.iter().for_each(|name| self.nodes[index].presence.query_soon(self.now, name));
                    self.drain(index);
                }
            }
        }
    }

    pub(super) fn check(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let who = node.id.as_str();
            assert_eq!(node.presence.counts().nodes_alive, self.nodes.len() as u64, "{who} counts the living wrongly");
            let rosters = node.presence.rooms.values().map(|place| place.presence.len_elsewhere() as u64);
            assert_eq!(node.presence.counts().users_elsewhere, rosters.sum::<u64>());
            assert!(node.presence.jobs.is_empty() && node.presence.unconfirmed.is_empty());
            for name in node.rooms.iter().filter(|(_, is_open)| **is_open).map(|(name, _)| name) {
                let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
                let truth: BTreeSet<UserId> =
                    others.filter_map(|(_, other)| other.here.get(name)).flatten().cloned().collect();
                let told = node.told.get(name).cloned().unwrap_or_default();
                assert_eq!(told, truth, "{who} is told the wrong users of {name:?}");
                assert!(node.loaded.contains(name), "{who} waits for {name:?}");
                assert!(!node.checks.contains(name), "{who} waits for a check of {name:?}");
            }
            for (name, here) in node.here.iter().filter(|(name, _)| node.rooms.contains_key(*name)) {
                let set = self.redis.sets.get(&(name.clone(), node.id.clone()));
                let kept: BTreeSet<UserId> = set.into_iter().flat_map(UserSet::keys).cloned().collect();
                assert_eq!(kept, *here, "redis has the wrong users of {who} in {name:?}");
            }
        }
        self.coverage.repairs = self.nodes.iter().map(|node| node.presence.counts().repairs).sum();
    }
}
