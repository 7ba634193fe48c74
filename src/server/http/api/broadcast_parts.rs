//! Broadcasts under way: what became of the message in each of the rooms.

use std::collections::HashMap;

use serde::Serialize;
use slab::Slab;

use super::answer::{ErrorDetail, to_json};
use crate::bus::message::{Outcome, Ticket};
use crate::hub::Refused;
use crate::id::{ConnectionId, RoomName};

/// A message for several rooms, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct BroadcastParts {
    rooms: Vec<(RoomName, Part)>,
    /// For so many rooms the bus has yet to answer.
    asked: usize,
}

/// What became of the message in one room.
#[derive(Debug)]
enum Part {
    Asked(Ticket),
    Said { seq: u64, duplicate: bool },
    Refused(Refused),
}

/// The answer to a broadcast that was said somewhere, or refused for several reasons.
pub(super) struct BroadcastAnswer {
    pub(super) body: Vec<u8>,
    /// Whether an earlier request has said all of it.
    pub(super) duplicate: bool,
}

#[derive(Serialize)]
struct Broadcast<'a> {
    rooms: Vec<RoomOutcome<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RoomOutcome<'a> {
    Said { room: &'a str, seq: u64, duplicate: bool },
    Refused { room: &'a str, error: ErrorDetail<'a> },
}

impl Part {
    fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            Self::Asked(_) | Self::Said { .. } => None,
        }
    }

    /// Whether nothing new was said, and what the caller is told.
    fn view<'a>(&'a self, room: &'a str) -> Option<(bool, RoomOutcome<'a>)> {
        match self {
            Self::Asked(_) => None,
            Self::Said { seq, duplicate } => {
                Some((*duplicate, RoomOutcome::Said { room, seq: *seq, duplicate: *duplicate }))
            }
            Self::Refused((code, message)) => {
                Some((true, RoomOutcome::Refused { room, error: ErrorDetail::new(*code, message) }))
            }
        }
    }
}

impl BroadcastParts {
    pub(super) fn push(&mut self, room: RoomName, asked: Result<Ticket, Refused>) {
        self.asked += usize::from(asked.is_ok());
        self.rooms.push((room, asked.map_or_else(Part::Refused, Part::Asked)));
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether the bus has answered for all rooms.
    pub(super) fn is_complete(&self) -> bool {
        self.asked == 0
    }

    /// What the caller is told.
    ///
    /// # Errors
    /// The refusal, if all rooms have the same.
    pub(super) fn answer(self) -> Result<BroadcastAnswer, Refused> {
        if let Some((code, message)) = self.rooms.first().and_then(|(_, part)| part.refusal())
            && self.rooms.iter().all(|(_, part)| part.refusal().is_some_and(|(other, _)| other == code))
        {
            return Err((*code, message.clone()));
        }
        let views = self.rooms.iter().filter_map(|(room, part)| part.view(room.as_str()));
        let (duplicates, rooms): (Vec<_>, Vec<_>) = views.unzip();
        let duplicate = duplicates.iter().all(|duplicate| *duplicate);
        Ok(BroadcastAnswer { body: to_json(&Broadcast { rooms }), duplicate })
    }
}

/// See the [module](self). They wait for as many tickets as there may be publications at most.
#[derive(Debug, Default)]
pub(super) struct OpenBroadcasts {
    open: Slab<(ConnectionId, BroadcastParts)>,
    /// The broadcast and the place in its list of the room for which the bus was asked.
    tickets: HashMap<Ticket, (usize, usize)>,
}

impl OpenBroadcasts {
    pub(super) fn insert(&mut self, connection: ConnectionId, parts: BroadcastParts) {
        let key = self.open.vacant_key();
        for (place, (_, part)) in parts.rooms.iter().enumerate() {
            if let Part::Asked(ticket) = part {
                self.tickets.insert(*ticket, (key, place));
            }
        }
        self.open.insert((connection, parts));
    }

    /// The bus has answered. Returns the broadcast and its connection if that was the last answer for it.
    pub(super) fn finish(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<(ConnectionId, BroadcastParts)> {
        let (key, place) = self.tickets.remove(&ticket)?;
        let (_, parts) = self.open.get_mut(key)?;
        parts.rooms.get_mut(place)?.1 = match *outcome {
            Outcome::Accepted(seq) | Outcome::AcceptedUnseen(seq) => Part::Said { seq, duplicate: false },
            Outcome::Duplicate(seq) => Part::Said { seq, duplicate: true },
            Outcome::Refused(refusal) => Part::Refused((refusal.code(), refusal.message.to_owned())),
        };
        parts.asked -= 1;
        parts.is_complete().then(|| self.open.remove(key))
    }
}
