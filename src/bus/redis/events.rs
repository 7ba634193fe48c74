//! What the threads hand to the loop: events of the subscription and responses, put into order
//! for the hub.

use super::commands::{Numbering, PendingPublication, Request, Response, RightsPlace, RoomRequest};
use super::ordering::{HistoryQuery, HistorySlice, OrderingStep, Reassembler, RoomPosition};
use super::pages::is_behind;
use super::presence::PresenceAction;
use super::presence::PresenceAnswer;
use super::room::{AwaitedCopy, Room};
use super::subscribe::SubscriberEvent;
use super::{COPY_WAIT_MAX, Deadline, Departure, LOG_INTERVAL, QUERIES_MAX, RedisBus, RoomDeadline, WATCH_INTERVAL};
use crate::bus::message::{BusEvent, BusRefusal, Outcome, tombstone};
use crate::id::{Epoch, RoomName};
use crate::timer_wheel::Tick;
use crate::unicode::Escaped;

impl RedisBus {
    /// Takes the next thing that presence or a thread has for the loop. Returns whether there was one.
    pub(crate) fn take_step(&mut self) -> bool {
        if self.take_action() {
            return true;
        }
        if self.arrived.len() == 0 && self.answered.len() == 0 {
            self.take_batch();
        }
        if let Some(event) = self.arrived.next() {
            self.take_event(event);
        } else if let Some(response) = self.answered.next() {
            self.take_response(response);
        } else {
            return false;
        }
        true
    }

    /// Takes a batch from a thread. The subscription goes first, so that copies are there before the responses that would wait for
    /// them. Each thread has a budget of its own, so that a busy subscription does not delay responses.
    fn take_batch(&mut self) {
        // Requests go to Redis before more is taken, so that it works meanwhile.
        self.commands.flush();
        if let Some(batch) = self.subscriber.take_batch() {
            self.arrived = batch.into_iter();
        } else if let Some(batch) = self.commands.take_batch() {
            self.answered = batch.into_iter();
        }
    }

    /// Carries out the next action of presence. Returns whether there was one.
    pub(crate) fn take_action(&mut self) -> bool {
        if self.departure != Departure::None {
            // Another heartbeat would take back that this node has left.
            return false;
        }
        let Some(action) = self.presence.poll() else { return false };
        match action {
            PresenceAction::Ask { room, opening, request } => {
                self.send(Request::Presence(RoomRequest { room, opening, request }));
            }
            PresenceAction::Heartbeat(heartbeat) => {
                self.send(Request::Heartbeat(heartbeat));
                self.send(Request::CheckRights(RightsPlace::Nodes));
                if let Some(room) = self.rights.doubted.clone() {
                    self.send(Request::CheckRights(RightsPlace::Room(room)));
                }
            }
            PresenceAction::Tell(room, change) => self.events.push_back(BusEvent::Presence { room, change }),
            PresenceAction::Loaded(room) => self.release_reads(&room),
            PresenceAction::Checked(room) => self.events.push_back(BusEvent::PresenceChecked(room)),
        }
        true
    }

    fn take_event(&mut self, event: SubscriberEvent) {
        match event {
            SubscriberEvent::Message(name, message) => {
                self.with_reassembler(&name, |reassembler, steps| reassembler.take(message, steps));
            }
            SubscriberEvent::Presence(name, delta) => self.presence.observe(self.now.uptime, &name, delta),
            SubscriberEvent::Signal(signal) => self.events.push_back(BusEvent::Signal(signal)),
            SubscriberEvent::Gap(name) => {
                self.presence.query_soon(self.now.uptime, &name);
                self.with_reassembler(&name, |reassembler, _| reassembler.require_resync());
            }
            SubscriberEvent::LinkLost => self.subscription = self.subscription.next(),
            SubscriberEvent::Subscribed(name, opening) => self.take_subscribed(&name, opening),
        }
    }

    fn take_subscribed(&mut self, name: &RoomName, opening: u32) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.opening == opening) else { return };
        let was_subscribed = room.subscribed_in.replace(self.subscription).is_some();
        self.presence.query_soon(self.now.uptime, name);
        self.release_reads(name);
        if was_subscribed {
            self.with_reassembler(name, |reassembler, _| reassembler.require_resync());
        }
    }

    /// Sends the reads that have waited for their room.
    pub(crate) fn release_reads(&mut self, name: &RoomName) {
        let is_loaded = self.presence.is_loaded(name);
        let subscription = self.subscription;
        let may_be_read = |room: &&mut Room| is_loaded && room.may_be_read(subscription);
        let Some(room) = self.rooms.get_mut(name).filter(may_be_read) else { return };
        for read in std::mem::take(&mut room.reads) {
            self.send_read(read);
        }
    }

    fn take_response(&mut self, response: Response) {
        if let Response::RightMissing(room) = response {
            return self.rights.doubt(room);
        }
        self.requests -= 1;
        match response {
            Response::Published(pending, result) => self.take_published(pending, result),
            Response::Page(read, Ok(slice)) if is_behind(&slice, &read) || self.is_doubtful(&read.room, &slice) => {
                self.postpone_read(read, slice);
            }
            Response::Page(read, Ok(slice)) if self.is_before_deletion(&read, &slice) => self.repeat_read(read),
            Response::Page(read, Ok(slice)) => self.take_page(&read, slice),
            Response::Page(read, Err(refusal)) => {
                self.events.push_back(BusEvent::Page { ticket: read.ticket, page: Err(refusal) });
            }
            Response::Query(RoomRequest { room, opening, .. }, result) => self.take_answer(&room, opening, result),
            Response::Presence(RoomRequest { room, opening, .. }, result) => {
                let answer = result.unwrap_or(PresenceAnswer::Refused);
                self.presence.answer(self.now.uptime, (&room, opening), answer);
            }
            Response::Heartbeat(result) => self.presence.answer_heartbeat(self.now.uptime, result.ok()),
            Response::Left => self.departure = Departure::Known,
            Response::Restrictions(read, result) => self.take_restrictions(read, result),
            Response::Signal | Response::Rights(_, Err(_)) | Response::RightMissing(_) => {}
            // A node that lacks one is not ready: it would refuse what clients ask.
            Response::Rights(place, Ok(missing)) => {
                self.counters.rights_missing.set(self.rights.answer(&place, missing));
            }
        }
    }

    /// Takes the outcome of a publication. Its sender is told when the copy was delivered here.
    /// Then the number belongs to the epoch that the hub knows, and a member who sees the copy
    /// needs no `ack` beside it. The copy is recognised by epoch, number and run of Redis, since
    /// a Redis that lost messages assigns the same numbers again within the epoch.
    fn take_published(&mut self, pending: PendingPublication, result: Result<Numbering, BusRefusal>) {
        self.publications -= 1;
        let outcome = match result {
            // Without an id, only its own first attempt can be the original, unless the number is of a message that it deletes.
            Ok(numbering)
                if numbering.is_duplicate
                    && (pending.publication.id.is_some() || pending.deletes_message(numbering.seq)) =>
            {
                Outcome::Duplicate(numbering.seq)
            }
            Ok(numbering) => {
                let room = self.rooms.get(&pending.publication.room).filter(|room| room.is_open());
                if let Some(known_epoch) = room.and_then(|room| room.reassembler.epoch().cloned()) {
                    return self.await_copy(pending, numbering, known_epoch);
                }
                Outcome::AcceptedUnseen(numbering.seq)
            }
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.own_bodies.forget(&pending);
        self.events.push_back(BusEvent::Published { ticket: pending.ticket, outcome });
    }

    fn await_copy(&mut self, pending: PendingPublication, numbering: Numbering, known_epoch: Epoch) {
        let name = pending.publication.room.clone();
        let Numbering { run_id, epoch, seq, is_duplicate } = numbering.clone();
        let (is_foreign, since) = (epoch != known_epoch, self.now.uptime);
        if let Some(room) = self.rooms.get_mut(&name) {
            room.awaited_copies.push_back(AwaitedCopy { numbering, known_epoch, pending, since });
        }
        self.with_reassembler(&name, |reassembler, steps| {
            if !is_duplicate {
                // Earlier messages may be missing; this one is about to arrive.
                let top = seq.saturating_sub(1);
                reassembler.observe(RoomPosition { run_id, epoch, top, fingerprint: None }, steps);
                if reassembler.run_id() != Some(run_id) {
                    reassembler.check_run();
                }
            } else if is_foreign {
                // Its number does not show the position of the new epoch.
                reassembler.check_position();
            }
        });
        if self.rooms.get(&name).is_some_and(|room| !room.awaited_copies.is_empty()) {
            self.watch_room(&name);
        }
    }

    fn take_answer(&mut self, name: &RoomName, opening: u32, result: Result<HistorySlice, BusRefusal>) {
        self.queries -= 1;
        if self.rooms.get(name).is_some_and(|room| room.opening == opening) {
            match result {
                Ok(slice) => {
                    self.with_reassembler(name, |reassembler, steps| reassembler.answer(slice, steps));
                    let reassembler = self.rooms.get(name).map(|room| &room.reassembler);
                    if reassembler.is_some_and(Reassembler::awaits) {
                        self.watch_room(name);
                    } else if reassembler.is_some_and(Reassembler::is_idle) {
                        self.release_reads(name);
                    }
                }
                Err(_) => {
                    if let Some(room) = self.rooms.get_mut(name) {
                        room.reassembler.fail();
                        room.is_resting = true;
                    }
                    self.watch_room(name);
                }
            }
        }
        while self.queries < QUERIES_MAX
            && let Some(next) = self.queue.pop_front()
        {
            if let Some(room) = self.rooms.get_mut(&next) {
                room.is_queued = false;
            }
            self.send_query(&next);
        }
    }

    /// Schedules a check of a room in which something waits.
    pub(crate) fn watch_room(&mut self, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name)
            && !room.is_watched
        {
            room.is_watched = true;
            let opening = room.opening;
            let at = Tick::of(self.now).after(WATCH_INTERVAL);
            self.insert_deadline(at, name.clone(), opening, RoomDeadline::Watch);
        }
    }

    /// Checks a room in which something waits.
    pub(crate) fn check_room(&mut self, name: &RoomName) {
        self.expire(name);
        self.with_reassembler(name, |reassembler, _| reassembler.check_awaited());
        self.release_reads(name);
        let Some(room) = self.rooms.get(name) else { return };
        if !room.awaited_copies.is_empty() || !room.reads.is_empty() || room.reassembler.awaits() {
            self.watch_room(name);
        }
    }

    /// Answers requests that have waited too long in a room.
    fn expire(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let now = self.now.uptime;
        while room.awaited_copies.front().is_some_and(|copy| now >= copy.since + COPY_WAIT_MAX) {
            let Some(AwaitedCopy { numbering, pending, .. }) = room.awaited_copies.pop_front() else { break };
            // The copy was lost, and other messages may have been. In a quiet room nothing else
            // would look for them.
            room.reassembler.check_position();
            let outcome = Outcome::AcceptedUnseen(numbering.seq);
            self.own_bodies.forget(&pending);
            self.events.push_back(BusEvent::Published { ticket: pending.ticket, outcome });
        }
        let hold = self.hold;
        for read in room.reads.extract_if(.., |read| now >= read.since + hold) {
            let page = Err(BusRefusal::unavailable("redis has not answered in time; try again later"));
            self.events.push_back(BusEvent::Page { ticket: read.ticket, page });
        }
    }

    /// Hands something to the reassembler of a room, and carries out the steps that follow.
    pub(crate) fn with_reassembler(
        &mut self,
        name: &RoomName,
        act: impl FnOnce(&mut Reassembler, &mut Vec<OrderingStep>),
    ) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut steps = std::mem::take(&mut self.steps);
        act(&mut room.reassembler, &mut steps);
        let is_open = room.is_open();
        steps.iter().for_each(|step| room.note_deletion(step));
        for step in steps.drain(..) {
            let room = name.clone();
            let event = match step {
                OrderingStep::Deliver(mut message) => {
                    if message.body.is_empty() {
                        message.body = tombstone(&room);
                    }
                    self.counters.delivered_total.add(1);
                    let owner = self.own_bodies.owner(&message.body);
                    BusEvent::Delivered { room, message, owner }
                }
                OrderingStep::EpochChanged { epoch, top } => {
                    self.counters.epochs_total.add(1);
                    let shown = Escaped(format_args!("{epoch:?}"));
                    log::debug!("room {room} begins epoch {shown} at {top}: what was before it is not continued");
                    if self.epochs_unlogged == 0 {
                        self.wheel.insert(Tick::of(self.now).after(LOG_INTERVAL), Deadline::Log);
                    }
                    self.epochs_unlogged += 1;
                    BusEvent::EpochChanged { room, epoch, top }
                }
            };
            if is_open {
                self.events.push_back(event);
            }
        }
        self.steps = steps;
        self.settle_copies(name);
        self.send_query(name);
    }

    /// Logs how many rooms began a new epoch. One line for each would fill the log when Redis
    /// comes back empty.
    pub(crate) fn log_epochs(&mut self) {
        let count = std::mem::take(&mut self.epochs_unlogged);
        let rooms = if count == 1 { "room" } else { "rooms" };
        log::warn!("{count} {rooms} began a new epoch: redis does not continue what was delivered; members are told");
    }

    /// Answers own publications whose copies were delivered, and repeats those whose epoch has
    /// ended.
    fn settle_copies(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut again = Vec::new();
        while let Some(copy) = room.awaited_copies.front() {
            let epoch = room.reassembler.epoch();
            if epoch != Some(&copy.numbering.epoch) {
                if epoch == Some(&copy.known_epoch) {
                    // Repeating it now would only get the same answer. A query is under way.
                    break;
                }
                // It keeps its id, so that it is not doubled if history still has it.
                again.extend(room.awaited_copies.pop_front().map(|copy| copy.pending));
                continue;
            }
            let Numbering { seq, run_id, .. } = copy.numbering;
            if seq > room.reassembler.delivered() || room.reassembler.run_id() != Some(run_id) {
                break;
            }
            let Some(AwaitedCopy { pending, .. }) = room.awaited_copies.pop_front() else { break };
            // Nobody sees a message that a new epoch has skipped, so its sender has to be told.
            let outcome =
                if seq <= room.reassembler.skipped() { Outcome::Duplicate(seq) } else { Outcome::Accepted(seq) };
            let time = self.now.uptime.saturating_sub(pending.at);
            self.counters.own_deliveries_total.add(1);
            self.counters.own_delivery_time_total.add(time);
            self.counters.own_delivery_time_max.raise(time);
            self.own_bodies.forget(&pending);
            self.events.push_back(BusEvent::Published { ticket: pending.ticket, outcome });
        }
        again.into_iter().for_each(|pending| self.send_publication(pending));
    }

    /// Sends the query of a room, when it is its turn.
    pub(crate) fn send_query(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if room.is_resting || !room.reassembler.wants_query() {
            return;
        }
        if self.queries >= QUERIES_MAX {
            if !std::mem::replace(&mut room.is_queued, true) {
                self.queue.push_back(name.clone());
            }
            return;
        }
        let Some(query) = room.reassembler.poll_query() else { return };
        let opening = room.opening;
        match &query {
            HistoryQuery::Position | HistoryQuery::Confirm(..) => {}
            HistoryQuery::Since(_) => self.counters.fills_total.add(1),
            HistoryQuery::Renew(epoch) => {
                let shown = Escaped(format_args!("{epoch:?}"));
                log::debug!("room {name}: history does not continue what was delivered; epoch {shown} has to end");
            }
        }
        self.queries += 1;
        self.send(Request::Query(RoomRequest { room: name.clone(), opening, request: query }));
    }
}
