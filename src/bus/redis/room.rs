//! What the bus keeps of a room that is open, or was a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use super::run_id::RunId;
use super::sequence::Sequence;
use crate::id::Epoch;
use crate::publication::{Publication, ReadFrom, Ticket};

#[derive(Debug)]
pub(super) struct Room {
    /// Tells it from an earlier or later room of the same name.
    pub(super) opening: u32,
    /// Since when the hub does not want it any more.
    pub(super) closed_at: Option<Duration>,
    pub(super) is_subscribed: bool,
    /// Whether it was subscribed before: then something may have been missed since.
    pub(super) was_subscribed: bool,
    pub(super) sequence: Sequence,
    /// Reads that wait for the subscription, since whatever is said between a page and it would be missed; for who is present
    /// elsewhere, since who has read a page is told who is there; or until it is known what has become of messages that Redis
    /// had and has no more.
    pub(super) reads: Vec<WaitingRead>,
    /// Own publications that Redis has numbered and that have yet to come back, in order.
    pub(super) echoes: VecDeque<Echo>,
    /// Whether it waits for its turn to ask.
    pub(super) is_queued: bool,
    /// Whether a question failed a moment ago.
    pub(super) is_resting: bool,
    /// Whether the timer will look at it.
    pub(super) is_watched: bool,
}

impl Room {
    pub(super) fn new(opening: u32) -> Self {
        Self {
            opening,
            closed_at: None,
            is_subscribed: false,
            was_subscribed: false,
            sequence: Sequence::new(),
            reads: Vec::new(),
            echoes: VecDeque::new(),
            is_queued: false,
            is_resting: false,
            is_watched: false,
        }
    }

    /// Whether nothing of the room is missed behind a page that is read now, or it is noticed.
    pub(super) fn may_be_read(&self) -> bool {
        self.is_subscribed || self.sequence.is_known()
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingRead {
    pub(super) ticket: Ticket,
    pub(super) from: ReadFrom,
    pub(super) bytes_max: usize,
    pub(super) since: Duration,
}

#[derive(Debug)]
pub(super) struct Echo {
    pub(super) run_id: RunId,
    pub(super) epoch: Epoch,
    /// The epoch of the room as it was known here when the answer came. While it is still that one, the echo's own is yet to
    /// be heard of.
    pub(super) known_epoch: Epoch,
    pub(super) seq: u64,
    pub(super) saying: Saying,
    pub(super) since: Duration,
}

/// A publication, for as long as it may have to be said again.
#[derive(Clone, Debug)]
pub(super) struct Saying {
    pub(super) ticket: Ticket,
    pub(super) publication: Publication,
    /// Names it to Redis if the sender gave it no id.
    pub(super) serial: u64,
    /// When it was said.
    pub(super) at: Duration,
}
