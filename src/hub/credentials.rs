//! Until when the identities of connections are good, and for which rooms. Connections without a token are not in this table.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::id::{ConnectionId, ConnectionSerial, RoomName, Slot};
use crate::rights::{Grants, Rights};
use crate::time::Now;

use super::timers::{Timer, Timers};

/// Those of a connection.
#[derive(Debug)]
struct Credential {
    serial: ConnectionSerial,
    /// Unix milliseconds.
    expires_at: Option<u64>,
    grants: Option<Grants>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Credentials {
    by_slot: FxHashMap<Slot, Credential>,
    default_grants: Grants,
}

impl Credentials {
    /// Of no connections. Those whose identity does not say what they may do have the default grants.
    pub(super) fn new(default_grants: Grants) -> Self {
        Self { by_slot: FxHashMap::default(), default_grants }
    }

    /// A connection has come with an identity that says this.
    pub(super) fn insert(
        &mut self,
        now: Now,
        id: ConnectionId,
        (expires_at, grants): (Option<u64>, Option<Grants>),
        timers: &mut Timers,
    ) {
        if expires_at.is_some() || grants.is_some() {
            self.by_slot.insert(id.slot, Credential { serial: id.serial, expires_at, grants });
        }
        if let Some(expires_at) = expires_at {
            start_timer(now, id, expires_at, timers);
        }
    }

    /// What a connection may do in a room. Joins ask it, never messages.
    pub(super) fn rights(&self, id: ConnectionId, room: &RoomName) -> Rights {
        let own = self.get(id).and_then(|credential| credential.grants.as_ref());
        own.unwrap_or(&self.default_grants).in_room(room)
    }

    /// A connection is gone.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.by_slot.remove(&id.slot);
        }
    }

    fn get(&self, id: ConnectionId) -> Option<&Credential> {
        self.by_slot.get(&id.slot).filter(|credential| credential.serial == id.serial)
    }

    /// The timer of a connection has come up. Says whether its identity has expired; otherwise the timer is put back.
    pub(super) fn have_expired(&self, now: Now, id: ConnectionId, timers: &mut Timers) -> bool {
        let Some(expires_at) = self.get(id).and_then(|credential| credential.expires_at) else { return false };
        if now.unix_ms < expires_at {
            start_timer(now, id, expires_at, timers);
        }
        now.unix_ms >= expires_at
    }
}

/// The longest time to a look at a credential. The wheel reaches less far, so that a system clock that is set counts soon.
const LOOK_MAX: Duration = Duration::from_secs(60);

fn start_timer(now: Now, id: ConnectionId, expires_at: u64, timers: &mut Timers) {
    let wait = Duration::from_millis(expires_at.saturating_sub(now.unix_ms));
    timers.start(now, wait.min(LOOK_MAX), Timer::Expiry { connection: id });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks, so many seconds after the start.
    fn at(uptime: u64, unix: u64) -> Now {
        Now { uptime: Duration::from_secs(uptime), unix_ms: unix * 1000 }
    }

    /// Takes the timers that are due; says whether one of them ends the connection.
    fn ends(credentials: &Credentials, timers: &mut Timers, now: Now) -> bool {
        let mut ends = false;
        while let Some(timer) = timers.pop(now) {
            let Timer::Expiry { connection } = timer else { panic!("{timer:?}") };
            ends |= credentials.have_expired(now, connection, timers);
        }
        ends
    }

    #[test]
    fn an_identity_ends_by_the_clock_of_the_wall() {
        let id = ConnectionId::new(3, 7);
        let (mut credentials, mut timers) = (Credentials::new(Grants::default()), Timers::new(Duration::ZERO));
        credentials.insert(at(0, 1000), id, (Some(1_100_000), None), &mut timers);
        for second in 0..100 {
            assert!(!ends(&credentials, &mut timers, at(second, 1000 + second)), "{second}");
        }
        assert!(ends(&credentials, &mut timers, at(101, 1101)));
        // A clock that is set forward counts within the reach of the wheel, and one that is set back gives more time.
        credentials.insert(at(101, 1000), id, (Some(1_100_000), None), &mut timers);
        assert!(ends(&credentials, &mut timers, at(118, 5000)));
        credentials.insert(at(118, 1000), id, (Some(1_010_000), None), &mut timers);
        assert!(!ends(&credentials, &mut timers, at(130, 900)));
        // Nothing is left of a connection that is gone, and a later one in its slot is another one.
        credentials.remove(ConnectionId::new(3, 6));
        assert!(credentials.get(id).is_some());
        credentials.remove(id);
        assert!(!ends(&credentials, &mut timers, at(900, 9000)));
        assert_eq!((timers.len(), timers.timeout(at(900, 9000))), (0, None));
    }
}
