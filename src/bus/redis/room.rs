//! What the bus keeps of a room that is open, or was until a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use super::commands::{Numbering, PendingPublication, PendingRead};
use super::ordering::{OrderingStep, Reassembler};
use crate::id::Epoch;
use crate::protocol;
use crate::settings::RuleIndex;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "most say whether a list has it")]
pub(crate) struct Room {
    /// Tells the room from an earlier or later one of the same name.
    pub(crate) opening: u32,
    pub(crate) rule: RuleIndex,
    /// When the hub closed it.
    pub(crate) closed_at: Option<Duration>,
    pub(crate) is_subscribed: bool,
    /// Whether it was subscribed before, so that messages may have been missed since.
    pub(crate) was_subscribed: bool,
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
            is_subscribed: false,
            was_subscribed: false,
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
    pub(crate) fn may_be_read(&self) -> bool {
        self.is_subscribed || self.reassembler.is_known()
    }

    /// Whether all that was delivered here has been compared with what Redis has now.
    pub(crate) fn is_compared(&self) -> bool {
        !self.reassembler.is_known() || self.is_subscribed && self.reassembler.is_idle()
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
