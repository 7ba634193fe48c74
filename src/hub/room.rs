//! A room: its log, who reads it live, who still catches up, and who is present.

use thin_vec::ThinVec;

use crate::bus::message::{ReadFrom, Ticket};
use crate::id::{Epoch, RoomName, Slot};
use crate::room_log::{Offset, RoomLog};

use super::attendance::Attendance;
use super::batch_delay::Deadline;

/// Names a room for as long as anything may speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoomRef {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A member that reads the log: eight bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveMember {
    slot_and_lag: u32,
    pub(super) cursor: Offset,
}

const LAGS: u32 = 1 << 31;

impl LiveMember {
    pub(super) fn new(slot: Slot, cursor: Offset) -> Self {
        debug_assert!(slot.0 < LAGS);
        Self { slot_and_lag: slot.0, cursor }
    }

    pub(super) fn slot(self) -> Slot {
        Slot(self.slot_and_lag & !LAGS)
    }

    /// Whether its socket refused bytes; then it is in the room's list of laggards and rounds pass it over.
    pub(super) fn lags(self) -> bool {
        self.slot_and_lag & LAGS != 0
    }

    pub(super) fn start_lagging(&mut self) {
        self.slot_and_lag |= LAGS;
    }

    pub(super) fn stop_lagging(&mut self) {
        self.slot_and_lag &= !LAGS;
    }
}

/// A member that reads history until it has reached what is delivered live.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) slot: Slot,
    pub(super) reason: CatchUpReason,
    /// The life of the history that `from` counts in, once known.
    pub(super) epoch: Option<Epoch>,
    pub(super) from: ReadFrom,
    /// Whether something that was asked for, or owed, is not in history any more.
    pub(super) hole: bool,
    pub(super) shown: Shown,
    pub(super) step: CatchUpStep,
}

/// What a member that joins has been sent of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Pages,
    /// Pages that the rest does not continue: the epoch has ended since, or history was cut off in between. The member has yet to be told.
    Void,
}

/// Why a member catches up.
#[derive(Debug)]
pub(super) enum CatchUpReason {
    /// It joins. It is not present yet.
    Join {
        id: Option<Box<str>>,
        /// Whether it is told whether it has missed something: because it asked to resume, or because its reading began anew.
        resumes: bool,
        /// How many of the newest messages it wants if it does not resume.
        history: u32,
    },
    /// It was live, and its socket refused bytes while the log needed the room.
    FellBack,
}

/// What a member that catches up waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchUpStep {
    /// Its own output to drain, or a page of another room to come into it.
    Output,
    /// The time to ask again.
    Retry,
    /// A page of history.
    Page { ticket: Ticket, pin: Option<Pin> },
}

/// Where the live log stood when a page was asked for: a reader who has everything up to `seq` continues at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) offset: Offset,
    pub(super) seq: u64,
}

/// A member that asked to leave while the log owed it something.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) slot: Slot,
    pub(super) id: Option<Box<str>>,
}

/// One pass over the live members, from the last to the first.
///
/// Walking downwards, `swap_remove` moves only members already served into places still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Members below this index are still to be served.
    pub(super) next: u32,
    /// Where the log ended when the round began: who is served stands there or further on.
    pub(super) end: Offset,
}

/// Where a room waits to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It has nothing to send.
    Nowhere,
    /// In the list of those whose turn comes, once.
    Dirty,
    /// Among those whose batch delay is not over, once.
    Delayed,
}

/// What is known of a room's history.
#[derive(Clone, Debug)]
pub(super) enum Position {
    /// The bus has not answered yet.
    Unknown,
    /// The life of the history, and the number of the last message delivered here.
    At { epoch: Epoch, delivered: u64 },
}

/// A room that something holds: a member, a grace, a publication under way.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: RoomName,
    pub(super) generation: u32,
    pub(super) position: Position,
    pub(super) log: RoomLog,
    pub(super) live: Vec<LiveMember>,
    // These three are empty in most rooms: one word each.
    pub(super) catching_up: ThinVec<CatchUp>,
    /// Slots of the live members whose sockets refused bytes.
    pub(super) laggards: ThinVec<Slot>,
    pub(super) leaving: ThinVec<Leaving>,
    pub(super) round: Option<Round>,
    /// No live member that does not lag stands before this.
    pub(super) floor: Offset,
    /// Whether the room waits to be flushed.
    pub(super) waiting: Waiting,
    /// Before this its next round does not begin, if there is a batch delay.
    pub(super) next_round_at: Option<Deadline>,
    pub(super) users: Attendance,
    /// Whether it has so many users that they are counted instead of named.
    pub(super) big: bool,
    /// Whether a `members` message is scheduled.
    pub(super) members_due: bool,
    /// Bytes promised to publications under way.
    pub(super) reserved_bytes: usize,
    /// Where the `joined` stands that tells of the present epoch, if somebody may still have to read it.
    pub(super) epoch_began: Option<Offset>,
}

/// Appends to a list of members: eight bytes each. It grows by six, then by half at a time: there are many short ones, so
/// that the spare room of doubling would add up. Odd numbers, because allocators round up to 16 bytes after adding eight of
/// their own; and two such lists of five leave the hole that one of eleven fills.
pub(super) fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(if list.is_empty() { 5 } else { (list.len() / 2).max(6) });
    }
    list.push(item);
}

impl Room {
    pub(super) fn new(name: RoomName, generation: u32) -> Self {
        Self {
            name,
            generation,
            position: Position::Unknown,
            log: RoomLog::default(),
            live: Vec::new(),
            catching_up: ThinVec::new(),
            laggards: ThinVec::new(),
            leaving: ThinVec::new(),
            round: None,
            floor: Offset::default(),
            waiting: Waiting::Nowhere,
            next_round_at: None,
            users: Attendance::default(),
            big: false,
            members_due: false,
            reserved_bytes: 0,
            epoch_began: None,
        }
    }

    pub(super) fn delivered(&self) -> Option<u64> {
        match &self.position {
            Position::Unknown => None,
            Position::At { delivered, .. } => Some(*delivered),
        }
    }

    pub(super) fn epoch(&self) -> Option<&Epoch> {
        match &self.position {
            Position::Unknown => None,
            Position::At { epoch, .. } => Some(epoch),
        }
    }

    /// Whether nothing here speaks of the room any more.
    pub(super) fn is_unused(&self) -> bool {
        let is_without_members = self.live.is_empty() && self.catching_up.is_empty();
        is_without_members && self.reserved_bytes == 0 && self.users.is_nobody_here()
    }

    /// Whether anybody will read what is appended now.
    pub(super) fn has_readers(&self) -> bool {
        !self.live.is_empty() || self.pins().next().is_some()
    }

    pub(super) fn pins(&self) -> impl Iterator<Item = Offset> {
        self.catching_up.iter().filter_map(|member| match member.step {
            CatchUpStep::Page { pin: Some(pin), .. } => Some(pin.offset),
            _ => None,
        })
    }

    /// Members that catch up lose their place in the log; they will read more pages instead.
    pub(super) fn drop_pins(&mut self) {
        for member in &mut self.catching_up {
            if let CatchUpStep::Page { pin, .. } = &mut member.step {
                *pin = None;
            }
        }
    }

    pub(super) fn stop_lagging(&mut self, index: u32) {
        let member = &mut self.live[index as usize];
        if member.lags() {
            member.stop_lagging();
            let slot = member.slot();
            self.laggards.retain(|laggard| *laggard != slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_room_is_small() {
        let bytes = std::mem::size_of::<Room>();
        assert!(bytes <= 216, "{bytes} bytes");
    }
}
