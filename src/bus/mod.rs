//! How publications travel and are kept: the one path from a sender to the rooms, on one node or on many.

mod local;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

pub use self::local::LocalBus;
#[cfg(feature = "redis")]
#[doc(hidden)]
pub use self::redis::PublishScript;
#[cfg(feature = "redis")]
pub use self::redis::{RedisBus, RedisConfig, RedisStats, RedisWatch};
use crate::id::{RoomName, UserId};
use crate::protocol::TypingStatus;
use crate::publication::{BusEvent, PresenceChange, Publication, ReadFrom, Ticket};
use crate::time::Now;

/// Something that a bus counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, in snake case, with the unit last.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// Its value, as of now.
    pub value: f64,
}

/// How a [`Metric`] moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Up and down.
    Gauge,
    /// Only up.
    Counter,
}

/// Gives messages their numbers, keeps them as history, remembers ids, and delivers.
///
/// Requests are answered by [`BusEvent`]s, at once or in a later turn, in any order but for what [`BusEvent`] promises.
/// **Delivery:** a message that was [accepted](crate::publication::Outcome::Accepted) is delivered to every node that has the room
/// open, in the order of its number, once; a message with the id of an accepted one is a duplicate for as long as that one is in
/// history, and at least for the dedupe window. The methods run on the loop: they must not block.
pub trait Bus {
    /// From now on the room's messages are to be delivered here. One room, `%moderation`, is opened at the start and stays open: what the
    /// hosts of all nodes want done about users is published there.
    fn open(&mut self, now: Now, room: &RoomName);

    /// The room's messages need not be delivered here any more.
    fn close(&mut self, now: Now, room: &RoomName);

    /// Publishes; answered by [`BusEvent::Published`].
    fn publish(&mut self, now: Now, ticket: Ticket, publication: Publication);

    /// Reads a page of history; answered by [`BusEvent::Page`].
    fn read(&mut self, now: Now, ticket: Ticket, room: &RoomName, from: ReadFrom, bytes_max: usize);

    /// Whether there may be other nodes, which want to know who is present and who types here.
    fn shares_presence(&self) -> bool {
        false
    }

    /// A user has come into an open room here, or is not there any more.
    fn announce(&mut self, now: Now, room: &RoomName, change: PresenceChange) {
        let _ = (now, room, change);
    }

    /// A user types in an open room here, or has stopped; the first thing to be dropped when there is too much to do.
    fn pass_typing(&mut self, now: Now, room: &RoomName, user: UserId, status: TypingStatus) {
        let _ = (now, room, user, status);
    }

    /// The next thing to tell the hub.
    fn poll_event(&mut self) -> Option<BusEvent>;

    /// What it counts, for monitoring.
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }

    /// Whether publications would be taken now; part of the server's readiness.
    fn is_ready(&self) -> bool {
        true
    }

    /// How long until [`Bus::handle_deadlines`] has something to do.
    fn timeout(&self, now: Now) -> Option<Duration> {
        let _ = now;
        None
    }

    /// Does what is due.
    fn handle_deadlines(&mut self, now: Now) {
        let _ = now;
    }
}
