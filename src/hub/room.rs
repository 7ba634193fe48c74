//! A room: its log, its members, and its users.

use crate::id::{Epoch, RoomName, Slot};
use crate::owner::Owner;
use crate::protocol::ErrorCode;
use crate::settings::RuleIndex;

use super::error_reply::Refused;
use super::fanout::Fanout;
use super::index::Place;
use super::leaving::{AfterLeave, Rejoin};
use super::members::Members;
use super::reader::CatchUp;
use super::room_users::RoomUsers;
use super::schedule::Schedule;

/// What is known of a room's history.
#[derive(Clone, Debug)]
pub(super) enum Position {
    /// The bus has not answered yet.
    Unknown,
    /// The epoch, and the number of the last message delivered here.
    At { epoch: Epoch, delivered: u64 },
}

impl Position {
    pub(super) fn delivered(&self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::At { delivered, .. } => Some(*delivered),
        }
    }

    pub(super) fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Unknown => None,
            Self::At { epoch, .. } => Some(epoch),
        }
    }

    /// The epoch as members are told it, empty while it is unknown.
    pub(super) fn epoch_text(&self) -> &str {
        self.epoch().map_or("", Epoch::as_str)
    }
}

/// A room's place in a list that it may be in: four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HolderPlace(u32);

impl HolderPlace {
    /// The room is not in the list.
    pub(super) const NONE: Self = Self(u32::MAX);

    pub(super) fn new(place: usize) -> Self {
        Self(place as u32)
    }

    pub(super) fn index(self) -> Option<usize> {
        (self != Self::NONE).then_some(self.0 as usize)
    }
}

/// A room that something holds: a member, a grace, a publication under way, a question.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: RoomName,
    pub(super) generation: u32,
    /// The owner whose join opened it.
    pub(super) owner: Owner,
    pub(super) position: Position,
    pub(super) fanout: Fanout,
    pub(super) members: Members,
    pub(super) schedule: Schedule,
    /// Its place among the rooms whose logs may hold bytes for blocked members or pins.
    pub(super) holder_place: HolderPlace,
    pub(super) users: RoomUsers,
}

impl Room {
    pub(super) fn new((name, rule): (RoomName, RuleIndex), generation: u32, owner: Owner) -> Self {
        Self {
            name,
            generation,
            owner,
            position: Position::Unknown,
            fanout: Fanout::default(),
            members: Members::default(),
            schedule: Schedule::default(),
            holder_place: HolderPlace::NONE,
            users: RoomUsers::new(rule),
        }
    }

    /// The rule by which it has its limits.
    pub(super) fn rule(&self) -> RuleIndex {
        self.users.rule()
    }

    /// Whether nothing here speaks of the room any more.
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.fanout.reserved_bytes() == 0 && self.users.is_nobody_here()
    }

    /// A member joins again. That waits for a `leave` that is not answered yet, and is refused without one.
    pub(super) fn join_after_leave(&mut self, slot: Slot, request: Rejoin) -> Result<(), Refused> {
        match self.members.after_leave(slot) {
            Some(AfterLeave::Nothing) => {
                self.members.set_after_leave(slot, AfterLeave::Join(request));
                Ok(())
            }
            // One request waits behind a leave, not a chain of them.
            Some(AfterLeave::Leave(_)) => {
                Err((ErrorCode::RoomBusy, format!("still leaving room {}; try again later", self.name)))
            }
            Some(AfterLeave::Join(_)) | None => {
                Err((ErrorCode::AlreadyJoined, format!("already in room {}; leave it first to join again", self.name)))
            }
        }
    }

    /// Whether a member is owed something before its `leave` is answered.
    pub(super) fn owes(&self, place: Place) -> bool {
        match place {
            // Messages on their way to the bus, perhaps its own, are awaited, too: a copy is better than an `ack`.
            Place::Live(_) => !self.is_level(place) || self.fanout.reserved_bytes() > 0,
            Place::CatchingUp(at) => self.members.catch_up(at).is_some_and(CatchUp::has_joined),
        }
    }

    /// Whether a member has read the whole log.
    pub(super) fn is_level(&self, place: Place) -> bool {
        match place {
            Place::Live(at) => self.members.live(at).is_none_or(|member| member.cursor() == self.fanout.tail()),
            Place::CatchingUp(_) => false,
        }
    }

    /// Whether the log holds the message `seq` of the epoch that holds.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.position.delivered().is_some_and(|delivered| self.fanout.holds(seq, delivered))
    }

    /// Whether anybody will read what is appended now.
    pub(super) fn has_readers(&self) -> bool {
        self.members.has_live() || self.members.has_pins()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_room_is_small() {
        let bytes = std::mem::size_of::<Room>();
        assert!(bytes <= 232, "{bytes} bytes");
    }
}
