//! Until when the identities of connections are good, by which keys, and for which rooms. Connections without a token are not in
//! this table.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::id::{ConnectionId, ConnectionSerial, KeyNumber, RoomName, Slot, UserId};
use crate::rights::{Grants, Rights};
use crate::sharded_map::ShardedMap;
use crate::time::Now;
use crate::timer_wheel::Tick;

use super::timers::{Timer, Timers};

/// The least time between two refreshes of a connection: each has a token verified, and memberships evaluated.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// The longest time to a look at a credential. The wheel reaches less far, so that a system clock that is set counts soon.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// The entry of a credential in its table, and its timer, with their spare room.
const CREDENTIAL_BYTES: usize = 118;

/// A token that a connection has brought in place of its last one. [`Hub::finish_refresh`](super::Hub::finish_refresh) tells what became of it.
pub struct TokenRefresh {
    /// The connection.
    pub connection: ConnectionId,
    /// Its user.
    pub user: UserId,
    /// The token, which nobody has looked at.
    pub token: String,
}

/// What a new token says.
#[derive(Clone, Debug)]
pub struct RefreshedIdentity {
    /// The user.
    pub user: Option<UserId>,
    /// A name to show.
    pub name: Option<String>,
    /// Until when it is good, and for which rooms.
    pub validity: Validity,
}

/// How far an identity is good. By default it is good for ever, and grants what every connection may do.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    /// When it expires, in Unix milliseconds.
    pub expires_at: Option<u64>,
    /// The key that has verified it. It is good as long as the key is there.
    pub key: Option<KeyNumber>,
    /// What the user may do in which rooms, if it says.
    pub grants: Option<Grants>,
}

/// Those of a connection.
#[derive(Debug)]
struct Credential {
    serial: ConnectionSerial,
    /// When its timer comes up. Others of the connection are out of date.
    timer: Option<Tick>,
    key: Option<KeyNumber>,
    /// Unix milliseconds. The first moment of 1970 stands for the second.
    expires_at: Option<NonZeroU64>,
    grants: Option<Grants>,
    /// Of a connection that has brought a new token.
    refresh: Option<Box<Refresh>>,
}

/// The last refresh of a connection.
#[derive(Debug)]
struct Refresh {
    begun_at: Duration,
    state: RefreshState,
}

impl Refresh {
    fn held_bytes(&self) -> usize {
        let id_bytes = match &self.state {
            RefreshState::UnderWay(id) => id.as_ref().map_or(0, |id| id.len()),
            RefreshState::Done => 0,
        };
        size_of::<Self>() + id_bytes
    }
}

#[derive(Debug)]
enum RefreshState {
    /// The token is looked at. The answer repeats this id.
    UnderWay(Option<Box<str>>),
    Done,
}

/// Why a connection may not bring a new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshProblem {
    /// Its identity neither expires nor has grants.
    NoToken,
    /// Another one is under way, or was a short time ago.
    TooSoon { wait_millis: u64 },
}

/// A comparison of all connections with the keys that are left.
#[derive(Debug)]
pub(super) struct KeyCheck {
    /// In their order.
    pub(super) left: Vec<KeyNumber>,
    /// Connections in lower slots have been looked at. Later ones in these slots are of a key that is left.
    pub(super) next_slot: u32,
    pub(super) closed: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Credentials {
    by_slot: ShardedMap<Slot, Credential>,
    pub(super) key_check: Option<KeyCheck>,
    default_grants: Grants,
}

impl Credentials {
    /// Of no connections. Those whose identity does not say what they may do have the default grants.
    pub(super) fn new(default_grants: Grants) -> Self {
        Self { by_slot: ShardedMap::default(), key_check: None, default_grants }
    }

    /// A connection has come with an identity that is good so far.
    pub(super) fn insert(&mut self, now: Now, id: ConnectionId, validity: Validity, timers: &mut Timers) {
        if validity.expires_at.is_some() || validity.key.is_some() || validity.grants.is_some() {
            let mut credential = Credential::new(id.serial);
            credential.set(now, id, validity, timers);
            self.by_slot.insert(id.slot, credential);
        }
    }

    /// What a connection may do in a room. Joins ask it, never messages.
    pub(super) fn rights(&self, id: ConnectionId, room: &RoomName) -> Rights {
        let own = self.get(id).and_then(|credential| credential.grants.as_ref());
        own.unwrap_or(&self.default_grants).in_room(room)
    }

    /// The connection in a slot and the key that has verified its identity, if one has.
    pub(super) fn key_at(&self, slot: Slot) -> Option<(ConnectionId, KeyNumber)> {
        let credential = self.by_slot.get(&slot)?;
        Some((ConnectionId { slot, serial: credential.serial }, credential.key?))
    }

    /// Whether a connection's identity says what it may do.
    pub(super) fn has_grants(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|credential| credential.grants.is_some())
    }

    /// What is held for a connection here.
    pub(super) fn held_bytes(&self, id: ConnectionId) -> usize {
        self.get(id).map_or(0, Credential::held_bytes)
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

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Credential> {
        self.by_slot.get_mut(&id.slot).filter(|credential| credential.serial == id.serial)
    }

    /// The timer of a connection at a tick has come up. Says whether its identity has expired; otherwise the timer is put back.
    pub(super) fn have_expired(&mut self, now: Now, (id, at): (ConnectionId, Tick), timers: &mut Timers) -> bool {
        let Some(credential) = self.get_mut(id).filter(|credential| credential.timer == Some(at)) else { return false };
        let Some(expires_at) = credential.expires_at else { return false };
        let has_expired = now.unix_ms >= expires_at.get();
        credential.timer = (!has_expired).then(|| start_timer(now, id, expires_at.get(), timers));
        has_expired
    }

    /// A connection brings a new token. Says why it may not.
    pub(super) fn begin_refresh(
        &mut self,
        now: Now,
        id: ConnectionId,
        message_id: Option<&str>,
    ) -> Result<(), RefreshProblem> {
        let credential = self.get_mut(id).ok_or(RefreshProblem::NoToken)?;
        if let Some(last) = &credential.refresh {
            let wait = (last.begun_at + REFRESH_PAUSE).saturating_sub(now.uptime);
            if !wait.is_zero() || matches!(last.state, RefreshState::UnderWay(_)) {
                let wait_millis = wait.as_millis().max(1000) as u64;
                return Err(RefreshProblem::TooSoon { wait_millis });
            }
        }
        let state = RefreshState::UnderWay(message_id.map(Into::into));
        credential.refresh = Some(Box::new(Refresh { begun_at: now.uptime, state }));
        Ok(())
    }

    /// The refresh that is under way has an outcome. Gives the id that the answer repeats; none if there is no such refresh.
    pub(super) fn end_refresh(&mut self, id: ConnectionId) -> Option<Option<Box<str>>> {
        let refresh = self.get_mut(id)?.refresh.as_mut()?;
        match std::mem::replace(&mut refresh.state, RefreshState::Done) {
            RefreshState::UnderWay(message_id) => Some(message_id),
            RefreshState::Done => None,
        }
    }

    /// The new identity of a connection is good so far.
    pub(super) fn replace(&mut self, now: Now, id: ConnectionId, validity: Validity, timers: &mut Timers) {
        if let Some(credential) = self.get_mut(id) {
            credential.set(now, id, validity, timers);
        }
    }
}

impl Credential {
    fn new(serial: ConnectionSerial) -> Self {
        Self { serial, timer: None, key: None, expires_at: None, grants: None, refresh: None }
    }

    fn held_bytes(&self) -> usize {
        let grants = self.grants.as_ref().map_or(0, Grants::held_bytes);
        CREDENTIAL_BYTES + grants + self.refresh.as_ref().map_or(0, |refresh| refresh.held_bytes())
    }

    fn set(&mut self, now: Now, id: ConnectionId, validity: Validity, timers: &mut Timers) {
        let Validity { expires_at, key, grants } = validity;
        self.timer = expires_at.map(|expires_at| start_timer(now, id, expires_at, timers));
        self.expires_at = expires_at.map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN));
        (self.key, self.grants) = (key, grants);
    }
}

fn start_timer(now: Now, id: ConnectionId, expires_at: u64, timers: &mut Timers) -> Tick {
    let wait = Duration::from_millis(expires_at.saturating_sub(now.unix_ms)).min(LOOK_MAX);
    let at = Tick::of(now).after(wait);
    timers.start_at(at, Timer::Expiry { connection: id, at });
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks, so many seconds after the start.
    fn at(uptime: u64, unix: u64) -> Now {
        Now { uptime: Duration::from_secs(uptime), unix_ms: unix * 1000 }
    }

    /// Takes the timers that are due; says whether one of them ends the connection.
    fn ends(credentials: &mut Credentials, timers: &mut Timers, now: Now) -> bool {
        let mut ends = false;
        while let Some(timer) = timers.pop(now) {
            let Timer::Expiry { connection, at } = timer else { panic!("{timer:?}") };
            ends |= credentials.have_expired(now, (connection, at), timers);
        }
        ends
    }

    fn until(unix_ms: u64) -> Validity {
        Validity { expires_at: Some(unix_ms), ..Validity::default() }
    }

    #[test]
    fn a_credential_is_small() {
        let bytes = std::mem::size_of::<(Slot, Credential)>();
        assert!(bytes <= 56, "{bytes} bytes");
    }

    #[test]
    fn an_identity_ends_by_the_clock_of_the_wall() {
        let id = ConnectionId::new(3, 7);
        let (mut credentials, mut timers) = (Credentials::new(Grants::default()), Timers::new(Duration::ZERO));
        credentials.insert(at(0, 1000), id, until(1_100_000), &mut timers);
        for second in 0..100 {
            assert!(!ends(&mut credentials, &mut timers, at(second, 1000 + second)), "{second}");
        }
        assert!(ends(&mut credentials, &mut timers, at(101, 1101)));
        // A clock that is set forward counts within the reach of the wheel, and one that is set back gives more time.
        credentials.insert(at(101, 1000), id, until(1_100_000), &mut timers);
        assert!(ends(&mut credentials, &mut timers, at(118, 5000)));
        credentials.insert(at(118, 1000), id, until(1_010_000), &mut timers);
        assert!(!ends(&mut credentials, &mut timers, at(130, 900)));
        // A new token counts in place of the old one, whether it is good for longer or not, and leaves one timer.
        credentials.replace(at(130, 1000), id, until(2_000_000), &mut timers);
        credentials.replace(at(130, 1000), id, until(1_020_000), &mut timers);
        assert!(!ends(&mut credentials, &mut timers, at(149, 1019)));
        assert_eq!(timers.len(), 1);
        assert!(ends(&mut credentials, &mut timers, at(151, 1021)));
        // Nothing is left of a connection that is gone, and a later one in its slot is another one.
        credentials.remove(ConnectionId::new(3, 6));
        assert!(credentials.get(id).is_some());
        credentials.remove(id);
        assert!(!ends(&mut credentials, &mut timers, at(900, 9000)));
        assert_eq!((timers.len(), timers.timeout(at(900, 9000))), (0, None));
    }

    #[test]
    fn refreshes_are_few() {
        let id = ConnectionId::new(3, 7);
        let (mut credentials, mut timers) = (Credentials::new(Grants::default()), Timers::new(Duration::ZERO));
        assert_eq!(credentials.begin_refresh(at(5, 0), id, None), Err(RefreshProblem::NoToken));
        credentials.insert(at(5, 0), id, until(9_000_000), &mut timers);
        let too_soon = |wait_millis| Err(RefreshProblem::TooSoon { wait_millis });
        assert_eq!(credentials.end_refresh(id), None);
        assert_eq!(credentials.begin_refresh(at(5, 0), id, Some("r")), Ok(()));
        assert_eq!(credentials.begin_refresh(at(5, 0), id, None), too_soon(10_000));
        assert_eq!(credentials.begin_refresh(at(60, 0), id, None), too_soon(1000), "one is under way");
        assert_eq!(credentials.end_refresh(id), Some(Some("r".into())));
        assert_eq!(credentials.end_refresh(id), None);
        assert_eq!(credentials.begin_refresh(at(14, 0), id, None), too_soon(1000));
        assert_eq!(credentials.begin_refresh(at(15, 0), id, None), Ok(()));
        assert_eq!(credentials.end_refresh(id), Some(None));
    }
}
