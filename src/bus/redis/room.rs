//! What the bus keeps of a room that is open, or was until a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use super::commands::{Numbering, PendingPublication, PendingRead};
use super::ordering::{OrderingStep, Reassembler};
use crate::id::Epoch;
use crate::protocol;
use crate::settings::RuleIndex;

/// Counts how often the subscription was lost, and with it that of every room. So a loss concerns all rooms without a look at any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription(u32);

impl Subscription {
    /// The one after a loss.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

#[derive(Debug)]
pub(crate) struct Room {
    /// Tells the room from an earlier or later one of the same name.
    pub(crate) opening: u32,
    pub(crate) rule: RuleIndex,
    /// When the hub closed it.
    pub(crate) closed_at: Option<Duration>,
    /// The subscription that it was part of last. If there was one before, messages may have been missed since.
    pub(crate) subscribed_in: Option<Subscription>,
    pub(crate) reassembler: Reassembler,
    /// Reads that wait for the subscription, since messages between a page and the subscription
    /// would be missed; for the present users of other nodes, since a reader of a page is told
    /// who is present; or until it is known whether Redis has lost messages.
    pub(crate) reads: Vec<PendingRead>,
    /// Publications of this node that Redis has numbered and that have yet to come back, in
    /// order.
    pub(crate) awaited_copies: VecDeque<AwaitedCopy>,
    /// The number of the last announcement of a deletion that was delivered here. An older page of history may still have the text.
    pub(crate) last_deletion: u64,
    /// Whether it waits for its turn to send a query.
    pub(crate) is_queued: bool,
    /// Whether a query failed a moment ago.
    pub(crate) is_resting: bool,
    /// Whether it has an entry in the timer.
    pub(crate) is_watched: bool,
}

impl Room {
    pub(crate) fn new(opening: u32, rule: RuleIndex) -> Self {
        Self {
            opening,
            rule,
            closed_at: None,
            subscribed_in: None,
            reassembler: Reassembler::new(),
            reads: Vec::new(),
            awaited_copies: VecDeque::new(),
            last_deletion: 0,
            is_queued: false,
            is_resting: false,
            is_watched: false,
        }
    }

    /// Whether no message between a page that is read now and the subscription can be missed
    /// unnoticed.
    pub(crate) fn may_be_read(&self, present: Subscription) -> bool {
        self.is_subscribed(present) || self.reassembler.is_known()
    }

    /// Whether it is part of the present subscription.
    fn is_subscribed(&self, present: Subscription) -> bool {
        self.subscribed_in == Some(present)
    }

    /// Whether all that was delivered here has been compared with what Redis has now.
    pub(crate) fn is_compared(&self, present: Subscription) -> bool {
        !self.reassembler.is_known() || self.is_subscribed(present) && self.reassembler.is_idle()
    }

    /// Takes note of what is delivered, if it is the announcement of a deletion.
    pub(crate) fn note_deletion(&mut self, step: &OrderingStep) {
        match step {
            OrderingStep::Deliver(message) if protocol::is_deletion(&message.body) => self.last_deletion = message.seq,
            OrderingStep::Deliver(_) => {}
            OrderingStep::EpochChanged { .. } => self.last_deletion = 0,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

/// A publication that Redis has numbered, and that has yet to come back.
#[derive(Debug)]
pub(crate) struct AwaitedCopy {
    pub(crate) numbering: Numbering,
    /// The epoch of the room when the answer came. While it is unchanged, the epoch of the copy
    /// has yet to be announced.
    pub(crate) known_epoch: Epoch,
    pub(crate) pending: PendingPublication,
    pub(crate) since: Duration,
}
