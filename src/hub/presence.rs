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
use super::presence_checks::CheckState;
use super::room_users::{Announcement, PresenceNews};
use super::timers::Timer;
use super::users::UserKey;

/// More than the largest presence message.
const EVENT_BYTES_MAX: usize = 2048;

/// More than the largest `members` message that is worth a place in a crowded log.
const MEMBERS_BYTES_MAX: usize = 8 * 1024;

/// How long after a cut a list of users is not said to have those of all nodes. The bus asks for them meanwhile.
const RECONCILE: Duration = Duration::from_secs(2);

/// The longest time after which a grace that is over looks again whether the users of other nodes are known.
pub(super) const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

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

    /// The bus can be reached, or cannot. While it cannot, users come and go on other nodes unheard.
    pub(super) fn note_presence_readiness(&mut self, now: Now, is_ready: bool) {
        if !is_ready {
            self.deaf_until = now.uptime + RECONCILE;
        }
    }

    /// Whether the present users of other nodes are thought to be known as of now.
    pub(super) fn hears_other_nodes(&self, now: Now) -> bool {
        now.uptime >= self.deaf_until
    }

    pub(super) fn end_grace_if_over(&mut self, now: Now, room: RoomRef, user: UserKey) {
        let index = self.rooms.find(room);
        let grace = index.and_then(|index| Some((index, self.rooms[index].users.grace(user)?)));
        let Some((index, until)) = grace else {
            self.timers.end_grace(&mut self.rooms.account, room, user);
            return;
        };
        if until > Tick::of(now) {
            // The grace began anew, or is longer than the wheel reaches.
            return self.timers.start_at(until, Timer::Grace { room, user });
        }
        if !self.knows_others_since(now, (room, index), until) {
            // The longer it takes, the more seldom it is looked for.
            let wait = Tick::of(now).since(until).min(LOOK_AGAIN_MAX);
            self.timers.start(now, wait, Timer::Grace { room, user });
            return;
        }
        let owner = self.timers.end_grace(&mut self.rooms.account, room, user).unwrap_or(Owner::OTHERS);
        self.end_presence_of(now, index, Mover { user, owner });
        self.forget_if_unused(index);
    }

    /// Whether it is known who was in a room on other nodes when a grace was over. If it is not, the bus is asked: a user of whom
    /// nothing is heard may have come back on a node that is not heard now.
    fn knows_others_since(&mut self, now: Now, (room, index): (RoomRef, RoomIndex), over_at: Tick) -> bool {
        if !self.pending.shares_presence() {
            return true;
        }
        match self.presence_checks.look(room, over_at) {
            CheckState::Known => return true,
            CheckState::Asked => {}
            CheckState::Wanted => {
                self.presence_checks.ask(room, Tick::of(now));
                self.pending.request(BusRequest::CheckPresence(self.rooms[index].name.clone()));
            }
        }
        false
    }

    /// The bus has told who was in a room on other nodes when it was asked.
    pub(super) fn handle_presence_checked(&mut self, name: &RoomName) {
        if let Some(index) = self.rooms.named(name.as_str()) {
            self.presence_checks.answer(self.rooms.reference(index));
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
