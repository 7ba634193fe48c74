//! The order of one room: what came out of Redis by two ways, made into one stream without holes.
//!
//! Sans-IO. Messages arrive on the subscription, at most once and perhaps not at all ([`Sequence::take`]); answers arrive
//! on the link that also publishes ([`Sequence::observe`], [`Sequence::answer`]). Redis answers one link in the order in
//! which it did things, so *only answers change the epoch*: a message of a strange epoch may be newer or a straggler,
//! and nothing but a question that was asked after it can tell. The same holds for messages of another run of Redis: numbers are unique
//! within an epoch *and* a run, since a Redis that starts again may have lost the newest. An answer of a new run is compared with the
//! message delivered last; if they agree, the sequence goes on in the new run, otherwise the epoch ends. The loop contract in one sentence: *hand in what arrived,
//! carry out the steps, ask what [`Sequence::poll_question`] wants to know.*

mod held;

use std::collections::BTreeSet;
use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::FxHasher;

use self::held::{Awaited, HELD_BYTES_MAX, HELD_MAX, Held, put_aside};
use super::run_id::RunId;
use crate::id::Epoch;
use crate::publication::Numbered;

/// A message of the subscription. With an empty body it is only a notice of the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) run_id: RunId,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    pub(super) body: Bytes,
}

/// Where a room stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The run of Redis that says so.
    pub(super) run_id: RunId,
    pub(super) epoch: Epoch,
    pub(super) top: u64,
    /// The fingerprint of message `top`, if Redis has it.
    pub(super) print: Option<u64>,
}

/// What Redis says about a room: where it stands, and messages that it holds, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Extract {
    pub(super) standing: Standing,
    /// Whether somebody has compared the room with what was delivered before this run of Redis.
    pub(super) is_confirmed: bool,
    /// Whether the messages reach up to `top`.
    pub(super) complete: bool,
    pub(super) messages: Vec<Numbered>,
}

/// What the hub is to be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Deliver(Numbered),
    EpochChanged { epoch: Epoch, top: u64 },
}

/// What Redis is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Where the room stands.
    Position,
    /// The messages from this number on, that one included: it shows whether history is still the one that was delivered.
    Since(u64),
    /// That the room begin a new epoch, if this is the present one: history does not continue what was delivered.
    Renew(Epoch),
    /// That the epoch go on in this run: Redis has what was delivered.
    Confirm(Epoch, RunId),
}

/// Why something has to be asked, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
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
    print: Option<u64>,
    /// Up to this number nothing was delivered here in this epoch, though it exists.
    skipped: u64,
}

/// A question under way, and what was known when it was asked.
#[derive(Debug)]
struct Asked {
    question: Question,
    epoch: Epoch,
    delivered: u64,
    print: Option<u64>,
    /// So many strangers were there already; the answer tells what they are.
    strangers: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sequence {
    position: Option<Position>,
    /// Messages of the epoch that wait for one before them.
    held: Held,
    /// Messages of other epochs, or of any while the position is unknown, as they came.
    strangers: Vec<Arrival>,
    doubt: Doubt,
    trust: Trust,
    asked: Option<Asked>,
    awaited: Awaited,
    /// The run of Redis in which the epoch is to be confirmed.
    unconfirmed: Option<RunId>,
}

/// Whether what arrives continues what was delivered. After an interruption it need not: Redis may have come back without
/// its newest messages and have given their numbers out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Sure,
    /// Nothing is delivered before a question has been asked,
    Unsure,
    /// and answered.
    Asked,
}

/// How much of a message's end is compared. It holds the time at which it was said; scripts cut off as much.
const ENDING_BYTES: usize = 32;

/// What is remembered of a message, or of its end, to recognise it.
pub(super) fn fingerprint(body: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(&body[body.len().saturating_sub(ENDING_BYTES)..]);
    hasher.finish()
}

impl Sequence {
    /// Of a room that nothing is known of.
    pub(super) fn new() -> Self {
        Self {
            position: None,
            held: Held::default(),
            strangers: Vec::new(),
            doubt: Doubt::None,
            trust: Trust::Sure,
            asked: None,
            awaited: Awaited::default(),
            unconfirmed: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn epoch(&self) -> Option<&Epoch> {
        self.position.as_ref().map(|position| &position.epoch)
    }

    /// The number of the last message that was delivered, or with which the room was begun.
    pub(super) fn delivered(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.delivered)
    }

    /// The epoch, and the number of the last message that was delivered.
    pub(super) fn reached(&self) -> Option<(Epoch, u64)> {
        self.position.as_ref().map(|position| (position.epoch.clone(), position.delivered))
    }

    /// The run of Redis in which the delivered numbers are known to be what was delivered.
    pub(super) fn run_id(&self) -> Option<RunId> {
        self.position.as_ref().map(|position| position.run_id)
    }

    /// Up to which number the present epoch was passed over when it was found out.
    pub(super) fn skipped(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.skipped)
    }

    /// A message of the subscription.
    pub(super) fn take(&mut self, arrival: Arrival, steps: &mut Vec<Step>) {
        let Some(position) = &self.position else { return self.keep_stranger(arrival) };
        if arrival.epoch != position.epoch || arrival.run_id != position.run_id {
            if self.asked.is_none() {
                self.raise(Doubt::Messages);
            }
            return self.keep_stranger(arrival);
        }
        let Arrival { seq, body, .. } = arrival;
        if body.is_empty() || seq <= position.delivered {
            return;
        }
        if seq == position.delivered + 1 && self.trust == Trust::Sure {
            self.deliver(seq, body, steps);
            return self.deliver_held(steps);
        }
        if self.asked.is_none() {
            self.raise(Doubt::Messages);
        }
        if !self.held.insert(seq, &body) {
            // Whatever answer is under way may be older than this one: it has to be asked for again.
            self.raise(Doubt::Messages);
        }
    }

    /// The subscription was interrupted, or a message of it was dropped: nothing is delivered until it is known what is
    /// missing, and whether history is still the same.
    pub(super) fn suspect(&mut self) {
        self.trust = Trust::Unsure;
        // They may be of numbers that were given out again; all that is true comes with the answer.
        self.held.clear();
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.strangers.clear();
        if let Some(asked) = &mut self.asked {
            asked.strangers = 0;
        }
        self.raise(Doubt::Messages);
    }

    /// Time has passed.
    pub(super) fn wonder(&mut self) {
        self.raise(Doubt::Position);
    }

    /// Something was numbered by another run of Redis than the one in which the numbers are known.
    pub(super) fn check_run(&mut self) {
        self.raise(Doubt::Messages);
    }

    /// Whether nothing is asked, nor to be asked.
    pub(super) fn is_level(&self) -> bool {
        self.asked.is_none() && !self.wants_to_ask()
    }

    /// Whether messages are awaited; then [`Sequence::look`] is to be called every now and then.
    pub(super) fn awaits(&self) -> bool {
        self.awaited.are_ahead_of(self.delivered())
    }

    /// Time has passed in which what is awaited should have come.
    pub(super) fn look(&mut self) {
        if self.awaited.are_given_up(self.delivered()) {
            self.mistrust();
        }
    }

    /// Where the room stood when Redis answered something else than a question of [`Sequence::poll_question`]: the
    /// first time, the stream of deliveries begins there.
    pub(super) fn observe(&mut self, standing: Standing, steps: &mut Vec<Step>) {
        match &self.position {
            Some(position) if position.epoch == standing.epoch => {}
            Some(_) => self.adopt(standing, 0, steps),
            None => {
                let Standing { run_id, epoch, top, print } = standing;
                self.position = Some(Position { run_id, epoch, delivered: top, print, skipped: 0 });
                self.take_strangers(steps);
            }
        }
    }

    /// What is to be asked now. Every question is to be answered by [`Sequence::answer`] or [`Sequence::fail`]; until
    /// then there is no other.
    pub(super) fn poll_question(&mut self) -> Option<Question> {
        if !self.wants_to_ask() {
            return None;
        }
        let position = self.position.as_ref()?;
        let question = match self.doubt {
            Doubt::None => Question::Confirm(position.epoch.clone(), self.unconfirmed?),
            Doubt::Position => Question::Position,
            Doubt::Messages => Question::Since(position.delivered.max(1)),
            Doubt::Broken => Question::Renew(position.epoch.clone()),
        };
        if self.doubt == Doubt::None {
            self.unconfirmed = None;
        }
        self.doubt = Doubt::None;
        if self.trust == Trust::Unsure {
            self.trust = Trust::Asked;
        }
        self.asked = Some(Asked {
            question: question.clone(),
            epoch: position.epoch.clone(),
            delivered: position.delivered,
            print: position.print,
            strangers: self.strangers.len(),
        });
        Some(question)
    }

    /// Whether [`Sequence::poll_question`] has something.
    pub(super) fn wants_to_ask(&self) -> bool {
        (self.doubt != Doubt::None || self.unconfirmed.is_some()) && self.asked.is_none() && self.position.is_some()
    }

    /// The question could not be answered; it is asked again.
    pub(super) fn fail(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        if self.trust == Trust::Asked {
            self.trust = Trust::Unsure;
        }
        self.raise(match asked.question {
            // Whether it still has to be confirmed shows with the position.
            Question::Position | Question::Confirm(..) => Doubt::Position,
            Question::Since(_) => Doubt::Messages,
            Question::Renew(_) => Doubt::Broken,
        });
    }

    /// The answer to the question under way.
    pub(super) fn answer(&mut self, extract: Extract, steps: &mut Vec<Step>) {
        let Some((asked, position)) = self.asked.take().zip(self.position.as_ref()) else { return };
        let Standing { epoch, top, run_id, .. } = &extract.standing;
        let is_compared = extract.is_confirmed && *run_id == position.run_id;
        if self.trust == Trust::Asked {
            self.trust = Trust::Sure;
        }
        if *epoch != position.epoch {
            self.adopt(extract.standing, asked.strangers, steps);
            if !extract.is_confirmed {
                self.raise(Doubt::Position);
            }
            return;
        }
        // Strangers from before the question are of epochs that were over when it was answered.
        self.strangers.drain(..asked.strangers.min(self.strangers.len()));
        if !self.strangers.is_empty() {
            self.raise(Doubt::Messages);
        }
        if asked.epoch != *epoch || self.trust != Trust::Sure {
            // It was asked about numbers of another epoch, or before the interruption.
            return self.raise(Doubt::Messages);
        }
        if *top < asked.delivered {
            // Redis came back without its newest messages.
            return self.mistrust();
        }
        match asked.question {
            Question::Position | Question::Confirm(..) if !is_compared => self.raise(Doubt::Messages),
            // What is held came while the question was under way: its answer may be older, and nothing else would look for the gap.
            Question::Position if *top > self.delivered() || !self.held.is_empty() => self.raise(Doubt::Messages),
            Question::Position | Question::Renew(_) | Question::Confirm(..) => {}
            Question::Since(_) => match compare(&asked, &extract) {
                // The number was given out twice: Redis had forgotten the first.
                Comparison::Differs => self.mistrust(),
                Comparison::Equal if !is_compared => self.enter_run(&asked, extract, steps),
                // Nobody can tell whether it is what was delivered.
                Comparison::Unknown if !is_compared => self.mistrust(),
                Comparison::Equal | Comparison::Unknown => self.fill(&asked, extract, steps),
            },
        }
    }

    /// What was delivered exists in another run of Redis, or in one in which nobody has confirmed the epoch: it goes on there.
    fn enter_run(&mut self, asked: &Asked, extract: Extract, steps: &mut Vec<Step>) {
        let Some(position) = self.position.as_mut() else { return };
        if position.delivered != asked.delivered {
            // What has been delivered since is still to be compared.
            return self.raise(Doubt::Messages);
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
    fn fill(&mut self, asked: &Asked, extract: Extract, steps: &mut Vec<Step>) {
        let Extract { standing: Standing { top, .. }, complete, messages, .. } = extract;
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
            return if self.held.is_empty() { self.awaited.add(self.delivered(), top) } else { self.mistrust() };
        }
        if self.delivered() < top || !self.held.is_empty() {
            self.raise(Doubt::Messages);
        }
    }

    /// What was delivered cannot be continued: the epoch has to end, and nothing more is delivered in it.
    fn mistrust(&mut self) {
        self.trust = Trust::Unsure;
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        self.raise(Doubt::Broken);
    }

    /// Goes over to another epoch, of which `top` exists; the first `decided` strangers are known not to be newer.
    fn adopt(&mut self, standing: Standing, decided: usize, steps: &mut Vec<Step>) {
        let Standing { run_id, epoch, top, print } = standing;
        self.held.clear();
        self.awaited = Awaited::default();
        self.unconfirmed = None;
        let mut index = 0;
        let is_of = |stranger: &Arrival| stranger.epoch == epoch && stranger.run_id == run_id;
        self.strangers.retain(|stranger| {
            index += 1;
            is_of(stranger) || index > decided
        });
        let is_message = |stranger: &&Arrival| is_of(stranger) && !stranger.body.is_empty();
        let known: BTreeSet<u64> = self.strangers.iter().filter(is_message).map(|stranger| stranger.seq).collect();
        // What the subscription has brought of the new epoch, without a hole up to its top, need not be passed over.
        let mut start = top;
        while start > 0 && known.contains(&start) {
            start -= 1;
        }
        let print = print.filter(|_| start == top);
        self.position = Some(Position { run_id, epoch: epoch.clone(), delivered: start, print, skipped: start });
        // What was wrong with the old epoch is over, but what has been dropped since may belong to the new one.
        self.doubt = self.doubt.min(Doubt::Messages);
        steps.push(Step::EpochChanged { epoch, top: start });
        self.take_strangers(steps);
    }

    /// Looks at the strangers again, now that the epoch is known.
    fn take_strangers(&mut self, steps: &mut Vec<Step>) {
        let mut strangers = std::mem::take(&mut self.strangers);
        if let Some(asked) = &mut self.asked {
            // They are counted anew.
            asked.strangers = 0;
        }
        // They came in order, mostly; sorted, no gap is seen that is none.
        strangers.sort_by_key(|stranger| stranger.seq);
        for stranger in strangers {
            self.take(stranger, steps);
        }
    }

    fn deliver(&mut self, seq: u64, body: Bytes, steps: &mut Vec<Step>) {
        let Some(position) = &mut self.position else { return };
        position.delivered = seq;
        position.print = Some(fingerprint(&body));
        steps.push(Step::Deliver(Numbered { seq, body }));
    }

    fn deliver_held(&mut self, steps: &mut Vec<Step>) {
        if self.trust != Trust::Sure {
            return;
        }
        while let Some(body) = self.held.take(self.delivered() + 1) {
            self.deliver(self.delivered() + 1, body, steps);
        }
    }

    fn keep_stranger(&mut self, arrival: Arrival) {
        let bytes: usize = self.strangers.iter().map(|stranger| stranger.body.len()).sum();
        if self.strangers.len() < HELD_MAX && bytes < HELD_BYTES_MAX {
            self.strangers.push(Arrival { body: put_aside(&arrival.body), ..arrival });
        } else {
            self.raise(Doubt::Messages);
        }
    }

    fn raise(&mut self, doubt: Doubt) {
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

fn compare(asked: &Asked, extract: &Extract) -> Comparison {
    let Standing { top, print, .. } = extract.standing;
    if asked.delivered == 0 {
        return Comparison::Equal;
    }
    let entry = extract.messages.first().filter(|first| first.seq == asked.delivered);
    let found = entry.map(|first| fingerprint(&first.body)).or(print.filter(|_| top == asked.delivered));
    match asked.print.zip(found) {
        Some((known, found)) if known == found => Comparison::Equal,
        Some(_) => Comparison::Differs,
        None => Comparison::Unknown,
    }
}

#[cfg(test)]
mod tests;
