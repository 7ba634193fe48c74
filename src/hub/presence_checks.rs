//! When it was known last who is in a room on other nodes. Asked only where a grace is over.

use crate::sharded_map::ShardedMap;
use crate::timer_wheel::Tick;

use super::index::RoomRef;

/// What is known of a room at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    /// Whoever was on other nodes then has been told.
    Known,
    /// The bus was asked and has not answered. Perhaps it was asked before that moment.
    Asked,
    /// The bus is to be asked.
    Wanted,
}

#[derive(Debug, Default)]
struct PresenceCheck {
    asked_at: Option<Tick>,
    known_at: Option<Tick>,
}

/// The rooms of which the bus was asked since they were opened.
///
/// **Bounds:** one entry for each open room, and one question for each under way.
#[derive(Debug, Default)]
pub(super) struct PresenceChecks {
    rooms: ShardedMap<RoomRef, PresenceCheck>,
}

impl PresenceChecks {
    /// What is known of the users of other nodes as of a moment.
    pub(super) fn look(&self, room: RoomRef, at: Tick) -> CheckState {
        match self.rooms.get(&room) {
            Some(check) if check.known_at.is_some_and(|known_at| known_at >= at) => CheckState::Known,
            Some(check) if check.asked_at.is_some() => CheckState::Asked,
            _ => CheckState::Wanted,
        }
    }

    /// The bus is asked.
    pub(super) fn ask(&mut self, room: RoomRef, now: Tick) {
        self.rooms.get_or_default(room).asked_at = Some(now);
    }

    /// The bus has answered.
    pub(super) fn answer(&mut self, room: RoomRef) {
        if let Some(check) = self.rooms.get_mut(&room)
            && let Some(asked_at) = check.asked_at.take()
        {
            check.known_at = Some(asked_at);
        }
    }

    /// The room has ended.
    pub(super) fn forget(&mut self, room: RoomRef) {
        self.rooms.remove(&room);
    }
}
