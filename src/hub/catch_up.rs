//! From history to live: a member reads pages as its own output drains, until it has everything up to where the log begins for it.

use std::time::Duration;

use crate::bus::message::{BusRequest, Page, ReadFrom, Ticket};
use crate::deadline::Tick;
use crate::id::{ConnectionId, Epoch, Slot};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::time::Now;

use super::connection::Place;
use super::notice::Notice;
use super::presence::{Due, Parting, list_users};
use super::publish::Pending;
use super::room::{CatchUp, CatchUpReason, CatchUpStep, LiveMember, Pin, Position, Room, Shown, push_tightly};
use super::{Complaint, Hub};

/// How long a member waits before it asks again a bus that could not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What one member is told about where it is.
struct Joined<'a> {
    seq: u64,
    recovered: Option<bool>,
    message_id: Option<&'a str>,
}

impl CatchUp {
    /// What was asked for is not there any more: from now on it is as if `since` had been absent.
    fn meet_hole(&mut self) {
        self.hole = true;
        if self.shown == Shown::Pages {
            self.shown = Shown::Void;
        }
        self.from = match self.reason {
            CatchUpReason::Join { history, .. } => ReadFrom::Newest(history),
            CatchUpReason::FellBack => ReadFrom::Newest(0),
        };
    }

    /// Compares what is wanted with a position; says whether nothing is left to read up to there.
    fn is_level(&mut self, epoch: &Epoch, delivered: u64) -> bool {
        if self.epoch.as_ref().is_some_and(|known| known != epoch) {
            self.meet_hole();
        }
        self.epoch = Some(epoch.clone());
        matches!(self.from, ReadFrom::Newest(0)) || self.from == ReadFrom::After(delivered)
    }

    /// Whether messages that this member wants are missing at the beginning of a page.
    fn misses_something(&self, page: &Page) -> bool {
        let ReadFrom::After(seq) = self.from else { return false };
        match page.messages.first() {
            Some(first) => first.seq > seq + 1,
            None => page.complete && page.top > seq,
        }
    }
}

impl Hub {
    /// Lets a member that catches up take its next step: go live, ask for a page, or wait for its output.
    pub(super) fn continue_catch_up(&mut self, now: Now, index: u32, slot: Slot) {
        let Some(Place::CatchingUp(place)) = self.connections.member(slot).place_in(index) else { return };
        let Room { position, catching_up, log, .. } = &mut self.rooms[index as usize];
        let member = &mut catching_up[place as usize];
        let mut pin = None;
        let mut is_level = false;
        if let Position::At { epoch, delivered } = position {
            pin = Some(Pin { offset: log.tail(), seq: *delivered });
            is_level = member.is_level(epoch, *delivered);
        }
        let from = member.from;
        self.tell_void(index, place);
        if let Some(here) = pin
            && is_level
        {
            return self.go_live(now, index, place, here);
        }
        let page_bytes_max = self.limits.page_bytes_max();
        let bytes_max = if from == ReadFrom::Newest(0) { 0 } else { page_bytes_max };
        let connection = self.connections.member_mut(slot);
        if bytes_max > 0 && (connection.awaits_page() || connection.queued_bytes() > page_bytes_max) {
            self.rooms[index as usize].catching_up[place as usize].step = CatchUpStep::Output;
            return;
        }
        if bytes_max > 0 {
            connection.await_page();
        }
        let (connection, room) = (self.connections.id(slot), self.room_ref(index));
        let ticket = self.ticket(Pending::Read { connection, room, bytes_max });
        let room = &mut self.rooms[index as usize];
        room.catching_up[place as usize].step = CatchUpStep::Page { ticket, pin };
        self.requests.push_back(BusRequest::Read { ticket, room: room.name.clone(), from, bytes_max });
    }

    /// The time has come for a member that was to ask again.
    pub(super) fn retry_catch_up(&mut self, now: Now, index: u32, connection: ConnectionId) {
        let place = self.connections.get(connection).and_then(|connection| connection.place_in(index));
        if let Some(Place::CatchingUp(place)) = place
            && self.rooms[index as usize].catching_up[place as usize].step == CatchUpStep::Retry
        {
            self.continue_catch_up(now, index, connection.slot);
        }
    }

    pub(super) fn handle_page(&mut self, now: Now, ticket: Ticket, page: Result<Page, &'static str>) {
        let (connection, room, bytes_max) = match self.pending.remove(&ticket) {
            Some(Pending::Read { connection, room, bytes_max }) => (connection, room, bytes_max),
            Some(Pending::Moderation) => return self.handle_moderation_located(now, page.err()),
            Some(Pending::Publication { .. }) | None => return,
        };
        if bytes_max > 0
            && let Some(reader) = self.connections.get_mut(connection)
        {
            reader.stop_awaiting_page();
            // Another of its rooms may have waited for this page.
            self.resumed.push_back(connection);
        }
        let index = room.index;
        if self.find_room(room).is_none() {
            return;
        }
        let place = self.connections.get(connection).and_then(|connection| connection.place_in(index));
        let Some(Place::CatchingUp(place)) = place else { return };
        let member = &self.rooms[index as usize].catching_up[place as usize];
        let CatchUpStep::Page { ticket: awaited, pin } = member.step else { return };
        if awaited != ticket {
            return;
        }
        match page {
            Ok(page) => self.read_page(now, index, place, pin, &page),
            Err(words) => self.fail_page(now, connection, index, place, words),
        }
    }

    fn read_page(&mut self, now: Now, index: u32, place: u32, pin: Option<Pin>, page: &Page) {
        let room = &mut self.rooms[index as usize];
        if let Position::Unknown = room.position {
            room.position = Position::At { epoch: page.epoch.clone(), delivered: page.top };
        }
        let slot = room.catching_up[place as usize].slot;
        let Position::At { epoch, delivered } = &room.position else { return };
        if page.epoch != *epoch {
            // A change of epoch is under way and will be told.
            return self.retry_page(now, index, place);
        }
        let pin = pin.unwrap_or(Pin { offset: room.log.tail(), seq: *delivered });
        let member = &mut room.catching_up[place as usize];
        let asked = member.from;
        if member.is_level(epoch, pin.seq) {
            self.tell_void(index, place);
            return self.go_live(now, index, place, pin);
        }
        if matches!(member.from, ReadFrom::After(seq) if seq > pin.seq.max(page.top)) {
            member.meet_hole();
        }
        if member.from != asked {
            // The page answers a question that makes no sense in this epoch.
            return self.continue_catch_up(now, index, slot);
        }
        if matches!(asked, ReadFrom::After(seq) if seq > pin.seq) {
            // It was told on another node what has yet to be delivered here.
            return self.retry_page(now, index, place);
        }
        if member.misses_something(page) {
            let is_first = !member.hole;
            member.meet_hole();
            if is_first && let CatchUpReason::Join { .. } = member.reason {
                return self.continue_catch_up(now, index, slot);
            }
            // The second time it goes on with what there is: history might be cut off faster than it reads.
            member.from = asked;
            self.tell_void(index, place);
        }
        let member = &mut self.rooms[index as usize].catching_up[place as usize];
        let id = self.connections.id(slot);
        let connection = self.connections.member_mut(slot);
        let mut reached = match member.from {
            ReadFrom::After(seq) => seq,
            ReadFrom::Newest(_) => 0,
        };
        for message in page.messages.iter().take_while(|message| message.seq <= pin.seq) {
            member.shown = Shown::Pages;
            self.outbox.chat(id, connection, &message.body, message.seq);
            reached = message.seq;
        }
        if page.complete {
            reached = reached.max(page.top.min(pin.seq));
        }
        if reached >= pin.seq {
            return self.go_live(now, index, place, pin);
        }
        let is_stuck = page.complete && member.from == ReadFrom::After(reached);
        member.from = ReadFrom::After(reached);
        if is_stuck {
            return self.retry_page(now, index, place);
        }
        self.continue_catch_up(now, index, slot);
    }

    /// Tells a member that joins that what it has been sent so far counts no more: what follows does not continue it. Without that a
    /// client would take the numbers of a new epoch for ones that it has.
    fn tell_void(&mut self, index: u32, place: u32) {
        let member = &mut self.rooms[index as usize].catching_up[place as usize];
        if member.shown != Shown::Void {
            return;
        }
        member.shown = Shown::Nothing;
        let CatchUpReason::Join { resumes, .. } = &mut member.reason else { return };
        *resumes = true;
        let slot = member.slot;
        self.write_joined(index, slot, &Joined { seq: 0, recovered: Some(false), message_id: None });
    }

    fn fail_page(&mut self, now: Now, id: ConnectionId, index: u32, place: u32, words: &'static str) {
        let member = &mut self.rooms[index as usize].catching_up[place as usize];
        let CatchUpReason::Join { id: message_id, .. } = &mut member.reason else {
            return self.retry_page(now, index, place);
        };
        let message_id = message_id.take();
        let name = self.rooms[index as usize].name.clone();
        self.part(now, id.slot, index, Parting::Left);
        let complaint = Complaint::new(ErrorCode::Unavailable, words);
        self.error(id, &complaint.about(Some(name.as_str()), message_id.as_deref()));
    }

    fn retry_page(&mut self, now: Now, index: u32, place: u32) {
        let member = &mut self.rooms[index as usize].catching_up[place as usize];
        member.step = CatchUpStep::Retry;
        let connection = self.connections.id(member.slot);
        let room = self.room_ref(index);
        self.wheel.insert(Tick::of(now).after(RETRY), Due::CatchUp { room, connection });
    }

    /// A member has everything up to `pin`: in one step it is told where it is and reads the log from there.
    fn go_live(&mut self, now: Now, index: u32, place: u32, pin: Pin) {
        let member = self.remove_catching_up(index, place);
        let slot = member.slot;
        let id = self.connections.id(slot);
        let room = &mut self.rooms[index as usize];
        let mut live = LiveMember::new(slot, pin.offset);
        if pin.offset != room.log.tail() {
            // Rounds count on everybody having been level when they began; this one is served by itself.
            live.start_lagging();
            room.laggards.push(slot);
            self.drained.push_back(id);
        }
        let place = Place::Live(room.live.len() as u32);
        push_tightly(&mut room.live, live);
        self.connections.member_mut(slot).set_place(index, place);
        let is_leaving = room.leaving.iter().any(|leaving| leaving.slot == slot);
        if !is_leaving || member.hole {
            self.say_joined(index, &member, pin.seq);
        }
        self.settle(index);
        if is_leaving {
            return self.finish_leaving(now, index);
        }
        if let CatchUpReason::Join { .. } = member.reason {
            let user = self.connections.member(slot).user;
            let (name, user_id) = (&self.rooms[index as usize].name, self.users.id(user));
            self.notices.push(|| Notice::Joined { connection: id, user: user_id.clone(), room: name.clone() });
            self.arrive(now, index, user);
        }
    }

    fn say_joined(&mut self, index: u32, member: &CatchUp, seq: u64) {
        let (recovered, message_id) = match &member.reason {
            CatchUpReason::Join { id, resumes, .. } => (resumes.then_some(!member.hole), id.as_deref()),
            CatchUpReason::FellBack => (Some(!member.hole), None),
        };
        self.write_joined(index, member.slot, &Joined { seq, recovered, message_id });
    }

    fn write_joined(&mut self, index: u32, slot: Slot, told: &Joined<'_>) {
        let room = &self.rooms[index as usize];
        let listed = list_users(room, &self.users);
        let joined = ServerMessage::Joined {
            room: room.name.as_str(),
            epoch: room.epoch().map_or("", Epoch::as_str),
            seq: told.seq,
            recovered: told.recovered,
            count: room.users.len(),
            users: listed.as_deref(),
            id: told.message_id,
        };
        let id = self.connections.id(slot);
        let connection = self.connections.member_mut(slot);
        self.outbox.message(id, connection, &joined);
    }
}
