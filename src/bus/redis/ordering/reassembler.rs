//! The order of the messages in one room: the subscription and the answers to queries become one
//! stream without gaps. Sans-IO.
//!
//! Messages arrive on the subscription at most once, and perhaps never ([`Reassembler::take`]).
//! Answers arrive on the link that also publishes ([`Reassembler::observe`],
//! [`Reassembler::answer`]). On one link Redis answers in the order in which it acted, so *only
//! answers change the epoch*: a message of a foreign epoch may be newer or older, and only a
//! query that was sent after it can tell.
//!
//! The same holds for messages of another run of Redis. Numbers are unique within an epoch *and*
//! a run, since a Redis that restarts may have lost the newest. An answer of a new run is
//! compared with the last delivered message. If they agree, the room continues in the new run;
//! otherwise the epoch ends.
//!
//! The loop contract in one sentence: *hand in what arrived, carry out the steps, send what
//! [`Reassembler::poll_query`] returns.*

use std::collections::BTreeSet;

use bytes::Bytes;

use super::buffer::{Awaited, BYTES_MAX, MESSAGES_MAX, ReorderBuffer, copied};
use super::history::{ChannelMessage, HistoryQuery, HistorySlice, OrderingStep, RoomPosition, fingerprint_of};
use super::query::{Comparison, PendingQuery, Position, compare};
use crate::bus::message::Numbered;
use crate::bus::redis::connection::RunId;
use crate::id::Epoch;

/// Why Redis has to be queried, from the weakest to the strongest reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ResyncReason {
    None,
    /// Some time has passed.
    Position,
    /// Messages are missing, or may be.
    Messages,
    /// Missing messages are lost, or history has changed within the epoch.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Reassembler {
    position: Option<Position>,
    buffer: ReorderBuffer,
    /// Messages of other epochs or runs, in their order of arrival. While the position is
    /// unknown, all messages.
    foreign_epoch_messages: Vec<ChannelMessage>,
    reason: ResyncReason,
    state: SyncState,
    query: Option<PendingQuery>,
    awaited: Awaited,
    /// The run of Redis in which the epoch has to be confirmed.
    unconfirmed: Option<RunId>,
}

/// Whether arriving messages continue what was delivered. After an interruption they may not:
/// Redis may have lost its newest messages and assigned their numbers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncState {
    InSync,
    /// Nothing is delivered before a query was sent and answered.
    NeedsQuery,
    AwaitingAnswer,
}

impl Reassembler {
    /// A room about which nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            position: None,
            buffer: ReorderBuffer::default(),
            foreign_epoch_messages: Vec::new(),
            reason: ResyncReason::None,
            state: SyncState::InSync,
            query: None,
            awaited: Awaited::default(),
            unconfirmed: None,
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.position.is_some()
    }

    pub(crate) fn epoch(&self) -> Option<&Epoch> {
        self.position.as_ref().map(|position| &position.epoch)
    }

    /// The number of the last delivered message, or the one at which the room began.
    pub(crate) fn delivered(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.delivered)
    }

    /// The epoch, and the number of the last delivered message.
    pub(crate) fn reached(&self) -> Option<(Epoch, u64)> {
        self.position.as_ref().map(|position| (position.epoch.clone(), position.delivered))
    }

    /// The run of Redis in which the delivered numbers are valid.
    pub(crate) fn run_id(&self) -> Option<RunId> {
        self.position.as_ref().map(|position| position.run_id)
    }

    /// The number up to which the present epoch was not delivered here.
    pub(crate) fn skipped(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.skipped)
    }

    /// Takes a message of the subscription.
    pub(crate) fn take(&mut self, message: ChannelMessage, steps: &mut Vec<OrderingStep>) {
        let Some(position) = &self.position else { return self.keep_foreign(message) };
        if message.epoch != position.epoch || message.run_id != position.run_id {
            if self.query.is_none() {
                self.raise(ResyncReason::Messages);
            }
            return self.keep_foreign(message);
        }
        let ChannelMessage { seq, body, .. } = message;
        if body.is_empty() || seq <= position.delivered {
            return;
        }
        if seq == position.delivered + 1 && self.state == SyncState::InSync {
            self.deliver(seq, body, steps);
            return self.deliver_buffered(steps);
        }
        if self.query.is_none() {
            self.raise(ResyncReason::Messages);
        }
        if !self.buffer.insert(seq, &body) {
            // An answer under way may be older than this message, so it has to be queried again.
            self.raise(ResyncReason::Messages);
        }
    }

    /// The subscription was interrupted, or a message was dropped. Nothing is delivered before a
    /// query shows what is missing and whether history is still the same.
    pub(crate) fn require_resync(&mut self) {
        self.state = SyncState::NeedsQuery;
        // Their numbers may have been assigned again. The answer contains all that is valid.
        self.buffer.clear();
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.foreign_epoch_messages.clear();
        if let Some(query) = &mut self.query {
            query.foreign_epoch_messages = 0;
        }
        self.raise(ResyncReason::Messages);
    }

    /// Some time has passed: compare the position.
    pub(crate) fn check_position(&mut self) {
        self.raise(ResyncReason::Position);
    }

    /// Something was numbered by another run of Redis.
    pub(crate) fn check_run(&mut self) {
        self.raise(ResyncReason::Messages);
    }

    /// Whether no query is under way or wanted.
    pub(crate) fn is_idle(&self) -> bool {
        self.query.is_none() && !self.wants_query()
    }

    /// Whether messages are awaited. Then [`Reassembler::check_awaited`] has to be called from
    /// time to time.
    pub(crate) fn awaits(&self) -> bool {
        self.awaited.are_ahead_of(self.delivered())
    }

    /// Awaited messages should have arrived by now.
    pub(crate) fn check_awaited(&mut self) {
        if self.awaited.are_given_up(self.delivered()) {
            self.abandon_epoch();
        }
    }

    /// Takes a position from an answer that belongs to no query of [`Reassembler::poll_query`].
    /// The first one is where deliveries begin.
    pub(crate) fn observe(&mut self, found: RoomPosition, steps: &mut Vec<OrderingStep>) {
        match &self.position {
            Some(position) if position.epoch == found.epoch => {}
            Some(_) => self.adopt(found, 0, steps),
            None => {
                let RoomPosition { run_id, epoch, top, fingerprint } = found;
                self.position = Some(Position { run_id, epoch, delivered: top, fingerprint, skipped: 0 });
                self.retake_foreign(steps);
            }
        }
    }

    /// The next query. Each has to be followed by [`Reassembler::answer`] or
    /// [`Reassembler::fail`] before there is another.
    pub(crate) fn poll_query(&mut self) -> Option<HistoryQuery> {
        if !self.wants_query() {
            return None;
        }
        let position = self.position.as_ref()?;
        let query = match self.reason {
            ResyncReason::None => HistoryQuery::Confirm(position.epoch.clone(), self.unconfirmed?),
            ResyncReason::Position => HistoryQuery::Position,
            ResyncReason::Messages => HistoryQuery::Since(position.delivered.max(1)),
            ResyncReason::Broken => HistoryQuery::Renew(position.epoch.clone()),
        };
        if self.reason == ResyncReason::None {
            self.unconfirmed = None;
        }
        self.reason = ResyncReason::None;
        if self.state == SyncState::NeedsQuery {
            self.state = SyncState::AwaitingAnswer;
        }
        self.query = Some(PendingQuery {
            kind: query.clone(),
            epoch: position.epoch.clone(),
            delivered: position.delivered,
            fingerprint: position.fingerprint,
            foreign_epoch_messages: self.foreign_epoch_messages.len(),
        });
        Some(query)
    }

    /// Whether [`Reassembler::poll_query`] returns something.
    pub(crate) fn wants_query(&self) -> bool {
        (self.reason != ResyncReason::None || self.unconfirmed.is_some())
            && self.query.is_none()
            && self.position.is_some()
    }

    /// The query failed, and will be repeated.
    pub(crate) fn fail(&mut self) {
        let Some(query) = self.query.take() else { return };
        if self.state == SyncState::AwaitingAnswer {
            self.state = SyncState::NeedsQuery;
        }
        self.raise(match query.kind {
            // The position shows whether the epoch still has to be confirmed.
            HistoryQuery::Position | HistoryQuery::Confirm(..) => ResyncReason::Position,
            HistoryQuery::Since(_) => ResyncReason::Messages,
            HistoryQuery::Renew(_) => ResyncReason::Broken,
        });
    }

    /// Takes the answer to the query under way.
    pub(crate) fn answer(&mut self, slice: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let Some((query, position)) = self.query.take().zip(self.position.as_ref()) else { return };
        let RoomPosition { epoch, top, run_id, .. } = &slice.position;
        let is_compared = slice.is_confirmed && *run_id == position.run_id;
        if self.state == SyncState::AwaitingAnswer {
            self.state = SyncState::InSync;
        }
        if *epoch != position.epoch {
            self.adopt(slice.position, query.foreign_epoch_messages, steps);
            if !slice.is_confirmed {
                self.raise(ResyncReason::Position);
            }
            return;
        }
        // Foreign messages from before the query belong to epochs that had ended by the answer.
        self.foreign_epoch_messages.drain(..query.foreign_epoch_messages.min(self.foreign_epoch_messages.len()));
        if !self.foreign_epoch_messages.is_empty() {
            self.raise(ResyncReason::Messages);
        }
        if query.epoch != *epoch || self.state != SyncState::InSync {
            // The query was about another epoch, or was sent before the interruption.
            return self.raise(ResyncReason::Messages);
        }
        if *top < query.delivered {
            // Redis came back without its newest messages.
            return self.abandon_epoch();
        }
        match query.kind {
            HistoryQuery::Position | HistoryQuery::Confirm(..) if !is_compared => self.raise(ResyncReason::Messages),
            // Buffered messages came while the query was under way. Its answer may be older, and
            // nothing else would look for the gap.
            HistoryQuery::Position if *top > self.delivered() || !self.buffer.is_empty() => {
                self.raise(ResyncReason::Messages);
            }
            HistoryQuery::Position | HistoryQuery::Renew(_) | HistoryQuery::Confirm(..) => {}
            HistoryQuery::Since(_) => match compare(&query, &slice) {
                // The number was assigned twice: Redis had lost the first message.
                Comparison::Differs => self.abandon_epoch(),
                Comparison::Equal if !is_compared => self.enter_run(&query, slice, steps),
                // Nothing shows whether it is what was delivered.
                Comparison::Unknown if !is_compared => self.abandon_epoch(),
                Comparison::Equal | Comparison::Unknown => self.fill(&query, slice, steps),
            },
        }
    }

    /// Redis has what was delivered, in another run or in one whose epoch is unconfirmed: the
    /// epoch continues there.
    fn enter_run(&mut self, query: &PendingQuery, slice: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let Some(position) = self.position.as_mut() else { return };
        if position.delivered != query.delivered {
            // Messages that were delivered since have yet to be compared.
            return self.raise(ResyncReason::Messages);
        }
        let run_id = slice.position.run_id;
        if std::mem::replace(&mut position.run_id, run_id) != run_id {
            // They came from the former run. The answer contains those that are valid.
            self.buffer.clear();
        }
        if !slice.is_confirmed {
            self.unconfirmed = Some(run_id);
        }
        self.fill(query, slice, steps);
        self.retake_foreign(steps);
    }

    /// Fills the gap with messages of history.
    fn fill(&mut self, query: &PendingQuery, slice: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let HistorySlice { position: RoomPosition { top, .. }, complete, messages, .. } = slice;
        let reach = if complete { top } else { messages.last().map_or(query.delivered, |last| last.seq) };
        for Numbered { seq, body } in messages {
            if seq == self.delivered() + 1 {
                self.deliver(seq, body, steps);
                self.deliver_buffered(steps);
            }
        }
        // Without history, buffered messages are all there is.
        self.deliver_buffered(steps);
        if self.delivered() < reach {
            // The subscription keeps the order. If a later message has arrived, the missing ones
            // are lost; otherwise the answer may have overtaken them.
            return if self.buffer.is_empty() { self.awaited.add(self.delivered(), top) } else { self.abandon_epoch() };
        }
        if self.delivered() < top || !self.buffer.is_empty() {
            self.raise(ResyncReason::Messages);
        }
    }

    /// What was delivered cannot be continued. The epoch has to end, and nothing more is
    /// delivered in it.
    fn abandon_epoch(&mut self) {
        self.state = SyncState::NeedsQuery;
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.raise(ResyncReason::Broken);
    }

    /// Changes to another epoch, in which `top` exists. The first `decided` foreign messages are
    /// known not to be newer.
    fn adopt(&mut self, found: RoomPosition, decided: usize, steps: &mut Vec<OrderingStep>) {
        let RoomPosition { run_id, epoch, top, fingerprint } = found;
        self.buffer.clear();
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        let mut index = 0;
        let is_of = |foreign: &ChannelMessage| foreign.epoch == epoch && foreign.run_id == run_id;
        self.foreign_epoch_messages.retain(|foreign| {
            index += 1;
            is_of(foreign) || index > decided
        });
        let is_message = |foreign: &&ChannelMessage| is_of(foreign) && !foreign.body.is_empty();
        let known: BTreeSet<u64> =
            self.foreign_epoch_messages.iter().filter(is_message).map(|foreign| foreign.seq).collect();
        // Messages of the new epoch that have arrived without a gap up to `top` need not be
        // skipped.
        let mut start = top;
        while start > 0 && known.contains(&start) {
            start -= 1;
        }
        let fingerprint = fingerprint.filter(|_| start == top);
        self.position = Some(Position { run_id, epoch: epoch.clone(), delivered: start, fingerprint, skipped: start });
        // Reasons of the old epoch are void, but messages dropped since may belong to the new
        // one.
        self.reason = self.reason.min(ResyncReason::Messages);
        steps.push(OrderingStep::EpochChanged { epoch, top: start });
        self.retake_foreign(steps);
    }

    /// Takes the foreign messages again, now that the epoch is known.
    fn retake_foreign(&mut self, steps: &mut Vec<OrderingStep>) {
        let mut foreign_epoch_messages = std::mem::take(&mut self.foreign_epoch_messages);
        if let Some(query) = &mut self.query {
            // They are counted again.
            query.foreign_epoch_messages = 0;
        }
        // Sorting them avoids apparent gaps.
        foreign_epoch_messages.sort_by_key(|foreign| foreign.seq);
        for foreign in foreign_epoch_messages {
            self.take(foreign, steps);
        }
    }

    fn deliver(&mut self, seq: u64, body: Bytes, steps: &mut Vec<OrderingStep>) {
        let Some(position) = &mut self.position else { return };
        position.delivered = seq;
        position.fingerprint = (!body.is_empty()).then(|| fingerprint_of(&body));
        steps.push(OrderingStep::Deliver(Numbered { seq, body }));
    }

    fn deliver_buffered(&mut self, steps: &mut Vec<OrderingStep>) {
        if self.state != SyncState::InSync {
            return;
        }
        while let Some(body) = self.buffer.take(self.delivered() + 1) {
            self.deliver(self.delivered() + 1, body, steps);
        }
    }

    fn keep_foreign(&mut self, message: ChannelMessage) {
        let bytes: usize = self.foreign_epoch_messages.iter().map(|foreign| foreign.body.len()).sum();
        if self.foreign_epoch_messages.len() < MESSAGES_MAX && bytes < BYTES_MAX {
            self.foreign_epoch_messages.push(ChannelMessage { body: copied(&message.body), ..message });
        } else {
            self.raise(ResyncReason::Messages);
        }
    }

    fn raise(&mut self, reason: ResyncReason) {
        self.reason = self.reason.max(reason);
    }
}

#[cfg(test)]
mod tests;
