//! The events of the bus, by which everything that the hub tells its members is measured.

use std::collections::BTreeMap;

use roomcast::RoomName;
use roomcast::bus::Epoch;
use roomcast::bus::{BusEvent, Numbered};
use roomcast::internals::protocol;

use super::transport::text_payload;

/// A place in a room's history: which life of it, counted from 0, and the number of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) epoch: usize,
    pub(crate) seq: u64,
}

impl Position {
    pub(crate) fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }
}

#[derive(Debug, Default)]
struct RoomTruth {
    epochs: Vec<Life>,
    is_open: bool,
    /// Where the deliveries stand since the room was opened.
    live: Option<Position>,
}

#[derive(Debug)]
struct Life {
    epoch: String,
    frames: BTreeMap<u64, Vec<u8>>,
    /// What history has in place of deleted messages.
    tombstones: BTreeMap<u64, Vec<u8>>,
}

/// All rooms' messages.
#[derive(Debug)]
pub(crate) struct Truth {
    rooms: Vec<RoomTruth>,
}

/// The number of a room, from its name: `r0`, `r1` …
pub(crate) fn room_number(name: &str) -> usize {
    name.strip_prefix('r').and_then(|number| number.parse().ok()).expect("rooms are named by number")
}

pub(crate) fn room_name(number: usize) -> RoomName {
    RoomName::new(&format!("r{number}")).expect("a room name")
}

impl Truth {
    pub(crate) fn new(rooms: usize) -> Self {
        Self { rooms: (0..rooms).map(|_| RoomTruth::default()).collect() }
    }

    /// The room is opened: where it stands has to be learned anew.
    pub(crate) fn open(&mut self, room: usize) {
        (self.rooms[room].is_open, self.rooms[room].live) = (true, None);
    }

    pub(crate) fn close(&mut self, room: usize) {
        (self.rooms[room].is_open, self.rooms[room].live) = (false, None);
    }

    pub(crate) fn is_open(&self, room: usize) -> bool {
        self.rooms[room].is_open
    }

    pub(crate) fn observe(&mut self, room: usize, event: &BusEvent) {
        match event {
            BusEvent::Published { .. }
            | BusEvent::Page { page: Err(_), .. }
            | BusEvent::Presence { .. }
            | BusEvent::PresenceChecked(_)
            | BusEvent::Control(_)
            | BusEvent::ControlLost { .. }
            | BusEvent::Restrictions(_)
            | BusEvent::Signal(_) => {}
            BusEvent::Page { page: Ok(page), .. } => {
                let epoch = self.epoch(room, page.epoch.as_str());
                for message in &page.messages {
                    self.record(room, epoch, message);
                }
                // An answer that comes after the room was closed says nothing of the time after.
                if self.rooms[room].is_open {
                    self.rooms[room].live.get_or_insert(Position { epoch, seq: page.top });
                }
            }
            BusEvent::Delivered { message, .. } => {
                let Some(live) = self.rooms[room].live else { return };
                self.record(room, live.epoch, message);
                self.rooms[room].live = Some(Position { seq: live.seq.max(message.seq), ..live });
            }
            BusEvent::EpochChanged { epoch, top, .. } => {
                debug_assert!(self.rooms[room].is_open, "the bus speaks of a closed room");
                let epoch = self.epoch(room, epoch.as_str());
                self.rooms[room].live = Some(Position { epoch, seq: *top });
            }
        }
    }

    fn record(&mut self, room: usize, epoch: usize, message: &Numbered) {
        let mut frame = Vec::new();
        protocol::append_chat(&mut frame, &message.body, message.seq);
        let life = &mut self.rooms[room].epochs[epoch];
        if is_tombstone(&frame) {
            life.tombstones.insert(message.seq, frame);
            return;
        }
        let known = life.frames.entry(message.seq).or_insert_with(|| frame.clone());
        assert!(*known == frame, "the bus has two messages {} in epoch {} of r{room}", message.seq, life.epoch);
    }

    /// The number of an epoch, from its text.
    pub(crate) fn epoch(&mut self, room: usize, text: &str) -> usize {
        let epochs = &mut self.rooms[room].epochs;
        epochs.iter().position(|life| life.epoch == text).unwrap_or_else(|| {
            epochs.push(Life { epoch: text.to_owned(), frames: BTreeMap::new(), tombstones: BTreeMap::new() });
            epochs.len() - 1
        })
    }

    /// The text of an epoch.
    pub(crate) fn epoch_of(&self, room: usize, position: Position) -> Epoch {
        Epoch::new(&self.rooms[room].epochs[position.epoch].epoch)
    }

    /// Which message of a room a chat frame is. No two have the same text, so there is at most one.
    pub(crate) fn identify(&self, room: usize, seq: u64, frame: &[u8]) -> Option<Position> {
        let lives = self.rooms[room].epochs.iter().enumerate().rev();
        let mut found = lives.filter(|(_, life)| life.frames.get(&seq).is_some_and(|known| known == frame));
        found.next().map(|(epoch, _)| Position { epoch, seq })
    }

    /// Which deleted message a tombstone stands for. Those of two epochs may be equal, so that the client's own goes first.
    pub(crate) fn identify_tombstone(
        &self,
        room: usize,
        (seq, frame): (u64, &[u8]),
        epoch: Option<usize>,
    ) -> Option<Position> {
        let is_in = |epoch: usize| {
            let life = self.rooms[room].epochs.get(epoch);
            life.is_some_and(|life| life.tombstones.get(&seq).is_some_and(|known| known == frame))
        };
        let epochs = (0..self.rooms[room].epochs.len()).rev();
        epoch.into_iter().chain(epochs).find(|epoch| is_in(*epoch)).map(|epoch| Position { epoch, seq })
    }

    /// Whether an entry of a room is what the bus has at a position.
    pub(crate) fn is_said(&self, room: usize, at: Position, message: &str) -> bool {
        let life = &self.rooms[room].epochs[at.epoch];
        let known = [life.frames.get(&at.seq), life.tombstones.get(&at.seq)];
        known.into_iter().flatten().any(|frame| text_payload(frame) == Ok(message))
    }

    /// Where deliveries stand, if the room is open and known.
    pub(crate) fn live(&self, room: usize) -> Option<Position> {
        self.rooms[room].live
    }
}

/// Whether a frame stands for a deleted message.
pub(crate) fn is_tombstone(frame: &[u8]) -> bool {
    let text = super::transport::text_payload(frame).unwrap_or_default();
    text.starts_with(r#"{"type":"deleted""#) && !text.contains(r#","deletes":"#)
}
