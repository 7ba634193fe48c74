//! How connections come into rooms and leave them, and how rooms begin and end.

use crate::bus::message::{BusRequest, ReadFrom};
use crate::id::{ConnectionId, Epoch, RoomName, Slot};
use crate::protocol::{ErrorCode, JoinRequest, LeaveRequest, ServerMessage};
use crate::time::Now;

use super::error_reply::{ErrorReply, Refused};
use super::index::{Place, RoomIndex};
use super::members::{AfterLeave, FormerMember, Parting, Rejoin};
use super::notice::Notice;
use super::reader::{CatchUp, CatchUpReason, CatchUpStep, Shown};
use super::{Caller, Hub, shutting_down};

impl Hub {
    pub(super) fn handle_join(&mut self, now: Now, id: ConnectionId, join: &JoinRequest<'_>) -> Result<(), Refused> {
        if self.is_draining {
            return Err(shutting_down());
        }
        let (name, history_max) = (&join.room, self.history.messages_max);
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
            Some(index) => self.join_after_leave(index, id, request),
            None => {
                let index = self.enter_room(id, name, request)?;
                self.continue_catch_up(now, index, id);
                Ok(())
            }
        }
    }

    /// A member joins its own room again. That waits for a `leave` that is not answered yet, and is refused without one.
    fn join_after_leave(&mut self, index: RoomIndex, id: ConnectionId, request: Rejoin) -> Result<(), Refused> {
        let room = &mut self.rooms[index];
        match room.members.after_leave(id.slot) {
            Some(AfterLeave::Nothing) => {
                room.members.set_after_leave(id.slot, AfterLeave::Join(request));
                Ok(())
            }
            // One request waits behind a leave, not a chain of them.
            Some(AfterLeave::Leave(_)) => {
                Err((ErrorCode::RoomBusy, format!("still leaving room {}; try again later", room.name)))
            }
            Some(AfterLeave::Join(_)) | None => {
                Err((ErrorCode::AlreadyJoined, format!("already in room {}; leave it first to join again", room.name)))
            }
        }
    }

    /// Puts a connection among the members that catch up.
    fn enter_room(&mut self, id: ConnectionId, name: &RoomName, request: Rejoin) -> Result<RoomIndex, Refused> {
        if self.is_draining {
            return Err(shutting_down());
        }
        let rooms_max = self.limits.rooms_per_connection_max;
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
            None => self.open_room(name)?,
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

    fn open_room(&mut self, name: &RoomName) -> Result<RoomIndex, Refused> {
        if self.rooms.len() >= self.limits.rooms_max as usize {
            let message = format!("there are {} rooms; no new one can be opened", self.limits.rooms_max);
            return Err((ErrorCode::ServerBusy, message));
        }
        self.out.request(BusRequest::Open(name.clone()));
        Ok(self.rooms.open(name))
    }

    /// Ends a room that nothing holds any more.
    pub(super) fn forget_if_unused(&mut self, index: RoomIndex) {
        let Some(room) = self.rooms.take_unused(index) else { return };
        self.scheduler.forget(index, room.schedule.queue);
        room.users.iter().for_each(|(user, _)| self.users.release(user));
        self.out.request(BusRequest::Close(room.name));
    }

    pub(super) fn handle_leave(&mut self, now: Now, id: ConnectionId, leave: &LeaveRequest<'_>) -> Result<(), Refused> {
        let index = self.joined_room(id, &leave.room)?;
        let room = &mut self.rooms[index];
        if room.members.is_leaving(id.slot) {
            // It takes back a join that has not begun.
            room.members.set_after_leave(id.slot, AfterLeave::Leave(leave.id.as_deref().map(Into::into)));
            return Ok(());
        }
        let is_owed = match self.connections.place(id.slot, index) {
            // Messages on their way to the bus, perhaps its own, are awaited, too: a copy is better than an `ack`.
            Some(Place::Live(at)) => {
                let is_behind = room.members.live(at).is_some_and(|member| member.cursor() != room.fanout.tail());
                is_behind || room.fanout.reserved_bytes() > 0
            }
            Some(Place::CatchingUp(at)) => room.members.catch_up(at).is_some_and(CatchUp::has_joined),
            None => false,
        };
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
                        self.error(id, reply.about(Some(name.as_str()), message_id.as_deref()));
                    }
                }
            }
        }
    }

    /// The room with this name, if the connection is in it and has not asked to leave, or has joined again since.
    pub(super) fn joined_room(&self, id: ConnectionId, name: &str) -> Result<RoomIndex, Refused> {
        let is_member = |index: &RoomIndex| {
            let place = self.connections.get(id).and_then(|connection| connection.place_in(*index));
            let after_leave = self.rooms[*index].members.after_leave(id.slot);
            place.is_some() && after_leave.is_none_or(|then| matches!(then, AfterLeave::Join(_)))
        };
        let index = self.rooms.named(name).filter(is_member);
        index.ok_or_else(|| (ErrorCode::NotJoined, format!("not in room {name}; join it first")))
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
