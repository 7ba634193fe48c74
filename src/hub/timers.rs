//! What the hub has to look at again, and when.

use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::id::ConnectionId;
use crate::time::Now;
use crate::timer_wheel::{Tick, Wheel};

use super::index::{RoomIndex, RoomRef};
use super::rooms::Rooms;
use super::users::UserKey;

/// Something that the hub has to look at again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// A user's grace in a room may be over.
    Grace { room: RoomRef, user: UserKey },
    /// A room may count its members.
    Members { room: RoomRef },
    /// A member that could not read history tries again.
    CatchUp { room: RoomRef, connection: ConnectionId },
}

/// Timers by the tick at which they are due.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel<Timer>,
    members_interval: Duration,
    /// Graces that have a timer on the wheel. A user that is lost again and again would otherwise get one more each time, all
    /// of which would be put back for as long as the latest grace lasts.
    graces: FxHashSet<(RoomRef, UserKey)>,
}

/// So many graces the table may have room for while there are few.
const GRACES_KEPT: usize = 1024;

impl Timers {
    pub(super) fn new(members_interval: Duration) -> Self {
        Self { wheel: Wheel::new(), members_interval, graces: FxHashSet::default() }
    }

    /// Sees to it that a room counts its members soon, once however much happens until then.
    pub(super) fn start_count(&mut self, now: Now, rooms: &mut Rooms, index: RoomIndex) {
        let room = rooms.reference(index);
        if rooms[index].users.begin_count() {
            self.start(now, self.members_interval, Timer::Members { room });
        }
    }

    /// A user's grace in a room begins, perhaps anew. Says until when it lasts.
    pub(super) fn start_grace(&mut self, now: Now, grace: Duration, room: RoomRef, user: UserKey) -> Tick {
        let until = Tick::of(now).after(grace);
        // A timer that is there comes up no later than it has to, and is put back then.
        if self.graces.insert((room, user)) {
            self.start_at(until, Timer::Grace { room, user });
        }
        until
    }

    /// The timer of a grace has come up and is not put back.
    pub(super) fn end_grace(&mut self, room: RoomRef, user: UserKey) {
        self.graces.remove(&(room, user));
        if self.graces.len() * 4 < self.graces.capacity() && self.graces.capacity() > GRACES_KEPT {
            self.graces.shrink_to(self.graces.len() * 2);
        }
    }

    /// Has a timer looked at when `wait` is over. Says at which tick that is.
    pub(super) fn start(&mut self, now: Now, wait: Duration, timer: Timer) -> Tick {
        let at = Tick::of(now).after(wait);
        self.start_at(at, timer);
        at
    }

    /// Has a timer looked at in a tick, or earlier if that is further away than the wheel reaches.
    pub(super) fn start_at(&mut self, at: Tick, timer: Timer) {
        self.wheel.insert(at, timer);
    }

    /// The next timer that is due.
    pub(super) fn pop(&mut self, now: Now) -> Option<Timer> {
        self.wheel.pop(Tick::of(now)).map(|(_, timer)| timer)
    }

    /// How many timers there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    /// How long until [`Timers::pop`] has something.
    pub(super) fn timeout(&self, now: Now) -> Option<Duration> {
        self.wheel.timeout(now)
    }
}
