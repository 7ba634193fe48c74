//! What the hub has to look at again, and when.

use std::time::Duration;

use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::sharded_map::ShardedMap;
use crate::time::Now;
use crate::timer_wheel::{Tick, Wheel};

use super::account::Account;
use super::graces::Graces;
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
    /// The identity of a connection may have expired. Of several timers of a connection the one at this tick counts.
    Expiry { connection: ConnectionId, at: Tick },
}

/// Timers by the tick at which they are due.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel<Timer>,
    members_interval: Duration,
    /// Graces that have a timer on the wheel.
    graces: Graces,
    /// The owners that have caused the counts that are due.
    count_owners: ShardedMap<RoomRef, Owner>,
}

impl Timers {
    pub(super) fn new(members_interval: Duration) -> Self {
        Self { wheel: Wheel::new(), members_interval, graces: Graces::default(), count_owners: ShardedMap::default() }
    }

    /// Sees to it that a room counts its members soon, once however much happens until then. The owner that makes the count due has
    /// caused it.
    pub(super) fn start_count(&mut self, now: Now, rooms: &mut Rooms, (index, owner): (RoomIndex, Owner)) {
        let room = rooms.reference(index);
        if rooms[index].users.begin_count() {
            self.count_owners.insert(room, owner);
            self.start(now, self.members_interval, Timer::Members { room });
        }
    }

    /// The timer of a count has come up. Says which owner has caused it.
    pub(super) fn end_count(&mut self, room: RoomRef) -> Owner {
        self.count_owners.remove(&room).unwrap_or(Owner::OTHERS)
    }

    /// A user's grace in a room begins, perhaps anew, and lasts `until` then. An owner is charged, also so much for the user.
    pub(super) fn start_grace(
        &mut self,
        until: Tick,
        account: &mut Account,
        (room, user): (RoomRef, UserKey),
        charged: (Owner, usize),
    ) {
        // A timer that is there comes up no later than it has to, and is put back then.
        if self.graces.begin(account, (room, user), charged) {
            self.start_at(until, Timer::Grace { room, user });
        }
    }

    /// The timer of a grace has come up and is not put back. Says which owner was charged for it.
    pub(super) fn end_grace(&mut self, account: &mut Account, room: RoomRef, user: UserKey) -> Option<Owner> {
        self.graces.end(account, room, user)
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
