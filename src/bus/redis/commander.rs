//! The thread that asks Redis: publishes, reads and questions, pipelined over a link to each master in the order in which they came.
//!
//! What is not answered when a link is lost is said again, in order: the script recognises a publication that was done
//! already. What cannot be done within the hold time is given up.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::lane::{Desk, Lane, Waiting};
use super::link::Change;
use super::masters::{Master, Masters};
use super::paused::PausedSlots;
use super::port::RETRY;
use super::run_id::RunId;
use super::script::{Call, Done};
use super::stats::add;
use crate::inbox::Inbox;

/// How often is looked for what has waited too long.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last orders of a bus that is dropped may take.
pub(super) const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// A call with the name under which it is answered.
#[derive(Debug)]
pub(super) struct Order {
    /// Grows from order to order.
    pub(super) id: u64,
    pub(super) call: Call,
}

/// What became of an order. Every order is answered once.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) result: Result<Done, &'static str>,
}

/// See the [module](self).
pub(super) struct Commander {
    poll: Poll,
    masters: Masters<Lane>,
    paused: PausedSlots,
    orders: Inbox<Vec<Order>>,
    desk: Desk,
}

impl Commander {
    pub(super) fn new(poll: Poll, masters: Masters<Lane>, orders: Inbox<Vec<Order>>, desk: Desk) -> Self {
        Self { poll, masters, paused: PausedSlots::default(), orders, desk }
    }

    /// The thread's life: until the bus is dropped, and what it asked last is done.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        let mut until = None;
        while !self.has_ended(&mut until) {
            let timeout = self.timeout(Instant::now());
            let timeout = if until.is_some() { timeout.min(RETRY) } else { timeout };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("the thread that publishes to redis ends: {error}");
                break;
            }
            self.masters.note(&events);
            self.turn(Instant::now());
        }
        self.desk.counters.publishing_up.store(false, Relaxed);
    }

    /// Whether the bus was dropped, and its last orders are done or have taken too long. Those that wait for a link that is down
    /// are not waited for.
    fn has_ended(&mut self, until: &mut Option<Instant>) -> bool {
        if !self.desk.counters.stop.load(Relaxed) {
            return false;
        }
        let now = Instant::now();
        let until = *until.get_or_insert(now + FAREWELL_MAX);
        // What is still in the inbox is found by a turn.
        self.turn(now);
        now >= until || self.masters.all.iter().all(|(_, master)| !master.link.is_up() || master.load.is_empty())
    }

    fn timeout(&self, now: Instant) -> Duration {
        let mut timeout = self.masters.timeout(now);
        if !self.paused.is_empty() || self.masters.all.iter().any(|(_, master)| !master.load.is_empty()) {
            timeout = timeout.min(EXPIRY_INTERVAL);
        }
        if !self.desk.replies.is_empty() {
            timeout = timeout.min(RETRY);
        }
        self.paused.timeout(now).map_or(timeout, |at| timeout.min(at))
    }

    fn turn(&mut self, now: Instant) {
        self.orders.begin_drain();
        while let Some(batch) = self.orders.pop() {
            batch.into_iter().for_each(|order| self.accept(now, order));
        }
        self.drive(now);
        self.direct(now);
        let Self { masters, paused, desk, .. } = self;
        paused.expire(now, desk);
        for (_, Master { link, load: lane, .. }) in &mut masters.all {
            lane.expire(now, desk);
            lane.fill(now, desk, link);
            link.flush();
        }
        desk.replies.flush();
    }

    fn accept(&mut self, now: Instant, order: Order) {
        let slot = if self.masters.is_cluster() { self.desk.packer.slot(&order.call) } else { 0 };
        let waiting = Waiting::new(order, slot, now, self.desk.hold);
        self.paused.accept(now, waiting, &mut self.masters);
    }

    fn drive(&mut self, now: Instant) {
        let Self { masters, paused, desk, .. } = self;
        let mut is_any_down = false;
        for (_, Master { link, load: lane, node }) in &mut masters.all {
            match link.drive(now, &mut |_, value| lane.take((now, node.as_ref()), desk, value)) {
                Some(Change::Up) => {
                    let run_id = link.run().map_or(RunId::UNKNOWN, |(run_id, _)| run_id);
                    lane.begin(run_id, desk, &mut link.out);
                }
                Some(Change::Down) => {
                    is_any_down = true;
                    add(&desk.counters.reconnects_total, 1);
                    lane.take_back();
                }
                None => {}
            }
        }
        desk.counters.publishing_up.store(masters.is_any_up(), Relaxed);
        if is_any_down && masters.is_cluster() {
            paused.pause_misplaced(now, masters);
        }
    }

    /// Has calls of a cluster go where they belong.
    fn direct(&mut self, now: Instant) {
        let Self { masters, paused, desk, .. } = self;
        for (waiting, redirect) in desk.turned.drain(..) {
            paused.turn(now, waiting, redirect, masters);
        }
        if masters.follow(now, Lane::is_empty).is_some_and(|changed| !changed.is_empty()) {
            paused.pause_misplaced(now, masters);
        }
        paused.release(now, masters);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;

    use fastrand::Rng;
    use mio::{Token, Waker};

    use super::super::masters::Harbour;
    use super::super::port::Port;
    use super::super::resolver::{Place, Spot};
    use super::super::script::{Channels, Names, Packer, Unconfirmed};
    use super::super::stats::Counters;
    use super::super::target::{Site, Target};
    use super::*;
    use crate::config::Config;
    use crate::id::RoomName;
    use crate::inbox::inbox;
    use crate::publication::ReadFrom;

    /// A place that is not found before the test is over.
    struct Nowhere(Barrier);

    impl fmt::Display for Nowhere {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nowhere")
        }
    }

    impl Place for Nowhere {
        fn at_once(&self) -> Option<Spot> {
            None
        }

        fn find(&self) -> io::Result<Spot> {
            self.0.wait();
            Err(io::Error::other("nowhere"))
        }
    }

    #[test]
    fn what_is_held_is_answered_in_time_while_a_name_is_looked_up_and_nothing_waits_for_the_look_up() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut loop_poll = Poll::new().unwrap();
        let loop_waker = Arc::new(Waker::new(loop_poll.registry(), Token(0)).unwrap());
        let place = Arc::new(Nowhere(Barrier::new(2)));
        let site = Site::One(Arc::clone(&place) as Arc<dyn Place>);
        let target = Target { site: site.clone(), login: Arc::default() };
        let harbour = Harbour::new(&target, "testing", (&poll, &waker), Rng::with_seed(7)).unwrap();
        let masters = Masters::new(site, harbour).unwrap();
        let (orders, orders_inbox) = inbox(4, Arc::clone(&waker));
        let (replies, replies_inbox) = inbox(4, loop_waker);
        let counters = Arc::new(Counters::default());
        let packer = Packer::new(&Config::default(), Names::new("roomcast"), Channels::Everywhere, "node".to_owned());
        let desk = Desk::new(packer, Duration::from_millis(200), Port::new(replies), Arc::clone(&counters));
        let commander = Commander::new(poll, masters, orders_inbox, desk);
        let room = RoomName::new("lobby").unwrap();
        let unconfirmed = Unconfirmed::Tell;
        let call = Call::Read { room, from: ReadFrom::Newest(1), bytes_max: 1, unconfirmed };
        orders.push(vec![Order { id: 1, call }]).unwrap();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            commander.run();
            ended.send(())
        });
        loop_poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(60))).unwrap();
        let reply = replies_inbox.pop().unwrap().pop().unwrap();
        assert!(reply.id == 1 && reply.result.is_err());
        counters.stop.store(true, Relaxed);
        waker.wake().unwrap();
        end.recv_timeout(Duration::from_secs(60)).expect("the thread ends");
        place.0.wait();
    }
}
