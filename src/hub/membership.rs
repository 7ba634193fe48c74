//! How connections come into rooms and leave them, and how rooms begin and end.

use crate::bus::message::{BusRequest, ReadFrom};
use crate::id::{ConnectionId, Epoch, RoomName, Slot};
use crate::protocol::{ErrorCode, JoinRequest, LeaveRequest, ServerMessage};
use crate::time::Now;

use super::error_reply::{ErrorReply, Refused};
use super::index::RoomIndex;
use super::members::{AfterLeave, FormerMember, Parting, Rejoin};
use super::notice::Notice;
use super::reader::{CatchUp, CatchUpReason, CatchUpStep, Shown};
use super::{Caller, Hub};

impl Hub {
    pub(super) fn handle_join(&mut self, now: Now, id: ConnectionId, join: &JoinRequest<'_>) -> Result<(), Refused> {
        self.pending.check_running()?;
        let (name, history_max) = (&join.room, self.settings.history.messages_max);
        if join.history > history_max {
            let message = format!("history is {}; 0 to {history_max} are allowed", join.history);
            return Err((ErrorCode::BadMessage, message));
        }
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let request = Rejoin {
            id: join.id.as_deref().map(Into::into),
            since: join.since.as_ref().map(|since| (Epoch::new(&since.epoch), since.seq)),
            history: join.history,
        };
        match self.rooms.named(name.as_str()).filter(|room| connection.place_in(*room).is_some()) {
            Some(index) => self.rooms[index].join_after_leave(id.slot, request),
            None => {
                let index = self.enter_room(id, name, request)?;
                self.continue_catch_up(now, index, id);
                Ok(())
            }
        }
    }

    /// Puts a connection among the members that catch up.
    fn enter_room(&mut self, id: ConnectionId, name: &RoomName, request: Rejoin) -> Result<RoomIndex, Refused> {
        self.pending.check_running()?;
        let rooms_max = self.settings.hub.rooms_per_connection_max;
        if let Some(connection) = self.connections.get(id) {
            if connection.rooms().len() >= rooms_max as usize {
                return Err((
                    ErrorCode::TooManyRooms,
                    format!("already in {rooms_max} rooms; {rooms_max} are allowed"),
                ));
            }
            let caller = Caller { connection: id, user: self.users.id(connection.user) };
            self.policy.allow_join(&caller, name).map_err(|message| (ErrorCode::Forbidden, message))?;
        }
        let index = match self.rooms.named(name.as_str()) {
            Some(index) => index,
            None => {
                let index = self.rooms.open(name)?;
                self.pending.request(BusRequest::Open(name.clone()));
                index
            }
        };
        let Rejoin { id: message_id, since, history } = request;
        let member = CatchUp {
            connection: id,
            reason: CatchUpReason::Join { id: message_id, resumes: since.is_some(), history },
            from: since.as_ref().map_or(ReadFrom::Newest(history), |(_, seq)| ReadFrom::After(*seq)),
            epoch: since.map(|(epoch, _)| epoch),
            gap: false,
            shown: Shown::Nothing,
            step: CatchUpStep::Output,
        };
        self.rooms[index].members.enter(index, member, &mut self.connections);
        Ok(index)
    }

    /// Ends a room that nothing holds any more.
    pub(super) fn forget_if_unused(&mut self, index: RoomIndex) {
        let Some(room) = self.rooms.take_unused(index) else { return };
        self.scheduler.forget(index, room.schedule.queue);
        room.users.keys().for_each(|user| self.users.release(user));
        self.pending.request(BusRequest::Close(room.name));
    }

    pub(super) fn handle_leave(&mut self, now: Now, id: ConnectionId, leave: &LeaveRequest<'_>) -> Result<(), Refused> {
        let index = self.rooms.joined(&self.connections, id, &leave.room)?;
        let room = &mut self.rooms[index];
        if room.members.is_leaving(id.slot) {
            // It takes back a join that has not begun.
            room.members.set_after_leave(id.slot, AfterLeave::Leave(leave.id.as_deref().map(Into::into)));
            return Ok(());
        }
        let is_owed = self.connections.place(id.slot, index).is_some_and(|place| room.owes(place));
        if is_owed {
            room.members.start_leaving(id.slot, leave.id.as_deref());
        } else {
            self.finish_leave(now, index, id.slot, leave.id.as_deref());
        }
        Ok(())
    }

    fn finish_leave(&mut self, now: Now, index: RoomIndex, slot: Slot, message_id: Option<&str>) {
        let (id, name) = (self.connections.id(slot), self.rooms[index].name.clone());
        self.remove_member(now, slot, index, Parting::Left);
        if let Some(id) = id {
            let left = ServerMessage::Left { room: name.as_str(), id: message_id };
            self.out.say(&mut self.connections, id, &left);
        }
    }

    /// Lets members go that asked to leave and are not owed anything any more.
    pub(super) fn finish_leaving(&mut self, now: Now, index: RoomIndex) {
        let reference = self.rooms.reference(index);
        // The last of them ends the room.
        while let Some(index) = self.rooms.find(reference) {
            let room = &mut self.rooms[index];
            let next = room.members.next_to_leave(index, room.fanout.tail(), &self.connections);
            let Some(leaving) = next else { return };
            let name = room.name.clone();
            let connection = self.connections.id(leaving.slot);
            self.finish_leave(now, index, leaving.slot, leaving.id.as_deref());
            if let Some(connection) = connection {
                self.continue_after_leave(connection, &name, leaving.then);
            }
        }
    }

    fn continue_after_leave(&mut self, id: ConnectionId, name: &RoomName, then: AfterLeave) {
        match then {
            AfterLeave::Nothing => {}
            AfterLeave::Leave(message_id) => {
                let left = ServerMessage::Left { room: name.as_str(), id: message_id.as_deref() };
                self.out.say(&mut self.connections, id, &left);
            }
            AfterLeave::Join(request) => {
                let message_id = request.id.clone();
                match self.enter_room(id, name, request) {
                    // In the next turn: sends of this flush would overtake `left`, which waits for its end.
                    Ok(_) => self.scheduler.note_resumed(id),
                    Err((code, message)) => {
                        let reply = ErrorReply::new(code, &message);
                        self.out.error(
                            &mut self.connections,
                            id,
                            reply.about(Some(name.as_str()), message_id.as_deref()),
                        );
                    }
                }
            }
        }
    }

    /// Takes a connection out of a room. Says which member it was.
    pub(super) fn remove_member(
        &mut self,
        now: Now,
        slot: Slot,
        index: RoomIndex,
        parting: Parting,
    ) -> Option<FormerMember> {
        let id = self.connections.id(slot)?;
        let user = self.connections.get(id)?.user;
        let former = self.rooms[index].members.remove(index, slot, &mut self.connections)?;
        if former.has_joined() {
            let (name, user_id) = (&self.rooms[index].name, self.users.id(user));
            self.out.notices.push(|| Notice::Left { connection: id, user: user_id.clone(), room: name.clone() });
            self.remove_presence(now, index, user, parting);
        }
        self.rooms.trim_log(index);
        self.forget_if_unused(index);
        Some(former)
    }
}

#[cfg(test)]
mod tests;
