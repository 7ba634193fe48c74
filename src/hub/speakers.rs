//! Who may speak in a room by its rule, and how often.

use crate::bus::message::Outcome;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::protocol::{ChatRequest, ErrorCode};
use crate::rights::{Right, Rights};
use crate::settings::Speakers;
use crate::settings::declare::Unit;
use crate::time::Now;

use super::Hub;
use super::error_reply::{ErrorReply, Refused, require};
use super::index::RoomIndex;

impl Hub {
    /// What a connection may do in a room that is open. Joins and new tokens ask it, never messages.
    pub(super) fn rights_in(&self, id: ConnectionId, index: RoomIndex) -> Rights {
        let rights = self.credentials.rights(id, &self.rooms[index].name);
        match self.rooms.limits(index).speakers {
            Speakers::All => rights,
            Speakers::Granted if self.credentials.has_grants(id) => rights,
            Speakers::Granted | Speakers::Api => rights.silent(),
        }
    }

    /// Checks that the right to say something is among those that a connection has in a room.
    pub(super) fn require_say(&self, index: RoomIndex, rights: Rights) -> Result<(), Refused> {
        let room = &self.rooms[index].name;
        let speakers = match self.rooms.limits(index).speakers {
            Speakers::All => return require(rights, Right::Say, room.as_str()),
            _ if rights.has(Right::Say) => return Ok(()),
            Speakers::Granted => "only users to whom it is granted",
            Speakers::Api => "only back-ends",
        };
        Err((ErrorCode::Forbidden, format!("{speakers} may say something in room {room}")))
    }

    /// Refuses a message in a slow room if its user has spoken there too short a time ago. Says whether it did.
    pub(super) fn refuse_by_slow_mode(
        &mut self,
        now: Now,
        (id, index): (ConnectionId, RoomIndex),
        chat: &ChatRequest<'_>,
    ) -> bool {
        let slow = self.rooms.limits(index).slow;
        if slow.is_zero() {
            return false;
        }
        let Some(connection) = self.connections.get(id) else { return false };
        let (room, user) = (&self.rooms[index].name, self.users.id(connection.user));
        let Some(wait_millis) = self.slow_mode.wait_millis(now, room, user) else { return false };
        let slow = Unit::Time.write(slow.as_micros() as u64);
        let reason = format!("room {room} is slow: a user may send one message in {slow}");
        self.slow_mode.refused += 1;
        let reply = ErrorReply::new(ErrorCode::RateLimited, &reason).about(Some(room.as_str()), chat.id.as_deref());
        self.out.error(&mut self.connections, id, ErrorReply { retry_after_ms: Some(wait_millis), ..reply });
        true
    }

    /// A user's message is on its way to the bus.
    pub(super) fn note_speaker(&mut self, now: Now, index: RoomIndex, user: &UserId) {
        let slow = self.rooms.limits(index).slow;
        if !slow.is_zero() {
            self.slow_mode.note(now, (&self.rooms[index].name, user), slow);
        }
    }

    /// The bus has answered a user's message. One that it has refused does not count.
    pub(super) fn forgive_speaker(&mut self, now: Now, id: ConnectionId, (room, outcome): (&RoomName, &Outcome)) {
        if matches!(outcome, Outcome::Refused(_))
            && let Some(connection) = self.connections.get(id)
        {
            self.slow_mode.forgive(now, room, self.users.id(connection.user));
        }
    }
}
