//! A bus that keeps its promises and nothing more: late, out of step, forgetful, sometimes out of order altogether.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use roomcast::Now;
use roomcast::bus::{Bus, ControlRoom, Deletion, Epoch};
use roomcast::bus::{BusEvent, BusRefusal, BusRequest, Numbered, Outcome, Page, Publication, ReadFrom, Ticket};
use roomcast::bus::{RestrictionAction, RestrictionChange, RestrictionsPage};
use roomcast::{Owner, RoomName, UserId};

use super::chance::Chance;

/// See the [module](self). A step is a call of [`FakeBus::step`].
#[derive(Debug)]
pub(crate) struct FakeBus {
    chance: Chance,
    step: u64,
    delay_steps_max: u64,
    is_calm: bool,
    is_sick: bool,
    history_messages_max: usize,
    epochs: u64,
    rooms: BTreeMap<RoomName, Room>,
    inbox: VecDeque<Request>,
    answers: Vec<(u64, Answer)>,
    control: ControlRoom,
    restrictions: Restrictions,
    now: Now,
}

/// What is kept for all nodes, and how far a node has come with loading it.
#[derive(Debug, Default)]
struct Restrictions {
    kept: BTreeMap<Box<str>, Kept>,
    /// Tells a load from earlier ones.
    load: u64,
    /// Whether the hub has yet to hear that a load begins.
    begins: bool,
}

#[derive(Debug)]
struct Kept {
    body: Bytes,
    expires_at: Option<u64>,
}

/// A part of a load, and where it begins.
#[derive(Clone, Debug, Default)]
struct Part {
    load: u64,
    after: Option<Box<str>>,
}

/// So many restrictions are read at once.
const PART: usize = 2;

#[derive(Debug)]
enum Request {
    Publish(Ticket, Publication),
    Delete(Ticket, Box<Deletion>),
    Read(Ticket, Question),
    Load(Part),
}

#[derive(Clone, Debug)]
struct Question {
    room: RoomName,
    from: ReadFrom,
    bytes_max: usize,
}

#[derive(Debug)]
enum Answer {
    Published(Ticket, Outcome),
    Page(Ticket, Question, Page),
    Failed(Ticket),
    Loaded(Part, RestrictionsPage),
}

#[derive(Debug)]
struct Room {
    epoch: Epoch,
    top: u64,
    kept: VecDeque<Numbered>,
    ids: BTreeMap<(UserId, Box<str>), u64>,
    is_open: bool,
    /// Whether the hub knows where the room stands.
    is_known: bool,
    /// The deliveries to come, in order, each with its first possible step.
    stream: VecDeque<(u64, BusEvent)>,
    /// The last deliveries, which may be repeated.
    recent: VecDeque<Numbered>,
    /// The position up to which messages were delivered.
    handed: Option<(Epoch, u64)>,
}

impl Room {
    fn page(&self, from: ReadFrom, bytes_max: usize) -> Page {
        let after = match from {
            ReadFrom::After(seq) => seq,
            ReadFrom::Newest(count) => self.top.saturating_sub(count.into()),
            ReadFrom::Before { seq, count } => return self.page_before(seq.unwrap_or(u64::MAX), count, bytes_max),
        };
        let (mut messages, mut bytes, mut complete) = (Vec::new(), 0, true);
        for message in self.kept.iter().filter(|message| message.seq > after) {
            bytes += message.body.len();
            if bytes_max == 0 || (bytes > bytes_max && !messages.is_empty()) {
                complete = bytes_max == 0;
                break;
            }
            messages.push(message.clone());
        }
        Page { epoch: self.epoch.clone(), top: self.top, messages, complete }
    }

    fn page_before(&self, seq: u64, count: u32, bytes_max: usize) -> Page {
        let (mut messages, mut bytes, mut complete) = (VecDeque::new(), 0, true);
        for message in self.kept.iter().rev().filter(|message| message.seq < seq) {
            bytes += message.body.len();
            if messages.len() == count as usize || (bytes > bytes_max && !messages.is_empty()) {
                complete = false;
                break;
            }
            messages.push_front(message.clone());
        }
        Page { epoch: self.epoch.clone(), top: self.top, messages: messages.into(), complete }
    }

    /// Whether a page ends before messages that were delivered already.
    fn is_stale(&self, page: &Page) -> bool {
        self.handed.as_ref().is_some_and(|(epoch, seq)| page.epoch != *epoch || page.top < *seq)
    }

    fn awaits_epoch(&self) -> bool {
        self.stream.iter().any(|(_, event)| matches!(event, BusEvent::EpochChanged { .. }))
    }
}

impl FakeBus {
    pub(crate) fn new(seed: u64, delay_steps_max: u64, history_messages_max: u32) -> Self {
        Self {
            chance: Chance::new(seed),
            step: 0,
            delay_steps_max,
            is_calm: false,
            is_sick: false,
            history_messages_max: history_messages_max as usize,
            epochs: 0,
            rooms: BTreeMap::new(),
            inbox: VecDeque::new(),
            answers: Vec::new(),
            control: ControlRoom::with_stored_restrictions(),
            restrictions: Restrictions::default(),
            now: Now::default(),
        }
    }

    /// Time passes: some requests are carried out.
    pub(crate) fn step(&mut self) {
        self.step += 1;
        let most = if self.is_calm { usize::MAX } else { self.chance.index(4) };
        for _ in 0..most.min(self.inbox.len()) {
            match self.inbox.pop_front().expect("it was counted") {
                Request::Publish(ticket, publication) => self.take_publication(ticket, publication),
                Request::Delete(ticket, deletion) => self.take_deletion(ticket, *deletion),
                Request::Read(ticket, question) => self.take_question(ticket, question),
                Request::Load(part) => self.take_part(part),
            }
        }
    }

    /// While calm it answers at once, refuses nothing, and changes nothing on its own.
    pub(crate) fn set_calm(&mut self, is_calm: bool) {
        self.is_calm = is_calm;
    }

    /// While sick it answers at once, but reads no history.
    pub(crate) fn set_sick(&mut self, is_sick: bool) {
        (self.is_sick, self.is_calm) = (is_sick, is_sick);
    }

    /// Whether all is answered and delivered.
    pub(crate) fn is_idle(&self) -> bool {
        let is_quiet = |room: &Room| room.stream.is_empty();
        self.inbox.is_empty() && self.answers.is_empty() && self.rooms.values().all(is_quiet)
    }

    /// The hub has told somebody where the room stands.
    pub(crate) fn note_known(&mut self, name: &RoomName) {
        self.room(name).is_known = true;
    }

    /// A message of another node.
    pub(crate) fn publish_elsewhere(&mut self, name: &RoomName, body: Vec<u8>) {
        self.accept(name, Bytes::from(body), None);
    }

    /// A command of another node.
    pub(crate) fn command_elsewhere(&mut self, body: Vec<u8>) {
        let name = self.control.name().clone();
        self.publish_elsewhere(&name, body);
    }

    /// A ban or a mute of another node, or the end of one.
    pub(crate) fn restrict_elsewhere(&mut self, change: &RestrictionChange, body: Vec<u8>) {
        let body = Bytes::from(body);
        self.keep(change, &body);
        let name = self.control.name().clone();
        self.accept(&name, body, None);
    }

    fn keep(&mut self, change: &RestrictionChange, body: &Bytes) {
        match change.action {
            RestrictionAction::Keep { expires_at } => {
                self.restrictions.kept.insert(change.key.clone(), Kept { body: body.clone(), expires_at });
            }
            RestrictionAction::Lift => drop(self.restrictions.kept.remove(&change.key)),
        }
    }

    /// The keys of the restrictions that are in force.
    pub(crate) fn restrictions(&self) -> impl Iterator<Item = &str> {
        let is_over = |kept: &Kept| kept.expires_at.is_some_and(|at| at <= self.now.unix_ms);
        self.restrictions.kept.iter().filter(move |(_, kept)| !is_over(kept)).map(|(key, _)| &**key)
    }

    /// The order of commands is lost, and those that are still on their way.
    pub(crate) fn lose_commands(&mut self) {
        let name = self.control.name().clone();
        self.clear_stream(&name);
        self.change_epoch(&name, Vec::new());
    }

    /// History is lost; the room goes on under another epoch, in which other nodes may have said something already.
    pub(crate) fn change_epoch(&mut self, name: &RoomName, bodies: Vec<Vec<u8>>) {
        let epoch = self.next_epoch();
        let due = self.due();
        let room = self.room(name);
        let top = bodies.len() as u64;
        room.kept = (1..).zip(bodies).map(|(seq, body)| Numbered { seq, body: Bytes::from(body) }).collect();
        room.ids.clear();
        (room.epoch, room.top) = (epoch.clone(), top);
        if room.is_open {
            room.stream.push_back((due, BusEvent::EpochChanged { room: name.clone(), epoch, top }));
        }
    }

    /// The oldest messages of a room leave its history.
    pub(crate) fn forget_oldest(&mut self, name: &RoomName) {
        let kept = self.rooms.get(name).map_or(0, |room| room.kept.len());
        let most = self.chance.index(kept + 1);
        self.room(name).kept.drain(..most);
    }

    /// Breaks the promise: a message is not delivered, though later ones are.
    pub(crate) fn lose_delivery(&mut self, name: &RoomName) {
        let step = self.step;
        let stream = &mut self.room(name).stream;
        let is_delivery = |entry: Option<&(u64, BusEvent)>| matches!(entry, Some((_, BusEvent::Delivered { .. })));
        let is_answered = matches!(stream.get(1), Some((_, BusEvent::Published { .. })));
        if is_delivery(stream.front()) && is_delivery(stream.get(if is_answered { 2 } else { 1 })) {
            stream.pop_front();
            let answer = if is_answered { stream.pop_front().and_then(|(_, event)| unseen(&event)) } else { None };
            self.answers.extend(answer.map(|answer| (step, answer)));
        }
    }

    /// The number of the newest message, and the epoch.
    pub(crate) fn top(&mut self, name: &RoomName) -> (Epoch, u64) {
        let room = self.room(name);
        (room.epoch.clone(), room.top)
    }

    /// Whether history has a message of the present epoch.
    pub(crate) fn holds(&mut self, name: &RoomName, epoch: &Epoch, seq: u64) -> bool {
        let room = self.room(name);
        room.epoch == *epoch && room.kept.iter().any(|message| message.seq == seq)
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch::new(&format!("e{}", self.epochs))
    }

    fn room(&mut self, name: &RoomName) -> &mut Room {
        if !self.rooms.contains_key(name) {
            let room = Room {
                epoch: self.next_epoch(),
                top: 0,
                kept: VecDeque::new(),
                ids: BTreeMap::new(),
                is_open: false,
                is_known: false,
                stream: VecDeque::new(),
                recent: VecDeque::new(),
                handed: None,
            };
            self.rooms.insert(name.clone(), room);
        }
        self.rooms.get_mut(name).expect("it was inserted")
    }

    fn due(&mut self) -> u64 {
        let wait = if self.is_calm { 0 } else { self.chance.below(self.delay_steps_max + 1) };
        self.step + wait
    }

    fn accept(&mut self, name: &RoomName, body: Bytes, owner: Option<Owner>) -> u64 {
        let due = self.due();
        let most = self.history_messages_max;
        let room = self.room(name);
        room.top += 1;
        let message = Numbered { seq: room.top, body };
        room.kept.push_back(message.clone());
        while room.kept.len() > most {
            room.kept.pop_front();
        }
        if room.is_open {
            room.stream.push_back((due, BusEvent::Delivered { room: name.clone(), message, owner }));
        }
        room.top
    }

    fn take_publication(&mut self, ticket: Ticket, publication: Publication) {
        let Publication { room: name, user, owner, id, body, restriction } = publication;
        let id = id.map(|id| (user, id));
        let known = id.as_ref().and_then(|id| self.room(&name).ids.get(id).copied());
        let outcome = match known {
            _ if !self.is_calm && self.chance.one_in(15) => {
                Outcome::Refused(BusRefusal::unavailable("the bus is in a mood"))
            }
            Some(seq) => Outcome::Duplicate(seq),
            None => {
                if let Some(change) = &restriction {
                    self.keep(change, &body);
                }
                let seq = self.accept(&name, body, Some(owner));
                if let Some(id) = id {
                    self.room(&name).ids.insert(id, seq);
                }
                Outcome::Accepted(seq)
            }
        };
        self.answer(&name, ticket, outcome);
    }

    /// In an open room, the answer to what was accepted follows its delivery, perhaps some steps later.
    fn answer(&mut self, name: &RoomName, ticket: Ticket, outcome: Outcome) {
        let due = self.due();
        let room = self.room(name);
        match outcome {
            Outcome::Accepted(_) if room.is_open => {
                room.stream.push_back((due, BusEvent::Published { ticket, outcome }));
            }
            _ => self.answers.push((due, Answer::Published(ticket, outcome))),
        }
    }

    /// The deliveries that are on their way to a room are lost. What was accepted is still answered.
    fn clear_stream(&mut self, name: &RoomName) {
        let step = self.step;
        let lost = std::mem::take(&mut self.room(name).stream);
        self.answers.extend(lost.into_iter().filter_map(|(_, event)| unseen(&event)).map(|answer| (step, answer)));
    }

    fn take_deletion(&mut self, ticket: Ticket, Deletion { announcement, targets }: Deletion) {
        let is_sulking = !self.is_calm && self.chance.one_in(15);
        let name = announcement.room.clone();
        let room = self.room(&name);
        let tombstone = Bytes::from(format!(r#"{{"type":"deleted","room":"{name}""#));
        let is_known = targets.epoch.is_none_or(|epoch| epoch == room.epoch);
        let kept = |seq: &u64| room.kept.iter().find(|message| message.seq == *seq);
        let is_message = |seq: &u64| kept(seq).is_none_or(|message| message.body.starts_with(br#"{"type":"chat""#));
        let is_gone = |seq: &u64| kept(seq).is_some_and(|message| message.body == tombstone);
        let outcome = if is_sulking {
            Outcome::Refused(BusRefusal::unavailable("the bus is in a mood"))
        } else if !is_known || targets.seqs.iter().any(|seq| *seq > room.top) {
            Outcome::Refused(BusRefusal::NO_MESSAGE)
        } else if targets.seqs.iter().any(is_message) {
            let gone = room.kept.iter_mut().filter(|message| targets.seqs.contains(&message.seq));
            gone.for_each(|message| message.body = tombstone.clone());
            Outcome::Accepted(self.accept(&name, announcement.body, Some(announcement.owner)))
        } else if targets.seqs.iter().all(is_gone) {
            Outcome::Duplicate(targets.seqs[0])
        } else {
            Outcome::Refused(BusRefusal::NO_MESSAGE)
        };
        self.answer(&name, ticket, outcome);
    }

    /// A load begins anew.
    fn begin_load(&mut self) {
        self.restrictions.load += 1;
        self.restrictions.begins = true;
        self.inbox.push_back(Request::Load(Part { load: self.restrictions.load, ..Part::default() }));
    }

    fn take_part(&mut self, part: Part) {
        if !self.is_calm && self.chance.one_in(10) {
            return self.inbox.push_back(Request::Load(part));
        }
        let from = part.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let found: Vec<_> = self.restrictions.kept.range((from, Bound::Unbounded)).take(PART).collect();
        let bodies = found.iter().map(|(_, kept)| kept.body.clone()).collect();
        let (is_last, after) = (found.len() < PART, found.last().map(|(key, _)| (*key).clone()));
        let page = RestrictionsPage { is_first: false, is_last, bodies };
        let due = self.due();
        self.answers.push((due, Answer::Loaded(Part { after, ..part }, page)));
    }

    fn take_question(&mut self, ticket: Ticket, question: Question) {
        let due = self.due();
        let answer = if self.is_sick || (!self.is_calm && self.chance.one_in(12)) {
            Answer::Failed(ticket)
        } else {
            let page = self.room(&question.room).page(question.from, question.bytes_max);
            Answer::Page(ticket, question, page)
        };
        self.answers.push((due, answer));
    }

    fn poll_stream(&mut self, name: &RoomName) -> Option<BusEvent> {
        let is_repeating = !self.is_calm && self.chance.one_in(20);
        let step = self.step;
        let room = self.rooms.get_mut(name)?;
        let (_, event) = room.stream.pop_front()?;
        match &event {
            BusEvent::Delivered { message, .. } => {
                if is_repeating && let Some(message) = room.recent.front().cloned() {
                    let again = BusEvent::Delivered { room: name.clone(), message, owner: None };
                    room.stream.push_front((step, again));
                }
                let is_new = room.handed.as_ref().is_none_or(|(_, seq)| *seq < message.seq);
                if is_new {
                    room.recent.push_back(message.clone());
                    room.recent.drain(..room.recent.len().saturating_sub(3));
                }
                if let Some((_, seq)) = &mut room.handed {
                    *seq = message.seq.max(*seq);
                }
            }
            BusEvent::EpochChanged { epoch, top, .. } => {
                room.recent.clear();
                room.handed = Some((epoch.clone(), *top));
            }
            _ => {}
        }
        Some(event)
    }

    fn poll_answer(&mut self) -> Option<BusEvent> {
        let due: Vec<usize> = (0..self.answers.len()).filter(|at| self.answers[*at].0 <= self.step).collect();
        if due.is_empty() {
            return None;
        }
        let at = if self.is_calm { due[0] } else { self.chance.pick(&due) };
        if let Answer::Page(_, question, _) = &self.answers[at].1 {
            let name = question.room.clone();
            let room = self.room(&name);
            // As long as the hub does not know where the room stands, it cannot tell one life from another.
            if !room.is_known && room.awaits_epoch() {
                return self.poll_stream(&name);
            }
        }
        Some(match self.answers.remove(at).1 {
            Answer::Published(ticket, outcome) => BusEvent::Published { ticket, outcome },
            Answer::Loaded(part, _) if part.load != self.restrictions.load => return self.poll_answer(),
            Answer::Loaded(part, page) => {
                if !page.is_last {
                    self.inbox.push_back(Request::Load(part));
                }
                BusEvent::Restrictions(page)
            }
            Answer::Failed(ticket) => {
                BusEvent::Page { ticket, page: Err(BusRefusal::unavailable("history cannot be read")) }
            }
            Answer::Page(ticket, question, mut page) => {
                let room = self.room(&question.room);
                if room.is_stale(&page) {
                    page = room.page(question.from, question.bytes_max);
                }
                if room.handed.is_none() {
                    room.handed = Some((page.epoch.clone(), page.top));
                }
                BusEvent::Page { ticket, page: Ok(page) }
            }
        })
    }

    fn submit_control(&mut self) {
        while let Some(request) = self.control.poll_request(self.now) {
            self.submit(request);
        }
    }

    fn poll_due(&mut self) -> Option<BusEvent> {
        let step = self.step;
        let is_due = |room: &Room| room.stream.front().is_some_and(|(due, _)| *due <= step);
        let due: Vec<RoomName> =
            self.rooms.iter().filter(|(_, room)| is_due(room)).map(|(name, _)| name.clone()).collect();
        let answers_first = self.chance.one_in(2);
        if answers_first && let Some(event) = self.poll_answer() {
            return Some(event);
        }
        if due.is_empty() {
            return self.poll_answer();
        }
        let name = due[self.chance.index(due.len())].clone();
        self.poll_stream(&name)
    }
}

/// The answer to what was accepted, if its delivery is lost.
fn unseen(event: &BusEvent) -> Option<Answer> {
    match event {
        BusEvent::Published { ticket, outcome: Outcome::Accepted(seq) } => {
            Some(Answer::Published(*ticket, Outcome::AcceptedUnseen(*seq)))
        }
        _ => None,
    }
}

impl Bus for FakeBus {
    fn begin_turn(&mut self, now: Now) {
        self.now = now;
        self.submit_control();
    }

    fn submit(&mut self, request: BusRequest) {
        match request {
            BusRequest::Open(name) => {
                let room = self.room(&name);
                (room.is_open, room.is_known, room.handed) = (true, false, Some((room.epoch.clone(), room.top)));
                room.recent.clear();
            }
            BusRequest::Close(name) => {
                self.clear_stream(&name);
                self.room(&name).is_open = false;
            }
            BusRequest::Publish { ticket, publication } => self.inbox.push_back(Request::Publish(ticket, publication)),
            BusRequest::Delete { ticket, deletion } => self.inbox.push_back(Request::Delete(ticket, deletion)),
            BusRequest::Control { ticket, body } => {
                self.control.submit(ticket, body);
                self.submit_control();
            }
            BusRequest::Restrict { ticket, change, body } => {
                self.control.submit_restriction(ticket, change, body);
                self.submit_control();
            }
            BusRequest::Read { ticket, room, from, bytes_max } => {
                self.inbox.push_back(Request::Read(ticket, Question { room, from, bytes_max }));
            }
            BusRequest::Presence { .. } | BusRequest::CheckPresence(_) | BusRequest::Signal(_) => {}
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.control.poll_event() {
                return Some(event);
            }
            if std::mem::take(&mut self.restrictions.begins) {
                return Some(BusEvent::Restrictions(RestrictionsPage::BEGIN));
            }
            let event = self.poll_due()?;
            let was_open = self.control.is_open();
            let event = self.control.translate(self.now, event);
            if matches!(event, Some(BusEvent::ControlLost { .. })) || self.control.is_open() != was_open {
                self.begin_load();
            }
            if event.is_some() {
                return event;
            }
            self.submit_control();
        }
    }
}
