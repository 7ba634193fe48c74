//! The order of one room: what came out of Redis by two ways, made into one stream without holes.
//!
//! Sans-IO. Messages arrive on the subscription, at most once and perhaps not at all ([`Reassembler::take`]); answers arrive
//! on the link that also publishes ([`Reassembler::observe`], [`Reassembler::answer`]). Redis answers one link in the order in
//! which it did things, so *only answers change the epoch*: a message of a strange epoch may be newer or a straggler,
//! and nothing but a question that was asked after it can tell. The same holds for messages of another run of Redis: numbers are unique
//! within an epoch *and* a run, since a Redis that starts again may have lost the newest. An answer of a new run is compared with the
//! message delivered last; if they agree, the sequence goes on in the new run, otherwise the epoch ends. The loop contract in one sentence: *hand in what arrived,
//! carry out the steps, ask what [`Reassembler::poll_query`] wants to know.*

use super::buffer::{Awaited, HELD_BYTES_MAX, HELD_MAX, ReorderBuffer, put_aside};
use super::history::{ChannelMessage, HistoryQuery, HistorySlice, OrderingStep, RoomPosition, fingerprint_of};
use crate::bus::redis::connection::run_id::RunId;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::bus::message::Numbered;
use crate::id::Epoch;

/// Why something has to be asked, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ResyncReason {
    None,
    /// Some time has passed.
    Position,
    /// Something is missing, or may be.
    Messages,
    /// What is missing is gone, or history is another one under the same epoch.
    Broken,
}

#[derive(Debug)]
struct Position {
    /// In which run of Redis all that was delivered is known to exist.
    run_id: RunId,
    epoch: Epoch,
    delivered: u64,
    /// The fingerprint of the message `delivered`, if it is known.
    fingerprint: Option<u64>,
    /// Up to this number nothing was delivered here in this epoch, though it exists.
    skipped: u64,
}

/// A question under way, and what was known when it was asked.
#[derive(Debug)]
struct QueryUnderWay {
    question: HistoryQuery,
    epoch: Epoch,
    delivered: u64,
    fingerprint: Option<u64>,
    /// So many foreign_epoch_messages were there already; the answer tells what they are.
    foreign_epoch_messages: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Reassembler {
    position: Option<Position>,
    /// Messages of the epoch that wait for one before them.
    held: ReorderBuffer,
    /// Messages of other epochs, or of any while the position is unknown, as they came.
    foreign_epoch_messages: Vec<ChannelMessage>,
    doubt: ResyncReason,
    trust: SyncState,
    asked: Option<QueryUnderWay>,
    awaited: Awaited,
    /// The run of Redis in which the epoch is to be confirmed.
    unconfirmed: Option<RunId>,
}

/// Whether what arrives continues what was delivered. After an interruption it need not: Redis may have come back without
/// its newest messages and have given their numbers out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncState {
    InSync,
    /// Nothing is delivered before a question has been asked,
    NeedsQuery,
    /// and answered.
    AwaitingAnswer,
}

impl Reassembler {
    /// Of a room that nothing is known of.
    pub(crate) fn new() -> Self {
        Self {
            position: None,
            held: ReorderBuffer::default(),
            foreign_epoch_messages: Vec::new(),
            doubt: ResyncReason::None,
            trust: SyncState::InSync,
            asked: None,
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

    /// The number of the last message that was delivered, or with which the room was begun.
    pub(crate) fn delivered(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.delivered)
    }

    /// The epoch, and the number of the last message that was delivered.
    pub(crate) fn reached(&self) -> Option<(Epoch, u64)> {
        self.position.as_ref().map(|position| (position.epoch.clone(), position.delivered))
    }

    /// The run of Redis in which the delivered numbers are known to be what was delivered.
    pub(crate) fn run_id(&self) -> Option<RunId> {
        self.position.as_ref().map(|position| position.run_id)
    }

    /// Up to which number the present epoch was passed over when it was found out.
    pub(crate) fn skipped(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.skipped)
    }

    /// A message of the subscription.
    pub(crate) fn take(&mut self, arrival: ChannelMessage, steps: &mut Vec<OrderingStep>) {
        let Some(position) = &self.position else { return self.keep_foreign(arrival) };
        if arrival.epoch != position.epoch || arrival.run_id != position.run_id {
            if self.asked.is_none() {
                self.raise(ResyncReason::Messages);
            }
            return self.keep_foreign(arrival);
        }
        let ChannelMessage { seq, body, .. } = arrival;
        if body.is_empty() || seq <= position.delivered {
            return;
        }
        if seq == position.delivered + 1 && self.trust == SyncState::InSync {
            self.deliver(seq, body, steps);
            return self.deliver_held(steps);
        }
        if self.asked.is_none() {
            self.raise(ResyncReason::Messages);
        }
        if !self.held.insert(seq, &body) {
            // Whatever answer is under way may be older than this one: it has to be asked for again.
            self.raise(ResyncReason::Messages);
        }
    }

    /// The subscription was interrupted, or a message of it was dropped: nothing is delivered until it is known what is
    /// missing, and whether history is still the same.
    pub(crate) fn require_resync(&mut self) {
        self.trust = SyncState::NeedsQuery;
        // They may be of numbers that were given out again; all that is true comes with the answer.
        self.held.clear();
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.foreign_epoch_messages.clear();
        if let Some(asked) = &mut self.asked {
            asked.foreign_epoch_messages = 0;
        }
        self.raise(ResyncReason::Messages);
    }

    /// Time has passed.
    pub(crate) fn check_position(&mut self) {
        self.raise(ResyncReason::Position);
    }

    /// Something was numbered by another run of Redis than the one in which the numbers are known.
    pub(crate) fn check_run(&mut self) {
        self.raise(ResyncReason::Messages);
    }

    /// Whether nothing is asked, nor to be asked.
    pub(crate) fn is_level(&self) -> bool {
        self.asked.is_none() && !self.wants_to_ask()
    }

    /// Whether messages are awaited; then [`Reassembler::look`] is to be called every now and then.
    pub(crate) fn awaits(&self) -> bool {
        self.awaited.are_ahead_of(self.delivered())
    }

    /// Time has passed in which what is awaited should have come.
    pub(crate) fn look(&mut self) {
        if self.awaited.are_given_up(self.delivered()) {
            self.abandon_epoch();
        }
    }

    /// Where the room stood when Redis answered something else than a question of [`Reassembler::poll_query`]: the
    /// first time, the stream of deliveries begins there.
    pub(crate) fn observe(&mut self, standing: RoomPosition, steps: &mut Vec<OrderingStep>) {
        match &self.position {
            Some(position) if position.epoch == standing.epoch => {}
            Some(_) => self.adopt(standing, 0, steps),
            None => {
                let RoomPosition { run_id, epoch, top, fingerprint } = standing;
                self.position = Some(Position { run_id, epoch, delivered: top, fingerprint, skipped: 0 });
                self.take_strangers(steps);
            }
        }
    }

    /// What is to be asked now. Every question is to be answered by [`Reassembler::answer`] or [`Reassembler::fail`]; until
    /// then there is no other.
    pub(crate) fn poll_query(&mut self) -> Option<HistoryQuery> {
        if !self.wants_to_ask() {
            return None;
        }
        let position = self.position.as_ref()?;
        let question = match self.doubt {
            ResyncReason::None => HistoryQuery::Confirm(position.epoch.clone(), self.unconfirmed?),
            ResyncReason::Position => HistoryQuery::Position,
            ResyncReason::Messages => HistoryQuery::Since(position.delivered.max(1)),
            ResyncReason::Broken => HistoryQuery::Renew(position.epoch.clone()),
        };
        if self.doubt == ResyncReason::None {
            self.unconfirmed = None;
        }
        self.doubt = ResyncReason::None;
        if self.trust == SyncState::NeedsQuery {
            self.trust = SyncState::AwaitingAnswer;
        }
        self.asked = Some(QueryUnderWay {
            question: question.clone(),
            epoch: position.epoch.clone(),
            delivered: position.delivered,
            fingerprint: position.fingerprint,
            foreign_epoch_messages: self.foreign_epoch_messages.len(),
        });
        Some(question)
    }

    /// Whether [`Reassembler::poll_query`] has something.
    pub(crate) fn wants_to_ask(&self) -> bool {
        (self.doubt != ResyncReason::None || self.unconfirmed.is_some())
            && self.asked.is_none()
            && self.position.is_some()
    }

    /// The question could not be answered; it is asked again.
    pub(crate) fn fail(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        if self.trust == SyncState::AwaitingAnswer {
            self.trust = SyncState::NeedsQuery;
        }
        self.raise(match asked.question {
            // Whether it still has to be confirmed shows with the position.
            HistoryQuery::Position | HistoryQuery::Confirm(..) => ResyncReason::Position,
            HistoryQuery::Since(_) => ResyncReason::Messages,
            HistoryQuery::Renew(_) => ResyncReason::Broken,
        });
    }

    /// The answer to the question under way.
    pub(crate) fn answer(&mut self, extract: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let Some((asked, position)) = self.asked.take().zip(self.position.as_ref()) else { return };
        let RoomPosition { epoch, top, run_id, .. } = &extract.standing;
        let is_compared = extract.is_confirmed && *run_id == position.run_id;
        if self.trust == SyncState::AwaitingAnswer {
            self.trust = SyncState::InSync;
        }
        if *epoch != position.epoch {
            self.adopt(extract.standing, asked.foreign_epoch_messages, steps);
            if !extract.is_confirmed {
                self.raise(ResyncReason::Position);
            }
            return;
        }
        // Strangers from before the question are of epochs that were over when it was answered.
        self.foreign_epoch_messages.drain(..asked.foreign_epoch_messages.min(self.foreign_epoch_messages.len()));
        if !self.foreign_epoch_messages.is_empty() {
            self.raise(ResyncReason::Messages);
        }
        if asked.epoch != *epoch || self.trust != SyncState::InSync {
            // It was asked about numbers of another epoch, or before the interruption.
            return self.raise(ResyncReason::Messages);
        }
        if *top < asked.delivered {
            // Redis came back without its newest messages.
            return self.abandon_epoch();
        }
        match asked.question {
            HistoryQuery::Position | HistoryQuery::Confirm(..) if !is_compared => self.raise(ResyncReason::Messages),
            // What is held came while the question was under way: its answer may be older, and nothing else would look for the gap.
            HistoryQuery::Position if *top > self.delivered() || !self.held.is_empty() => {
                self.raise(ResyncReason::Messages);
            }
            HistoryQuery::Position | HistoryQuery::Renew(_) | HistoryQuery::Confirm(..) => {}
            HistoryQuery::Since(_) => match compare(&asked, &extract) {
                // The number was given out twice: Redis had forgotten the first.
                Comparison::Differs => self.abandon_epoch(),
                Comparison::Equal if !is_compared => self.enter_run(&asked, extract, steps),
                // Nobody can tell whether it is what was delivered.
                Comparison::Unknown if !is_compared => self.abandon_epoch(),
                Comparison::Equal | Comparison::Unknown => self.fill(&asked, extract, steps),
            },
        }
    }

    /// What was delivered exists in another run of Redis, or in one in which nobody has confirmed the epoch: it goes on there.
    fn enter_run(&mut self, asked: &QueryUnderWay, extract: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let Some(position) = self.position.as_mut() else { return };
        if position.delivered != asked.delivered {
            // What has been delivered since is still to be compared.
            return self.raise(ResyncReason::Messages);
        }
        let run_id = extract.standing.run_id;
        if std::mem::replace(&mut position.run_id, run_id) != run_id {
            // They came from the run before; what is true of them is in the answer.
            self.held.clear();
        }
        if !extract.is_confirmed {
            self.unconfirmed = Some(run_id);
        }
        self.fill(asked, extract, steps);
        self.take_strangers(steps);
    }

    /// Puts what history holds into the gap.
    fn fill(&mut self, asked: &QueryUnderWay, extract: HistorySlice, steps: &mut Vec<OrderingStep>) {
        let HistorySlice { standing: RoomPosition { top, .. }, complete, messages, .. } = extract;
        let reach = if complete { top } else { messages.last().map_or(asked.delivered, |last| last.seq) };
        for Numbered { seq, body } in messages {
            if seq == self.delivered() + 1 {
                self.deliver(seq, body, steps);
                self.deliver_held(steps);
            }
        }
        // Without history this is all that there is to go on with.
        self.deliver_held(steps);
        if self.delivered() < reach {
            // The subscription has the order of the numbers: if it has brought a later one, those before it will not come.
            // Otherwise the answer may have overtaken them.
            return if self.held.is_empty() { self.awaited.add(self.delivered(), top) } else { self.abandon_epoch() };
        }
        if self.delivered() < top || !self.held.is_empty() {
            self.raise(ResyncReason::Messages);
        }
    }

    /// What was delivered cannot be continued: the epoch has to end, and nothing more is delivered in it.
    fn abandon_epoch(&mut self) {
        self.trust = SyncState::NeedsQuery;
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.raise(ResyncReason::Broken);
    }

    /// Goes over to another epoch, of which `top` exists; the first `decided` foreign_epoch_messages are known not to be newer.
    fn adopt(&mut self, standing: RoomPosition, decided: usize, steps: &mut Vec<OrderingStep>) {
        let RoomPosition { run_id, epoch, top, fingerprint } = standing;
        self.held.clear();
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
        // What the subscription has brought of the new epoch, without a hole up to its top, need not be passed over.
        let mut start = top;
        while start > 0 && known.contains(&start) {
            start -= 1;
        }
        let fingerprint = fingerprint.filter(|_| start == top);
        self.position = Some(Position { run_id, epoch: epoch.clone(), delivered: start, fingerprint, skipped: start });
        // What was wrong with the old epoch is over, but what has been dropped since may belong to the new one.
        self.doubt = self.doubt.min(ResyncReason::Messages);
        steps.push(OrderingStep::EpochChanged { epoch, top: start });
        self.take_strangers(steps);
    }

    /// Looks at the foreign_epoch_messages again, now that the epoch is known.
    fn take_strangers(&mut self, steps: &mut Vec<OrderingStep>) {
        let mut foreign_epoch_messages = std::mem::take(&mut self.foreign_epoch_messages);
        if let Some(asked) = &mut self.asked {
            // They are counted anew.
            asked.foreign_epoch_messages = 0;
        }
        // They came in order, mostly; sorted, no gap is seen that is none.
        foreign_epoch_messages.sort_by_key(|foreign| foreign.seq);
        for foreign in foreign_epoch_messages {
            self.take(foreign, steps);
        }
    }

    fn deliver(&mut self, seq: u64, body: Bytes, steps: &mut Vec<OrderingStep>) {
        let Some(position) = &mut self.position else { return };
        position.delivered = seq;
        position.fingerprint = Some(fingerprint_of(&body));
        steps.push(OrderingStep::Deliver(Numbered { seq, body }));
    }

    fn deliver_held(&mut self, steps: &mut Vec<OrderingStep>) {
        if self.trust != SyncState::InSync {
            return;
        }
        while let Some(body) = self.held.take(self.delivered() + 1) {
            self.deliver(self.delivered() + 1, body, steps);
        }
    }

    fn keep_foreign(&mut self, arrival: ChannelMessage) {
        let bytes: usize = self.foreign_epoch_messages.iter().map(|foreign| foreign.body.len()).sum();
        if self.foreign_epoch_messages.len() < HELD_MAX && bytes < HELD_BYTES_MAX {
            self.foreign_epoch_messages.push(ChannelMessage { body: put_aside(&arrival.body), ..arrival });
        } else {
            self.raise(ResyncReason::Messages);
        }
    }

    fn raise(&mut self, doubt: ResyncReason) {
        self.doubt = self.doubt.max(doubt);
    }
}

/// What an answer says about the last message that was delivered when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Differs,
    /// Its fingerprint is not known here, or history does not hold it any more.
    Unknown,
}

fn compare(asked: &QueryUnderWay, extract: &HistorySlice) -> Comparison {
    let RoomPosition { top, fingerprint, .. } = extract.standing;
    if asked.delivered == 0 {
        return Comparison::Equal;
    }
    let entry = extract.messages.first().filter(|first| first.seq == asked.delivered);
    let found = entry.map(|first| fingerprint_of(&first.body)).or(fingerprint.filter(|_| top == asked.delivered));
    match asked.fingerprint.zip(found) {
        Some((known, found)) if known == found => Comparison::Equal,
        Some(_) => Comparison::Differs,
        None => Comparison::Unknown,
    }
}

#[cfg(test)]
mod tests;
