//! Presence in rooms: users are announced one by one while they are few, and counted when they are many.
//!
//! Members ⊆ online ⊆ members ∪ those in grace ∪ those on other nodes.

use crate::bus::message::{BusRequest, PresenceChange};
use crate::id::RoomName;
use crate::protocol::{PresenceStatus, ServerMessage, UserView};
use crate::time::Now;
use crate::timer_wheel::Tick;

use super::Hub;
use super::index::{RoomIndex, RoomRef};
use super::members::Parting;
use super::room::Room;
use super::room_users::{Here, Presence};
use super::timers::Timer;
use super::users::{UserKey, Users};

impl Hub {
    /// From now on the bus is told which users come and go here.
    pub fn share_presence(&mut self) {
        self.out.shares_presence = true;
    }

    /// One more connection of a user is live in a room.
    pub(super) fn add_presence(&mut self, now: Now, index: RoomIndex, user: UserKey) {
        let present = &mut self.rooms[index].users;
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
    pub(super) fn remove_presence(&mut self, now: Now, index: RoomIndex, user: UserKey, parting: Parting) {
        let room = self.rooms.reference(index);
        let grace = self.timing.presence_grace;
        let present = &mut self.rooms[index].users;
        let Some(Presence { here: Here::Connected(connections), is_elsewhere }) = present.get(user) else { return };
        if connections > 1 {
            return present.set(user, Presence { here: Here::Connected(connections - 1), is_elsewhere });
        }
        if parting == Parting::Left || grace.is_zero() {
            return self.end_presence_here(now, index, user);
        }
        let until = self.timers.start(now, grace, Timer::Grace { room, user });
        present.set(user, Presence { here: Here::Grace(until), is_elsewhere });
    }

    pub(super) fn end_presence_here(&mut self, now: Now, index: RoomIndex, user: UserKey) {
        self.tell_elsewhere(index, user, PresenceStatus::Offline);
        let present = &mut self.rooms[index].users;
        if present.get(user).is_some_and(|presence| presence.is_elsewhere) {
            present.set(user, Presence { here: Here::Nobody, is_elsewhere: true });
        } else {
            self.remove_user(now, index, user);
        }
    }

    fn remove_user(&mut self, now: Now, index: RoomIndex, user: UserKey) {
        self.rooms[index].users.remove(user);
        self.announce(now, index, user, PresenceStatus::Offline);
        self.users.release(user);
    }

    fn tell_elsewhere(&mut self, index: RoomIndex, user: UserKey, status: PresenceStatus) {
        let (room, users) = (&self.rooms[index].name, &self.users);
        self.out.share(|| {
            let name = users.view(user).name.map(Into::into);
            let change = PresenceChange { user: users.id(user).clone(), name, status };
            BusRequest::Presence { room: room.clone(), change }
        });
    }

    /// A user has come to a room on another node, or is on no other any more.
    pub(super) fn handle_presence_elsewhere(&mut self, now: Now, name: &RoomName, change: &PresenceChange) {
        let Some(index) = self.rooms.named(name.as_str()) else { return };
        let is_elsewhere = change.status == PresenceStatus::Online;
        let known = self.users.find(change.user.as_str());
        let present = &mut self.rooms[index].users;
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

    pub(super) fn handle_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Grace { room, user } => self.end_grace_if_over(now, room, user),
            Timer::Members { room } => {
                if let Some(index) = self.rooms.find(room) {
                    self.rooms[index].count_scheduled = false;
                    self.count_members(now, index);
                }
            }
            Timer::CatchUp { room, connection } => self.retry_catch_up(now, room, connection),
        }
    }

    fn end_grace_if_over(&mut self, now: Now, room: RoomRef, user: UserKey) {
        let Some(index) = self.rooms.find(room) else { return };
        let Some(Presence { here: Here::Grace(until), .. }) = self.rooms[index].users.get(user) else { return };
        if until <= Tick::of(now) {
            self.end_presence_here(now, index, user);
            self.forget_if_unused(index);
        } else {
            // The grace began anew, or is longer than the wheel reaches.
            self.timers.start_at(until, Timer::Grace { room, user });
        }
    }

    fn announce(&mut self, now: Now, index: RoomIndex, user: UserKey, status: PresenceStatus) {
        let room = &mut self.rooms[index];
        let count = room.users.len();
        if room.counts_only && count < self.limits.users_listed_again() {
            room.counts_only = false;
            return self.count_members(now, index);
        }
        if count > self.limits.users_listed_max as usize {
            room.counts_only = true;
        }
        if room.counts_only || !self.rooms.has_space(index, EVENT_BYTES_MAX) {
            return self.schedule_members(now, index);
        }
        self.append_event(now, index, |out, room, users| {
            let message = ServerMessage::Presence { room: room.name.as_str(), user: users.view(user), status };
            message.append_frame(out);
        });
    }

    /// Sees to it that the members are counted soon, once however much happens until then.
    fn schedule_members(&mut self, now: Now, index: RoomIndex) {
        let room = self.rooms.reference(index);
        if !std::mem::replace(&mut self.rooms[index].count_scheduled, true) {
            self.timers.start(now, self.timing.members_interval, Timer::Members { room });
        }
    }

    fn count_members(&mut self, now: Now, index: RoomIndex) {
        if !self.rooms.has_space(index, MEMBERS_BYTES_MAX) {
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
    (!room.counts_only).then(|| room.users.iter().map(|(user, _)| users.view(user)).collect())
}
