//! From the bus into the rooms' logs, and how a log that is full gets space.

use bytes::Bytes;

use crate::budget::units;
use crate::bus::message::{BusEvent, Numbered};
use crate::id::{Epoch, RoomName};
use crate::owner::Owner;
use crate::protocol::{self, ServerMessage};
use crate::time::Now;

use super::Hub;
use super::fanout::FrameSize;
use super::index::{LiveIndex, RoomIndex};
use super::moderation::Moderator;
use super::notice::Notice;
use super::room::{Position, Room};
use super::users::Users;

impl Hub {
    /// The bus has something.
    pub fn handle_bus_event(&mut self, now: Now, event: BusEvent) {
        match event {
            BusEvent::Published { ticket, outcome } => self.handle_published(now, ticket, outcome),
            BusEvent::Page { ticket, page } => self.handle_page(now, ticket, page),
            BusEvent::Delivered { room, message, owner } => {
                self.handle_delivered(now, &room, message, owner.unwrap_or(Owner::OTHERS));
            }
            BusEvent::EpochChanged { room, epoch, top } => self.handle_epoch_changed(now, &room, epoch, top),
            BusEvent::Control(message) => self.handle_command(now, &message),
            BusEvent::ControlLost { .. } => Moderator::note_lost(),
            BusEvent::Restrictions(page) => self.handle_restrictions(now, page),
            BusEvent::Presence { room, change } => self.handle_presence_elsewhere(now, &room, &change),
            BusEvent::PresenceChecked(room) => self.handle_presence_checked(&room),
            BusEvent::Signal(signal) => self.handle_signal_elsewhere(now, &signal),
        }
    }

    fn handle_delivered(&mut self, now: Now, name: &RoomName, message: Numbered, owner: Owner) {
        let Some(index) = self.rooms.named(name.as_str()) else { return };
        let Numbered { seq, body } = message;
        let Position::At { epoch, delivered } = &mut self.rooms[index].position else {
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
        let frame = FrameSize { seq: Some(seq), bytes: protocol::chat_frame_bytes(&body, seq) };
        self.append(now, (index, owner), frame, |out| protocol::append_chat(out, &body, seq));
        // Not before: a member that the append made fall back has yet to read this message from history.
        self.rooms.note_delivered(index, seq);
        self.out.notices.push(|| match protocol::is_deletion(&body) {
            true => Notice::Deleted { room: name.clone(), seq, deletes: protocol::read_deletes(&body) },
            false => Notice::Chat { room: name.clone(), seq, json: chat_json(&body, seq) },
        });
    }

    fn handle_epoch_changed(&mut self, now: Now, name: &RoomName, epoch: Epoch, top: u64) {
        let Some(index) = self.rooms.named(name.as_str()) else { return };
        let room = &mut self.rooms[index];
        if matches!(room.position, Position::Unknown) {
            return;
        }
        room.position = Position::At { epoch, delivered: top };
        room.members.drop_pins();
        let has_readers = room.has_readers();
        room.fanout.begin_epoch(has_readers);
        room.members.lose_epoch();
        self.append_event(now, (index, Owner::OTHERS), |out, room, users| {
            let listed = room.users.list(users);
            let message = ServerMessage::Joined {
                room: room.name.as_str(),
                epoch: room.position.epoch_text(),
                seq: room.position.delivered().unwrap_or(0),
                recovered: Some(false),
                count: room.users.len(),
                users: listed.as_deref(),
                id: None,
            };
            message.append_frame(out);
        });
    }

    /// Appends a message that has no number to a room's log; an owner has caused it.
    pub(super) fn append_event(
        &mut self,
        now: Now,
        (index, owner): (RoomIndex, Owner),
        write: impl FnOnce(&mut Vec<u8>, &Room, &Users),
    ) {
        if !self.rooms[index].has_readers() {
            return;
        }
        let mut frame = Vec::with_capacity(256);
        write(&mut frame, &self.rooms[index], &self.users);
        self.work += units(0, frame.len());
        let size = FrameSize { seq: None, bytes: frame.len() };
        self.rooms.note_taken((index, owner), frame.len());
        self.append(now, (index, owner), size, |out| out.extend_from_slice(&frame));
    }

    fn append(
        &mut self,
        now: Now,
        (index, owner): (RoomIndex, Owner),
        frame: FrameSize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        // Members that join later start at the tail: without readers there is nothing to keep.
        if !self.rooms[index].has_readers() {
            return;
        }
        self.work += self.rooms.make_log_space(index, (0, frame.bytes), &mut self.connections);
        if !self.rooms.has_space(index, frame.bytes) {
            self.force_log_space(index);
        }
        if !self.rooms[index].has_readers() {
            return;
        }
        self.rooms.append(index, frame, write);
        self.scheduler.enqueue(now, &mut self.rooms, (index, owner));
        self.scheduler.limit_delays(&mut self.rooms, index);
    }

    /// Frees space for something that must be delivered, though nobody holds the log any more: members that the running round has
    /// not reached yet fall back as well.
    ///
    /// Members that leave are left for the round that follows: if one of them went now, it could be the last, and the room
    /// would end while something is announced in it.
    fn force_log_space(&mut self, index: RoomIndex) {
        let room = &mut self.rooms[index];
        room.fanout.abandon_round();
        let tail = room.fanout.tail();
        for at in (0..self.rooms[index].members.live_count()).rev().map(LiveIndex) {
            // Falling back moves the last live member, which was looked at before, to this place.
            if self.rooms[index].members.live(at).is_some_and(|member| member.cursor() != tail)
                && let Some(id) = self.rooms.fall_back(index, at, &mut self.connections)
            {
                self.work += 1;
                self.scheduler.note_drained(id);
            }
        }
        self.rooms.trim_log(index);
    }
}

/// The JSON of a chat message, as members see it.
fn chat_json(body: &[u8], seq: u64) -> Bytes {
    let mut frame = Vec::with_capacity(body.len() + 40);
    protocol::append_chat(&mut frame, body, seq);
    let header_bytes = crate::frame::Head::parse(&frame).map_or(0, |head| head.header_bytes);
    Bytes::from(frame).slice(header_bytes..)
}
