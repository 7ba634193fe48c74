//! From the bus into the rooms' logs, and how a log that is full gets room.

use bytes::Bytes;

use crate::bus::message::{BusEvent, Numbered, ReadFrom};
use crate::id::{Epoch, RoomName};
use crate::protocol::{self, ServerMessage};
use crate::room_log::Offset;
use crate::time::Now;

use super::Hub;
use super::connection::Place;
use super::notice::Notice;
use super::presence::list_users;
use super::room::{CatchUp, CatchUpReason, CatchUpStep, Position, Room, Shown, Waiting};
use super::users::Users;

/// How many empty buffers are kept for logs to come, and how large one may be to be kept.
const BUFFERS_KEPT_MAX: usize = 4;
const BUFFER_KEPT_BYTES_MAX: usize = 256 * 1024;

impl Hub {
    /// The bus has something.
    pub fn handle_bus_event(&mut self, now: Now, event: BusEvent) {
        match event {
            BusEvent::Published { ticket, outcome } => self.handle_published(now, ticket, outcome),
            BusEvent::Page { ticket, page } => self.handle_page(now, ticket, page),
            BusEvent::Delivered { room, message } if room.is_moderation() => self.handle_command(now, &message),
            BusEvent::Delivered { room, message } => self.handle_delivered(now, &room, message),
            BusEvent::EpochChanged { room, top, .. } if room.is_moderation() => self.handle_commands_lost(top),
            BusEvent::EpochChanged { room, epoch, top } => self.handle_epoch_changed(now, &room, epoch, top),
            BusEvent::Presence { room, change } => self.handle_presence_elsewhere(now, &room, &change),
            BusEvent::Typing { room, user, status } => self.handle_typing_elsewhere(now, &room, &user, status),
        }
    }

    fn handle_delivered(&mut self, now: Now, name: &RoomName, message: Numbered) {
        let Some(index) = self.room_named(name.as_str()) else { return };
        let Numbered { seq, body } = message;
        let Position::At { epoch, delivered } = &mut self.rooms[index as usize].position else {
            // The first page is going to know it.
            return;
        };
        if seq <= *delivered {
            return;
        }
        if seq > *delivered + 1 {
            log::error!("bus broke its promise: {seq} delivered in room {name} after {delivered}");
            let epoch = epoch.clone();
            self.handle_epoch_changed(now, name, epoch, seq - 1);
        }
        self.stats.messages_delivered += 1;
        let bytes = protocol::chat_frame_bytes(&body, seq);
        self.append(now, index, Some(seq), bytes, |out| protocol::append_chat(out, &body, seq));
        // Not before: whom the append made fall back has yet to read this message from history.
        if let Some(Position::At { delivered, .. }) = self.rooms.get_mut(index as usize).map(|room| &mut room.position)
        {
            *delivered = seq;
        }
        self.notices.push(|| Notice::Chat { room: name.clone(), seq, json: chat_json(&body, seq) });
    }

    fn handle_epoch_changed(&mut self, now: Now, name: &RoomName, epoch: Epoch, top: u64) {
        let Some(index) = self.room_named(name.as_str()) else { return };
        let room = &mut self.rooms[index as usize];
        if matches!(room.position, Position::Unknown) {
            return;
        }
        room.position = Position::At { epoch, delivered: top };
        room.drop_pins();
        room.epoch_began = room.has_readers().then(|| room.log.tail());
        for member in &mut room.catching_up {
            if matches!(member.reason, CatchUpReason::FellBack) {
                (member.hole, member.epoch, member.from) = (true, None, ReadFrom::Newest(0));
            }
        }
        self.append_event(now, index, |out, room, users| {
            let listed = list_users(room, users);
            let message = ServerMessage::Joined {
                room: room.name.as_str(),
                epoch: room.epoch().map_or("", Epoch::as_str),
                seq: room.delivered().unwrap_or(0),
                recovered: Some(false),
                count: room.users.len(),
                users: listed.as_deref(),
                id: None,
            };
            message.append_frame(out);
        });
    }

    /// Appends a message that has no number to a room's log.
    pub(super) fn append_event(&mut self, now: Now, index: u32, write: impl FnOnce(&mut Vec<u8>, &Room, &Users)) {
        if !self.rooms[index as usize].has_readers() {
            return;
        }
        let mut frame = Vec::with_capacity(256);
        write(&mut frame, &self.rooms[index as usize], &self.users);
        self.append(now, index, None, frame.len(), |out| out.extend_from_slice(&frame));
    }

    fn append(&mut self, now: Now, index: u32, seq: Option<u64>, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        // Who joins later starts at the tail: without readers there is nothing to keep.
        if !self.rooms[index as usize].has_readers() {
            return;
        }
        if !self.has_space(index, bytes) {
            self.make_room(now, index, bytes);
            if !self.rooms[index as usize].has_readers() {
                return;
            }
        }
        let room = &mut self.rooms[index as usize];
        if !room.log.has_buffer()
            && let Some(buffer) = self.buffers.pop()
        {
            room.log.lend_buffer(buffer);
        }
        let before = room.log.len();
        match seq {
            Some(seq) => room.log.append_numbered(seq, bytes, write),
            None => room.log.append(bytes, write),
        }
        let appended = room.log.len() - before;
        debug_assert!(appended == bytes, "a frame of {appended} bytes was announced with {bytes}");
        self.log_bytes += appended;
        self.stats.appended_bytes += appended as u64;
        self.enqueue(now, index);
        self.limit_batch_delays(index);
    }

    /// Puts a room into the list of those to be flushed, once its batch delay is over.
    pub(super) fn enqueue(&mut self, now: Now, index: u32) {
        if self.rooms[index as usize].waiting == Waiting::Nowhere && !self.delay_round(now, index) {
            self.rooms[index as usize].waiting = Waiting::Dirty;
            self.dirty.push_back(index);
        }
    }

    /// Whether a room's log may grow by so much.
    pub(super) fn has_space(&self, index: u32, bytes: usize) -> bool {
        let room = &self.rooms[index as usize];
        room.log.len() + bytes <= self.limits.log_bytes_max && self.log_bytes + bytes <= self.limits.log_bytes_total_max
    }

    /// Frees what laggards hold, by letting them fall back to history; says whether so many bytes fit now.
    pub(super) fn make_room_from_laggards(&mut self, index: u32, bytes: usize) -> bool {
        if self.has_space(index, bytes) {
            return true;
        }
        self.drop_laggards(index);
        if self.log_bytes + bytes > self.limits.log_bytes_total_max {
            // Rooms in which nothing is said hold memory too.
            let all: Vec<u32> = self.rooms.iter().map(|(index, _)| index as u32).collect();
            all.into_iter().for_each(|index| self.drop_laggards(index));
        }
        self.has_space(index, bytes)
    }

    /// Frees space for something that must be delivered: if need be, whoever the running round has not reached yet
    /// falls back as well.
    fn make_room(&mut self, now: Now, index: u32, bytes: usize) {
        if self.make_room_from_laggards(index, bytes) {
            return;
        }
        let room = &mut self.rooms[index as usize];
        room.round = None;
        room.floor = room.log.tail();
        for place in (0..self.rooms[index as usize].live.len() as u32).rev() {
            let room = &self.rooms[index as usize];
            let member = room.live[place as usize];
            if member.cursor != room.log.tail() {
                let id = self.connections.id(member.slot());
                self.fall_back(index, place);
                self.drained.push_back(id);
            }
        }
        self.settle(index);
        self.finish_leaving(now, index);
    }

    fn drop_laggards(&mut self, index: u32) {
        let room = &mut self.rooms[index as usize];
        if room.log.is_empty() {
            return;
        }
        room.drop_pins();
        while let Some(slot) = self.rooms[index as usize].laggards.last().copied() {
            match self.connections.member(slot).place_in(index) {
                Some(Place::Live(place)) => self.fall_back(index, place),
                _ => unreachable!("a laggard is a live member"),
            }
        }
        self.settle(index);
    }

    /// A live member gives up its place in the log and reads history instead, at its own speed.
    fn fall_back(&mut self, index: u32, place: u32) {
        let member = self.remove_live(index, place);
        let room = &mut self.rooms[index as usize];
        let (log, delivered) = (&room.log, room.delivered().unwrap_or(0));
        let front = log.front();
        // Who stands right where the epoch began has not been told of it yet.
        let is_of_older_epoch = |began: Offset| front.behind(member.cursor) <= front.behind(began);
        let hole = room.epoch_began.is_some_and(is_of_older_epoch);
        let next = log.next_seq(member.cursor).unwrap_or(delivered + 1);
        let catching_up = CatchUp {
            slot: member.slot(),
            reason: CatchUpReason::FellBack,
            epoch: room.epoch().cloned(),
            // What it has not seen of the old epoch is gone, and it has not asked for history of the new one.
            from: if hole { ReadFrom::Newest(0) } else { ReadFrom::After(next - 1) },
            hole,
            shown: Shown::Nothing,
            step: CatchUpStep::Output,
        };
        let place = Place::CatchingUp(room.catching_up.len() as u32);
        room.catching_up.push(catching_up);
        self.connections.member_mut(member.slot()).set_place(index, place);
        self.stats.fallbacks += 1;
    }

    /// Drops what no member needs any more from a room's log.
    pub(super) fn settle(&mut self, index: u32) {
        let room = &mut self.rooms[index as usize];
        if room.log.is_empty() {
            return;
        }
        let (front, tail) = (room.log.front(), room.log.tail());
        if room.live.is_empty() {
            // A round over nobody is over: later it would take the floor back to before the front.
            (room.round, room.floor) = (None, tail);
        }
        let mut lowest = room.floor;
        for slot in &room.laggards {
            if let Some(Place::Live(place)) = self.connections.member(*slot).place_in(index) {
                lowest = lowest.earlier(room.live[place as usize].cursor, front);
            }
        }
        for pin in room.pins() {
            lowest = lowest.earlier(pin, front);
        }
        let before = room.log.len();
        room.log.drop_front(lowest);
        self.log_bytes -= before - room.log.len();
        if room.epoch_began.is_some_and(|began| front.behind(began) < front.behind(lowest)) {
            room.epoch_began = None;
        }
        if room.log.is_empty()
            && let Some(buffer) = room.log.take_buffer()
            && self.buffers.len() < BUFFERS_KEPT_MAX
            && buffer.capacity() <= BUFFER_KEPT_BYTES_MAX
        {
            self.buffers.push(buffer);
        }
    }
}

/// The JSON of a chat message, as members see it.
fn chat_json(body: &[u8], seq: u64) -> Bytes {
    let mut frame = Vec::with_capacity(body.len() + 40);
    protocol::append_chat(&mut frame, body, seq);
    let header_bytes = crate::frame::Head::parse(&frame).map_or(0, |head| head.header_bytes);
    Bytes::from(frame).slice(header_bytes..)
}
