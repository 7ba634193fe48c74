//! How connections come into rooms and leave them, and how rooms begin and end.

use std::ops::Range;

use crate::budget::WorkBudget;
use crate::bus::message::{BusRequest, ReadFrom};
use crate::id::{ConnectionId, Epoch, RoomName, Slot};
use crate::owner::Owner;
use crate::protocol::{ErrorCode, JoinRequest, LeaveRequest, ServerMessage};
use crate::rights::{Right, Rights};
use crate::steps;
use crate::time::Now;

use super::error_reply::{ErrorReply, Refused, require};
use super::index::{LiveIndex, RoomIndex, RoomRef};
use super::leaving::{AfterLeave, Rejoin};
use super::members::{FormerMember, LiveMember, Parting};
use super::notice::Notice;
use super::presence::Mover;
use super::reader::{CatchUp, CatchUpReason, CatchUpStep, Shown};
use super::room::Room;
use super::{Caller, Hub};

/// How many members leave a room at once when the last message on its way to the bus is answered.
const LEVEL_LEAVERS_AT_ONCE: usize = 64;

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
        self.check_join(id, name, self.credentials.rights(id, name))?;
        let index = match self.rooms.named(name.as_str()) {
            Some(index) => index,
            None => {
                let owner = self.connections.owner(id.slot).unwrap_or(Owner::OTHERS);
                let index = self.rooms.open(name, owner)?;
                self.pending.request(BusRequest::Open(name.clone()));
                index
            }
        };
        let rights = self.rights_in(id, index);
        let Rejoin { id: message_id, since, history } = request;
        // A room may keep less than another one, and over Redis there is a little more than it keeps.
        let history = history.min(self.rooms.limits(index).history_messages);
        let resumes = since.is_some();
        let (since, history) = if rights.has(Right::History) { (since, history) } else { (None, 0) };
        let member = CatchUp {
            connection: id,
            reason: CatchUpReason::Join { id: message_id, resumes, history },
            from: since.as_ref().map_or(ReadFrom::Newest(history), |(_, seq)| ReadFrom::After(*seq)),
            // Without the right to history, what came after its position is lost to it.
            gap: resumes && since.is_none(),
            epoch: since.map(|(epoch, _)| epoch),
            shown: Shown::Nothing,
            step: CatchUpStep::Output,
        };
        self.rooms.enter(index, member, rights, &mut self.connections);
        Ok(index)
    }

    /// Whether a connection may join a room: by number, by the policy, by the memory of its owner.
    fn check_join(&mut self, id: ConnectionId, name: &RoomName, rights: Rights) -> Result<(), Refused> {
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let rooms_max = self.settings.hub.rooms_per_connection_max;
        if connection.rooms().len() >= rooms_max as usize {
            return Err((ErrorCode::TooManyRooms, format!("already in {rooms_max} rooms; {rooms_max} are allowed")));
        }
        require(rights, Right::Join, name.as_str())?;
        let caller = Caller { connection: id, user: self.users.id(connection.user) };
        self.policy.allow_join(&caller, name).map_err(|message| (ErrorCode::Forbidden, message))?;
        self.pending.check_read(connection.owner)?;
        let new_room = self.rooms.named(name.as_str()).is_none().then_some(name);
        self.rooms.account.check_join(connection.owner, new_room)
    }

    /// Ends a room that nothing holds any more.
    pub(super) fn forget_if_unused(&mut self, index: RoomIndex) {
        let Some(room) = self.rooms.take_unused(index) else { return };
        self.presence_checks.forget(RoomRef { index, generation: room.generation });
        self.scheduler.forget(room.schedule.queue);
        room.users.keys().for_each(|user| self.users.release(user));
        self.pending.request(BusRequest::Close(room.name));
    }

    pub(super) fn handle_leave(&mut self, now: Now, id: ConnectionId, leave: &LeaveRequest<'_>) -> Result<(), Refused> {
        let (index, _) = self.rooms.joined(&self.connections, id, &leave.room)?;
        let room = &mut self.rooms[index];
        if room.members.is_leaving(id.slot) {
            // It takes back a join that has not begun.
            room.members.set_after_leave(id.slot, AfterLeave::Leave(leave.id.as_deref().map(Into::into)));
            return Ok(());
        }
        let place = self.connections.place(id.slot, index);
        if place.is_some_and(|place| room.owes(place)) {
            self.rooms.start_leaving(index, id.slot, leave.id.as_deref(), &self.connections);
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

    /// Lets a member go that asked to leave, if it is not owed anything any more. Says whether the room is still there.
    pub(super) fn finish_leaving(&mut self, now: Now, index: RoomIndex, slot: Slot) -> bool {
        if !self.rooms[index].members.has_leavers() {
            return true;
        }
        let Some(leaving) = self.rooms.take_leaving_if_level(index, slot, &self.connections) else { return true };
        let (name, reference) = (self.rooms[index].name.clone(), self.rooms.reference(index));
        let connection = self.connections.id(slot);
        self.finish_leave(now, index, slot, leaving.id.as_deref());
        if let Some(connection) = connection {
            self.continue_after_leave(connection, &name, leaving.then);
        }
        self.rooms.find(reference).is_some()
    }

    /// Lets members go that a slice of a round has served, in the places that it has walked.
    ///
    /// As in the round, a member that takes the place of one that goes comes from a place that was looked at before.
    pub(super) fn finish_served_leavers(&mut self, now: Now, index: RoomIndex, places: Range<u32>) {
        for at in places.rev() {
            let Room { members, .. } = &self.rooms[index];
            if !members.has_leavers() {
                return;
            }
            steps::note(1);
            let Some(slot) = members.live(LiveIndex(at)).map(LiveMember::slot) else { continue };
            if members.is_leaving(slot) && !self.finish_leaving(now, index, slot) {
                // The last member ends the room.
                return;
            }
        }
    }

    /// Lets some members go that waited for messages on their way to the bus; the others go in the next turns.
    pub(super) fn finish_level_leavers(&mut self, now: Now, room: RoomRef) {
        let Some(index) = self.rooms.find(room) else { return };
        for slot in self.rooms[index].members.take_level_leavers(LEVEL_LEAVERS_AT_ONCE) {
            if !self.finish_leaving(now, index, slot) {
                return;
            }
        }
        if self.rooms[index].members.has_level_leavers() {
            self.level_rooms.push_back(room);
        }
    }

    /// Goes on with rooms whose members wait only for their turn to leave.
    pub(super) fn finish_more_level_leavers(&mut self, now: Now, budget: &mut WorkBudget<'_>) {
        for _ in 0..self.level_rooms.len() {
            if !budget.has_left() {
                return;
            }
            let Some(room) = self.level_rooms.pop_front() else { return };
            self.finish_level_leavers(now, room);
            budget.spend(1 + self.take_work());
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
        let connection = self.connections.get(id)?;
        let mover = Mover { user: connection.user, owner: connection.owner };
        self.work += 1;
        let former = self.rooms.remove_member(index, slot, &mut self.connections)?;
        if former.has_joined() {
            let (name, user_id) = (&self.rooms[index].name, self.users.id(mover.user));
            self.out.notices.push(|| Notice::Left { connection: id, user: user_id.clone(), room: name.clone() });
            self.remove_presence(now, index, mover, parting);
        }
        self.rooms.trim_log(index);
        self.forget_if_unused(index);
        Some(former)
    }
}

#[cfg(test)]
mod tests;
