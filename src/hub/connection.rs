//! What the hub knows of a connection: its user, its rooms, and how much it has sent lately.

use smallvec::SmallVec;

use crate::id::{ConnectionId, ConnectionSerial, Slot};
use crate::memory::long_list;
use crate::owner::Owner;
use crate::rights::Rights;
use crate::settings::HubLimits;
use crate::steps;
use crate::time::Now;

use super::index::{CatchUpIndex, LiveIndex, Place, RoomIndex};
use super::rate_limit::{Bucket, Refusals, Verdict};
use super::users::UserKey;

/// A connection as the hub sees it.
#[derive(Debug)]
pub(super) struct Connection {
    serial: ConnectionSerial,
    pub(super) user: UserKey,
    pub(super) owner: Owner,
    /// Bytes handed to the connection's own output since it was last known to be empty, [`AWAITS_PAGE`] and [`AWAITS_HISTORY`].
    queued: u32,
    memberships: Memberships,
    bucket: Bucket,
    refusals: Refusals,
}

/// In `queued`: a page of history is on its way into the connection's own output; a second one might not fit.
const AWAITS_PAGE: u32 = 1 << 31;

/// In `queued`: it has asked for older messages.
const AWAITS_HISTORY: u32 = 1 << 30;

/// In `queued`: the bytes. They are compared with a quarter of the write buffer, which is a gibibyte at most.
const QUEUED: u32 = AWAITS_HISTORY - 1;

/// That a connection is in a room, where to find it there, and what it may do there: eight bytes.
#[derive(Clone, Copy, Debug)]
struct Membership {
    room: RoomIndex,
    place: PackedPlace,
}

/// Most connections are in one room; a second one costs two allocations.
#[derive(Debug)]
enum Memberships {
    None,
    One(Membership),
    #[expect(clippy::box_collection, reason = "rarely there; sixteen bytes less in every connection")]
    Many(Box<Vec<Membership>>),
}

/// A [`Place`], and the [`Rights`] of a member, in four bytes. Fewer than 2^28 connections fit into a room: `--max-connections` is
/// less than half of that.
#[derive(Clone, Copy, Debug)]
struct PackedPlace(u32);

const CATCHES_UP: u32 = 1 << 31;
const RIGHTS_SHIFT: u32 = 28;
const INDEX: u32 = (1 << RIGHTS_SHIFT) - 1;

impl PackedPlace {
    fn new(place: Place, rights: Rights) -> Self {
        let rights = rights.member_bits() << RIGHTS_SHIFT;
        match place {
            Place::Live(at) => Self(at.0 & INDEX | rights),
            Place::CatchingUp(at) => Self(at.0 & INDEX | rights | CATCHES_UP),
        }
    }

    fn place(self) -> Place {
        match self.0 & CATCHES_UP {
            0 => Place::Live(LiveIndex(self.0 & INDEX)),
            _ => Place::CatchingUp(CatchUpIndex(self.0 & INDEX)),
        }
    }

    fn rights(self) -> Rights {
        Rights::of_member(self.0 >> RIGHTS_SHIFT)
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

    fn remove(&mut self, room: RoomIndex) {
        match self {
            Self::One(membership) if membership.room == room => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(memberships) => {
                // From the back: a connection that goes leaves its rooms in this order.
                let is_room = |membership: &Membership| {
                    steps::note(1);
                    membership.room == room
                };
                if let Some(at) = memberships.iter().rposition(is_room) {
                    steps::note((memberships.len() - at) as u64);
                    memberships.remove(at);
                }
                if let [last] = memberships[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Connection {
    pub(super) fn new(serial: ConnectionSerial, user: UserKey, owner: Owner) -> Self {
        Self {
            serial,
            user,
            owner,
            queued: 0,
            memberships: Memberships::None,
            bucket: Bucket::default(),
            refusals: Refusals::default(),
        }
    }

    /// Bytes handed to the connection's own output since it was last known to be empty.
    pub(super) fn queued_bytes(&self) -> usize {
        (self.queued & QUEUED) as usize
    }

    pub(super) fn add_queued(&mut self, bytes: usize) {
        let queued = (self.queued_bytes() + bytes).min(QUEUED as usize) as u32;
        self.queued = queued | self.queued & !QUEUED;
    }

    /// Its own output is known to be empty.
    pub(super) fn clear_queued(&mut self) {
        self.queued &= !QUEUED;
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

    pub(super) fn awaits_history(&self) -> bool {
        self.queued & AWAITS_HISTORY != 0
    }

    pub(super) fn await_history(&mut self) {
        self.queued |= AWAITS_HISTORY;
    }

    pub(super) fn stop_awaiting_history(&mut self) {
        self.queued &= !AWAITS_HISTORY;
    }

    fn take_token(&mut self, now: Now, rate: u32, burst: u32) -> Verdict {
        self.bucket.take(&mut self.refusals, now, rate, burst)
    }

    /// The rooms that it is in, in the order in which it came into them, and where it stands there.
    pub(super) fn rooms(&self) -> impl DoubleEndedIterator<Item = (RoomIndex, Place)> + ExactSizeIterator {
        self.memberships.as_slice().iter().map(|membership| (membership.room, membership.place.place()))
    }

    fn membership(&self, room: RoomIndex) -> Option<PackedPlace> {
        let mut memberships = self.memberships.as_slice().iter().rev().inspect(|_| steps::note(1));
        memberships.find(|membership| membership.room == room).map(|membership| membership.place)
    }

    pub(super) fn place_in(&self, room: RoomIndex) -> Option<Place> {
        self.membership(room).map(PackedPlace::place)
    }

    /// What it may do in a room that it is in.
    pub(super) fn rights_in(&self, room: RoomIndex) -> Option<Rights> {
        self.membership(room).map(PackedPlace::rights)
    }

    fn set_place(&mut self, room: RoomIndex, place: Place) {
        let mut memberships = self.memberships.as_mut_slice().iter_mut().rev();
        if let Some(membership) = memberships.find(|membership| membership.room == room) {
            membership.place = PackedPlace::new(place, membership.place.rights());
        }
    }

    pub(super) fn enter(&mut self, room: RoomIndex, place: Place, rights: Rights) {
        self.memberships.push(Membership { room, place: PackedPlace::new(place, rights) });
    }
}

/// All connections, by slot.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    count: usize,
    /// Where [`Connections::walk`] goes on.
    walked: usize,
    counts: MessageCounts,
}

/// What connections have sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageCounts {
    pub(super) received: u64,
    pub(super) rate_limited: u64,
}

impl Connections {
    /// None yet, and so many at most.
    pub(super) fn new(max: usize) -> Self {
        let slots = Vec::with_capacity(long_list::<Connection>(max));
        Self { slots, count: 0, walked: 0, counts: MessageCounts::default() }
    }

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

    pub(super) fn counts(&self) -> MessageCounts {
        self.counts
    }

    /// A connection has sent a message. Says whether the limits on messages let it pass; none if it is gone.
    pub(super) fn note_message(&mut self, now: Now, id: ConnectionId, limits: &HubLimits) -> Option<Verdict> {
        let verdict = self.get_mut(id)?.take_token(now, limits.message_rate, limits.message_burst);
        self.counts.received += 1;
        self.counts.rate_limited += u64::from(matches!(verdict, Verdict::Drop | Verdict::Tell { .. }));
        Some(verdict)
    }

    /// Whether a connection may be told of a refusal, which it is once a second; if so, it is told now.
    pub(super) fn may_tell(&mut self, now: Now, id: ConnectionId) -> bool {
        self.get_mut(id).is_some_and(|connection| connection.refusals.may_tell(now))
    }

    /// The connection in a slot.
    fn at_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots.get_mut(slot.index())?.as_mut()
    }

    /// The whole name of the connection in a slot.
    pub(super) fn id(&self, slot: Slot) -> Option<ConnectionId> {
        let connection = self.slots.get(slot.index())?.as_ref()?;
        Some(ConnectionId { slot, serial: connection.serial })
    }

    /// What the costs of the connection in a slot are charged to.
    pub(super) fn owner(&self, slot: Slot) -> Option<Owner> {
        Some(self.slots.get(slot.index())?.as_ref()?.owner)
    }

    /// The rooms of a connection, kept apart because serving one may change its memberships. None if it is gone.
    pub(super) fn rooms_of(&self, id: ConnectionId) -> SmallVec<[RoomIndex; 8]> {
        self.get(id).into_iter().flat_map(|connection| connection.rooms().map(|(room, _)| room)).collect()
    }

    /// Where the connection in a slot stands in a room that it is in.
    pub(super) fn place(&self, slot: Slot, room: RoomIndex) -> Option<Place> {
        self.slots.get(slot.index())?.as_ref()?.place_in(room)
    }

    /// The connection in a slot stands elsewhere in a room that it is in.
    pub(super) fn set_place(&mut self, slot: Slot, room: RoomIndex, place: Place) {
        if let Some(connection) = self.at_mut(slot) {
            connection.set_place(room, place);
        }
    }

    /// A connection has other rights in a room that it is in.
    pub(super) fn set_rights(&mut self, id: ConnectionId, room: RoomIndex, rights: Rights) {
        let Some(connection) = self.get_mut(id) else { return };
        let mut memberships = connection.memberships.as_mut_slice().iter_mut();
        if let Some(membership) = memberships.find(|membership| membership.room == room) {
            membership.place = PackedPlace::new(membership.place.place(), rights);
        }
    }

    /// The connection in a slot forgets a room. Says where it stood there.
    pub(super) fn leave(&mut self, slot: Slot, room: RoomIndex) -> Option<Place> {
        let connection = self.at_mut(slot)?;
        let place = connection.place_in(room);
        connection.memberships.remove(room);
        place
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

    /// Up to `max` of the connections that are there, in a walk over all slots that goes on where the last call stopped.
    /// Says how many slots that took.
    pub(super) fn walk(&mut self, max: usize) -> (Vec<ConnectionId>, usize) {
        let mut found = Vec::new();
        let mut slots = 0;
        while found.len() < max.min(self.count) && slots < self.slots.len() {
            let slot = Slot((self.walked % self.slots.len()) as u32);
            found.extend(self.id(slot));
            self.walked = slot.index() + 1;
            slots += 1;
        }
        (found, slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::users::tests::key;

    #[test]
    fn a_connection_is_small() {
        let bytes = std::mem::size_of::<Option<Connection>>();
        assert!(bytes <= 48, "{bytes} bytes");
    }

    #[test]
    fn what_is_awaited_does_not_end_with_the_output_that_was_taken() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1), Owner::HOST);
        let awaited = |connection: &Connection| (connection.awaits_page(), connection.awaits_history());
        connection.await_page();
        connection.await_history();
        connection.add_queued(usize::MAX >> 1);
        assert_eq!((connection.queued_bytes(), awaited(&connection)), (QUEUED as usize, (true, true)));
        connection.clear_queued();
        assert_eq!((connection.queued_bytes(), awaited(&connection)), (0, (true, true)));
        connection.stop_awaiting_page();
        assert_eq!(awaited(&connection), (false, true));
        connection.stop_awaiting_history();
        assert_eq!((connection.queued_bytes(), awaited(&connection)), (0, (false, false)));
    }

    #[test]
    fn rooms_keep_their_order_and_places() {
        let mut connection = Connection::new(ConnectionSerial(1), key(1), Owner::HOST);
        for rooms in 0..4_u32 {
            for room in 0..rooms {
                connection.enter(RoomIndex(room), Place::CatchingUp(CatchUpIndex(room + 10)), Rights::of_member(room));
                connection.set_place(RoomIndex(room), Place::Live(LiveIndex(room)));
            }
            assert!(connection.rooms().eq((0..rooms).map(|room| (RoomIndex(room), Place::Live(LiveIndex(room))))));
            for room in 0..rooms {
                connection.set_place(RoomIndex(room), Place::CatchingUp(CatchUpIndex(7)));
                assert_eq!(connection.place_in(RoomIndex(room)), Some(Place::CatchingUp(CatchUpIndex(7))));
                assert_eq!(connection.rights_in(RoomIndex(room)), Some(Rights::of_member(room)));
                connection.memberships.remove(RoomIndex(room));
                assert_eq!(connection.place_in(RoomIndex(room)), None);
                assert_eq!(connection.rooms().len() as u32, rooms - room - 1);
            }
        }
    }

    #[test]
    fn closing_all_connections_walks_their_slots_once() {
        let mut connections = Connections::new(0);
        for slot in 0..1000 {
            connections
                .insert(ConnectionId::new(slot, slot), Connection::new(ConnectionSerial(slot), key(slot), Owner::HOST));
        }
        let mut walked = 0;
        while connections.len() > 0 {
            let (ids, slots) = connections.walk(10);
            assert_eq!(ids.len(), 10);
            ids.into_iter().for_each(|id| drop(connections.remove(id)));
            walked += slots;
        }
        assert_eq!(walked, 1000);
        // A connection in a slot that was passed is found, too.
        connections.insert(ConnectionId::new(3, 2000), Connection::new(ConnectionSerial(2000), key(3), Owner::HOST));
        assert_eq!(connections.walk(10).0, [ConnectionId::new(3, 2000)]);
        assert_eq!(connections.walk(0), (Vec::new(), 0));
    }
}
