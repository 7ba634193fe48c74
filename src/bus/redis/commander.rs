//! The thread that asks Redis: publishes, reads and questions, pipelined over one link in the order in which they came.
//!
//! What is not answered when the link is lost is said again, in order: the script recognises a publication that was done
//! already. What cannot be done within the hold time is given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::fault::Fault;
use super::link::{Change, Link};
use super::port::{Port, RETRY};
use super::resp::Value;
use super::script::{Call, Done, Packer, Script, done};
use super::stats::{Counters, add, add_time};
use crate::inbox::Inbox;

/// Calls under way at once; the rest wait.
const SENT_MAX: usize = 8192;

/// How often is looked for what has waited too long.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last orders of a bus that is dropped may take.
pub(super) const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// A call with the name under which it is answered.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) call: Call,
}

/// What became of an order. Every order is answered once.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) result: Result<Done, &'static str>,
}

struct Waiting {
    order: Order,
    since: Instant,
    /// Questions wait as long as they must, and so does what concerns presence.
    until: Option<Instant>,
    /// It was answered that it is given up; what Redis says now is nobody's business.
    is_given_up: bool,
}

impl Waiting {
    fn is_late(&self, now: Instant) -> bool {
        !self.is_given_up && self.until.is_some_and(|until| until <= now)
    }
}

enum Sent {
    Load(Script),
    Call(Waiting),
}

/// What an error reply asks for.
enum Remedy {
    /// The script cache was emptied.
    Load,
    /// It will pass, or another Redis will answer: hold everything and connect again.
    Reconnect,
    /// It concerns this call alone.
    Refuse,
}

fn remedy(error: &[u8]) -> Remedy {
    let word = error.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"NOSCRIPT" => Remedy::Load,
        b"LOADING" | b"READONLY" | b"MASTERDOWN" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"NOREPLICAS"
        | b"UNKILLABLE" | b"NOAUTH" | b"MISCONF" => Remedy::Reconnect,
        _ => Remedy::Refuse,
    }
}

/// Orders between their coming and their answer.
struct Desk {
    packer: Packer,
    hold: Duration,
    waiting: VecDeque<Waiting>,
    sent: VecDeque<Sent>,
    /// What met an empty script cache, until all that was sent is answered.
    again: VecDeque<Waiting>,
    loads: usize,
    replies: Port<Reply>,
    counters: Arc<Counters>,
    complained_at: Option<Instant>,
}

/// See the [module](self).
pub(super) struct Commander {
    poll: Poll,
    link: Link,
    orders: Inbox<Vec<Order>>,
    desk: Desk,
}

impl Commander {
    pub(super) fn new(
        poll: Poll,
        link: Link,
        orders: Inbox<Vec<Order>>,
        (packer, hold): (Packer, Duration),
        (replies, counters): (Port<Reply>, Arc<Counters>),
    ) -> Self {
        let desk = Desk {
            packer,
            hold,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            again: VecDeque::new(),
            loads: 0,
            replies,
            counters,
            complained_at: None,
        };
        Self { poll, link, orders, desk }
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
        now >= until || !self.link.is_up() || (self.desk.waiting.is_empty() && self.desk.sent.is_empty())
    }

    fn timeout(&self, now: Instant) -> Duration {
        let mut timeout = self.link.timeout(now);
        if !self.desk.waiting.is_empty() || !self.desk.sent.is_empty() {
            timeout = timeout.min(EXPIRY_INTERVAL);
        }
        if !self.desk.replies.is_empty() {
            timeout = timeout.min(RETRY);
        }
        timeout
    }

    fn turn(&mut self, now: Instant) {
        let Self { link, orders, desk, .. } = self;
        orders.begin_drain();
        while let Some(batch) = orders.pop() {
            batch.into_iter().for_each(|order| desk.accept(now, order));
        }
        match link.drive(now, &mut |_, value| desk.take(now, value)) {
            Some(Change::Up) => {
                desk.counters.publishing_up.store(true, Relaxed);
                desk.load(&mut link.out);
            }
            Some(Change::Down) => {
                desk.counters.publishing_up.store(false, Relaxed);
                add(&desk.counters.reconnects_total, 1);
                desk.take_back();
            }
            None => {}
        }
        desk.expire(now);
        desk.fill(link);
        link.flush();
        desk.replies.flush();
    }
}

impl Desk {
    fn accept(&mut self, now: Instant, order: Order) {
        let until = match order.call {
            Call::Ask { .. } | Call::Presence(_) => None,
            Call::Publish { .. } | Call::Read { .. } | Call::Typing { .. } => Some(now + self.hold),
        };
        self.waiting.push_back(Waiting { order, since: now, until, is_given_up: false });
    }

    fn load(&mut self, out: &mut Vec<u8>) {
        for script in Script::ALL {
            self.packer.load(script, out);
            self.sent.push_back(Sent::Load(script));
            self.loads += 1;
        }
    }

    /// The link is lost: what was not answered will be said again, before all that came later.
    fn take_back(&mut self) {
        let sent = self.sent.drain(..).filter_map(|sent| match sent {
            Sent::Call(waiting) if !waiting.is_given_up => Some(waiting),
            _ => None,
        });
        let unanswered: Vec<_> = self.again.drain(..).chain(sent).collect();
        for waiting in unanswered.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        self.loads = 0;
    }

    /// Sends as much as may be under way.
    fn fill(&mut self, link: &mut Link) {
        if self.sent.is_empty() && !self.again.is_empty() {
            // Everything that met the empty cache is known now. A publication behind one of these may have been done in between,
            // if another node was quicker to load the script; all nodes see the same order all the same.
            while let Some(waiting) = self.again.pop_back() {
                self.waiting.push_front(waiting);
            }
            self.load(&mut link.out);
        }
        while self.loads == 0 && self.again.is_empty() && self.sent.len() < SENT_MAX && link.can_send() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.packer.pack(&waiting.order.call, &mut link.out);
            self.sent.push_back(Sent::Call(waiting));
        }
    }

    /// A reply of Redis, to the oldest that was sent.
    fn take(&mut self, now: Instant, value: Value<'_>) -> Result<(), Fault> {
        let waiting = match (self.sent.pop_front(), &value) {
            (None, _) => return Err(Fault::lost("redis answers what nobody asked")),
            (Some(Sent::Load(_)), Value::Error(text)) => return Err(Fault::reply(text)),
            (Some(Sent::Load(script)), value) => {
                self.loads -= 1;
                self.packer.loaded(script, value.text().unwrap_or_default());
                return Ok(());
            }
            (Some(Sent::Call(waiting)), _) => waiting,
        };
        if let Value::Error(text) = value {
            return self.take_error(now, waiting, text);
        }
        let Some(done) = done(&waiting.order.call, value) else {
            self.sent.push_front(Sent::Call(waiting));
            return Err(Fault::lost("redis gives an answer to something else"));
        };
        if let Done::Published { duplicate: false, .. } = done {
            let Counters { published_total, publish_micros_total, publish_micros_max, .. } = &*self.counters;
            add(published_total, 1);
            add_time(publish_micros_total, publish_micros_max, now.saturating_duration_since(waiting.since));
        }
        if !waiting.is_given_up {
            self.replies.push(Reply { id: waiting.order.id, result: Ok(done) });
        }
        Ok(())
    }

    fn take_error(&mut self, now: Instant, waiting: Waiting, text: &[u8]) -> Result<(), Fault> {
        match remedy(text) {
            Remedy::Load => {
                if !waiting.is_given_up {
                    self.again.push_back(waiting);
                }
            }
            Remedy::Reconnect => {
                self.sent.push_front(Sent::Call(waiting));
                return Err(Fault::reply(text));
            }
            Remedy::Refuse => {
                if self.complained_at.is_none_or(|at| now >= at + Duration::from_secs(1)) {
                    self.complained_at = Some(now);
                    log::error!("redis refuses: {}", String::from_utf8_lossy(text));
                }
                self.give_up(&waiting, "redis does not take it; try again later");
            }
        }
        Ok(())
    }

    fn give_up(&mut self, waiting: &Waiting, words: &'static str) {
        if !waiting.is_given_up {
            if waiting.until.is_some() {
                add(&self.counters.refused_total, 1);
            }
            self.replies.push(Reply { id: waiting.order.id, result: Err(words) });
        }
    }

    /// Gives up what has waited too long. All hold equally long, so the oldest come first.
    fn expire(&mut self, now: Instant) {
        const WORDS: &str = "redis has not answered in time; try again later";
        for sent in &mut self.sent {
            let Sent::Call(waiting) = sent else { continue };
            if waiting.is_late(now) {
                // Its reply is still to come and has to be counted.
                waiting.is_given_up = true;
                add(&self.counters.refused_total, 1);
                self.replies.push(Reply { id: waiting.order.id, result: Err(WORDS) });
            } else if waiting.until.is_some_and(|until| until > now) {
                break;
            }
        }
        for queue in [&mut self.again, &mut self.waiting] {
            let oldest = queue.iter().find_map(|waiting| waiting.until);
            if oldest.is_none_or(|until| until > now) {
                continue;
            }
            let (late, rest): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|waiting| waiting.is_late(now));
            *queue = rest;
            for waiting in late {
                add(&self.counters.refused_total, 1);
                self.replies.push(Reply { id: waiting.order.id, result: Err(WORDS) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::sync::{Barrier, mpsc};
    use std::thread;

    use mio::{Token, Waker};

    use super::super::link::Berth;
    use super::super::resolver::{Place, Spot};
    use super::super::script::Names;
    use super::super::target::Target;
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
        let target = Target { place: Arc::clone(&place) as Arc<dyn Place>, login: Arc::default() };
        let registry = poll.registry().try_clone().unwrap();
        let berth = Berth { registry, token: Token(1), waker: Arc::clone(&waker), seed: 7 };
        let link = Link::new(&target, "testing", berth);
        let (orders, orders_inbox) = inbox(4, Arc::clone(&waker));
        let (replies, replies_inbox) = inbox(4, loop_waker);
        let counters = Arc::new(Counters::default());
        let packer = Packer::new(&Config::default(), Names::new("roomcast"), "node".to_owned());
        let out = (Port::new(replies), Arc::clone(&counters));
        let commander = Commander::new(poll, link, orders_inbox, (packer, Duration::from_millis(200)), out);
        let room = RoomName::new("lobby").unwrap();
        let call = Call::Read { room, from: ReadFrom::Newest(1), bytes_max: 1 };
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
