//! Presence in rooms: users are announced one by one while they are few, and counted when they are many.
//!
//! Members ⊆ online ⊆ members ∪ those in grace ∪ those on other nodes. A grace needs memory; without it there is none. `RoomUsers` says what changes and who learns of it;
//! this tells them.

use std::time::Duration;

use crate::bus::message::{BusRequest, PresenceChange};
use crate::id::RoomName;
use crate::owner::Owner;
use crate::protocol::{PresenceStatus, ServerMessage};
use crate::time::Now;
use crate::timer_wheel::Tick;

use super::Hub;
use super::account::{Held, user_bytes};
use super::index::{RoomIndex, RoomRef};
use super::members::Parting;
use super::room_users::{Announcement, PresenceNews};
use super::timers::Timer;
use super::users::UserKey;

/// More than the largest presence message.
const EVENT_BYTES_MAX: usize = 2048;

/// More than the largest `members` message that is worth a place in a crowded log.
const MEMBERS_BYTES_MAX: usize = 8 * 1024;

/// How long after a cut no grace ends. The bus learns meanwhile who has come back on another node.
const RECONCILE: Duration = Duration::from_secs(2);

/// A user who comes or goes, and the owner that causes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mover {
    pub(super) user: UserKey,
    pub(super) owner: Owner,
}

impl Mover {
    /// A user whom no connection here has moved.
    pub(super) fn without_connection(user: UserKey) -> Self {
        Self { user, owner: Owner::OTHERS }
    }
}

impl Hub {
    /// From now on the bus is told which users come and go here.
    pub fn share_presence(&mut self) {
        self.pending.share_presence();
    }

    /// One more connection of a user is live in a room.
    pub(super) fn add_presence(&mut self, now: Now, index: RoomIndex, mover: Mover) {
        let news = self.rooms[index].users.connect(mover.user);
        self.tell_presence(now, index, mover, news);
    }

    /// One connection less of a user is in a room.
    pub(super) fn remove_presence(&mut self, now: Now, index: RoomIndex, mover: Mover, parting: Parting) {
        let (user, grace) = (mover.user, self.settings.timing.presence_grace);
        if !self.rooms[index].users.disconnect(user) {
            return;
        }
        if parting == Parting::Left || grace.is_zero() {
            return self.end_presence_of(now, index, mover);
        }
        let user_bytes = user_bytes(self.users.view(user));
        if !self.rooms.account.has_space(mover.owner, &[Held::Grace, Held::User(user_bytes)]) {
            return self.end_presence_of(now, index, mover);
        }
        let (until, room) = (Tick::of(now).after(grace), self.rooms.reference(index));
        self.timers.start_grace(until, &mut self.rooms.account, (room, user), (mover.owner, user_bytes));
        self.rooms[index].users.await_back(user, until);
    }

    /// A user without a connection here is present on this node no more.
    pub(super) fn end_presence_of(&mut self, now: Now, index: RoomIndex, mover: Mover) {
        let news = self.rooms[index].users.leave_node(mover.user);
        self.tell_presence(now, index, mover, news);
    }

    /// The bus can be reached, or cannot. While it cannot, a user may come back on another node unheard.
    pub(super) fn note_presence_readiness(&mut self, now: Now, is_ready: bool) {
        if !is_ready {
            self.deaf_until = now.uptime + RECONCILE;
        }
    }

    /// Whether the present users of other nodes are known as of now.
    pub(super) fn hears_other_nodes(&self, now: Now) -> bool {
        now.uptime >= self.deaf_until
    }

    pub(super) fn end_grace_if_over(&mut self, now: Now, room: RoomRef, user: UserKey) {
        let index = self.rooms.find(room);
        let until = index.and_then(|index| self.rooms[index].users.grace(user));
        if until.is_some() && !self.hears_other_nodes(now) {
            self.timers.start(now, RECONCILE, Timer::Grace { room, user });
            return;
        }
        if let Some(until) = until.filter(|until| *until > Tick::of(now)) {
            // The grace began anew, or is longer than the wheel reaches.
            return self.timers.start_at(until, Timer::Grace { room, user });
        }
        let owner = self.timers.end_grace(&mut self.rooms.account, room, user).unwrap_or(Owner::OTHERS);
        if let Some(index) = index.filter(|_| until.is_some()) {
            self.end_presence_of(now, index, Mover { user, owner });
            self.forget_if_unused(index);
        }
    }

    /// A user has come to a room on another node, or is on no other any more.
    pub(super) fn handle_presence_elsewhere(&mut self, now: Now, name: &RoomName, change: &PresenceChange) {
        let Some(index) = self.rooms.named(name.as_str()) else { return };
        let known = self.users.find(change.user.as_str());
        let present = known.filter(|user| self.rooms[index].users.get(*user).is_some());
        match (change.status, present) {
            (PresenceStatus::Offline, None) => {}
            (PresenceStatus::Offline, Some(user)) => {
                let news = self.rooms[index].users.leave_elsewhere(user);
                self.tell_presence(now, index, Mover::without_connection(user), news);
            }
            (PresenceStatus::Online, present) => {
                // The name that it is known by in this room stays.
                let user = present.unwrap_or_else(|| self.users.hold_named(&change.user, change.name.as_deref()));
                let news = self.rooms[index].users.come_elsewhere(user);
                self.tell_presence(now, index, Mover::without_connection(user), news);
                if present.is_none() {
                    self.users.release(user);
                }
            }
        }
    }

    /// Tells other nodes and members what they are to learn of a user. The room holds a user as long as it is present.
    fn tell_presence(&mut self, now: Now, index: RoomIndex, mover: Mover, news: PresenceNews) {
        let user = mover.user;
        if let Some(status) = news.for_nodes {
            let (room, users) = (&self.rooms[index].name, &self.users);
            self.pending.share(|| {
                let name = users.view(user).name.map(Into::into);
                let change = PresenceChange { user: users.id(user).clone(), name, status };
                BusRequest::Presence { room: room.clone(), change }
            });
        }
        if let Some(status) = news.for_members {
            if status == PresenceStatus::Online {
                self.users.hold(user);
            }
            self.announce(now, index, mover, status);
            if status == PresenceStatus::Offline {
                self.users.release(user);
            }
        }
    }

    fn announce(&mut self, now: Now, index: RoomIndex, Mover { user, owner }: Mover, status: PresenceStatus) {
        let listed_max = self.rooms.limits(index).users_listed_max;
        match self.rooms[index].users.announcement(listed_max) {
            Announcement::List => self.list_or_count_users(now, index, owner),
            Announcement::User if self.has_space_to_tell((index, owner), EVENT_BYTES_MAX) => {
                self.delivery_rates.charge(now, owner, self.rooms[index].members.live_count());
                self.append_event(now, (index, owner), |out, room, users| {
                    let user = users.view(user);
                    ServerMessage::Presence { room: room.name.as_str(), user, status }.append_frame(out);
                });
            }
            Announcement::User | Announcement::Count => self.timers.start_count(now, &mut self.rooms, (index, owner)),
        }
    }

    fn has_space_to_tell(&self, (index, owner): (RoomIndex, Owner), bytes: usize) -> bool {
        self.rooms.has_space(index, bytes) && self.rooms.has_space_for(owner, bytes)
    }

    /// Tells members how many users there are, and which, unless they are counted; an owner has caused it.
    pub(super) fn list_or_count_users(&mut self, now: Now, index: RoomIndex, owner: Owner) {
        if !self.has_space_to_tell((index, owner), MEMBERS_BYTES_MAX) {
            return self.timers.start_count(now, &mut self.rooms, (index, owner));
        }
        self.delivery_rates.charge(now, owner, self.rooms[index].members.live_count());
        self.append_event(now, (index, owner), |out, room, users| {
            let (count, listed) = (room.users.len(), room.users.list(users));
            ServerMessage::Members { room: room.name.as_str(), count, users: listed.as_deref() }.append_frame(out);
        });
    }
}
