//! Slots for which a master has turned a request away, in a cluster or because the scripts were
//! lost. A single Redis has one slot, 0. Such a slot stops sending,
//! waits for the answers under way, and then sends its first request again, where the last answer
//! pointed. Once the owner has accepted a request, the others follow in order.
//!
//! To send all of them at once would break the order of a sender: a new owner may turn the first
//! request away just before the slot arrives, and accept the second one just after.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::pipeline::{Pipeline, PipelineContext, QueuedRequest, insert_in_order};
use crate::bus::redis::cluster::{ConnectionPool, Redirect};
use crate::bus::redis::connection::HostPort;

/// How long a slot waits before it sends again, unless `ASK` told it where. A slot that has moved
/// is 20 ms late.
const RETRY_AFTER: Duration = Duration::from_millis(20);

struct PausedSlot {
    requests: VecDeque<QueuedRequest>,
    retry_at: Instant,
    /// The node that is importing the slot and has the keys of the first request.
    ask: Option<HostPort>,
    /// The request under way went to the owner. If the owner accepts it, the slot has arrived.
    is_probing: bool,
}

/// All unanswered requests of any other slot are in the pipeline of one
/// master.
#[derive(Default)]
pub(crate) struct PausedSlots {
    slots: BTreeMap<u16, PausedSlot>,
}

impl PausedSlots {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn pause(&mut self, now: Instant, slot: u16, pool: &mut ConnectionPool<Pipeline>) -> &mut PausedSlot {
        match self.slots.entry(slot) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let requests = VecDeque::new();
                let paused = entry.insert(PausedSlot { requests, retry_at: now, ask: None, is_probing: false });
                paused.reclaim(slot, pool);
                paused
            }
        }
    }

    /// Queues a new request at the owner of its slot, or here while the slot is paused or has no
    /// owner.
    pub(crate) fn accept(&mut self, now: Instant, queued: QueuedRequest, pool: &mut ConnectionPool<Pipeline>) {
        match pool.owner(queued.slot) {
            Some(owner) if !self.slots.contains_key(&queued.slot) => pool.all[owner].work.put(queued),
            _ => insert_in_order(&mut self.pause(now, queued.slot, pool).requests, queued),
        }
    }

    /// Takes a request that a master has turned away.
    pub(crate) fn redirected(
        &mut self,
        now: Instant,
        mut queued: QueuedRequest,
        redirect: Redirect,
        pool: &mut ConnectionPool<Pipeline>,
    ) {
        match &redirect {
            Redirect::Moved(node) => pool.slot_moved(queued.slot, node),
            Redirect::Nobody => pool.request_slot_map(),
            Redirect::Ask(_) | Redirect::Later => {}
        }
        queued.is_asking = false;
        let paused = self.pause(now, queued.slot, pool);
        insert_in_order(&mut paused.requests, queued);
        paused.is_probing = false;
        match redirect {
            Redirect::Ask(node) => paused.ask = Some(node),
            Redirect::Moved(_) | Redirect::Later | Redirect::Nobody => paused.retry_at = now + RETRY_AFTER,
        }
    }

    /// Pauses slots whose requests are at a master that does not own them, after the slot map has
    /// changed or a link was lost.
    pub(crate) fn pause_misplaced(&mut self, now: Instant, pool: &mut ConnectionPool<Pipeline>) {
        let mut misplaced = BTreeSet::new();
        for (key, master) in &pool.all {
            let slots = master.work.slots().filter(|(slot, is_asking)| !is_asking && pool.owner(*slot) != Some(key));
            misplaced.extend(slots.map(|(slot, _)| slot));
        }
        for slot in misplaced {
            self.pause(now, slot, pool).reclaim(slot, pool);
        }
    }

    /// Sends requests of slots that have nothing under way any more.
    pub(crate) fn release(&mut self, now: Instant, pool: &mut ConnectionPool<Pipeline>) {
        if self.slots.is_empty() {
            return;
        }
        let pipelines = pool.all.iter();
        let in_flight: BTreeSet<u16> =
            pipelines.flat_map(|(_, master)| master.work.slots().map(|(slot, _)| slot)).collect();
        self.slots.retain(|slot, paused| {
            if now < paused.retry_at || in_flight.contains(slot) {
                return true;
            }
            let Some(owner) = pool.owner(*slot) else {
                pool.request_slot_map();
                return !paused.requests.is_empty();
            };
            if paused.is_probing {
                paused.requests.drain(..).for_each(|queued| pool.all[owner].work.put(queued));
            }
            let Some(mut first) = paused.requests.pop_front() else { return false };
            let importing = paused.ask.take().and_then(|node| pool.link_to(&node));
            first.is_asking = importing.is_some();
            paused.is_probing = importing.is_none();
            pool.all[importing.unwrap_or(owner)].work.put(first);
            true
        });
    }

    /// When the next slot may send again. Slots whose time has come wait for an answer.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        let times = self.slots.values().map(|paused| paused.retry_at).filter(|at| *at > now);
        times.min().map(|at| at - now)
    }

    pub(crate) fn expire(&mut self, now: Instant, context: &mut PipelineContext) {
        self.slots.values_mut().for_each(|paused| context.expire(now, &mut paused.requests));
    }
}

impl PausedSlot {
    /// Takes back all requests of the slot that were not sent yet.
    fn reclaim(&mut self, slot: u16, pool: &mut ConnectionPool<Pipeline>) {
        self.is_probing = false;
        for (_, master) in &mut pool.all {
            for mut queued in master.work.extract(|queued| queued.slot == slot) {
                queued.is_asking = false;
                insert_in_order(&mut self.requests, queued);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastrand::Rng;
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::bus::redis::cluster::{Cluster, Topology};
    use crate::bus::redis::commands::request::{Request, RoomRequest};
    use crate::bus::redis::connection::{Backoff, LinkFactory};
    use crate::bus::redis::ordering::HistoryQuery;
    use crate::id::RoomName;

    const SLOT: u16 = 7;

    struct Bench {
        pool: ConnectionPool<Pipeline>,
        paused: PausedSlots,
        now: Instant,
        _poll: Poll,
    }

    fn node(port: u16) -> HostPort {
        HostPort { host: "127.0.0.1".to_owned(), port }
    }

    impl Bench {
        /// Two masters. The first owns the slot, and has turned four requests away.
        fn new(redirect: &Redirect) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let topology = Topology::Cluster(Arc::new(Cluster::new(Vec::new(), Arc::default())));
            let backoff = Backoff::new(Duration::from_secs(30), Rng::with_seed(7));
            let factory = LinkFactory::new(Arc::default(), "testing", (&poll, &waker), backoff).unwrap();
            let mut pool = ConnectionPool::new(topology, factory).unwrap();
            assert_eq!((pool.link_to(&node(1)), pool.link_to(&node(2))), (Some(0), Some(1)));
            pool.slot_moved(SLOT, &node(1));
            let mut bench = Self { pool, paused: PausedSlots::default(), now: Instant::now(), _poll: poll };
            for id in [2, 1] {
                bench.redirected(id, redirect);
            }
            bench.paused.accept(bench.now, bench.call(4), &mut bench.pool);
            bench.paused.accept(bench.now, bench.call(3), &mut bench.pool);
            bench
        }

        fn call(&self, id: u64) -> QueuedRequest {
            let room = RoomName::new("lobby").unwrap();
            let query = RoomRequest { room, opening: 1, request: HistoryQuery::Position };
            QueuedRequest::new(Request::Query(query), id, SLOT, self.now, Duration::ZERO)
        }

        fn redirected(&mut self, id: u64, redirect: &Redirect) {
            let queued = self.call(id);
            self.paused.redirected(self.now, queued, redirect.clone(), &mut self.pool);
        }

        /// Waits, releases, and answers: which requests went to each master, and whether with
        /// ASKING.
        fn go(&mut self) -> [Vec<(u64, bool)>; 2] {
            self.now += RETRY_AFTER;
            self.paused.release(self.now, &mut self.pool);
            // A second release sends nothing while an answer is missing.
            let before = self.paused.slots.get(&SLOT).map(|paused| paused.requests.len());
            self.paused.release(self.now, &mut self.pool);
            assert_eq!(self.paused.slots.get(&SLOT).map(|paused| paused.requests.len()), before);
            [0, 1].map(|key| {
                let calls = self.pool.all[key].work.extract(|_| true);
                calls.iter().map(|queued| (queued.number, queued.is_asking)).collect()
            })
        }
    }

    #[test]
    fn a_slot_that_has_moved_tries_one_call_and_sends_the_rest_behind_it() {
        let mut bench = Bench::new(&Redirect::Moved(node(2)));
        assert_eq!(bench.go(), [vec![], vec![(1, false)]]);
        assert_eq!(bench.go(), [vec![], vec![(2, false), (3, false), (4, false)]]);
        assert!(bench.paused.is_empty());
    }

    #[test]
    fn a_slot_on_its_way_goes_in_single_file() {
        let mut bench = Bench::new(&Redirect::Ask(node(2)));
        assert_eq!(bench.go(), [vec![], vec![(1, true)]]);
        // One key was there, but the next one may not be.
        assert_eq!(bench.go(), [vec![(2, false)], vec![]]);
        bench.redirected(2, &Redirect::Ask(node(2)));
        assert_eq!(bench.go(), [vec![], vec![(2, true)]]);
        bench.redirected(2, &Redirect::Later);
        assert_eq!(bench.go(), [vec![(2, false)], vec![]]);
        assert_eq!(bench.go(), [vec![(3, false), (4, false)], vec![]]);
        assert!(bench.paused.is_empty());
    }

    #[test]
    fn what_was_under_way_to_a_master_that_is_lost_goes_to_the_next() {
        let mut bench = Bench::new(&Redirect::Nobody);
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.pool);
        bench.pool.slot_moved(SLOT, &node(2));
        bench.paused.pause_misplaced(bench.now, &mut bench.pool);
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.pool);
        // A request that is about to go to a third node is not lost with its link either.
        bench.pool.all[1].work.extract(|_| true);
        bench.redirected(1, &Redirect::Ask(node(3)));
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.pool);
        bench.pool.all[2].work.take_back();
        bench.paused.pause_misplaced(bench.now, &mut bench.pool);
        assert_eq!(bench.go(), [vec![], vec![(1, false)]]);
        assert_eq!(bench.go(), [vec![], vec![(2, false), (3, false), (4, false)]]);
    }
}
