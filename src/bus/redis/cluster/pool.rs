//! The links of one thread: one to a single Redis, or one to each master of a cluster.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Token};
use slab::Slab;

use super::discovery::Topology;
use super::slot_map::{SLOTS, SlotMap};
use crate::bus::redis::connection::{HostPort, Link, LinkFactory};
use crate::bus::worker::Lookup;
use crate::unicode::Escaped;

/// The least time between two lookups of the slot map.
const SLOT_MAP_INTERVAL: Duration = Duration::from_millis(500);

/// The token of the first link. Token 0 belongs to the waker.
const FIRST: usize = 1;

/// A master with its link, and the work that the thread has for it.
pub(crate) struct Master<T> {
    /// `None` if there is only one Redis.
    pub(crate) node: Option<HostPort>,
    pub(crate) link: Link,
    pub(crate) work: T,
}

/// **Bounds:** one link for each master of the slot map, and one for each node that a redirect
/// names. A link without slots and without work is closed when the next slot map arrives.
pub(crate) struct ConnectionPool<T> {
    topology: Topology,
    factory: LinkFactory,
    pub(crate) all: Slab<Master<T>>,
    owners: Vec<Option<usize>>,
    lookup: Option<Lookup<SlotMap>>,
    is_wanted: bool,
    /// The last value of [`Cluster::changes`] that was acted on.
    changes: u64,
    /// `None` before the first lookup, which starts at once.
    next_lookup_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl<T: Default> ConnectionPool<T> {
    pub(crate) fn new(topology: Topology, mut factory: LinkFactory) -> io::Result<Self> {
        let (mut all, mut owners) = (Slab::new(), Vec::new());
        match &topology {
            Topology::One(endpoint) => {
                let link = factory.link(Arc::clone(endpoint), Token(FIRST))?;
                all.insert(Master { node: None, link, work: T::default() });
            }
            Topology::Cluster(_) => owners.resize(SLOTS, None),
        }
        Ok(Self {
            topology,
            factory,
            all,
            owners,
            lookup: None,
            is_wanted: true,
            changes: 0,
            next_lookup_at: None,
            logged_at: None,
        })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// The master of a slot, if it is known. A single Redis owns all slots.
    pub(crate) fn owner(&self, slot: u16) -> Option<usize> {
        match self.topology {
            Topology::One(_) => Some(0),
            Topology::Cluster(_) => self.owners[usize::from(slot)],
        }
    }

    /// The master at a node. If there is no link to it yet, one is made.
    pub(crate) fn link_to(&mut self, node: &HostPort) -> Option<usize> {
        if let Some((key, _)) = self.all.iter().find(|(_, master)| master.node.as_ref() == Some(node)) {
            return Some(key);
        }
        let entry = self.all.vacant_entry();
        let link = self.factory.link(Arc::new(node.clone()), Token(FIRST + entry.key()));
        // This happens when file descriptors run out. The next redirect or slot map tries again.
        let link = link.map_err(|error| log::error!("no link to redis at {}: {error}", Escaped(node))).ok()?;
        let key = entry.key();
        entry.insert(Master { node: Some(node.clone()), link, work: T::default() });
        Some(key)
    }

    /// A master reports that another one has the slot.
    pub(crate) fn slot_moved(&mut self, slot: u16, node: &HostPort) {
        self.request_slot_map();
        if let (Some(key), Topology::Cluster(cluster)) = (self.link_to(node), &self.topology) {
            self.owners[usize::from(slot)] = Some(key);
            cluster.change();
        }
    }

    /// The slot map is incomplete or out of date, and has to be looked up.
    pub(crate) fn request_slot_map(&mut self) {
        self.is_wanted = true;
    }

    pub(crate) fn is_any_up(&self) -> bool {
        self.all.iter().any(|(_, master)| master.link.is_up())
    }

    /// Records what has happened to the sockets of the links.
    pub(crate) fn note(&mut self, events: &Events) {
        for event in events {
            let key = event.token().0.checked_sub(FIRST);
            if let Some(master) = key.and_then(|key| self.all.get_mut(key)) {
                master.link.note(event);
            }
        }
    }

    pub(crate) fn timeout(&self, now: Instant) -> Duration {
        let links = self.all.iter().map(|(_, master)| master.link.timeout(now));
        let slot_map = (self.is_cluster() && self.is_wanted && self.lookup.is_none())
            .then(|| self.next_lookup_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)));
        links.chain(slot_map).min().unwrap_or(Duration::from_secs(1))
    }

    /// Starts a lookup if one is due, and applies a slot map that has arrived. Returns the slots
    /// whose master has changed, if one has arrived.
    pub(crate) fn refresh(&mut self, now: Instant, is_idle: impl Fn(&T) -> bool) -> Option<Vec<u16>> {
        let Topology::Cluster(cluster) = &self.topology else { return None };
        let changes = cluster.changes();
        self.is_wanted |= std::mem::replace(&mut self.changes, changes) != changes;
        self.is_wanted |= self.all.iter().any(|(_, master)| !master.link.is_up());
        if self.is_wanted && self.lookup.is_none() && self.next_lookup_at.is_none_or(|at| now >= at) {
            let cluster = Arc::clone(cluster);
            self.lookup = Lookup::start(self.factory.waker(), move || cluster.find()).ok();
            self.is_wanted = false;
            self.next_lookup_at = Some(now + SLOT_MAP_INTERVAL);
        }
        let answer = self.lookup.as_ref()?.poll()?;
        self.lookup = None;
        match answer {
            Ok(slot_map) => Some(self.apply_slot_map(&slot_map, is_idle)),
            Err(error) => {
                self.is_wanted = true;
                if self.logged_at.is_none_or(|at| now >= at + Duration::from_secs(60)) {
                    self.logged_at = Some(now);
                    let purpose = self.factory.purpose();
                    log::warn!("redis at {cluster}: no slot map for {purpose}: {}; trying again", Escaped(error));
                }
                None
            }
        }
    }

    fn apply_slot_map(&mut self, slot_map: &SlotMap, is_idle: impl Fn(&T) -> bool) -> Vec<u16> {
        self.logged_at = None;
        let keys: Vec<_> = slot_map.masters.iter().map(|node| self.link_to(node)).collect();
        let mut changed = Vec::new();
        for (slot, owner) in slot_map.owners.iter().enumerate() {
            let owner = owner.and_then(|index| keys[usize::from(index)]);
            // A slot without an owner will get one. Until then its last owner may be asked.
            if owner.is_some() && self.owners[slot] != owner {
                self.owners[slot] = owner;
                changed.push(slot as u16);
            }
            self.is_wanted |= owner.is_none();
        }
        if let (false, Topology::Cluster(cluster)) = (changed.is_empty(), &self.topology) {
            cluster.change();
        }
        let mut unused: Vec<_> = self.all.iter().map(|(key, master)| (key, is_idle(&master.work))).collect();
        unused.retain(|(key, is_idle)| *is_idle && !self.owners.contains(&Some(*key)));
        for (key, _) in unused {
            // Dropping the link closes its socket, which ends its registration.
            self.all.remove(key);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use mio::{Poll, Waker};

    use super::*;
    use crate::bus::redis::cluster::discovery::Cluster;
    use crate::bus::redis::connection::Backoff;

    #[test]
    fn what_one_thread_finds_out_has_the_other_look() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let topology = Topology::Cluster(Arc::new(Cluster::new(Vec::new(), Arc::default())));
        let [mut one, mut other] = [1, 2].map(|seed| {
            let backoff = Backoff::new(Duration::from_secs(30), Rng::with_seed(seed));
            let factory = LinkFactory::new(Arc::default(), "testing", (&poll, &waker), backoff).unwrap();
            ConnectionPool::<()>::new(topology.clone(), factory).unwrap()
        });
        let now = Instant::now();
        other.next_lookup_at = Some(now + Duration::from_secs(1));
        other.is_wanted = false;
        assert!(other.refresh(now, |()| true).is_none() && !other.is_wanted);
        one.slot_moved(7, &HostPort { host: "127.0.0.1".to_owned(), port: 1 });
        assert!(other.refresh(now, |()| true).is_none() && other.is_wanted);
        other.is_wanted = false;
        assert!(other.refresh(now, |()| true).is_none() && !other.is_wanted, "once");
    }
}
