//! How connections come into rooms and leave them, and how rooms begin and end.

use thin_vec::ThinVec;

use crate::bus::message::{BusRequest, ReadFrom};
use crate::id::{ConnectionId, RoomName, Slot};
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use crate::time::Now;

use super::connection::Place;
use super::notice::Notice;
use super::presence::Parting;
use super::room::{CatchUp, CatchUpReason, CatchUpStep, Leaving, LiveMember, Room, Shown, Waiting};
use super::{Caller, Hub, Refused};

impl Hub {
    pub(super) fn handle_join(
        &mut self,
        now: Now,
        id: ConnectionId,
        message: &ClientMessage<'_>,
    ) -> Result<(), Refused> {
        if self.is_draining {
            return Err((ErrorCode::ShuttingDown, "the server is shutting down".to_owned()));
        }
        let name = room_name(message)?;
        let history = self.check_history(message)?;
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let user = connection.user;
        let existing = self.room_named(name.as_str());
        if existing.is_some_and(|room| connection.place_in(room).is_some()) {
            return Err((ErrorCode::AlreadyJoined, format!("already in room {name}; leave it first to join again")));
        }
        let most = self.limits.rooms_per_connection_max;
        if connection.rooms().len() >= most as usize {
            return Err((ErrorCode::TooManyRooms, format!("already in {most} rooms; {most} are allowed")));
        }
        let caller = Caller { connection: id, user: self.users.id(user) };
        self.policy.allow_join(&caller, &name).map_err(|words| (ErrorCode::Forbidden, words))?;
        let index = match existing {
            Some(index) => index,
            None => self.open_room(&name)?,
        };
        let room = &mut self.rooms[index as usize];
        let since = message.since.as_ref();
        let place = room.catching_up.len() as u32;
        room.catching_up.push(CatchUp {
            slot: id.slot,
            reason: CatchUpReason::Join {
                id: message.id.as_deref().map(Into::into),
                resumes: since.is_some(),
                history,
            },
            epoch: since.map(|since| crate::id::Epoch::new(&since.epoch)),
            from: since.map_or(ReadFrom::Newest(history), |since| ReadFrom::After(since.seq)),
            hole: false,
            shown: Shown::Nothing,
            step: CatchUpStep::Output,
        });
        self.connections.member_mut(id.slot).enter(index, Place::CatchingUp(place));
        self.continue_catch_up(now, index, id.slot);
        Ok(())
    }

    fn check_history(&self, message: &ClientMessage<'_>) -> Result<u32, Refused> {
        let most = self.limits.history_messages_max;
        match message.history.unwrap_or(0) {
            history if history <= most => Ok(history),
            history => Err((ErrorCode::BadMessage, format!("history is {history}; 0 to {most} are allowed"))),
        }
    }

    fn open_room(&mut self, name: &RoomName) -> Result<u32, Refused> {
        if self.rooms.len() >= self.limits.rooms_max as usize {
            let words = format!("there are {} rooms; no new one can be opened", self.limits.rooms_max);
            return Err((ErrorCode::ServerBusy, words));
        }
        self.generations = self.generations.wrapping_add(1);
        let index = self.rooms.insert(Room::new(name.clone(), self.generations)) as u32;
        self.requests.push_back(BusRequest::Open(name.clone()));
        let rooms = &self.rooms;
        self.room_keys.insert(name.as_str(), index, |index| rooms[index as usize].name.as_str());
        Ok(index)
    }

    /// Ends a room that nothing holds any more.
    pub(super) fn forget_if_unused(&mut self, index: u32) {
        if !self.rooms.get(index as usize).is_some_and(Room::is_unused) {
            return;
        }
        let room = self.rooms.remove(index as usize);
        self.log_bytes -= room.log.len();
        match room.waiting {
            Waiting::Nowhere => {}
            Waiting::Dirty => {
                self.dirty.retain(|dirty| *dirty != index);
                self.rounds.retain(|interrupted| *interrupted != index);
            }
            Waiting::Delayed => self.delays.remove(index),
        }
        self.room_keys.remove(room.name.as_str(), index);
        room.users.iter().for_each(|(user, _)| self.users.release(user));
        self.requests.push_back(BusRequest::Close(room.name));
    }

    pub(super) fn handle_leave(
        &mut self,
        now: Now,
        id: ConnectionId,
        message: &ClientMessage<'_>,
    ) -> Result<(), Refused> {
        let index = self.joined_room(id, message)?;
        let message_id = message.id.as_deref();
        let room = &mut self.rooms[index as usize];
        let is_owed = match self.connections.member(id.slot).place_in(index) {
            // What is on its way to the bus, perhaps its own, is waited for, too: a copy is better than an `ack`.
            Some(Place::Live(place)) => room.live[place as usize].cursor != room.log.tail() || room.reserved_bytes > 0,
            Some(Place::CatchingUp(place)) => {
                matches!(room.catching_up[place as usize].reason, CatchUpReason::FellBack)
            }
            None => false,
        };
        if is_owed {
            let id_kept = message_id.map(Into::into);
            room.leaving.push(Leaving { slot: id.slot, id: id_kept });
        } else {
            self.finish_leave(now, index, id.slot, message_id);
        }
        Ok(())
    }

    fn finish_leave(&mut self, now: Now, index: u32, slot: Slot, message_id: Option<&str>) {
        let id = self.connections.id(slot);
        let name = self.rooms[index as usize].name.clone();
        self.part(now, slot, index, Parting::Left);
        self.say(id, &ServerMessage::Left { room: name.as_str(), id: message_id });
    }

    /// Lets those go who asked to leave and are not owed anything any more.
    pub(super) fn finish_leaving(&mut self, now: Now, index: u32) {
        let mut at = 0;
        while let Some(leaving) = self.rooms.get(index as usize).and_then(|room| room.leaving.get(at)) {
            let room = &self.rooms[index as usize];
            let place = self.connections.member(leaving.slot).place_in(index);
            let is_level = match place {
                Some(Place::Live(place)) => room.live[place as usize].cursor == room.log.tail(),
                _ => false,
            };
            if !is_level {
                at += 1;
                continue;
            }
            let leaving = self.rooms[index as usize].leaving.swap_remove(at);
            self.finish_leave(now, index, leaving.slot, leaving.id.as_deref());
        }
    }

    /// The room that a message names, if its sender is in it and has not asked to leave.
    pub(super) fn joined_room(&self, id: ConnectionId, message: &ClientMessage<'_>) -> Result<u32, Refused> {
        let name = room_name_text(message)?;
        let index = self.room_named(name);
        let connection = self.connections.get(id);
        index
            .filter(|index| connection.is_some_and(|connection| connection.place_in(*index).is_some()))
            .filter(|index| !self.rooms[*index as usize].leaving.iter().any(|leaving| leaving.slot == id.slot))
            .ok_or_else(|| (ErrorCode::NotJoined, format!("not in room {name}; join it first")))
    }

    /// Takes a connection out of a room.
    pub(super) fn part(&mut self, now: Now, slot: Slot, index: u32, parting: Parting) {
        let connection = self.connections.member_mut(slot);
        let (user, place) = (connection.user, connection.place_in(index));
        connection.forget(index);
        let was_present = match place {
            None => return,
            Some(Place::Live(place)) => {
                self.remove_live(index, place);
                true
            }
            Some(Place::CatchingUp(place)) => {
                let member = self.remove_catching_up(index, place);
                matches!(member.reason, CatchUpReason::FellBack)
            }
        };
        let room = &mut self.rooms[index as usize];
        room.leaving.retain(|leaving| leaving.slot != slot);
        if was_present {
            let connection = self.connections.id(slot);
            let (name, user_id) = (&room.name, self.users.id(user));
            self.notices.push(|| Notice::Left { connection, user: user_id.clone(), room: name.clone() });
            self.depart(now, index, user, parting);
        }
        self.settle(index);
        self.forget_if_unused(index);
    }

    /// Takes a member out of the live list; the last one of the list takes its place.
    pub(super) fn remove_live(&mut self, index: u32, place: u32) -> LiveMember {
        let room = &mut self.rooms[index as usize];
        room.stop_lagging(place);
        let member = room.live.swap_remove(place as usize);
        if let Some(moved) = room.live.get(place as usize) {
            self.connections.member_mut(moved.slot()).set_place(index, Place::Live(place));
        }
        if let Some(round) = &mut room.round {
            round.next = round.next.min(room.live.len() as u32);
        }
        member
    }

    /// Takes a member out of the list of those who catch up; the last one of the list takes its place.
    pub(super) fn remove_catching_up(&mut self, index: u32, place: u32) -> CatchUp {
        let room = &mut self.rooms[index as usize];
        let member = room.catching_up.swap_remove(place as usize);
        if room.catching_up.is_empty() {
            // Most of the time nobody catches up, and each place is a hundred bytes.
            room.catching_up = ThinVec::new();
        }
        if let Some(moved) = room.catching_up.get(place as usize) {
            self.connections.member_mut(moved.slot).set_place(index, Place::CatchingUp(place));
        }
        member
    }
}

fn room_name_text<'a>(message: &'a ClientMessage<'_>) -> Result<&'a str, Refused> {
    let room = message.room.as_deref();
    room.ok_or_else(|| (ErrorCode::BadMessage, format!("{} without a room", &*message.kind)))
}

fn room_name(message: &ClientMessage<'_>) -> Result<RoomName, Refused> {
    RoomName::new(room_name_text(message)?).map_err(|error| (ErrorCode::BadMessage, format!("room: {error}")))
}
