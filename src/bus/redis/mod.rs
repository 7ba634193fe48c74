//! The bus over Redis, for several nodes. [`RedisBus`] runs on the loop and never waits; two
//! threads do what may wait.
//!
//! - [`connection`]: one link to Redis, from finding the address to reconnecting. `url.rs` says
//!   where Redis is.
//! - [`cluster`]: the masters of a cluster, and the links of a thread to them. A single Redis is
//!   a cluster of one master here.
//! - [`commands`]: the thread that sends requests. Each request is a call of a Lua script,
//!   pipelined to the master of its slot.
//! - [`subscribe`]: the thread that receives what all nodes publish on the channels of open
//!   rooms.
//! - [`ordering`]: makes one gapless stream of a room's messages out of the subscription and the
//!   answers to queries. Sans-IO.
//! - [`presence`]: the users of all nodes, by versioned sets and heartbeats. Sans-IO.
//!
//! A message goes like this. The hub submits a publication (`requests.rs`). The command thread
//! runs the publishing script, which numbers the message, stores it and publishes it in one step.
//! The subscriber threads of all nodes receive it and hand it to their loops (`events.rs`), where
//! the room's reassembler delivers it, or queries what is missing before it. The sender's node
//! answers the publication once its own copy was delivered.
//!
//! `batch_sender.rs` and `threads.rs` are the queues between the loop and the threads, `room.rs`
//! is what the loop keeps of a room, `stats.rs` the counters.

mod batch_sender;
mod cluster;
mod commands;
mod config;
mod connection;
mod events;
mod ordering;
mod presence;
mod requests;
mod room;
mod stats;
mod subscribe;
mod threads;
mod url;

use self::commands::call::{ScriptCall, Unconfirmed};
use self::commands::request::Request;
use self::ordering::history::OrderingStep;
use self::presence::Presence;
use self::presence::nodes::{NodeId, Nodes};
use self::room::{PendingPublication, Room, WaitingRead};
use self::stats::Counters;
use self::subscribe::subscriptions::SubscriptionChange;
use self::threads::Threads;
use self::url::RedisUrl;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mio::Waker;

pub use self::commands::publish_script::PublishScript;
pub use self::config::RedisConfig;
pub use self::stats::{RedisStats, RedisWatch};
use super::{Bus, BusStatus, Metric};
use crate::bus::message::{BusEvent, BusRequest, Outcome};
use crate::config::Config;
use crate::error::Error;
use crate::id::{Epoch, RoomName, Unique};
use crate::time::Now;
use crate::timer_wheel::{LOOKS_PER_TURN, Tick, Wheel};

/// How long a room stays subscribed when nobody wants it any more: a reload or a last member who changes rooms costs nothing.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// How often an open room is compared with Redis, which also keeps it from expiring there.
const TOUCH_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to a publication waits for its copy to come back.
const ECHO_MAX: Duration = Duration::from_secs(2);

/// How often a room is looked at in which something waits.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How often is logged what happens to many rooms at once.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Questions under way at once.
const QUESTIONS_MAX: usize = 1024;

/// Batches taken from each thread in a turn of the loop; the rest waits for the next.
const BATCHES_PER_TURN: usize = 8;

/// What Redis was asked, until it is answered.
#[derive(Debug)]
enum Pending {
    PendingPublication(PendingPublication),
    /// With what was known of the room when it was asked.
    Read {
        room: RoomName,
        opening: u32,
        read: WaitingRead,
        reached: Option<(Epoch, u64)>,
    },
    HistoryQuery {
        room: RoomName,
        opening: u32,
    },
    RoomPresence {
        room: RoomName,
        opening: u32,
    },
    Heartbeat,
    /// Nobody waits for the answer.
    Typing,
}

/// What the timer looks at: a room, by its opening.
#[derive(Clone, Debug)]
enum Due {
    Touch {
        at: Tick,
        room: RoomName,
        opening: u32,
    },
    Close {
        room: RoomName,
        opening: u32,
    },
    Watch {
        room: RoomName,
        opening: u32,
    },
    /// No room: what is logged of many at once.
    Tell,
}

/// The bus of several nodes: Redis numbers, keeps and fans out; every node that names the same Redis is the same server.
///
/// Three threads. The loop owns [`RedisBus`] and never waits for anything. A *commander* publishes, reads and asks over a
/// link of its own; a *subscriber* listens on another. They exchange batches through bounded queues ([`crate::inbox`]).
/// Publishing is one script call that numbers, keeps and publishes in one atomic step, so storage and fan-out have the
/// same order. What is missing on the subscription is seen by its number and read from the stream; what the stream does not
/// have any more begins a new epoch, which is told to everybody.
///
/// Who is present is told between the nodes, too ([`RedisConfig::lease`]). When it is dropped it says that this node has left, for which
/// it waits 200 ms at most, and not at all without a connection.
///
/// **Bounds:** requests under way ([`Limits::publications_pending_max`](crate::config::Limits) publications and as many reads; beyond
/// them they are refused), questions under way (1024; rooms wait for their turn), as many shares and questions of who is
/// present, with at most 1024 users each unless a whole set has to be said again, 16 batches of at most 256 KiB between
/// subscriber and loop and 4 MiB behind them (beyond them messages are dropped and read again), messages of a room that wait
/// for one before them (1024 or 1 MiB; beyond them they are read again).
pub struct RedisBus {
    hold: Duration,
    pending_max: usize,
    rooms: HashMap<RoomName, Room>,
    openings: u32,
    pending: HashMap<u64, Pending>,
    last_id: u64,
    questions: usize,
    /// Rooms that want to ask and may not yet.
    queue: VecDeque<RoomName>,
    presence: Presence,
    threads: Threads,
    counters: Arc<Counters>,
    wheel: Wheel<Due>,
    events: VecDeque<BusEvent>,
    steps: Vec<OrderingStep>,
    /// Rooms that began a new epoch and are not in the log yet.
    epochs_untold: u64,
    now: Now,
    news_left: usize,
    replies_left: usize,
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = RedisWatch(Arc::clone(&self.counters)).stats();
        f.debug_struct("RedisBus").field("rooms", &self.rooms.len()).field("stats", &stats).finish_non_exhaustive()
    }
}

impl RedisBus {
    /// Starts the two threads; they connect, and go on trying for as long as the bus lives. `waker` wakes the loop's poll; `seed`
    /// makes the names that no other node may draw.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL, the prefix or the certificates cannot be used, [`Error::Io`] if a thread cannot be
    /// started. A Redis that does not answer is no error: it may come.
    pub fn new(config: &Config, redis: &RedisConfig, waker: Arc<Waker>, seed: u64) -> Result<Self, Error> {
        let target = RedisUrl::parse(&redis.url, redis.ca.as_deref())?;
        redis.check(config)?;
        let node = Unique::new(seed ^ 2).epoch().as_str().to_owned();
        log::info!("redis at {target}: this is node {node}, prefix {}", redis.prefix);
        let counters = Arc::new(Counters::default());
        let nodes = Nodes::new(NodeId::new(&node), redis.lease, config.timing.presence_grace);
        Ok(Self {
            hold: redis.hold,
            pending_max: 2 * config.limits.publications_pending_max,
            rooms: HashMap::new(),
            openings: 0,
            pending: HashMap::new(),
            last_id: 0,
            questions: 0,
            queue: VecDeque::new(),
            presence: Presence::new(nodes),
            threads: Threads::start(config, redis, (target, node, seed), waker, &counters)?,
            counters,
            wheel: Wheel::new(),
            events: VecDeque::new(),
            steps: Vec::new(),
            epochs_untold: 0,
            now: Now::default(),
            news_left: BATCHES_PER_TURN,
            replies_left: BATCHES_PER_TURN,
        })
    }

    /// A handle by which any thread can see how the bus does.
    pub fn watch(&self) -> RedisWatch {
        RedisWatch(Arc::clone(&self.counters))
    }

    fn is_ready(&self) -> bool {
        self.counters.publishing_up.load(Relaxed) && self.counters.subscribing_up.load(Relaxed)
    }

    fn order(&mut self, call: ScriptCall, pending: Pending) {
        self.last_id += 1;
        self.pending.insert(self.last_id, pending);
        self.threads.orders.push(Request { id: self.last_id, call });
    }

    /// Whether no more publications and reads may be under way; what the bus asks for itself has bounds of its own.
    fn is_full(&self) -> bool {
        let own = self.questions + self.presence.under_way();
        self.pending.len().saturating_sub(own) >= self.pending_max
    }

    /// Whether a turn has left something to the next. What comes behind a turn that was done wakes the loop.
    fn has_more(&self) -> bool {
        let Threads { news, replies, .. } = &self.threads;
        self.news_left == 0 && !news.is_empty() || self.replies_left == 0 && !replies.is_empty()
    }

    fn say(&mut self, saying: PendingPublication) {
        let call = ScriptCall::Publish { publication: saying.publication.clone(), serial: saying.serial };
        self.order(call, Pending::PendingPublication(saying));
    }

    fn send_read(&mut self, room: &RoomName, opening: u32, read: &WaitingRead) {
        let reached = self.rooms.get(room).and_then(|room| room.sequence.reached());
        // Where something was delivered it is for the sequence to compare.
        let is_first = self.rooms.contains_key(room) && reached.is_none();
        let unconfirmed = if is_first { Unconfirmed::Renew } else { Unconfirmed::Tell };
        let call = ScriptCall::Read { room: room.clone(), from: read.from, bytes_max: read.bytes_max, unconfirmed };
        self.order(call, Pending::Read { room: room.clone(), opening, read: *read, reached });
    }

    fn handle_due(&mut self, now: Now, tick: Tick, due: Due) {
        let (Due::Touch { room: name, opening, .. }
        | Due::Close { room: name, opening }
        | Due::Watch { room: name, opening }) = due.clone()
        else {
            return self.tell_epochs();
        };
        let Some(room) = self.rooms.get_mut(&name).filter(|room| room.opening == opening) else { return };
        match due {
            Due::Touch { at, .. } if tick < at => {
                self.wheel.insert(at, due);
            }
            Due::Touch { .. } => {
                let at = Tick::of(now).after(TOUCH_INTERVAL);
                self.wheel.insert(at, Due::Touch { at, room: name.clone(), opening });
                self.with_sequence(&name, |sequence, _| sequence.check_position());
                self.presence.query_soon(now.uptime, &name);
            }
            Due::Close { .. } => match room.closed_at {
                Some(at) if now.uptime < at + CLOSE_GRACE => {}
                Some(_) if self.presence.may_forget(&name) => self.forget(&name),
                // The other nodes still believe that somebody is there.
                Some(_) => drop(self.wheel.insert(tick.after(CLOSE_GRACE), due)),
                None => {}
            },
            Due::Tell => {}
            Due::Watch { .. } => {
                (room.is_watched, room.is_resting) = (false, false);
                self.look_at(&name);
            }
        }
    }

    fn forget(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.remove(name) else { return };
        self.presence.forget(name);
        self.threads.wishes.push(SubscriptionChange::Unsubscribe(name.clone()));
        for echo in room.echoes {
            let (ticket, outcome) = (echo.saying.ticket, Outcome::AcceptedUnseen(echo.seq));
            self.events.push_back(BusEvent::Published { ticket, outcome });
        }
        for read in room.reads {
            self.events.push_back(BusEvent::Page { ticket: read.ticket, page: Err("the room was closed") });
        }
    }
}

impl Bus for RedisBus {
    fn begin_turn(&mut self, now: Now) {
        self.now = now;
        (self.news_left, self.replies_left) = (BATCHES_PER_TURN, BATCHES_PER_TURN);
        self.threads.begin_turn();
        for _ in 0..LOOKS_PER_TURN {
            let Some((tick, due)) = self.wheel.pop(Tick::of(now)) else { break };
            self.handle_due(now, tick, due);
        }
        self.presence.handle_deadlines(now.uptime, self.counters.reconnects_total.load(Relaxed));
    }

    fn submit(&mut self, request: BusRequest) {
        match request {
            BusRequest::Open(room) => self.open(&room),
            BusRequest::Close(room) => self.close(&room),
            BusRequest::Publish { ticket, publication } => self.publish(ticket, publication),
            BusRequest::Read { ticket, room, from, bytes_max } => self.read(ticket, &room, from, bytes_max),
            BusRequest::Presence { room, change } => self.presence.announce(self.now.uptime, &room, change),
            BusRequest::Typing { room, user, status } => self.pass_typing(room, user, status),
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.take_action() {
                continue;
            }
            // Before what has come is taken, however much that is: Redis works meanwhile.
            self.threads.orders.flush();
            if !self.take_batch() {
                break;
            }
        }
        None
    }

    fn end_turn(&mut self) {
        self.counters.requests_pending.store(self.pending.len() as u64, Relaxed);
        self.count_presence();
        self.threads.flush();
    }

    fn timeout(&self, now: Now) -> Option<Duration> {
        if self.has_more() {
            return Some(Duration::ZERO);
        }
        let retry = self.threads.are_held_up().then_some(batch_sender::RETRY);
        [self.wheel.timeout(now), retry, self.presence.timeout(now.uptime)].into_iter().flatten().min()
    }

    fn status(&self) -> BusStatus {
        BusStatus { is_ready: self.is_ready(), shares_presence: true }
    }

    fn metrics(&self) -> Vec<Metric> {
        self.watch().stats().metrics()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mio::{Poll, Token};

    use super::*;
    use crate::bus::message::{Publication, ReadFrom, Ticket};
    use crate::id::UserId;

    use crate::bus::redis::commands::request::Response;

    use crate::inbox::{Inbox, InboxSender, inbox};

    /// A bus that speaks to the test instead of its threads.
    struct Bench {
        bus: RedisBus,
        orders: Inbox<Vec<Request>>,
        replies: InboxSender<Vec<Response>>,
        _poll: Poll,
    }

    impl Bench {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let redis = RedisConfig::new("redis://127.0.0.1:1");
            let mut bus = RedisBus::new(&Config::default(), &redis, Arc::clone(&waker), 7).unwrap();
            let (orders, orders_inbox) = inbox(8, Arc::clone(&waker));
            let (replies, replies_inbox) = inbox(BATCHES_PER_TURN + 1, waker);
            (bus.threads.orders, bus.threads.replies) = (batch_sender::BatchSender::new(orders), replies_inbox);
            let mut bench = Self { bus, orders: orders_inbox, replies, _poll: poll };
            // The first beat.
            bench.turn();
            while bench.orders.pop().is_some() {}
            bench
        }

        fn turn(&mut self) {
            self.bus.begin_turn(Now::default());
            while self.bus.poll_event().is_some() {}
            self.bus.end_turn();
        }
    }

    #[test]
    fn what_a_turn_has_left_wants_another_and_what_comes_behind_it_does_not() {
        let mut bench = Bench::new();
        for _ in 0..=BATCHES_PER_TURN {
            bench.replies.push(Vec::new()).unwrap();
        }
        bench.turn();
        assert_eq!(bench.bus.timeout(Now::default()), Some(Duration::ZERO));
        bench.turn();
        bench.replies.push(Vec::new()).unwrap();
        assert_ne!(bench.bus.timeout(Now::default()), Some(Duration::ZERO));
        bench.turn();
        assert!(bench.bus.threads.replies.is_empty(), "the next turn takes it");
    }

    #[test]
    fn what_is_asked_goes_over_before_what_has_come_is_taken() {
        let mut bench = Bench::new();
        let room = RoomName::new("lobby").unwrap();
        bench.bus.read(Ticket(1), &room, ReadFrom::Newest(1), 1);
        bench.turn();
        let read = bench.orders.pop().and_then(|mut orders| orders.pop()).expect("the read");
        bench.replies.push(vec![Response { id: read.id, result: Err("no") }]).unwrap();
        let publication =
            Publication { room, user: UserId::new("ann").unwrap(), id: None, body: Bytes::from_static(b"{") };
        bench.bus.begin_turn(Now::default());
        bench.bus.publish(Ticket(2), publication);
        assert!(matches!(bench.bus.poll_event(), Some(BusEvent::Page { .. })));
        assert!(bench.orders.pop().is_some(), "not only at the end of the turn");
    }
}
