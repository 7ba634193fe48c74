//! What each address has open and how fast it asks: caps by address, in a table of bounded size.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use slab::Slab;

use crate::owner::Owner;
use crate::settings::NetLimits;
use crate::sharded_map::ShardedTable;

/// How many addresses without a connection are remembered, because they have asked a moment ago. Beyond them further ones share
/// an entry.
const IDLE_MAX: usize = 65_536;

/// How many idle addresses a turn looks at; more than it can add.
const LOOKS_PER_TURN: usize = 256;

/// A bucket holds the tokens of this time.
const BURST: Duration = Duration::from_secs(10);

/// Where an address stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressIndex(NonZeroU32);

impl AddressIndex {
    fn new(key: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(key as u32))
    }

    fn key(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Why an address gets no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectRefusal {
    /// It has as many as it may.
    TooMany,
    /// It connects too often.
    TooFast,
}

/// Tokens that come at a steady rate.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it is full again, in nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// Takes a token if there is one; `rate` is how many come in a second, 0 for as many as anybody wants.
    fn take(&mut self, rate: u32, now: u64) -> bool {
        let Some(interval) = 1_000_000_000_u64.checked_div(rate.into()) else { return true };
        let full_at = self.full_at.max(now) + interval;
        let is_there = full_at - now <= BURST.as_nanos() as u64;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    connects: Bucket,
    requests: Bucket,
    connections: u32,
    /// Whether it is in the list of idle ones.
    is_listed: bool,
}

impl Entry {
    fn new(owner: Owner) -> Self {
        Self { owner, connects: Bucket::default(), requests: Bucket::default(), connections: 0, is_listed: false }
    }
}

/// The addresses that have connections, or had some or asked for something a moment ago.
#[derive(Debug)]
pub(super) struct Addresses {
    connections_max: u32,
    connects_per_second: u32,
    requests_per_second: u32,
    entries: Slab<Entry>,
    entries_max: usize,
    by_owner: ShardedTable<AddressIndex>,
    /// Those that may be without a connection, each once.
    idle: VecDeque<AddressIndex>,
    now: u64,
}

impl Addresses {
    pub(super) fn new(limits: &NetLimits) -> Self {
        let mut entries = Slab::new();
        // The one that addresses share for which there is no room; no address has this owner.
        entries.insert(Entry::new(Owner::HOST));
        Self {
            connections_max: limits.connections_per_address_max,
            connects_per_second: limits.connects_per_address,
            requests_per_second: limits.requests_per_address,
            entries,
            entries_max: (limits.connections_max + limits.connections_reserved) as usize + IDLE_MAX,
            by_owner: ShardedTable::default(),
            idle: VecDeque::new(),
            now: 0,
        }
    }

    pub(super) fn begin_turn(&mut self, now: Duration) {
        self.now = now.as_nanos() as u64;
    }

    /// Whether any cap is on.
    pub(super) fn are_capped(&self) -> bool {
        self.connections_max > 0 || self.connects_per_second > 0 || self.requests_per_second > 0
    }

    /// One more connection of an address, until [`Addresses::disconnect`].
    pub(super) fn connect(&mut self, owner: Owner) -> Result<AddressIndex, ConnectRefusal> {
        let index = self.find_or_insert(owner);
        let entry = &mut self.entries[index.key()];
        if self.connections_max > 0 && entry.connections >= self.connections_max {
            return Err(ConnectRefusal::TooMany);
        }
        if !entry.connects.take(self.connects_per_second, self.now) {
            return Err(ConnectRefusal::TooFast);
        }
        entry.connections += 1;
        Ok(index)
    }

    /// A connection of this address is closed.
    pub(super) fn disconnect(&mut self, index: AddressIndex) {
        let entry = &mut self.entries[index.key()];
        entry.connections -= 1;
        if entry.connections == 0 {
            self.list_idle(index);
        }
    }

    /// The owner with this place, unless it is the one that addresses share for which there is no room.
    pub(super) fn owner(&self, index: AddressIndex) -> Option<Owner> {
        Some(self.entries.get(index.key())?.owner).filter(|owner| *owner != Owner::HOST)
    }

    /// One more request of an address; says whether it may.
    pub(super) fn request(&mut self, owner: Owner) -> bool {
        let index = self.find_or_insert(owner);
        self.request_of(index)
    }

    /// One more request of an address that has a connection; says whether it may.
    pub(super) fn request_of(&mut self, index: AddressIndex) -> bool {
        self.entries[index.key()].requests.take(self.requests_per_second, self.now)
    }

    fn find_or_insert(&mut self, owner: Owner) -> AddressIndex {
        let entries = &mut self.entries;
        if let Some(index) = self.by_owner.find(owner.hash(), |index| entries[index.key()].owner == owner) {
            return *index;
        }
        if entries.len() > self.entries_max {
            return AddressIndex::new(0);
        }
        let index = AddressIndex::new(entries.insert(Entry::new(owner)));
        self.by_owner.insert(owner.hash(), index, |index| entries[index.key()].owner.hash());
        self.list_idle(index);
        index
    }

    fn list_idle(&mut self, index: AddressIndex) {
        let entry = &mut self.entries[index.key()];
        if !entry.is_listed && entry.owner != Owner::HOST {
            entry.is_listed = true;
            self.idle.push_back(index);
        }
    }

    /// Removes addresses without a connection whose buckets are full: the next time they are as good as new.
    pub(super) fn sweep(&mut self) {
        for _ in 0..self.idle.len().min(LOOKS_PER_TURN) {
            let Some(index) = self.idle.pop_front() else { break };
            let entry = &mut self.entries[index.key()];
            if entry.connections > 0 {
                entry.is_listed = false;
            } else if entry.connects.full_at.max(entry.requests.full_at) > self.now {
                self.idle.push_back(index);
            } else {
                self.remove(index);
            }
        }
        if self.idle.is_empty() && self.idle.capacity() > LOOKS_PER_TURN {
            self.idle = VecDeque::new();
        }
    }

    fn remove(&mut self, index: AddressIndex) {
        let Entry { owner, .. } = self.entries.remove(index.key());
        self.by_owner.remove(owner.hash(), |other| *other == index);
        let entries = &self.entries;
        self.by_owner.shrink(owner.hash(), |index| entries[index.key()].owner.hash());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Owners;

    fn addresses(set: impl FnOnce(&mut NetLimits)) -> Addresses {
        let mut limits = NetLimits::default();
        set(&mut limits);
        Addresses::new(&limits)
    }

    fn owner(number: u32) -> Owner {
        Owners::new(7).address(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_address_has_so_many_connections_and_another_one_does_not_notice() {
        let mut addresses = addresses(|limits| limits.connections_per_address_max = 2);
        let first = addresses.connect(owner(1)).unwrap();
        assert_eq!(addresses.connect(owner(1)), Ok(first));
        assert_eq!(addresses.connect(owner(1)), Err(ConnectRefusal::TooMany));
        assert!(addresses.connect(owner(2)).is_ok());
        addresses.disconnect(first);
        assert_eq!(addresses.connect(owner(1)), Ok(first));
    }

    #[test]
    fn tokens_of_ten_seconds_may_be_spent_at_once_and_come_back_at_the_rate() {
        let mut addresses = addresses(|limits| (limits.connects_per_address, limits.requests_per_address) = (2, 3));
        let connects = |addresses: &mut Addresses| (0..100).filter(|_| addresses.connect(owner(1)).is_ok()).count();
        let requests = |addresses: &mut Addresses| (0..100).filter(|_| addresses.request(owner(1))).count();
        assert_eq!((connects(&mut addresses), requests(&mut addresses)), (20, 30));
        addresses.begin_turn(Duration::from_secs(2));
        assert_eq!((connects(&mut addresses), requests(&mut addresses)), (4, 6));
        addresses.begin_turn(Duration::from_secs(1000));
        assert_eq!((connects(&mut addresses), requests(&mut addresses)), (20, 30));
    }

    #[test]
    fn zero_turns_each_cap_off() {
        let mut addresses = addresses(|limits| {
            (limits.connections_per_address_max, limits.connects_per_address, limits.requests_per_address) = (0, 0, 0);
        });
        assert!(!addresses.are_capped());
        for _ in 0..100_000 {
            assert!(addresses.connect(owner(1)).is_ok() && addresses.request(owner(1)));
        }
    }

    #[test]
    fn an_address_is_forgotten_when_it_has_nothing_open_and_its_buckets_are_full() {
        let mut addresses = addresses(|_| {});
        let open = addresses.connect(owner(1)).unwrap();
        assert!(addresses.request(owner(2)));
        addresses.sweep();
        assert_eq!(addresses.entries.len(), 3);
        addresses.begin_turn(Duration::from_secs(1));
        addresses.sweep();
        assert_eq!((addresses.entries.len(), addresses.by_owner.len()), (2, 1));
        addresses.disconnect(open);
        addresses.sweep();
        assert_eq!((addresses.entries.len(), addresses.by_owner.len(), addresses.idle.len()), (1, 0, 0));
    }

    #[test]
    fn the_table_is_bounded_and_addresses_beyond_it_share_an_entry() {
        let mut addresses = addresses(|limits| {
            (limits.connections_max, limits.connections_reserved) = (1, 1);
            limits.requests_per_address = 1;
        });
        let max = IDLE_MAX + 2;
        for number in 0..max as u32 {
            assert!(addresses.request(owner(number)));
        }
        // Ten seconds' worth for all of them.
        let further = max as u32..;
        assert_eq!(further.take(1000).filter(|number| addresses.request(owner(*number))).count(), 10);
        assert_eq!(addresses.entries.len(), max + 1);
        addresses.begin_turn(Duration::from_secs(20));
        addresses.sweep();
        assert_eq!(addresses.entries.len(), max + 1 - LOOKS_PER_TURN, "a turn looks at so many");
        while !addresses.idle.is_empty() {
            addresses.sweep();
        }
        assert_eq!(addresses.entries.len(), 1);
        assert!(addresses.by_owner.capacity() < IDLE_MAX / 8, "{}", addresses.by_owner.capacity());
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
        assert_eq!(size_of::<Option<AddressIndex>>(), 4);
    }
}
