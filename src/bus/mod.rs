//! How publications travel and are kept: the one path from a sender to the rooms, on one node or on many.

mod control;
mod dedupe;
mod history;
mod local;
pub(crate) mod message;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "redis")]
pub(crate) mod worker;

use std::time::Duration;

pub use self::control::ControlRoom;
pub use self::local::{LocalBus, LocalStats};
pub use self::message::{
    BusEvent, BusRefusal, BusRequest, Deletion, DeletionTargets, Numbered, Outcome, Page, PresenceChange, Publication,
    ReadFrom, RefusalKind, RestrictionAction, RestrictionChange, RestrictionsPage, Signal, Ticket,
};
#[cfg(feature = "redis")]
pub use self::redis::{RedisBus, RedisConfig, RedisStats, RedisTiming, RedisWatch};
pub use crate::id::Epoch;
pub use crate::metric::{Metric, MetricKind};
pub use crate::protocol::{PresenceStatus, SignalKind};
use crate::time::Now;

/// How a bus does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusStatus {
    /// Whether publications would be taken now; part of the server's readiness.
    pub is_ready: bool,
    /// Whether there may be other nodes, which want to know who is present and who types here.
    pub shares_presence: bool,
}

/// How far a bus has come with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownProgress {
    /// Something is still to be written. The loop is woken when that changes.
    Pending,
    /// All that was accepted is written, and other nodes know that this one is gone; or nobody is there who could be told.
    Done,
}

/// Gives messages their numbers, keeps them as history, remembers ids, and delivers.
///
/// The loop contract in one sentence: *begin the turn, submit requests and poll events until there are none, end the turn, sleep no
/// longer than [`Bus::timeout`].* The methods run on the loop, so they must not block.
///
/// Requests are answered by [`BusEvent`]s, in the same turn or a later one, in any order but for what [`BusEvent`] promises.
/// **Delivery:** a message that was [accepted](Outcome::Accepted) is delivered to every node that has the room open, in the
/// order of its number, once. A message with the id of an accepted one is a duplicate at least for the dedupe window, and longer, as long as that
/// one is in history, unless the memory is needed. If a bus cannot keep this, because its storage has lost messages, it tells of it by
/// [`BusEvent::EpochChanged`] before it delivers anything else in that room.
pub trait Bus {
    /// A turn of the loop begins: what is due is done. `now` holds for everything until the next.
    fn begin_turn(&mut self, now: Now);

    /// Takes a request.
    fn submit(&mut self, request: BusRequest);

    /// The next thing to tell the hub.
    fn poll_event(&mut self) -> Option<BusEvent>;

    /// Units of work since the last call, beyond one for each event: they count among those that a turn may do.
    fn take_work(&mut self) -> u32 {
        0
    }

    /// Nothing more is submitted or polled in this turn: what was gathered is handed over.
    fn end_turn(&mut self) {}

    /// How long until a turn has something to do.
    fn timeout(&self, now: Now) -> Option<Duration> {
        let _ = now;
        None
    }

    /// How it does.
    fn status(&self) -> BusStatus {
        BusStatus { is_ready: true, shares_presence: false }
    }

    /// The name of this node among those that share the bus; none if it is the only one.
    fn node(&self) -> Option<&str> {
        None
    }

    /// How many nodes are alive, this one included, as far as it is known.
    fn nodes_alive(&self) -> u64 {
        1
    }

    /// What it counts, for monitoring.
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }

    /// Nothing more is published: what was accepted is to be written, and other nodes are to be told that this one ends. Called once a
    /// turn, until it is done or the server's time for it is over.
    fn shutdown(&mut self, now: Now) -> ShutdownProgress {
        let _ = now;
        ShutdownProgress::Done
    }
}
