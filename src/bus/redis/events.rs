//! From the threads to the hub: what arrives and what was answered, room by room, put into order.

mod presence;

use super::commands::call::{ScriptCall, ScriptResult};
use super::commands::request::Response;
use super::ordering::history::{HistoryQuery, HistorySlice, OrderingStep, RoomPosition};
use super::ordering::reassembler::Reassembler;
use super::room::{AwaitedCopy, PendingPublication, WaitingRead};
use super::stats::{add, add_time};
use super::subscribe::event::SubscriberEvent;
use super::{Due, ECHO_MAX, Pending, QUESTIONS_MAX, RedisBus, TELL_INTERVAL, WATCH_INTERVAL};
use crate::bus::message::{BusEvent, Outcome, Page};
use crate::id::{Epoch, RoomName};
use crate::timer_wheel::Tick;

impl RedisBus {
    /// Takes what a thread has handed over; says whether there was anything. The subscription goes first: copies are
    /// then there before the answers that would wait for them.
    pub(crate) fn take_batch(&mut self) -> bool {
        if self.news_left > 0
            && let Some(batch) = self.threads.news.pop()
        {
            self.news_left -= 1;
            batch.into_iter().for_each(|news| self.take_news(news));
            return true;
        }
        // Its own budget: however much is said, what was asked is answered.
        if self.replies_left == 0 {
            return false;
        }
        let Some(batch) = self.threads.replies.pop() else { return false };
        self.replies_left -= 1;
        batch.into_iter().for_each(|reply| self.take_reply(reply));
        true
    }

    fn take_news(&mut self, news: SubscriberEvent) {
        match news {
            SubscriberEvent::Message(name, arrival) => {
                self.with_sequence(&name, |sequence, steps| sequence.take(arrival, steps));
            }
            SubscriberEvent::Presence(name, share) => self.presence.observe(self.now.uptime, &name, share),
            SubscriberEvent::Typing(room, user, status) => {
                self.events.push_back(BusEvent::Typing { room, user, status });
            }
            SubscriberEvent::Gap(name) => {
                self.presence.query_soon(self.now.uptime, &name);
                self.with_sequence(&name, |sequence, _| sequence.require_resync());
            }
            SubscriberEvent::LinkLost => self.rooms.values_mut().for_each(|room| room.is_subscribed = false),
            SubscriberEvent::Subscribed(name, opening) => self.take_subscribed(&name, opening),
        }
    }

    fn take_subscribed(&mut self, name: &RoomName, opening: u32) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.opening == opening) else { return };
        room.is_subscribed = true;
        let was_subscribed = std::mem::replace(&mut room.was_subscribed, true);
        self.presence.query_soon(self.now.uptime, name);
        self.release_reads(name);
        if was_subscribed {
            self.with_sequence(name, |sequence, _| sequence.require_resync());
        }
    }

    /// Sends the reads that have waited for their room.
    pub(crate) fn release_reads(&mut self, name: &RoomName) {
        let is_loaded = self.presence.is_loaded(name);
        let Some(room) = self.rooms.get_mut(name).filter(|room| is_loaded && room.may_be_read()) else { return };
        let opening = room.opening;
        for read in std::mem::take(&mut room.reads) {
            self.send_read(name, opening, &read);
        }
    }

    fn take_reply(&mut self, reply: Response) {
        let Response { id, result } = reply;
        match self.pending.remove(&id) {
            Some(Pending::PendingPublication(saying)) => self.take_published(saying, result),
            Some(Pending::Read { room, opening, read, reached }) => match result {
                Ok(ScriptResult::Read(extract))
                    if is_behind(&extract, reached.as_ref()) || self.is_doubtful(&room, &extract) =>
                {
                    self.put_off(read, (&room, opening), extract);
                }
                Ok(ScriptResult::Read(extract)) => self.take_page(&read, (&room, opening), extract),
                Ok(_) => unreachable!("a read is answered like a read"),
                Err(words) => self.events.push_back(BusEvent::Page { ticket: read.ticket, page: Err(words) }),
            },
            Some(Pending::HistoryQuery { room, opening }) => self.take_answer(&room, opening, result),
            Some(Pending::RoomPresence { room, opening }) => self.take_roster(&room, opening, result),
            Some(Pending::Heartbeat) => self.take_beat(result),
            Some(Pending::Typing) => {}
            None => unreachable!("every order is answered once"),
        }
    }

    /// A publication was numbered. Its sender is told once its copy was delivered here: what the hub says about the number
    /// is then said about the epoch that it knows, and who sees the copy needs no `ack` beside it. The copy is recognised by epoch, number
    /// and run of Redis together: a Redis that comes back with less than it had gives the same numbers out again in the same epoch.
    fn take_published(&mut self, saying: PendingPublication, result: Result<ScriptResult, &'static str>) {
        let ticket = saying.ticket;
        let outcome = match result {
            // Without an id it can be a double only of its own first attempt.
            Ok(ScriptResult::Published { seq, duplicate: true, .. }) if saying.publication.id.is_some() => {
                Outcome::Duplicate(seq)
            }
            Ok(ScriptResult::Published { run_id, epoch, seq, duplicate }) => {
                let name = saying.publication.room.clone();
                let room = self.rooms.get_mut(&name).filter(|room| room.is_open());
                if let Some(room) = room
                    && let Some(known_epoch) = room.sequence.epoch().cloned()
                {
                    let since = self.now.uptime;
                    let is_strange = epoch != known_epoch;
                    room.echoes.push_back(AwaitedCopy {
                        run_id,
                        epoch: epoch.clone(),
                        known_epoch,
                        seq,
                        saying,
                        since,
                    });
                    self.with_sequence(&name, |sequence, steps| {
                        if !duplicate {
                            // All before it may be missing, it itself is going to arrive.
                            let top = seq.saturating_sub(1);
                            sequence.observe(RoomPosition { run_id, epoch, top, fingerprint: None }, steps);
                            if sequence.run_id() != Some(run_id) {
                                sequence.check_run();
                            }
                        } else if is_strange {
                            // Where the new epoch stands its number does not tell: much may have been said since.
                            sequence.check_position();
                        }
                    });
                    if self.rooms.get(&name).is_some_and(|room| !room.echoes.is_empty()) {
                        self.watch_room(&name);
                    }
                    return;
                }
                Outcome::AcceptedUnseen(seq)
            }
            Ok(_) => unreachable!("a publication is answered like a publication"),
            Err(words) => Outcome::Refused(words),
        };
        self.events.push_back(BusEvent::Published { ticket, outcome });
    }

    /// Whether a page may not be shown yet: it belongs to a run of Redis in which nobody has confirmed the epoch, or in which this node
    /// has not compared it with what was delivered here.
    fn is_doubtful(&self, name: &RoomName, extract: &HistorySlice) -> bool {
        let run_id = self.rooms.get(name).and_then(|room| room.sequence.run_id());
        !extract.is_confirmed || run_id.is_some_and(|run_id| run_id != extract.position.run_id)
    }

    /// Redis has less than it had when the read was sent, so it has lost messages, or it is not known yet whether it has. To read again at
    /// once would show the same, over and over; the question that is asked instead confirms or ends the epoch, and the read is sent again
    /// after a while.
    fn put_off(&mut self, read: WaitingRead, (name, opening): (&RoomName, u32), extract: HistorySlice) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.opening == opening) else {
            return self.take_page(&read, (name, opening), extract);
        };
        room.reads.push(read);
        self.with_sequence(name, |sequence, _| sequence.check_position());
        self.watch_room(name);
    }

    fn take_page(&mut self, read: &WaitingRead, (name, opening): (&RoomName, u32), extract: HistorySlice) {
        let WaitingRead { ticket, bytes_max, .. } = *read;
        let position = extract.position.clone();
        let mut page = cut(extract, bytes_max);
        let room = self.rooms.get(name).filter(|room| room.opening == opening);
        let Some(room) = room else {
            // The hub has closed the room, or never opened it.
            return self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
        };
        if !room.sequence.is_known() {
            // The hub learns from the page where the room stands; what goes on from there comes behind it.
            self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
            return self.with_sequence(name, |sequence, steps| sequence.observe(position, steps));
        }
        self.with_sequence(name, |sequence, steps| sequence.observe(position, steps));
        let delivered = self.rooms.get(name).map_or(0, |room| room.sequence.delivered());
        if page.top < delivered {
            // The page is older than what has arrived since.
            page.top = delivered;
            page.complete = bytes_max == 0;
        }
        self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
    }

    fn take_answer(&mut self, name: &RoomName, opening: u32, result: Result<ScriptResult, &'static str>) {
        self.questions -= 1;
        if self.rooms.get(name).is_some_and(|room| room.opening == opening) {
            match result {
                Ok(ScriptResult::Read(extract)) => {
                    self.with_sequence(name, |sequence, steps| sequence.answer(extract, steps));
                    let sequence = self.rooms.get(name).map(|room| &room.sequence);
                    if sequence.is_some_and(Reassembler::awaits) {
                        self.watch_room(name);
                    } else if sequence.is_some_and(Reassembler::is_idle) {
                        self.release_reads(name);
                    }
                }
                Ok(_) | Err(_) => {
                    if let Some(room) = self.rooms.get_mut(name) {
                        room.sequence.fail();
                        room.is_resting = true;
                    }
                    self.watch_room(name);
                }
            }
        }
        while self.questions < QUESTIONS_MAX
            && let Some(next) = self.queue.pop_front()
        {
            if let Some(room) = self.rooms.get_mut(&next) {
                room.is_queued = false;
            }
            self.ask(&next);
        }
    }

    /// Has the timer look at a room in which something waits.
    pub(crate) fn watch_room(&mut self, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name)
            && !room.is_watched
        {
            room.is_watched = true;
            let due = Due::Watch { room: name.clone(), opening: room.opening };
            self.wheel.insert(Tick::of(self.now).after(WATCH_INTERVAL), due);
        }
    }

    /// Looks at a room in which something waits.
    pub(crate) fn look_at(&mut self, name: &RoomName) {
        self.expire(name);
        self.with_sequence(name, |sequence, _| sequence.check_awaited());
        self.release_reads(name);
        let Some(room) = self.rooms.get(name) else { return };
        if !room.echoes.is_empty() || !room.reads.is_empty() || room.sequence.awaits() {
            self.watch_room(name);
        }
    }

    /// Answers what has waited too long in a room.
    fn expire(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let now = self.now.uptime;
        while room.echoes.front().is_some_and(|echo| now >= echo.since + ECHO_MAX) {
            let Some(AwaitedCopy { seq, saying, .. }) = room.echoes.pop_front() else { break };
            // It was lost on the way, and others may have been: nothing else might look for them for as long as the room is quiet.
            room.sequence.check_position();
            self.events.push_back(BusEvent::Published { ticket: saying.ticket, outcome: Outcome::AcceptedUnseen(seq) });
        }
        let hold = self.hold;
        for read in room.reads.extract_if(.., |read| now >= read.since + hold) {
            let page = Err("redis has not answered in time; try again later");
            self.events.push_back(BusEvent::Page { ticket: read.ticket, page });
        }
    }

    /// Hands something to a room's sequence, and carries out what follows from it.
    pub(crate) fn with_sequence(
        &mut self,
        name: &RoomName,
        act: impl FnOnce(&mut Reassembler, &mut Vec<OrderingStep>),
    ) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut steps = std::mem::take(&mut self.steps);
        act(&mut room.sequence, &mut steps);
        let is_open = room.is_open();
        for step in steps.drain(..) {
            let room = name.clone();
            let event = match step {
                OrderingStep::Deliver(message) => {
                    add(&self.counters.delivered_total, 1);
                    BusEvent::Delivered { room, message }
                }
                OrderingStep::EpochChanged { epoch, top } => {
                    add(&self.counters.epochs_total, 1);
                    log::debug!("room {room} begins epoch {epoch:?} at {top}: what was before it is not continued");
                    if self.epochs_untold == 0 {
                        self.wheel.insert(Tick::of(self.now).after(TELL_INTERVAL), Due::Tell);
                    }
                    self.epochs_untold += 1;
                    BusEvent::EpochChanged { room, epoch, top }
                }
            };
            if is_open {
                self.events.push_back(event);
            }
        }
        self.steps = steps;
        self.settle_echoes(name);
        self.ask(name);
    }

    /// Logs how many rooms began a new epoch: one by one they would fill the log when Redis comes back empty.
    pub(crate) fn tell_epochs(&mut self) {
        let count = std::mem::take(&mut self.epochs_untold);
        let rooms = if count == 1 { "room" } else { "rooms" };
        log::warn!("{count} {rooms} began a new epoch: redis does not continue what was delivered; members are told");
    }

    /// Answers own publications whose copies were delivered, and says those again that their epoch took with it.
    fn settle_echoes(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut again = Vec::new();
        while let Some(echo) = room.echoes.front() {
            let epoch = room.sequence.epoch();
            if epoch != Some(&echo.epoch) {
                if epoch == Some(&echo.known_epoch) {
                    // To say it again would only get the same answer again, over and over. A question is under way.
                    break;
                }
                // Under the same id: should history still have it, it is not doubled.
                again.extend(room.echoes.pop_front().map(|echo| echo.saying));
                continue;
            }
            if echo.seq > room.sequence.delivered() || room.sequence.run_id() != Some(echo.run_id) {
                break;
            }
            let Some(AwaitedCopy { seq, saying, .. }) = room.echoes.pop_front() else { break };
            // What a new epoch passed over nobody sees: its sender must hear of it.
            let outcome = if seq <= room.sequence.skipped() { Outcome::Duplicate(seq) } else { Outcome::Accepted(seq) };
            add(&self.counters.echoes_total, 1);
            let time = self.now.uptime.saturating_sub(saying.at);
            add_time(&self.counters.echo_micros_total, &self.counters.echo_micros_max, time);
            self.events.push_back(BusEvent::Published { ticket: saying.ticket, outcome });
        }
        again.into_iter().for_each(|saying| self.say(saying));
    }

    /// Lets a room ask what it wants to know, when it is its turn.
    pub(crate) fn ask(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if room.is_resting || !room.sequence.wants_query() {
            return;
        }
        if self.questions >= QUESTIONS_MAX {
            if !std::mem::replace(&mut room.is_queued, true) {
                self.queue.push_back(name.clone());
            }
            return;
        }
        let Some(question) = room.sequence.poll_query() else { return };
        let opening = room.opening;
        match &question {
            HistoryQuery::Position | HistoryQuery::Confirm(..) => {}
            HistoryQuery::Since(_) => add(&self.counters.fills_total, 1),
            HistoryQuery::Renew(epoch) => {
                log::debug!("room {name}: history does not continue what was delivered; epoch {epoch:?} has to end");
            }
        }
        self.questions += 1;
        let call = ScriptCall::Ask { room: name.clone(), question };
        self.order(call, Pending::HistoryQuery { room: name.clone(), opening });
    }
}

/// Whether Redis stands before what was known of the same epoch when it was asked.
fn is_behind(extract: &HistorySlice, reached: Option<&(Epoch, u64)>) -> bool {
    reached.is_some_and(|(epoch, delivered)| *epoch == extract.position.epoch && extract.position.top < *delivered)
}

/// A page of no more than it may weigh; its first message is given whatever it weighs.
fn cut(extract: HistorySlice, bytes_max: usize) -> Page {
    let HistorySlice { position: RoomPosition { epoch, top, .. }, mut complete, mut messages, .. } = extract;
    let mut bytes = 0;
    let fits = messages.iter().take_while(|message| {
        bytes += message.body.len();
        bytes <= bytes_max
    });
    let most = fits.count().max(usize::from(bytes_max > 0));
    if most < messages.len() {
        messages.truncate(most);
        complete = false;
    }
    Page { epoch, top, messages, complete }
}
