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
//! - `restrictions.rs`: loads bans and mutes. Sans-IO.
//! - [`presence`]: the users of all nodes, by versioned sets and heartbeats. Sans-IO.
//!
//! A message goes like this. The hub submits a publication (`requests.rs`). The command thread
//! runs the publishing script, which numbers the message, stores it and publishes it in one step.
//! The subscriber threads of all nodes receive it and hand it to their loops (`events.rs`), where
//! the room's reassembler delivers it, or queries what is missing before it. The sender's node
//! answers the publication once its own copy was delivered.
//!
//! The threads and their queues are [workers](crate::bus::worker). `room.rs` is what the loop keeps
//! of a room, `stats.rs` the counters.

#[cfg(test)]
mod chance;
mod cluster;
mod commands;
mod config;
mod connection;
mod deadlines;
mod events;
mod ordering;
mod own_bodies;
mod pages;
mod presence;
mod requests;
mod restrictions;
mod rights;
mod room;
mod stats;
mod subscribe;
mod threads;
mod url;

use std::collections::VecDeque;
use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

pub use self::commands::PublishScript;
use self::commands::{PendingPublication, PendingRead, Request, Response};
pub use self::config::{RedisConfig, RedisTiming};
pub(crate) use self::connection::resp;
use self::ordering::OrderingStep;
use self::own_bodies::OwnBodies;
use self::presence::{NodeId, Nodes, Presence, PresenceCounts};
use self::restrictions::RestrictionLoader;
use self::rights::Rights;
use self::room::{Room, Subscription};
use self::stats::Counters;
pub use self::stats::{RedisStats, RedisWatch};
use self::subscribe::SubscriberEvent;
use self::threads::{Commands, Subscriber};
use self::url::RedisUrl;
use super::{Bus, BusStatus, ControlRoom, Metric, ShutdownProgress};
use crate::bus::message::{BusEvent, BusRequest, RestrictionsPage};
use crate::error::Error;
use crate::id::{RoomName, Unique};
use crate::settings::{Config, RoomLimitsTable};
use crate::sharded_map::ShardedMap;
use crate::time::Now;
use crate::timer_wheel::{LOOKS_PER_TURN, Tick, Wheel};

/// How long a room stays subscribed after the hub has closed it. A reload, or a last member who
/// changes rooms, then costs nothing.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// How often an open room is compared with Redis. This also keeps its keys from expiring.
const TOUCH_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to a publication waits for its copy.
const COPY_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often a room is checked in which something waits.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How often events that concern many rooms are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Events and answers of the threads that bring nothing for the hub, and actions of presence, in a turn. After a cut each room has
/// some.
const STEPS_PER_TURN: u32 = 1024;

/// Queries under way at once.
const QUERIES_MAX: usize = 1024;

/// An entry of the timer.
#[derive(Debug)]
enum Deadline {
    /// `opening` tells the room from an earlier one of the same name.
    Room { name: RoomName, opening: u32, due: RoomDeadline },
    /// Logs what has happened to many rooms.
    Log,
}

/// What is due in a room.
#[derive(Clone, Copy, Debug)]
enum RoomDeadline {
    Touch { at: Tick },
    Close,
    Watch,
}

/// Whether the other nodes have been told that this one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    None,
    Announced,
    Known,
}

/// The bus of several nodes. Redis numbers, keeps and distributes messages; all nodes that use
/// the same Redis and prefix are one server.
///
/// Publishing is one script call that numbers, stores and publishes a message in one atomic step,
/// so storage and fan-out have the same order. A message that is missing on the subscription is
/// noticed by its number and read from the stream. If the stream no longer has it, a new epoch
/// begins, and all members are told.
///
/// [`Bus::shutdown`] waits until what was accepted is written, and until the other nodes know that
/// this one has left. Without a connection it waits for nothing. A bus that is dropped without it
/// tells the other nodes, too, but does not wait.
///
/// **Bounds:**
/// [`HubLimits::publications_pending_max`](crate::settings::HubLimits::publications_pending_max)
/// publications and as many reads under way (beyond it they are refused); 1024 queries, and as many
/// requests for presence, with at most 1024 users each unless a whole set is sent (beyond it rooms
/// wait for their turn); 16 batches of at most 256 KiB from the subscriber, and 4 MiB behind them
/// (beyond it messages are dropped and read again); 1024 messages or 1 MiB of a room that wait for
/// an earlier one (beyond it they are read again).
pub struct RedisBus {
    /// The name of this node.
    node: String,
    hold: Duration,
    pending_max: usize,
    /// Peers choose the names, so their hashes are keyed by chance.
    rooms: ShardedMap<RoomName, Room, RandomState>,
    subscription: Subscription,
    limits: RoomLimitsTable,
    openings: u32,
    /// The number of the last publication.
    serial: u64,
    /// Requests that are not answered yet: all, and of these the publications and the queries.
    requests: usize,
    publications: usize,
    queries: usize,
    /// Rooms that wait for their turn to send a query.
    queue: VecDeque<RoomName>,
    presence: Presence,
    commands: Commands,
    subscriber: Subscriber,
    /// Events of the threads that are not taken yet.
    arrived: std::vec::IntoIter<SubscriberEvent>,
    answered: std::vec::IntoIter<Response>,
    /// See [`STEPS_PER_TURN`].
    steps_left: u32,
    /// See [`Bus::take_work`].
    work: u32,
    own_bodies: OwnBodies,
    counters: Arc<Counters>,
    wheel: Wheel<Deadline>,
    control: ControlRoom,
    restrictions: RestrictionLoader,
    events: VecDeque<BusEvent>,
    steps: Vec<OrderingStep>,
    /// Rooms that began a new epoch and are not logged yet.
    epochs_unlogged: u64,
    rights: Rights,
    now: Now,
    departure: Departure,
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = RedisWatch(Arc::clone(&self.counters)).stats();
        f.debug_struct("RedisBus").field("rooms", &self.rooms.len()).field("stats", &stats).finish_non_exhaustive()
    }
}

impl RedisBus {
    /// Starts the two threads, which connect, and reconnect for as long as the bus lives. `waker`
    /// wakes the loop; `seed` makes names that no other node uses.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL, the prefix or the certificates cannot be used. [`Error::Io`]
    /// if a thread cannot be started. A Redis that does not answer is not an error: it may come
    /// up later.
    pub fn new(config: &Config, redis: &RedisConfig, waker: Arc<Waker>, seed: u64) -> Result<Self, Error> {
        let url = RedisUrl::parse(&redis.url, redis.ca.as_deref())?;
        redis.check(config)?;
        let node = Unique::new(seed ^ 2).epoch().as_str().to_owned();
        log::info!("redis at {url}: this is node {node}, prefix {}", redis.prefix);
        let counters = Arc::new(Counters::default());
        let nodes = Nodes::new(NodeId::new(&node), redis.timing.lease, config.timing.presence_grace);
        let (commands, subscriber) = threads::start(config, redis, (url, node.clone(), seed), waker, &counters)?;
        Ok(Self {
            node,
            hold: redis.timing.hold,
            pending_max: 2 * config.hub.publications_pending_max,
            rooms: ShardedMap::default(),
            subscription: Subscription::default(),
            limits: config.room_limits(),
            openings: 0,
            serial: 0,
            requests: 0,
            publications: 0,
            queries: 0,
            queue: VecDeque::new(),
            presence: Presence::new(nodes),
            commands,
            subscriber,
            arrived: Vec::new().into_iter(),
            answered: Vec::new().into_iter(),
            steps_left: STEPS_PER_TURN,
            work: 0,
            own_bodies: OwnBodies::default(),
            counters,
            wheel: Wheel::new(),
            control: ControlRoom::with_stored_restrictions(),
            restrictions: RestrictionLoader::default(),
            events: VecDeque::new(),
            steps: Vec::new(),
            epochs_unlogged: 0,
            rights: Rights::default(),
            now: Now::default(),
            departure: Departure::None,
        })
    }

    /// A handle by which any thread can watch the bus.
    pub fn watch(&self) -> RedisWatch {
        RedisWatch(Arc::clone(&self.counters))
    }

    fn is_ready(&self) -> bool {
        let Counters { publishing_up, subscribing_up, rights_missing, .. } = &*self.counters;
        publishing_up.get() && subscribing_up.get() && !rights_missing.get()
    }

    fn count_presence(&self) {
        let PresenceCounts { nodes_alive, users_elsewhere, updates_sent, deltas_received, repairs } =
            self.presence.counts();
        self.counters.nodes_alive.set(nodes_alive);
        self.counters.users_elsewhere.set(users_elsewhere);
        self.counters.presence_updates_sent_total.set(updates_sent);
        self.counters.presence_updates_received_total.set(deltas_received);
        self.counters.repairs_total.set(repairs);
    }

    fn send(&mut self, request: Request) {
        self.requests += 1;
        self.commands.push(request);
    }

    /// Whether as many publications and reads are under way as are allowed. Requests of the bus
    /// itself have bounds of their own.
    fn is_full(&self) -> bool {
        let own = self.queries + self.presence.under_way();
        self.requests.saturating_sub(own) >= self.pending_max
    }

    fn send_publication(&mut self, pending: PendingPublication) {
        self.publications += 1;
        self.send(Request::Publish(pending));
    }

    fn send_read(&mut self, read: PendingRead) {
        let room = self.rooms.get(&read.room);
        let (opening, reached) = (room.map(|room| room.opening), room.and_then(|room| room.reassembler.reached()));
        self.send(Request::Read(PendingRead { opening, reached, ..read }));
    }
}

impl Bus for RedisBus {
    fn begin_turn(&mut self, now: Now) {
        self.now = now;
        self.steps_left = STEPS_PER_TURN;
        self.subscriber.begin_turn();
        self.commands.begin_turn();
        for _ in 0..LOOKS_PER_TURN {
            let Some((tick, deadline)) = self.wheel.pop(Tick::of(now)) else { break };
            self.work += 1;
            self.handle_deadline(now, tick, deadline);
        }
        self.work += self.presence.handle_deadlines(now.uptime, self.counters.reconnects_total.get());
        self.submit_control();
        self.read_restrictions();
    }

    fn submit(&mut self, request: BusRequest) {
        match request {
            BusRequest::Open(room) => self.open(&room),
            BusRequest::Close(room) => self.close(&room),
            BusRequest::Publish { ticket, publication } => self.publish(ticket, publication, None),
            BusRequest::Delete { ticket, deletion } => {
                self.publish(ticket, deletion.announcement, Some(deletion.targets));
            }
            BusRequest::Control { ticket, body } => {
                self.control.submit(ticket, body);
                self.submit_control();
            }
            BusRequest::Restrict { ticket, change, body } => {
                self.control.submit_restriction(ticket, change, body);
                self.submit_control();
            }
            BusRequest::Read { ticket, room, from, bytes_max } => self.read(ticket, &room, from, bytes_max),
            BusRequest::Presence { room, change } => self.presence.announce(self.now.uptime, &room, change),
            BusRequest::CheckPresence(room) => self.presence.check(self.now.uptime, &room),
            BusRequest::Signal(signal) => self.pass_signal(signal),
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.control.poll_event() {
                return Some(event);
            }
            if let Some(event) = self.events.pop_front() {
                let was_open = self.control.is_open();
                let event = self.control.translate(self.now, event);
                if matches!(event, Some(BusEvent::ControlLost { .. })) || self.control.is_open() != was_open {
                    // A reading that begins now includes all that is not delivered any more.
                    self.restrictions.begin();
                    self.events.push_front(BusEvent::Restrictions(RestrictionsPage::BEGIN));
                    self.read_restrictions();
                }
                if event.is_some() {
                    return event;
                }
                self.submit_control();
                continue;
            }
            if self.steps_left == 0 || !self.take_step() {
                break;
            }
            self.work += 1;
            if self.events.is_empty() {
                self.steps_left -= 1;
            }
        }
        None
    }

    fn take_work(&mut self) -> u32 {
        std::mem::take(&mut self.work)
    }

    fn end_turn(&mut self) {
        self.counters.requests_pending.set(self.requests);
        self.count_presence();
        self.commands.flush();
        self.subscriber.flush();
    }

    fn timeout(&self, now: Now) -> Option<Duration> {
        let threads = [self.commands.timeout(), self.subscriber.timeout()];
        let timers = [self.wheel.timeout(now), self.presence.timeout(now.uptime), self.control.timeout(now)];
        let restrictions = self.restrictions.timeout(now.uptime);
        let steps = (self.steps_left == 0).then_some(Duration::ZERO);
        threads.into_iter().chain(timers).chain([restrictions, steps]).flatten().min()
    }

    fn shutdown(&mut self, _now: Now) -> ShutdownProgress {
        if self.departure == Departure::None {
            self.departure = Departure::Announced;
            self.send(Request::Leave);
            self.commands.flush();
        }
        // Without a link there is nobody who could be told; the lease ends some day.
        let is_up = self.counters.publishing_up.get();
        if is_up && (self.departure != Departure::Known || self.publications > 0) {
            return ShutdownProgress::Pending;
        }
        ShutdownProgress::Done
    }

    fn status(&self) -> BusStatus {
        BusStatus { is_ready: self.is_ready(), shares_presence: true }
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }

    fn nodes_alive(&self) -> u64 {
        self.presence.counts().nodes_alive
    }

    fn metrics(&self) -> Vec<Metric> {
        self.watch().stats().metrics()
    }
}

impl Drop for RedisBus {
    /// The threads end by themselves. The last that a node says is that it leaves.
    fn drop(&mut self) {
        self.commands.push(Request::Leave);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mio::{Poll, Token};

    use super::*;
    use crate::bus::message::{BusRefusal, Publication, ReadFrom, Ticket};
    use crate::bus::redis::commands::Response;
    use crate::bus::redis::connection::RunId;
    use crate::bus::redis::ordering::{ChannelMessage, HistorySlice, RoomPosition};
    use crate::bus::worker::{BATCHES_PER_TURN, QueueBounds, Queues, WorkerThread, worker};
    use crate::id::{Epoch, UserId};
    use crate::owner::Owner;

    /// A bus whose command thread is replaced by the test.
    struct Bench {
        bus: RedisBus,
        queues: Queues<Request, Response>,
        _thread: WorkerThread,
        _poll: Poll,
    }

    impl Bench {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let redis = RedisConfig::new("redis://127.0.0.1:1");
            let mut bus = RedisBus::new(&Config::default(), &redis, Arc::clone(&waker), 7).unwrap();
            let bounds = QueueBounds { requests: 8, responses: BATCHES_PER_TURN + 1 };
            let (commands, thread, queues) = worker(bounds, waker).unwrap();
            bus.commands = commands;
            let mut bench = Self { bus, queues, _thread: thread, _poll: poll };
            // The first heartbeat.
            bench.turn();
            while bench.queues.requests.pop().is_some() {}
            bench
        }

        fn turn(&mut self) {
            self.bus.begin_turn(Now::default());
            while self.bus.poll_event().is_some() {}
            self.bus.end_turn();
        }

        fn answer(&mut self, response: Response) {
            self.queues.responses.push(response);
            self.queues.responses.flush();
            assert!(self.queues.responses.is_empty());
        }
    }

    #[test]
    fn what_a_turn_has_left_wants_another_and_what_comes_behind_it_does_not() {
        let mut bench = Bench::new();
        bench.bus.requests += BATCHES_PER_TURN + 2;
        for _ in 0..=BATCHES_PER_TURN {
            bench.answer(Response::Signal);
        }
        bench.turn();
        assert_eq!(bench.bus.timeout(Now::default()), Some(Duration::ZERO));
        bench.turn();
        bench.answer(Response::Signal);
        assert_ne!(bench.bus.timeout(Now::default()), Some(Duration::ZERO));
        bench.turn();
        assert!(bench.bus.commands.take_batch().is_none(), "the next turn takes it");
    }

    #[test]
    fn what_is_asked_goes_over_before_what_has_come_is_taken() {
        let mut bench = Bench::new();
        let room = RoomName::new("lobby").unwrap();
        bench.bus.read(Ticket(1), &room, ReadFrom::Newest(1), 1);
        bench.turn();
        let asked = bench.queues.requests.pop().and_then(|mut requests| requests.pop());
        let Some(Request::Read(read)) = asked else { panic!("no read") };
        bench.answer(Response::Page(read, Err(BusRefusal::unavailable("no"))));
        let publication = Publication {
            room,
            user: UserId::new("ann").unwrap(),
            owner: Owner::HOST,
            id: None,
            body: Bytes::from_static(b"{"),
            restriction: None,
        };
        bench.bus.begin_turn(Now::default());
        bench.bus.publish(Ticket(2), publication, None);
        assert!(matches!(bench.bus.poll_event(), Some(BusEvent::Page { .. })));
        assert!(bench.queues.requests.pop().is_some(), "not only at the end of the turn");
    }

    #[test]
    fn a_page_of_older_messages_is_whole_although_newer_ones_have_arrived_since() {
        let (mut bench, name) = (Bench::new(), RoomName::new("lobby").unwrap());
        let (run_id, epoch) = (RunId::new(7), Epoch::new("e"));
        let position = RoomPosition { run_id, epoch: epoch.clone(), top: 5, fingerprint: None };
        let slice = HistorySlice { position: position.clone(), is_confirmed: true, complete: true, messages: vec![] };
        bench.bus.open(&name);
        let opening = bench.bus.rooms.get(&name).map(|room| room.opening);
        bench.bus.with_reassembler(&name, |reassembler, steps| {
            reassembler.observe(position, steps);
            reassembler.take(ChannelMessage { run_id, epoch, seq: 6, body: Bytes::from_static(b"{") }, steps);
        });
        for (from, complete) in [(ReadFrom::Before { seq: Some(1), count: 5 }, true), (ReadFrom::After(5), false)] {
            let (ticket, room, since) = (Ticket(1), name.clone(), Duration::ZERO);
            let read = PendingRead { ticket, room, from, bytes_max: 1, since, opening, reached: None };
            bench.bus.requests += 1;
            bench.answer(Response::Page(read, Ok(slice.clone())));
            bench.bus.begin_turn(Now::default());
            let page = std::iter::from_fn(|| bench.bus.poll_event()).find_map(|event| match event {
                BusEvent::Page { page, .. } => page.ok(),
                _ => None,
            });
            assert_eq!(page.map(|page| (page.top, page.complete)), Some((6, complete)), "{from:?}");
        }
    }

    #[test]
    fn a_page_of_older_messages_that_was_read_before_a_deletion_is_read_again() {
        let (mut bench, name) = (Bench::new(), RoomName::new("lobby").unwrap());
        let (run_id, epoch) = (RunId::new(7), Epoch::new("e"));
        let position = |top| RoomPosition { run_id, epoch: epoch.clone(), top, fingerprint: None };
        let slice =
            |top| HistorySlice { position: position(top), is_confirmed: true, complete: true, messages: vec![] };
        bench.bus.open(&name);
        let opening = bench.bus.rooms.get(&name).map(|room| room.opening);
        bench.bus.with_reassembler(&name, |reassembler, steps| reassembler.observe(position(5), steps));
        let body = Bytes::from_static(br#"{"type":"deleted","room":"lobby","deletes":[2],"ts":1"#);
        let message = ChannelMessage { run_id, epoch: epoch.clone(), seq: 6, body };
        bench.bus.with_reassembler(&name, |reassembler, steps| reassembler.take(message, steps));
        bench.turn();
        while bench.queues.requests.pop().is_some() {}
        let (from, ticket, since) = (ReadFrom::Before { seq: None, count: 5 }, Ticket(1), Duration::ZERO);
        let read = PendingRead { ticket, room: name.clone(), from, bytes_max: 1, since, opening, reached: None };
        for (top, is_told) in [(5, false), (6, true)] {
            bench.bus.requests += 1;
            bench.answer(Response::Page(read.clone(), Ok(slice(top))));
            bench.bus.begin_turn(Now::default());
            let is_page = |event| matches!(event, BusEvent::Page { page: Ok(_), .. });
            assert_eq!(std::iter::from_fn(|| bench.bus.poll_event()).any(is_page), is_told, "read at {top}");
            bench.bus.end_turn();
            let asked = bench.queues.requests.pop().into_iter().flatten();
            assert_eq!(asked.filter(|request| matches!(request, Request::Read(_))).count(), usize::from(!is_told));
        }
    }
}
