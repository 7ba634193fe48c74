//! Who is present in a room: announced one by one while few are, counted when there are many.
//!
//! Members ⊆ online ⊆ members ∪ those in grace ∪ those on other nodes.

use crate::bus::message::{BusRequest, PresenceChange};
use crate::deadline::Tick;
use crate::id::{ConnectionId, RoomName};
use crate::protocol::{PresenceStatus, ServerMessage, UserView};
use crate::time::Now;

use super::Hub;
use super::attendance::{Here, Presence};
use super::room::{Room, RoomRef};
use super::users::{UserKey, Users};

/// How a connection leaves a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// It said so.
    Left,
    /// It was lost; perhaps its user comes back.
    Lost,
}

/// What the hub has to look at again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A user's grace in a room may be over.
    Grace { room: RoomRef, user: UserKey },
    /// A room may count its members.
    Members { room: RoomRef },
    /// The place of the host's commands may be asked for again.
    Moderation,
    /// A member that could not read history tries again.
    CatchUp { room: RoomRef, connection: ConnectionId },
}

impl Hub {
    /// From now on the bus is told who comes and goes here.
    pub fn share_presence(&mut self) {
        self.shares_presence = true;
    }

    /// One more connection of a user is live in a room.
    pub(super) fn arrive(&mut self, now: Now, index: u32, user: UserKey) {
        let present = &mut self.rooms[index as usize].users;
        let before = present.get(user);
        let is_elsewhere = before.is_some_and(|before| before.is_elsewhere);
        let here = before.map_or(Here::Nobody, |before| before.here);
        let connections = if let Here::Connected(connections) = here { connections } else { 0 };
        present.set(user, Presence { here: Here::Connected(connections + 1), is_elsewhere });
        if here == Here::Nobody {
            self.tell_elsewhere(index, user, PresenceStatus::Online);
        }
        if before.is_none() {
            self.users.hold(user);
            self.announce(now, index, user, PresenceStatus::Online);
        }
    }

    /// One connection less of a user is in a room.
    pub(super) fn depart(&mut self, now: Now, index: u32, user: UserKey, parting: Parting) {
        let room = self.room_ref(index);
        let grace = self.timing.presence_grace;
        let present = &mut self.rooms[index as usize].users;
        let Some(Presence { here: Here::Connected(connections), is_elsewhere }) = present.get(user) else {
            unreachable!("a member's user is present by its connection");
        };
        if connections > 1 {
            return present.set(user, Presence { here: Here::Connected(connections - 1), is_elsewhere });
        }
        if parting == Parting::Left || grace.is_zero() {
            return self.end_presence_here(now, index, user);
        }
        let until = Tick::of(now).after(grace);
        present.set(user, Presence { here: Here::Grace(until), is_elsewhere });
        self.wheel.insert(until, Due::Grace { room, user });
    }

    pub(super) fn end_presence_here(&mut self, now: Now, index: u32, user: UserKey) {
        self.tell_elsewhere(index, user, PresenceStatus::Offline);
        let present = &mut self.rooms[index as usize].users;
        if present.get(user).is_some_and(|presence| presence.is_elsewhere) {
            present.set(user, Presence { here: Here::Nobody, is_elsewhere: true });
        } else {
            self.remove_user(now, index, user);
        }
    }

    fn remove_user(&mut self, now: Now, index: u32, user: UserKey) {
        self.rooms[index as usize].users.remove(user);
        self.announce(now, index, user, PresenceStatus::Offline);
        self.users.release(user);
    }

    fn tell_elsewhere(&mut self, index: u32, user: UserKey, status: PresenceStatus) {
        if self.shares_presence {
            let room = self.rooms[index as usize].name.clone();
            let name = self.users.view(user).name.map(Into::into);
            let change = PresenceChange { user: self.users.id(user).clone(), name, status };
            self.requests.push_back(BusRequest::Presence { room, change });
        }
    }

    /// A user has come to a room on another node, or is on no other any more.
    pub(super) fn handle_presence_elsewhere(&mut self, now: Now, name: &RoomName, change: &PresenceChange) {
        let Some(index) = self.room_named(name.as_str()) else { return };
        let is_elsewhere = change.status == PresenceStatus::Online;
        let known = self.users.find(change.user.as_str());
        let present = &mut self.rooms[index as usize].users;
        let before = known.and_then(|user| Some((user, present.get(user)?)));
        match before {
            Some((user, Presence { here: Here::Nobody, .. })) if !is_elsewhere => self.remove_user(now, index, user),
            Some((user, Presence { here, .. })) => present.set(user, Presence { here, is_elsewhere }),
            None if is_elsewhere => {
                let user = self.users.hold_named(&change.user, change.name.as_deref());
                present.set(user, Presence { here: Here::Nobody, is_elsewhere });
                self.announce(now, index, user, PresenceStatus::Online);
            }
            None => {}
        }
    }

    pub(super) fn handle_due(&mut self, now: Now, due: Due) {
        match due {
            Due::Grace { room, user } => {
                let presence = self.find_room(room).and_then(|found| found.users.get(user));
                let Some(Presence { here: Here::Grace(until), .. }) = presence else { return };
                if until <= Tick::of(now) {
                    self.end_presence_here(now, room.index, user);
                    self.forget_if_unused(room.index);
                } else {
                    // The grace began anew, or is longer than the wheel reaches.
                    self.wheel.insert(until, due);
                }
            }
            Due::Members { room } => {
                if self.find_room(room).is_some() {
                    self.rooms[room.index as usize].members_due = false;
                    self.count_members(now, room.index);
                }
            }
            Due::Moderation => self.locate_moderation(),
            Due::CatchUp { room, connection } => {
                if self.find_room(room).is_some() {
                    self.retry_catch_up(now, room.index, connection);
                }
            }
        }
    }

    fn announce(&mut self, now: Now, index: u32, user: UserKey, status: PresenceStatus) {
        let room = &mut self.rooms[index as usize];
        let count = room.users.len();
        if room.big && count < self.limits.users_listed_again() {
            room.big = false;
            return self.count_members(now, index);
        }
        if count > self.limits.users_listed_max as usize {
            room.big = true;
        }
        if room.big || !self.has_space(index, EVENT_BYTES_MAX) {
            return self.schedule_members(now, index);
        }
        self.append_event(now, index, |out, room, users| {
            let message = ServerMessage::Presence { room: room.name.as_str(), user: users.view(user), status };
            message.append_frame(out);
        });
    }

    /// Sees to it that the members are counted soon, once however much happens until then.
    fn schedule_members(&mut self, now: Now, index: u32) {
        let room_ref = self.room_ref(index);
        let room = &mut self.rooms[index as usize];
        if !room.members_due {
            room.members_due = true;
            let at = Tick::of(now).after(self.timing.members_interval);
            self.wheel.insert(at, Due::Members { room: room_ref });
        }
    }

    fn count_members(&mut self, now: Now, index: u32) {
        if !self.has_space(index, MEMBERS_BYTES_MAX) {
            return self.schedule_members(now, index);
        }
        self.append_event(now, index, |out, room, users| {
            let listed = list_users(room, users);
            let message =
                ServerMessage::Members { room: room.name.as_str(), count: room.users.len(), users: listed.as_deref() };
            message.append_frame(out);
        });
    }
}

/// More than the largest presence message.
const EVENT_BYTES_MAX: usize = 2048;

/// More than the largest `members` message that is worth a place in a crowded log.
const MEMBERS_BYTES_MAX: usize = 8 * 1024;

/// The users of a room, or `None` when it is too big to list them.
pub(super) fn list_users<'a>(room: &Room, users: &'a Users) -> Option<Vec<UserView<'a>>> {
    (!room.big).then(|| room.users.iter().map(|(user, _)| users.view(user)).collect())
}
