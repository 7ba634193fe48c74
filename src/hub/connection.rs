//! What the hub knows of a connection: whose it is, which rooms it is in, how much it has sent lately.

use crate::config::long_list;
use crate::id::{ConnectionId, ConnectionSerial, Slot};
use crate::time::Now;

use super::users::UserKey;

/// A connection as the hub sees it.
#[derive(Debug)]
pub(super) struct Connection {
    serial: ConnectionSerial,
    pub(super) user: UserKey,
    /// Bytes handed to the connection's own output since it was last known to be empty, and [`AWAITS_PAGE`].
    queued: u32,
    memberships: Memberships,
    bucket: Bucket,
    refusals: Refusals,
}

/// In `queued`: a page of history is on its way into the connection's own output; a second one might not fit.
const AWAITS_PAGE: u32 = 1 << 31;

/// That a connection is in a room, and where to find it there: eight bytes.
#[derive(Clone, Copy, Debug)]
struct Membership {
    room: u32,
    place: PackedPlace,
}

/// Most connections are in one room; a second one costs two allocations.
#[derive(Debug)]
enum Memberships {
    None,
    One(Membership),
    #[allow(clippy::box_collection, reason = "rarely there; sixteen bytes less in every connection")]
    Many(Box<Vec<Membership>>),
}

/// Where a member stands in its room: an index into one of two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Live(u32),
    CatchingUp(u32),
}

/// A [`Place`] in four bytes.
#[derive(Clone, Copy, Debug)]
struct PackedPlace(u32);

const CATCHES_UP: u32 = 1 << 31;

impl From<Place> for PackedPlace {
    fn from(place: Place) -> Self {
        match place {
            Place::Live(index) => Self(index),
            Place::CatchingUp(index) => Self(index | CATCHES_UP),
        }
    }
}

impl From<PackedPlace> for Place {
    fn from(PackedPlace(index): PackedPlace) -> Self {
        match index & CATCHES_UP {
            0 => Self::Live(index),
            _ => Self::CatchingUp(index & !CATCHES_UP),
        }
    }
}

impl Memberships {
    fn as_slice(&self) -> &[Membership] {
        match self {
            Self::None => &[],
            Self::One(membership) => std::slice::from_ref(membership),
            Self::Many(memberships) => memberships,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Membership] {
        match self {
            Self::None => &mut [],
            Self::One(membership) => std::slice::from_mut(membership),
            Self::Many(memberships) => memberships,
        }
    }

    fn push(&mut self, membership: Membership) {
        match self {
            Self::None => *self = Self::One(membership),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, membership])),
            Self::Many(memberships) => memberships.push(membership),
        }
    }

    fn remove(&mut self, room: u32) {
        match self {
            Self::One(membership) if membership.room == room => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(memberships) => {
                memberships.retain(|membership| membership.room != room);
                if let [last] = memberships[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Connection {
    pub(super) fn new(serial: ConnectionSerial, user: UserKey) -> Self {
        Self {
            serial,
            user,
            queued: 0,
            memberships: Memberships::None,
            bucket: Bucket::default(),
            refusals: Refusals::default(),
        }
    }

    /// Bytes handed to the connection's own output since it was last known to be empty.
    pub(super) fn queued_bytes(&self) -> usize {
        (self.queued & !AWAITS_PAGE) as usize
    }

    pub(super) fn add_queued(&mut self, bytes: usize) {
        let queued = (self.queued_bytes() + bytes).min(AWAITS_PAGE as usize - 1) as u32;
        self.queued = queued | self.queued & AWAITS_PAGE;
    }

    /// Its own output is known to be empty.
    pub(super) fn clear_queued(&mut self) {
        self.queued &= AWAITS_PAGE;
    }

    pub(super) fn awaits_page(&self) -> bool {
        self.queued & AWAITS_PAGE != 0
    }

    pub(super) fn await_page(&mut self) {
        self.queued |= AWAITS_PAGE;
    }

    pub(super) fn stop_awaiting_page(&mut self) {
        self.queued &= !AWAITS_PAGE;
    }

    /// Takes a token for a message from a bucket of `burst`, filled with `rate` a second; 0 is no limit.
    pub(super) fn take_token(&mut self, now: Now, rate: u32, burst: u32) -> Verdict {
        self.bucket.take(&mut self.refusals, now, rate, burst)
    }

    /// The rooms that it is in, in the order in which it came into them, and where it stands there.
    pub(super) fn rooms(&self) -> impl DoubleEndedIterator<Item = (u32, Place)> + ExactSizeIterator {
        self.memberships.as_slice().iter().map(|membership| (membership.room, membership.place.into()))
    }

    pub(super) fn place_in(&self, room: u32) -> Option<Place> {
        self.rooms().find(|(other, _)| *other == room).map(|(_, place)| place)
    }

    pub(super) fn set_place(&mut self, room: u32, place: Place) {
        let membership = self.memberships.as_mut_slice().iter_mut().find(|membership| membership.room == room);
        membership.expect("a member of a room has a membership").place = place.into();
    }

    pub(super) fn enter(&mut self, room: u32, place: Place) {
        self.memberships.push(Membership { room, place: place.into() });
    }

    pub(super) fn forget(&mut self, room: u32) {
        self.memberships.remove(room);
    }
}

/// All connections, by slot.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    count: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self { slots: Vec::with_capacity(long_list::<Connection>()), count: 0 }
    }
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, id: ConnectionId, connection: Connection) {
        let slot = id.slot.index();
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        debug_assert!(self.slots[slot].is_none(), "the slot's last connection was disconnected");
        self.slots[slot] = Some(connection);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.count -= 1;
        self.slots[id.slot.index()].take()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.slots.get(id.slot.index())?.as_ref()?;
        (connection.serial == id.serial).then_some(connection)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(id.slot.index())?.as_mut()?;
        (connection.serial == id.serial).then_some(connection)
    }

    /// The connection of a member, which is there as long as the member is.
    pub(super) fn member(&self, slot: Slot) -> &Connection {
        self.slots[slot.index()].as_ref().expect("a member has a connection")
    }

    /// As [`Connections::member`], to be changed.
    pub(super) fn member_mut(&mut self, slot: Slot) -> &mut Connection {
        self.slots[slot.index()].as_mut().expect("a member has a connection")
    }

    /// The whole name of the connection in a slot.
    pub(super) fn id(&self, slot: Slot) -> ConnectionId {
        ConnectionId { slot, serial: self.member(slot).serial }
    }

    /// How many slots there are; some may be empty.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The connection in a slot, if it is a certain user's.
    pub(super) fn of_user(&self, slot: Slot, user: UserKey) -> Option<ConnectionId> {
        let connection = self.slots.get(slot.index())?.as_ref().filter(|connection| connection.user == user)?;
        Some(ConnectionId { slot, serial: connection.serial })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slots.iter().enumerate().filter_map(|(slot, connection)| {
            let connection = connection.as_ref()?;
            Some((ConnectionId { slot: Slot(slot as u32), serial: connection.serial }, connection))
        })
    }
}

/// A token bucket, kept as the moment at which it will be full again (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Bucket {
    full_at_micros: u64,
}

/// What was refused since the bucket was last full.
#[derive(Debug, Default)]
struct Refusals {
    count: u16,
    /// When the connection was last told, in units of [`TOLD_UNIT_MILLIS`] modulo 2^16; 0 if it never was.
    told_at: u16,
}

/// Sixteen of these are the second that passes between two errors.
const TOLD_UNIT_MILLIS: u64 = 64;

/// What a [`Bucket`] says to a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Not now; a second has passed since the connection was told so.
    Tell {
        retry_after_ms: u64,
    },
    /// Not now, and it has been told.
    Drop,
    /// It goes on regardless.
    Flood,
}

impl Bucket {
    fn take(&mut self, refusals: &mut Refusals, now: Now, rate: u32, burst: u32) -> Verdict {
        if rate == 0 {
            return Verdict::Pass;
        }
        let cost = 1_000_000 / u64::from(rate);
        let now_micros = now.uptime.as_micros() as u64;
        if self.full_at_micros <= now_micros {
            self.full_at_micros = now_micros;
            refusals.count = 0;
        }
        let allowed = now_micros + cost * u64::from(burst);
        if self.full_at_micros + cost <= allowed {
            self.full_at_micros += cost;
            return Verdict::Pass;
        }
        refusals.count = refusals.count.saturating_add(1);
        if u32::from(refusals.count) >= burst.saturating_mul(10).min(u16::MAX.into()) {
            return Verdict::Flood;
        }
        // At worst one error too few every seventy minutes.
        let now_units = ((now.millis() / TOLD_UNIT_MILLIS) as u16).max(1);
        if refusals.told_at != 0 && now_units.wrapping_sub(refusals.told_at) < 16 {
            return Verdict::Drop;
        }
        refusals.told_at = now_units;
        let wait_micros = self.full_at_micros + cost - allowed;
        Verdict::Tell { retry_after_ms: wait_micros.div_ceil(1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::users::tests::key;
    use std::time::Duration;

    fn at(millis: u64) -> Now {
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    }

    #[test]
    fn a_connection_is_small() {
        let bytes = std::mem::size_of::<Option<Connection>>();
        assert!(bytes <= 40, "{bytes} bytes");
    }

    #[test]
    fn rooms_keep_their_order_and_places() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1));
        for rooms in 0..4_u32 {
            for room in 0..rooms {
                connection.enter(room, Place::CatchingUp(room + 10));
                connection.set_place(room, Place::Live(room));
            }
            assert!(connection.rooms().eq((0..rooms).map(|room| (room, Place::Live(room)))));
            for room in 0..rooms {
                connection.set_place(room, Place::CatchingUp(7));
                assert_eq!(connection.place_in(room), Some(Place::CatchingUp(7)));
                connection.forget(room);
                assert_eq!(connection.place_in(room), None);
                assert_eq!(connection.rooms().len() as u32, rooms - room - 1);
            }
        }
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1));
        let mut passed = |millis| (0..50).filter(|_| connection.take_token(at(millis), 10, 5) == Verdict::Pass).count();
        assert_eq!(passed(1000), 5);
        assert_eq!(passed(1100), 1);
        assert_eq!(passed(60_000), 5);
    }

    #[test]
    fn it_tells_once_a_second_and_gives_up_after_ten_bursts() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1));
        let mut take = |millis| connection.take_token(at(millis), 10, 5);
        for _ in 0..5 {
            assert_eq!(take(1000), Verdict::Pass);
        }
        assert_eq!(take(1000), Verdict::Tell { retry_after_ms: 100 });
        assert_eq!(take(1001), Verdict::Drop);
        assert_eq!(take(1050), Verdict::Drop);
        let mut flood = 0;
        for _ in 0..50 {
            flood += u32::from(take(1002) == Verdict::Flood);
        }
        assert!(flood > 0);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1));
        assert!((0..100_000).all(|_| connection.take_token(at(1), 0, 1) == Verdict::Pass));
    }
}
