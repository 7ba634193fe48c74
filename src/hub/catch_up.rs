//! From history to live: a member reads pages as its own output drains, until it has everything up to where the log begins for it.

use std::time::Duration;

use crate::budget::units;
use crate::bus::message::{BusRefusal, Page, ReadFrom, Ticket};
use crate::id::ConnectionId;
use crate::protocol::ServerMessage;
use crate::time::Now;

use super::Hub;
use super::connection::{Connection, Connections};
use super::error_reply::ErrorReply;
use super::index::{CatchUpIndex, Place, RoomIndex, RoomRef};
use super::members::Parting;
use super::notice::Notice;
use super::pending::{Asked, AskedPage};
use super::presence::Mover;
use super::reader::{CatchUp, CatchUpReason, CatchUpStep, NextStep, Pin, Shown};
use super::room::{Position, Room};
use super::timers::Timer;

/// What a step of a member that catches up counts: it asks the bus for a page, or goes live.
const STEP_UNITS: u32 = 8;

/// How long a member waits before it asks again a bus that could not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Which member catches up, and where it stands.
#[derive(Clone, Copy, Debug)]
struct Reader {
    room: RoomIndex,
    at: CatchUpIndex,
    connection: ConnectionId,
}

/// What one member is told about where it is.
struct Joined<'a> {
    seq: u64,
    recovered: Option<bool>,
    message_id: Option<&'a str>,
}

impl Reader {
    /// A connection that catches up in a room.
    fn find(connections: &Connections, room: RoomIndex, connection: ConnectionId) -> Option<Self> {
        match connections.get(connection)?.place_in(room)? {
            Place::CatchingUp(at) => Some(Self { room, at, connection }),
            Place::Live(_) => None,
        }
    }
}

impl Hub {
    /// Lets a member that catches up take its next step: go live, ask for a page, or wait for its output.
    pub(super) fn continue_catch_up(&mut self, now: Now, index: RoomIndex, id: ConnectionId) {
        let Some(reader) = Reader::find(&self.connections, index, id) else { return };
        let Room { position, members, fanout, .. } = &mut self.rooms[index];
        let Some(member) = members.catch_up_mut(reader.at) else { return };
        self.work += STEP_UNITS;
        let mut pin = None;
        let mut is_level = false;
        if let Position::At { epoch, delivered } = position {
            pin = Some(Pin { offset: fanout.tail(), seq: *delivered });
            // The bus may know of an epoch that has yet to be told here. The page shows it.
            is_level = !member.is_strange(epoch) && member.is_level(epoch, *delivered);
        }
        let from = member.from;
        self.tell_void(reader);
        match pin {
            Some(here) if is_level => self.go_live_if_drained(now, reader, here),
            _ => self.ask_for_page(reader, from, pin),
        }
    }

    fn ask_for_page(&mut self, reader: Reader, from: ReadFrom, pin: Option<Pin>) {
        let Some(connection) = self.connections.get_mut(reader.connection) else { return };
        let page_bytes_max = self.settings.net.page_bytes_max();
        let bytes_max = if from == ReadFrom::Newest(0) { 0 } else { page_bytes_max };
        let Reader { room: index, at, connection: id } = reader;
        let room = self.rooms.reference(index);
        let Room { name, members, .. } = &mut self.rooms[index];
        if bytes_max > 0 && (connection.awaits_page() || connection.queued_bytes() > page_bytes_max) {
            return members.set_step(at, CatchUpStep::Output);
        }
        if bytes_max > 0 {
            connection.await_page();
        }
        let owner = connection.owner;
        let ticket = self.pending.read(AskedPage { connection: id, owner, room, bytes_max }, name.clone(), from);
        members.set_step(at, CatchUpStep::Page { ticket, pin });
        if pin.is_some() {
            self.rooms.note_holder(index);
        }
    }

    /// The time has come for a member that was to ask again.
    pub(super) fn retry_catch_up(&mut self, now: Now, room: RoomRef, id: ConnectionId) {
        let reader = self.rooms.find(room).and_then(|index| Reader::find(&self.connections, index, id));
        let Some(Reader { room: index, at, .. }) = reader else { return };
        if self.rooms[index].members.step(Place::CatchingUp(at)) == Some(CatchUpStep::Retry) {
            self.continue_catch_up(now, index, id);
        }
    }

    pub(super) fn handle_page(&mut self, now: Now, ticket: Ticket, page: Result<Page, BusRefusal>) {
        let (id, room, bytes_max) = match self.pending.take(ticket) {
            Some(Asked::Page(AskedPage { connection, room, bytes_max, .. })) => (connection, room, bytes_max),
            Some(Asked::Position) => return self.handle_position(ticket, page),
            Some(Asked::History(reader)) => return self.answer_history(now, (ticket, reader), page),
            Some(Asked::PurgePage(purge)) => return self.handle_purge_page(now, purge, page),
            Some(Asked::Publication(_) | Asked::Restriction(_) | Asked::PurgeStep(_)) | None => return,
        };
        if bytes_max > 0
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.stop_awaiting_page();
            // Another of its rooms may have waited for this page.
            self.scheduler.note_resumed(id);
        }
        let reader = self.rooms.find(room).and_then(|index| Reader::find(&self.connections, index, id));
        let Some(reader) = reader else { return };
        let Some(member) = self.rooms[reader.room].members.catch_up(reader.at) else { return };
        let pin = match member.step {
            CatchUpStep::Page { ticket: awaited, pin } if awaited == ticket => pin,
            _ => return,
        };
        let next = match page {
            Ok(page) => self.read_page(reader, pin, &page),
            Err(refusal) if !member.has_joined() => return self.refuse_join(now, reader, refusal),
            Err(_) => NextStep::AskLater,
        };
        match next {
            NextStep::GoLive(pin) => self.go_live_if_drained(now, reader, pin),
            NextStep::Ask => self.continue_catch_up(now, reader.room, id),
            NextStep::AskLater => {
                self.rooms[reader.room].members.set_step(reader.at, CatchUpStep::Retry);
                self.timers.start(now, RETRY, Timer::CatchUp { room, connection: id });
            }
        }
    }

    /// Sends a member what it wants of a page.
    fn read_page(&mut self, reader: Reader, pin: Option<Pin>, page: &Page) -> NextStep {
        let Reader { room: index, at, connection: id } = reader;
        let Room { position, members, fanout, .. } = &mut self.rooms[index];
        if let Position::Unknown = position {
            *position = Position::At { epoch: page.epoch.clone(), delivered: page.top };
        }
        let (Position::At { epoch, delivered }, Some(member)) = (position, members.catch_up_mut(at)) else {
            return NextStep::AskLater;
        };
        if page.epoch != *epoch {
            // A change of epoch is under way and will be told.
            return NextStep::AskLater;
        }
        let pin = pin.unwrap_or(Pin { offset: fanout.tail(), seq: *delivered });
        let next = member.check_page(page, epoch, pin);
        self.tell_void(reader);
        if let Some(next) = next {
            return next;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            for message in page.messages.iter().take_while(|message| message.seq <= pin.seq) {
                self.out.outbox.chat(id, connection, &message.body, message.seq);
            }
        }
        let member = self.rooms[index].members.catch_up_mut(at);
        member.map_or(NextStep::AskLater, |member| member.advance(page, pin))
    }

    /// Tells a member that joins that what it has been sent so far counts no more: what follows does not continue it.
    /// Without that a client would take the numbers of a new epoch for ones that it has.
    ///
    /// It is told when a page has come, and a connection awaits one at a time, behind little output. So its rooms tell it one after
    /// another, as fast as it reads, however many epochs end.
    fn tell_void(&mut self, reader: Reader) {
        let Some(member) = self.rooms[reader.room].members.catch_up_mut(reader.at) else { return };
        if member.shown != Shown::Void {
            return;
        }
        member.shown = Shown::Nothing;
        let CatchUpReason::Join { resumes, .. } = &mut member.reason else { return };
        *resumes = true;
        let joined = Joined { seq: 0, recovered: Some(false), message_id: None };
        self.write_joined(reader.room, reader.connection, &joined);
    }

    /// The bus gives no history to a member that joins.
    fn refuse_join(&mut self, now: Now, reader: Reader, refusal: BusRefusal) {
        let Reader { room: index, connection: id, .. } = reader;
        let name = self.rooms[index].name.clone();
        let former = self.remove_member(now, id.slot, index, Parting::Left);
        let message_id = former.and_then(|member| member.join_id());
        let reply = ErrorReply::new(refusal.code(), refusal.message);
        self.out.error(&mut self.connections, id, reply.about(Some(name.as_str()), message_id.as_deref()));
    }

    /// A member has everything up to `pin`, and goes live if its own output has room for a list of users. A client that joins
    /// many rooms at once is owed more lists than its output may hold, and reads them as fast as it can.
    fn go_live_if_drained(&mut self, now: Now, reader: Reader, pin: Pin) {
        let queued_bytes = self.connections.get(reader.connection).map_or(0, Connection::queued_bytes);
        if queued_bytes > self.settings.net.page_bytes_max() {
            return self.rooms[reader.room].members.set_step(reader.at, CatchUpStep::Output);
        }
        self.go_live(now, reader, pin);
    }

    /// A member has everything up to `pin`: in one step it is told where it is and reads the log from there.
    fn go_live(&mut self, now: Now, reader: Reader, pin: Pin) {
        let Reader { room: index, at, connection: id } = reader;
        let Some((member, live)) = self.rooms.go_live(index, at, pin.offset, &mut self.connections) else { return };
        let Room { members, fanout, .. } = &mut self.rooms[index];
        let is_leaving = members.is_leaving(id.slot);
        if pin.offset != fanout.tail() {
            // Rounds count on all members having been level when they began; this one is served by itself.
            members.block(live);
            self.rooms.note_holder(index);
            self.scheduler.note_drained(id);
        }
        if !is_leaving || member.gap {
            self.say_joined(index, &member, pin.seq);
        }
        self.rooms.trim_log(index);
        if is_leaving {
            self.finish_leaving(now, index, id.slot);
            return;
        }
        if let CatchUpReason::Join { .. } = member.reason
            && let Some(connection) = self.connections.get(id)
        {
            let mover = Mover { user: connection.user, owner: connection.owner };
            let (name, user_id) = (&self.rooms[index].name, self.users.id(mover.user));
            self.out.notices.push(|| Notice::Joined { connection: id, user: user_id.clone(), room: name.clone() });
            self.add_presence(now, index, mover);
        }
    }

    fn say_joined(&mut self, index: RoomIndex, member: &CatchUp, seq: u64) {
        let (recovered, message_id) = match &member.reason {
            CatchUpReason::Join { id, resumes, .. } => (resumes.then_some(!member.gap), id.as_deref()),
            CatchUpReason::FellBack => (Some(!member.gap), None),
        };
        self.write_joined(index, member.connection, &Joined { seq, recovered, message_id });
    }

    fn write_joined(&mut self, index: RoomIndex, to: ConnectionId, told: &Joined<'_>) {
        let room = &self.rooms[index];
        let listed = room.users.list(&self.users);
        let joined = ServerMessage::Joined {
            room: room.name.as_str(),
            epoch: room.position.epoch_text(),
            seq: told.seq,
            recovered: told.recovered,
            count: room.users.len(),
            users: listed.as_deref(),
            id: told.message_id,
        };
        let said_before = self.out.outbox.len();
        self.out.say(&mut self.connections, to, &joined);
        self.work += units(0, self.out.outbox.len() - said_before);
    }
}

#[cfg(test)]
mod tests;
