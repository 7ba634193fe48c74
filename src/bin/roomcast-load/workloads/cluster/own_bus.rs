//! A bus in this process, without a node around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use roomcast::bus::{Bus, RedisBus, RedisConfig};
use roomcast::bus::{BusEvent, BusRequest, Publication, ReadFrom, Ticket};
use roomcast::{Config, Now, Owner, RoomName, UserId};

use super::nodes::{Cluster, PREFIX};
use crate::error::LoadError;

/// No node has it, so that the names of buses differ.
const SEED: u64 = 0x0b05;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct OwnBus {
    poll: Poll,
    events: Events,
    bus: RedisBus,
    room: RoomName,
    began: Instant,
    last_ticket: u64,
}

impl OwnBus {
    /// Connects, and opens the room.
    pub(super) fn start(cluster: &Cluster<'_, '_>, room: RoomName) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
        let mut redis = RedisConfig::new(&cluster.redis.url());
        PREFIX.clone_into(&mut redis.prefix);
        let bus = RedisBus::new(&Config::default(), &redis, waker, SEED)
            .map_err(|error| LoadError::Usage(error.to_string()))?;
        let events = Events::with_capacity(4);
        let mut own = Self { poll, events, bus, room, began: Instant::now(), last_ticket: 0 };
        own.until("the bus to connect", |own| own.bus.status().is_ready)?;
        let ticket = own.next_ticket();
        own.bus.submit(BusRequest::Open(own.room.clone()));
        own.bus.submit(BusRequest::Read { ticket, room: own.room.clone(), from: ReadFrom::Newest(0), bytes_max: 0 });
        own.wait_for("the room's history", |event| matches!(event, BusEvent::Page { .. }))?;
        Ok(own)
    }

    /// Publishes, and waits until the message is delivered.
    pub(super) fn publish(&mut self, user: &UserId, body: &str) -> Result<(), LoadError> {
        let ticket = self.next_ticket();
        let (room, user, bytes) = (self.room.clone(), user.clone(), body.to_owned().into());
        let publication = Publication { room, user, owner: Owner::HOST, id: None, body: bytes, restriction: None };
        self.bus.submit(BusRequest::Publish { ticket, publication });
        let is_it = |event: &BusEvent| matches!(event, BusEvent::Delivered { message, .. } if message.body == body);
        self.wait_for("a message", is_it)
    }

    fn now(&self) -> Now {
        Now { uptime: self.began.elapsed(), unix_ms: 0 }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn wait_for(&mut self, what: &str, is_it: impl Fn(&BusEvent) -> bool) -> Result<(), LoadError> {
        self.until(what, |own| {
            let has_come = std::iter::from_fn(|| own.bus.poll_event()).any(|event| is_it(&event));
            own.bus.end_turn();
            has_come
        })
    }

    /// Runs turns of the bus until a condition holds.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) -> Result<(), LoadError> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > deadline {
                return Err(LoadError::Timeout(what.to_owned()));
            }
            let timeout = self.bus.timeout(self.now()).unwrap_or(PATIENCE).min(Duration::from_millis(20));
            self.poll.poll(&mut self.events, Some(timeout))?;
            self.bus.begin_turn(self.now());
        }
        Ok(())
    }
}
