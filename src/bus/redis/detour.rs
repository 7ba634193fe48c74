//! Slots of a cluster that are on their way from one master to another: their calls go in single file until one is done where
//! it should be, so that none overtakes another.
//!
//! Everything else of a slot is in the lane of one master. A call that is turned away opens a detour: what has yet to be sent
//! of the slot is taken out of the lanes, what is under way is waited for, and then one call after another goes where
//! the last answer has pointed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::lane::{Desk, Lane, Redirect, Waiting, put};
use super::masters::Masters;
use super::target::Node;

/// How long a slot rests whose keys are on their way, or which was redirected twice in a row.
const REST: Duration = Duration::from_millis(20);

/// How long a slot rests that nobody has.
const REST_NOBODY: Duration = Duration::from_millis(100);

/// What was tried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    None,
    /// A call at the owner; unless it comes back, the slot has arrived.
    Owner,
    /// A call at who is about to be the owner: the next may not be known there.
    Ask,
}

struct Detour {
    calls: VecDeque<Waiting>,
    not_before: Instant,
    ask: Option<Node>,
    trial: Trial,
    redirects: u32,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Detours {
    slots: BTreeMap<u16, Detour>,
}

impl Detours {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn open(&mut self, now: Instant, slot: u16, masters: &mut Masters<Lane>) -> &mut Detour {
        match self.slots.entry(slot) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut calls = VecDeque::new();
                for (_, master) in &mut masters.all {
                    let found = master.load.extract(|waiting| waiting.slot == slot);
                    found.into_iter().for_each(|waiting| put(&mut calls, waiting));
                }
                entry.insert(Detour { calls, not_before: now, ask: None, trial: Trial::None, redirects: 0 })
            }
        }
    }

    /// Takes a call that is new: into the lane of who has its slot, unless that is on a detour, or nobody has it.
    pub(super) fn accept(&mut self, now: Instant, waiting: Waiting, masters: &mut Masters<Lane>) {
        match masters.owner(waiting.slot) {
            Some(owner) if !self.slots.contains_key(&waiting.slot) => masters.all[owner].load.put(waiting),
            _ => put(&mut self.open(now, waiting.slot, masters).calls, waiting),
        }
    }

    /// Takes what a master has turned away.
    pub(super) fn turn(&mut self, now: Instant, mut waiting: Waiting, redirect: Redirect, masters: &mut Masters<Lane>) {
        waiting.is_asking = false;
        let slot = waiting.slot;
        match &redirect {
            Redirect::Moved(node) => masters.moved(slot, node),
            Redirect::Nobody => masters.want_chart(),
            Redirect::Ask(_) | Redirect::Later => {}
        }
        let detour = self.open(now, slot, masters);
        put(&mut detour.calls, waiting);
        detour.trial = Trial::None;
        let rest = match redirect {
            Redirect::Nobody => REST_NOBODY,
            Redirect::Later => REST,
            // Two that point at each other will agree soon.
            Redirect::Moved(_) | Redirect::Ask(_) if detour.redirects > 2 => REST,
            Redirect::Moved(_) | Redirect::Ask(_) => Duration::ZERO,
        };
        detour.redirects += 1;
        detour.not_before = detour.not_before.max(now + rest);
        if let Redirect::Ask(node) = redirect {
            detour.ask = Some(node);
        }
    }

    /// Slots have another master, as the cluster says, or the link to a master was lost: what waits in a lane where it does not
    /// belong is taken out, and what is under way there is waited for.
    pub(super) fn sweep(&mut self, now: Instant, masters: &mut Masters<Lane>) {
        let mut misplaced = BTreeSet::new();
        for (key, master) in &masters.all {
            let slots = master.load.slots().filter(|(slot, is_asking)| !is_asking && masters.owner(*slot) != Some(key));
            misplaced.extend(slots.map(|(slot, _)| slot));
        }
        for slot in misplaced {
            let owner = masters.owner(slot);
            let Some(detour) = self.slots.get_mut(&slot) else {
                self.open(now, slot, masters);
                continue;
            };
            for (_, master) in masters.all.iter_mut().filter(|(key, _)| Some(*key) != owner) {
                for waiting in master.load.extract(|waiting| waiting.slot == slot && !waiting.is_asking) {
                    put(&mut detour.calls, waiting);
                    detour.trial = Trial::None;
                }
            }
        }
    }

    /// Sends on what may go.
    pub(super) fn release(&mut self, now: Instant, masters: &mut Masters<Lane>) {
        if self.slots.is_empty() {
            return;
        }
        let busy: BTreeSet<u16> =
            masters.all.iter().flat_map(|(_, master)| master.load.slots().map(|(slot, _)| slot)).collect();
        self.slots.retain(|slot, detour| {
            if now < detour.not_before || busy.contains(slot) {
                return true;
            }
            let Some(owner) = masters.owner(*slot) else {
                masters.want_chart();
                return !detour.calls.is_empty();
            };
            if detour.trial == Trial::Owner {
                detour.calls.drain(..).for_each(|waiting| masters.all[owner].load.put(waiting));
                return false;
            }
            let Some(mut waiting) = detour.calls.pop_front() else { return false };
            let asked = detour.ask.take().and_then(|node| masters.at(&node));
            detour.trial = if asked.is_some() { Trial::Ask } else { Trial::Owner };
            waiting.is_asking = asked.is_some();
            masters.all[asked.unwrap_or(owner)].load.put(waiting);
            true
        });
    }

    /// When a slot has rested, if none is due already: that one waits for an answer.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let rests = self.slots.values().map(|detour| detour.not_before).filter(|at| *at > now);
        rests.min().map(|at| at - now)
    }

    pub(super) fn expire(&mut self, now: Instant, desk: &mut Desk) {
        self.slots.values_mut().for_each(|detour| desk.expire(now, &mut detour.calls));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        detours: Detours,
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
            let harbour = Harbour::new(&target, "testing", (&poll, &waker), 7).unwrap();
            let mut masters = Masters::new(site, harbour).unwrap();
            assert_eq!((masters.at(&node(1)), masters.at(&node(2))), (Some(0), Some(1)));
            masters.moved(SLOT, &node(1));
            let mut bench = Self { masters, detours: Detours::default(), now: Instant::now(), _poll: poll };
            for id in [2, 1] {
                bench.turn(id, redirect);
            }
            bench.detours.accept(bench.now, bench.call(4), &mut bench.masters);
            bench.detours.accept(bench.now, bench.call(3), &mut bench.masters);
            bench
        }

        fn call(&self, id: u64) -> Waiting {
            let call = Call::Ask { room: RoomName::new("lobby").unwrap(), question: Question::Position };
            Waiting::new(Order::new(id, call), SLOT, self.now, Duration::ZERO)
        }

        fn turn(&mut self, id: u64, redirect: &Redirect) {
            let waiting = self.call(id);
            self.detours.turn(self.now, waiting, redirect.clone(), &mut self.masters);
        }

        /// Rests, releases, and answers what went to the masters: which calls that were, and whether they asked.
        fn go(&mut self) -> [Vec<(u64, bool)>; 2] {
            self.now += REST_NOBODY;
            self.detours.release(self.now, &mut self.masters);
            // What is not answered is not overtaken.
            let before = self.detours.slots.get(&SLOT).map(|detour| detour.calls.len());
            self.detours.release(self.now, &mut self.masters);
            assert_eq!(self.detours.slots.get(&SLOT).map(|detour| detour.calls.len()), before);
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
        assert!(bench.detours.is_empty());
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
        assert!(bench.detours.is_empty());
    }

    #[test]
    fn what_was_under_way_to_a_master_that_is_lost_goes_to_the_next() {
        let mut bench = Bench::new(&Redirect::Nobody);
        bench.now += REST_NOBODY;
        bench.detours.release(bench.now, &mut bench.masters);
        bench.masters.moved(SLOT, &node(2));
        bench.detours.sweep(bench.now, &mut bench.masters);
        bench.now += REST_NOBODY;
        bench.detours.release(bench.now, &mut bench.masters);
        // What is about to be asked of a third is not lost with it either.
        bench.masters.all[1].load.extract(|_| true);
        bench.turn(1, &Redirect::Ask(node(3)));
        bench.now += REST_NOBODY;
        bench.detours.release(bench.now, &mut bench.masters);
        bench.masters.all[2].load.take_back();
        bench.detours.sweep(bench.now, &mut bench.masters);
        assert_eq!(bench.go(), [vec![], vec![(1, false)]]);
        assert_eq!(bench.go(), [vec![], vec![(2, false), (3, false), (4, false)]]);
    }
}
