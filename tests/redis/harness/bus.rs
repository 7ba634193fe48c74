//! The bus of a node without the rest of the node. It is driven turn by turn, under a clock that may
//! be wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use roomcast::bus::{Bus, RedisBus, RedisConfig, RedisStats};
use roomcast::bus::{BusEvent, BusRefusal, BusRequest, Numbered, Outcome, Page, Publication, ReadFrom, Ticket};
use roomcast::{Config, Now, Owner, RoomName, UserId};

use crate::harness::redis::{LONG, Redis};

/// The bus, and all that it has told and nobody has taken yet.
pub(crate) struct Node {
    poll: Poll,
    events: Events,
    bus: RedisBus,
    turned_at: Instant,
    uptime: Duration,
    /// The Unix time that it believes.
    pub(crate) unix_ms: u64,
    pub(crate) told: Vec<BusEvent>,
    tickets: u64,
}

pub(crate) fn lobby() -> RoomName {
    RoomName::new("lobby").unwrap()
}

impl Node {
    /// A node that stands; `seed` tells it from the others.
    pub(crate) fn start(redis: &Redis, config: &Config, seed: u64) -> Self {
        Self::start_at(&redis.url(), config, seed)
    }

    /// The same over some way to Redis.
    pub(crate) fn start_at(url: &str, config: &Config, seed: u64) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let bus = RedisBus::new(config, &RedisConfig::new(url), waker, seed).unwrap();
        let events = Events::with_capacity(4);
        let (turned_at, uptime, told) = (Instant::now(), Duration::ZERO, Vec::new());
        let mut node = Self { poll, events, bus, turned_at, uptime, unix_ms: 1, told, tickets: 0 };
        node.until("the links stand", |node| node.bus.status().is_ready.then_some(()));
        node
    }

    fn now(&self) -> Now {
        Now { uptime: self.uptime, unix_ms: self.unix_ms }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.uptime
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.bus.status().is_ready
    }

    pub(crate) fn stats(&self) -> RedisStats {
        self.bus.watch().stats()
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        let most = Duration::from_millis(20);
        let timeout = self.bus.timeout(self.now()).map_or(most, |timeout| timeout.min(most));
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        // Only a little counts of the time in which a busy machine did not run the test, so that
        // deadlines pass in the same order everywhere.
        self.uptime += self.turned_at.elapsed().min(Duration::from_millis(50));
        self.turned_at = Instant::now();
        self.bus.begin_turn(self.now());
        while let Some(event) = self.bus.poll_event() {
            self.told.push(event);
        }
        self.bus.end_turn();
    }

    /// Turns until there is something.
    pub(crate) fn until<T>(&mut self, what: &str, mut find: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "not within {LONG:?}: {what}; {:?}, {:?}", self.bus, self.told);
            self.turn();
        }
    }

    /// Opens the lobby and reads where it stands.
    pub(crate) fn open(&mut self) -> Page {
        self.bus.submit(BusRequest::Open(lobby()));
        self.read(ReadFrom::Newest(0), 0)
    }

    pub(crate) fn close(&mut self) {
        self.bus.submit(BusRequest::Close(lobby()));
    }

    pub(crate) fn ask_read(&mut self, from: ReadFrom, bytes_max: usize) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.bus.submit(BusRequest::Read { ticket, room: lobby(), from, bytes_max });
        ticket
    }

    pub(crate) fn read(&mut self, from: ReadFrom, bytes_max: usize) -> Page {
        let ticket = self.ask_read(from, bytes_max);
        self.page(ticket).expect("a page")
    }

    pub(crate) fn page(&mut self, ticket: Ticket) -> Result<Page, BusRefusal> {
        self.until("the page", |node| {
            node.told.iter().find_map(|event| match event {
                BusEvent::Page { ticket: answered, page } if *answered == ticket => Some(page.clone()),
                _ => None,
            })
        })
    }

    pub(crate) fn publish(&mut self, body: &str) -> Ticket {
        self.publish_as(None, body)
    }

    /// As `ann`, under this id.
    pub(crate) fn publish_as(&mut self, id: Option<&str>, body: &str) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let body = Bytes::from(body.to_owned());
        let publication = Publication {
            room: lobby(),
            user: UserId::new("ann").unwrap(),
            owner: Owner::HOST,
            id: id.map(Into::into),
            body,
            restriction: None,
        };
        self.bus.submit(BusRequest::Publish { ticket, publication });
        ticket
    }

    /// The owners of the messages that were delivered, as far as this node knows them.
    pub(crate) fn owners(&self) -> Vec<Option<Owner>> {
        let owner = |event: &BusEvent| match event {
            BusEvent::Delivered { owner, .. } => Some(*owner),
            _ => None,
        };
        self.told.iter().filter_map(owner).collect()
    }

    pub(crate) fn outcome(&mut self, ticket: Ticket) -> Outcome {
        self.until("what became of the publication", |node| {
            node.told.iter().find_map(|event| match event {
                BusEvent::Published { ticket: answered, outcome } if *answered == ticket => Some(outcome.clone()),
                _ => None,
            })
        })
    }

    /// The messages that were delivered.
    pub(crate) fn messages(&self) -> Vec<&Numbered> {
        let messages = self.told.iter().filter_map(|event| match event {
            BusEvent::Delivered { message, .. } => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// Their numbers.
    pub(crate) fn delivered(&self) -> Vec<u64> {
        self.messages().iter().map(|message| message.seq).collect()
    }

    /// The epochs that were begun, and at which number.
    pub(crate) fn epochs(&self) -> Vec<(String, u64)> {
        let epoch = |event: &BusEvent| match event {
            BusEvent::EpochChanged { epoch, top, .. } => Some((epoch.as_str().to_owned(), *top)),
            _ => None,
        };
        self.told.iter().filter_map(epoch).collect()
    }
}
