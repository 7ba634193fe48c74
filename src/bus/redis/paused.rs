//! Slots of a cluster for which a master has turned a request away. Such a slot stops sending, waits for the answers that are under
//! way, and then sends its first request again, where the last answer pointed. Once the owner has taken a request, all others follow
//! in their order.
//!
//! To send all of them at once would break the order of a sender: a new owner may turn the first one away just before the slot
//! arrives, and take the second one just after.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::lane::{Desk, Lane, Redirect, Waiting, put};
use super::masters::Masters;
use super::target::Node;

/// How long a slot waits before it sends again, unless it was told by `ASK` where to send. A slot that has moved is 20 ms late.
const RETRY_AFTER: Duration = Duration::from_millis(20);

struct PausedSlot {
    requests: VecDeque<Waiting>,
    retry_at: Instant,
    /// The node that is importing the slot and has the keys of the first request.
    ask: Option<Node>,
    /// The request under way went to the owner. If it is not turned away, the slot has arrived.
    is_probing: bool,
}

/// See the [module](self). All other requests of a slot are in the lane of one master.
#[derive(Default)]
pub(super) struct PausedSlots {
    slots: BTreeMap<u16, PausedSlot>,
}

impl PausedSlots {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn pause(&mut self, now: Instant, slot: u16, masters: &mut Masters<Lane>) -> &mut PausedSlot {
        match self.slots.entry(slot) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let requests = VecDeque::new();
                let paused = entry.insert(PausedSlot { requests, retry_at: now, ask: None, is_probing: false });
                paused.reclaim(slot, masters);
                paused
            }
        }
    }

    /// Sends a new request to the owner of its slot, or keeps it while the slot is paused or nobody has it.
    pub(super) fn accept(&mut self, now: Instant, waiting: Waiting, masters: &mut Masters<Lane>) {
        match masters.owner(waiting.slot) {
            Some(owner) if !self.slots.contains_key(&waiting.slot) => masters.all[owner].load.put(waiting),
            _ => put(&mut self.pause(now, waiting.slot, masters).requests, waiting),
        }
    }

    /// Takes a request that a master has turned away.
    pub(super) fn turn(&mut self, now: Instant, mut waiting: Waiting, redirect: Redirect, masters: &mut Masters<Lane>) {
        match &redirect {
            Redirect::Moved(node) => masters.moved(waiting.slot, node),
            Redirect::Nobody => masters.want_chart(),
            Redirect::Ask(_) | Redirect::Later => {}
        }
        waiting.is_asking = false;
        let paused = self.pause(now, waiting.slot, masters);
        put(&mut paused.requests, waiting);
        paused.is_probing = false;
        match redirect {
            Redirect::Ask(node) => paused.ask = Some(node),
            Redirect::Moved(_) | Redirect::Later | Redirect::Nobody => paused.retry_at = now + RETRY_AFTER,
        }
    }

    /// Pauses slots whose requests are at a master that does not own them: the map has changed, or a link was lost.
    pub(super) fn pause_misplaced(&mut self, now: Instant, masters: &mut Masters<Lane>) {
        let mut misplaced = BTreeSet::new();
        for (key, master) in &masters.all {
            let slots = master.load.slots().filter(|(slot, is_asking)| !is_asking && masters.owner(*slot) != Some(key));
            misplaced.extend(slots.map(|(slot, _)| slot));
        }
        for slot in misplaced {
            self.pause(now, slot, masters).reclaim(slot, masters);
        }
    }

    /// Sends the requests of slots that have nothing under way any more.
    pub(super) fn release(&mut self, now: Instant, masters: &mut Masters<Lane>) {
        if self.slots.is_empty() {
            return;
        }
        let lanes = masters.all.iter();
        let busy: BTreeSet<u16> = lanes.flat_map(|(_, master)| master.load.slots().map(|(slot, _)| slot)).collect();
        self.slots.retain(|slot, paused| {
            if now < paused.retry_at || busy.contains(slot) {
                return true;
            }
            let Some(owner) = masters.owner(*slot) else {
                masters.want_chart();
                return !paused.requests.is_empty();
            };
            if paused.is_probing {
                paused.requests.drain(..).for_each(|waiting| masters.all[owner].load.put(waiting));
            }
            let Some(mut first) = paused.requests.pop_front() else { return false };
            let importing = paused.ask.take().and_then(|node| masters.at(&node));
            first.is_asking = importing.is_some();
            paused.is_probing = importing.is_none();
            masters.all[importing.unwrap_or(owner)].load.put(first);
            true
        });
    }

    /// When a slot may send again. One for which that time has come waits for an answer.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let times = self.slots.values().map(|paused| paused.retry_at).filter(|at| *at > now);
        times.min().map(|at| at - now)
    }

    pub(super) fn expire(&mut self, now: Instant, desk: &mut Desk) {
        self.slots.values_mut().for_each(|paused| desk.expire(now, &mut paused.requests));
    }
}

impl PausedSlot {
    /// Takes all requests of the slot that were not sent yet.
    fn reclaim(&mut self, slot: u16, masters: &mut Masters<Lane>) {
        self.is_probing = false;
        for (_, master) in &mut masters.all {
            for mut waiting in master.load.extract(|waiting| waiting.slot == slot) {
                waiting.is_asking = false;
                put(&mut self.requests, waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastrand::Rng;
    use mio::{Poll, Token, Waker};

    use super::super::cluster::Cluster;
    use super::super::commander::Order;
    use super::super::masters::Harbour;
    use super::super::script::Call;
    use super::super::sequence::Question;
    use super::super::target::{Site, Target};
    use super::*;
    use crate::id::RoomName;

    const SLOT: u16 = 7;

    struct Bench {
        masters: Masters<Lane>,
        paused: PausedSlots,
        now: Instant,
        _poll: Poll,
    }

    fn node(port: u16) -> Node {
        Node { host: "127.0.0.1".to_owned(), port }
    }

    impl Bench {
        /// Two masters; the first has the slot, and four calls that were turned away by it.
        fn new(redirect: &Redirect) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let site = Site::Cluster(Arc::new(Cluster::new(Vec::new(), Arc::default())));
            let target = Target { site: site.clone(), login: Arc::default() };
            let harbour = Harbour::new(&target, "testing", (&poll, &waker), Rng::with_seed(7)).unwrap();
            let mut masters = Masters::new(site, harbour).unwrap();
            assert_eq!((masters.at(&node(1)), masters.at(&node(2))), (Some(0), Some(1)));
            masters.moved(SLOT, &node(1));
            let mut bench = Self { masters, paused: PausedSlots::default(), now: Instant::now(), _poll: poll };
            for id in [2, 1] {
                bench.turn(id, redirect);
            }
            bench.paused.accept(bench.now, bench.call(4), &mut bench.masters);
            bench.paused.accept(bench.now, bench.call(3), &mut bench.masters);
            bench
        }

        fn call(&self, id: u64) -> Waiting {
            let call = Call::Ask { room: RoomName::new("lobby").unwrap(), question: Question::Position };
            Waiting::new(Order { id, call }, SLOT, self.now, Duration::ZERO)
        }

        fn turn(&mut self, id: u64, redirect: &Redirect) {
            let waiting = self.call(id);
            self.paused.turn(self.now, waiting, redirect.clone(), &mut self.masters);
        }

        /// Rests, releases, and answers what went to the masters: which calls that were, and whether they asked.
        fn go(&mut self) -> [Vec<(u64, bool)>; 2] {
            self.now += RETRY_AFTER;
            self.paused.release(self.now, &mut self.masters);
            // What is not answered is not overtaken.
            let before = self.paused.slots.get(&SLOT).map(|paused| paused.requests.len());
            self.paused.release(self.now, &mut self.masters);
            assert_eq!(self.paused.slots.get(&SLOT).map(|paused| paused.requests.len()), before);
            [0, 1].map(|key| {
                let calls = self.masters.all[key].load.extract(|_| true);
                calls.iter().map(|waiting| (waiting.order.id, waiting.is_asking)).collect()
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
        // That one key was there does not say that the next is.
        assert_eq!(bench.go(), [vec![(2, false)], vec![]]);
        bench.turn(2, &Redirect::Ask(node(2)));
        assert_eq!(bench.go(), [vec![], vec![(2, true)]]);
        bench.turn(2, &Redirect::Later);
        assert_eq!(bench.go(), [vec![(2, false)], vec![]]);
        assert_eq!(bench.go(), [vec![(3, false), (4, false)], vec![]]);
        assert!(bench.paused.is_empty());
    }

    #[test]
    fn what_was_under_way_to_a_master_that_is_lost_goes_to_the_next() {
        let mut bench = Bench::new(&Redirect::Nobody);
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.masters);
        bench.masters.moved(SLOT, &node(2));
        bench.paused.pause_misplaced(bench.now, &mut bench.masters);
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.masters);
        // What is about to be asked of a third is not lost with it either.
        bench.masters.all[1].load.extract(|_| true);
        bench.turn(1, &Redirect::Ask(node(3)));
        bench.now += RETRY_AFTER;
        bench.paused.release(bench.now, &mut bench.masters);
        bench.masters.all[2].load.take_back();
        bench.paused.pause_misplaced(bench.now, &mut bench.masters);
        assert_eq!(bench.go(), [vec![], vec![(1, false)]]);
        assert_eq!(bench.go(), [vec![], vec![(2, false), (3, false), (4, false)]]);
    }
}
