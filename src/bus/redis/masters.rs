//! The masters that a thread of the bus has links to: one, or all of a cluster, and which of them has which slots.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mio::{Events, Poll, Registry, Token, Waker};
use slab::Slab;

#[cfg(doc)]
use super::cluster::Cluster;
use super::cluster::{Chart, SLOTS};
use super::link::{Berth, Link};
use super::resolver::{Lookup, Place};
use super::target::{Login, Node, Site, Target};

/// How long the cluster is left alone after it was asked who has which slots.
const CHART_INTERVAL: Duration = Duration::from_millis(500);

/// The token of the first link; that of the waker is before it.
const FIRST: usize = 1;

/// A master, and what the thread keeps for it.
pub(super) struct Master<T> {
    /// Nothing where there is only one.
    pub(super) node: Option<Node>,
    pub(super) link: Link,
    pub(super) load: T,
}

/// What links need of the thread on which they live.
pub(super) struct Harbour {
    registry: Registry,
    waker: Arc<Waker>,
    random: Rng,
    purpose: &'static str,
    login: Arc<Login>,
}

impl Harbour {
    pub(super) fn new(
        target: &Target,
        purpose: &'static str,
        (poll, waker): (&Poll, &Arc<Waker>),
        random: Rng,
    ) -> io::Result<Self> {
        let (registry, waker) = (poll.registry().try_clone()?, Arc::clone(waker));
        Ok(Self { registry, waker, random, purpose, login: Arc::clone(&target.login) })
    }

    fn link(&mut self, place: Arc<dyn Place>, key: usize) -> io::Result<Link> {
        let (registry, waker) = (self.registry.try_clone()?, Arc::clone(&self.waker));
        let berth = Berth { registry, token: Token(FIRST + key), waker, random: self.random.fork() };
        Ok(Link::new(place, Arc::clone(&self.login), self.purpose, berth))
    }
}

/// See the [module](self).
///
/// **Bounds:** one link a master that the cluster names, and one for each node to which it redirects; those that have no slots
/// and nothing to do go with the next chart.
pub(super) struct Masters<T> {
    site: Site,
    harbour: Harbour,
    pub(super) all: Slab<Master<T>>,
    owners: Vec<Option<usize>>,
    lookup: Option<Lookup<Chart>>,
    is_wanted: bool,
    /// [`Cluster::changes`] that were followed.
    changes: u64,
    /// At once at first.
    next_chart_at: Option<Instant>,
    complained_at: Option<Instant>,
}

impl<T: Default> Masters<T> {
    pub(super) fn new(site: Site, mut harbour: Harbour) -> io::Result<Self> {
        let (mut all, mut owners) = (Slab::new(), Vec::new());
        match &site {
            Site::One(place) => {
                let link = harbour.link(Arc::clone(place), 0)?;
                all.insert(Master { node: None, link, load: T::default() });
            }
            Site::Cluster(_) => owners.resize(SLOTS, None),
        }
        Ok(Self {
            site,
            harbour,
            all,
            owners,
            lookup: None,
            is_wanted: true,
            changes: 0,
            next_chart_at: None,
            complained_at: None,
        })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.site, Site::Cluster(_))
    }

    /// Who has a slot, as far as is known. Where there is one, it has all.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        match self.site {
            Site::One(_) => Some(0),
            Site::Cluster(_) => self.owners[usize::from(slot)],
        }
    }

    /// The master at a node, which may be new.
    pub(super) fn at(&mut self, node: &Node) -> Option<usize> {
        if let Some((key, _)) = self.all.iter().find(|(_, master)| master.node.as_ref() == Some(node)) {
            return Some(key);
        }
        let entry = self.all.vacant_entry();
        let link = self.harbour.link(Arc::new(node.clone()), entry.key());
        // Without file descriptors; it is tried again.
        let link = link.map_err(|error| log::error!("no link to redis at {node}: {error}")).ok()?;
        let key = entry.key();
        entry.insert(Master { node: Some(node.clone()), link, load: T::default() });
        Some(key)
    }

    /// A master says that another has the slot.
    pub(super) fn moved(&mut self, slot: u16, node: &Node) {
        self.want_chart();
        if let (Some(key), Site::Cluster(cluster)) = (self.at(node), &self.site) {
            self.owners[usize::from(slot)] = Some(key);
            cluster.change();
        }
    }

    /// What is known is not all, or not true any more.
    pub(super) fn want_chart(&mut self) {
        self.is_wanted = true;
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.all.iter().any(|(_, master)| master.link.is_up())
    }

    /// Takes note of what has happened to the links' sockets.
    pub(super) fn note(&mut self, events: &Events) {
        for event in events {
            let key = event.token().0.checked_sub(FIRST);
            if let Some(master) = key.and_then(|key| self.all.get_mut(key)) {
                master.link.readiness.note(event);
            }
        }
    }

    pub(super) fn timeout(&self, now: Instant) -> Duration {
        let links = self.all.iter().map(|(_, master)| master.link.timeout(now));
        let chart = (self.is_cluster() && self.is_wanted && self.lookup.is_none())
            .then(|| self.next_chart_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)));
        links.chain(chart).min().unwrap_or(Duration::from_secs(1))
    }

    /// Asks for a chart if one is wanted, and takes one that has come; the slots that have another master since, if so.
    pub(super) fn follow(&mut self, now: Instant, is_idle: impl Fn(&T) -> bool) -> Option<Vec<u16>> {
        let Site::Cluster(cluster) = &self.site else { return None };
        let changes = cluster.changes();
        self.is_wanted |= std::mem::replace(&mut self.changes, changes) != changes;
        self.is_wanted |= self.all.iter().any(|(_, master)| !master.link.is_up());
        if self.is_wanted && self.lookup.is_none() && self.next_chart_at.is_none_or(|at| now >= at) {
            let cluster = Arc::clone(cluster);
            self.lookup = Lookup::start(&self.harbour.waker, move || cluster.find()).ok();
            self.is_wanted = false;
            self.next_chart_at = Some(now + CHART_INTERVAL);
        }
        let answer = self.lookup.as_ref()?.poll()?;
        self.lookup = None;
        match answer {
            Ok(chart) => Some(self.take_chart(&chart, is_idle)),
            Err(error) => {
                self.is_wanted = true;
                if self.complained_at.is_none_or(|at| now >= at + Duration::from_secs(60)) {
                    self.complained_at = Some(now);
                    let Self { harbour: Harbour { purpose, .. }, .. } = self;
                    log::warn!(
                        "redis at {cluster}: nobody says who has which slots, for {purpose}: {error}; asking again"
                    );
                }
                None
            }
        }
    }

    fn take_chart(&mut self, chart: &Chart, is_idle: impl Fn(&T) -> bool) -> Vec<u16> {
        self.complained_at = None;
        let keys: Vec<_> = chart.masters.iter().map(|node| self.at(node)).collect();
        let mut changed = Vec::new();
        for (slot, owner) in chart.owners.iter().enumerate() {
            let owner = owner.and_then(|index| keys[usize::from(index)]);
            // A slot that nobody has now will be somebody's; until then the last one may be asked.
            if owner.is_some() && self.owners[slot] != owner {
                self.owners[slot] = owner;
                changed.push(slot as u16);
            }
            self.is_wanted |= owner.is_none();
        }
        if let (false, Site::Cluster(cluster)) = (changed.is_empty(), &self.site) {
            cluster.change();
        }
        let mut unused: Vec<_> = self.all.iter().map(|(key, master)| (key, is_idle(&master.load))).collect();
        unused.retain(|(key, is_idle)| *is_idle && !self.owners.contains(&Some(*key)));
        for (key, _) in unused {
            // Closed, its socket is no longer watched.
            self.all.remove(key);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::*;

    #[test]
    fn what_one_thread_finds_out_has_the_other_look() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let site = Site::Cluster(Arc::new(Cluster::new(Vec::new(), Arc::default())));
        let target = Target { site: site.clone(), login: Arc::default() };
        let [mut one, mut other] = [1, 2].map(|seed| {
            let harbour = Harbour::new(&target, "testing", (&poll, &waker), Rng::with_seed(seed)).unwrap();
            Masters::<()>::new(site.clone(), harbour).unwrap()
        });
        let now = Instant::now();
        other.next_chart_at = Some(now + Duration::from_secs(1));
        other.is_wanted = false;
        assert!(other.follow(now, |()| true).is_none() && !other.is_wanted);
        one.moved(7, &Node { host: "127.0.0.1".to_owned(), port: 1 });
        assert!(other.follow(now, |()| true).is_none() && other.is_wanted);
        other.is_wanted = false;
        assert!(other.follow(now, |()| true).is_none() && !other.is_wanted, "once");
    }
}
