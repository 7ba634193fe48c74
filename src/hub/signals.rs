//! Signals: what a user shows a room for a moment. They are passed on, neither numbered nor kept, and the first to be shed.

use crate::bus::message::{BusRequest, Signal};
use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::protocol::{ServerMessage, SignalKind, TypingRequest, TypingStatus};
use crate::rights::Right;
use crate::time::Now;

use super::Hub;
use super::error_reply::{Refused, require};
use super::index::RoomIndex;

impl Hub {
    pub(super) fn handle_typing(
        &mut self,
        now: Now,
        id: ConnectionId,
        typing: &TypingRequest<'_>,
    ) -> Result<(), Refused> {
        let (index, rights) = self.rooms.joined(&self.connections, id, &typing.room)?;
        require(rights, Right::Typing, &typing.room)?;
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let owner = connection.owner;
        if self.mute_of(now, id, index).is_some() {
            // As all of them that are not shown.
            return Ok(());
        }
        if self.delivery_rates.check(now, owner).is_err() {
            // It is the first thing to be shed, and nobody is told.
            return Ok(());
        }
        let signal = Signal {
            room: self.rooms[index].name.clone(),
            user: self.users.id(connection.user).clone(),
            kind: SignalKind::Typing,
            body: typing.status.as_str().into(),
        };
        if self.append_signal(now, (index, owner), &signal) {
            self.pending.share(|| BusRequest::Signal(signal));
        }
        Ok(())
    }

    /// A user has given a signal on another node.
    pub(super) fn handle_signal_elsewhere(&mut self, now: Now, signal: &Signal) {
        if let Some(index) = self.rooms.named(signal.room.as_str()) {
            self.append_signal(now, (index, Owner::OTHERS), signal);
        }
    }

    /// Shows a signal to the members, unless their log needs the space for messages. Says whether it was shown.
    fn append_signal(&mut self, now: Now, (index, owner): (RoomIndex, Owner), signal: &Signal) -> bool {
        let room = &self.rooms[index];
        let is_crowded = room.fanout.log_bytes() > self.settings.hub.log_bytes_max / 4 || self.rooms.are_nearly_full();
        if room.users.are_counted() || is_crowded {
            return false;
        }
        let Some(message) = server_message(signal) else { return false };
        self.delivery_rates.charge(now, owner, room.members.live_count());
        self.append_event(now, (index, owner), |out, _, _| message.append_frame(out));
        true
    }
}

/// The message that shows a signal; none if another node's body is not one of its kind.
fn server_message(signal: &Signal) -> Option<ServerMessage<'_>> {
    let (room, user_id) = (signal.room.as_str(), signal.user.as_str());
    match signal.kind {
        SignalKind::Typing => {
            let status = TypingStatus::read(&signal.body)?;
            Some(ServerMessage::Typing { room, user_id, status })
        }
    }
}
