//! What the bus keeps of a room that is open, or was a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::run_id::RunId;
use super::ordering::reassembler::Reassembler;
use crate::bus::message::{Publication, ReadFrom, Ticket};
use crate::id::Epoch;

#[derive(Debug)]
pub(crate) struct Room {
    /// Tells it from an earlier or later room of the same name.
    pub(crate) opening: u32,
    /// Since when the hub does not want it any more.
    pub(crate) closed_at: Option<Duration>,
    pub(crate) is_subscribed: bool,
    /// Whether it was subscribed before: then something may have been missed since.
    pub(crate) was_subscribed: bool,
    pub(crate) sequence: Reassembler,
    /// Reads that wait for the subscription, since whatever is said between a page and it would be missed; for who is present
    /// elsewhere, since who has read a page is told who is there; or until it is known what has become of messages that Redis
    /// had and has no more.
    pub(crate) reads: Vec<WaitingRead>,
    /// LocalUsers publications that Redis has numbered and that have yet to come back, in order.
    pub(crate) echoes: VecDeque<AwaitedCopy>,
    /// Whether it waits for its turn to ask.
    pub(crate) is_queued: bool,
    /// Whether a question failed a moment ago.
    pub(crate) is_resting: bool,
    /// Whether the timer will look at it.
    pub(crate) is_watched: bool,
}

impl Room {
    pub(crate) fn new(opening: u32) -> Self {
        Self {
            opening,
            closed_at: None,
            is_subscribed: false,
            was_subscribed: false,
            sequence: Reassembler::new(),
            reads: Vec::new(),
            echoes: VecDeque::new(),
            is_queued: false,
            is_resting: false,
            is_watched: false,
        }
    }

    /// Whether nothing of the room is missed behind a page that is read now, or it is noticed.
    pub(crate) fn may_be_read(&self) -> bool {
        self.is_subscribed || self.sequence.is_known()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingRead {
    pub(crate) ticket: Ticket,
    pub(crate) from: ReadFrom,
    pub(crate) bytes_max: usize,
    pub(crate) since: Duration,
}

#[derive(Debug)]
pub(crate) struct AwaitedCopy {
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    /// The epoch of the room as it was known here when the answer came. While it is still that one, the echo's own is yet to
    /// be heard of.
    pub(crate) known_epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) saying: PendingPublication,
    pub(crate) since: Duration,
}

/// A publication, for as long as it may have to be said again.
#[derive(Clone, Debug)]
pub(crate) struct PendingPublication {
    pub(crate) ticket: Ticket,
    pub(crate) publication: Publication,
    /// KeyNames it to Redis if the sender gave it no id.
    pub(crate) serial: u64,
    /// When it was said.
    pub(crate) at: Duration,
}
