//! An account of the memory that connections hold, by owner.

use crate::id::Slot;
use crate::owner::Owner;
use crate::sharded_map::ShardedMap;
use crate::weights::Weights;

/// What it costs that a connection holds anything: its places in the account, and what an allocator adds.
pub(super) const ENTRY_BYTES: usize = 128;

/// How many of the heaviest are compared. Of so many the heaviest is found; of more, one that has at least half as much.
const LOOKS: usize = 32;

/// So many slots the list of changes may have room for while it is empty.
const KEPT_MAX: usize = 4096;

/// The memory that connections hold: write buffers, parsers, unfinished heads and bodies.
///
/// A connection that holds nothing has no entry. What changed is noted, and charged once a turn: what a turn takes and gives
/// back, a reply for example, is never charged.
///
/// **Bounds:** bytes of all connections. Beyond them the heaviest connection of the heaviest owner gives way.
#[derive(Debug)]
pub(super) struct Account {
    bytes_max: usize,
    bytes: usize,
    totals: Weights<Owner>,
    /// What the connections of each owner hold.
    held: ShardedMap<Owner, Weights<Slot>>,
    owners: ShardedMap<Slot, Owner>,
    /// Slots whose connections may hold another amount than they are charged.
    changed: Vec<Slot>,
}

impl Account {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            totals: Weights::default(),
            held: ShardedMap::default(),
            owners: ShardedMap::default(),
            changed: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A connection may hold another amount than it is charged.
    pub(super) fn note(&mut self, slot: Slot) {
        if self.changed.last() != Some(&slot) {
            self.changed.push(slot);
        }
    }

    /// The noted slots, to be charged; some come more than once.
    pub(super) fn take_changed(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.changed)
    }

    /// Takes the list back to be used again.
    pub(super) fn keep_list(&mut self, mut list: Vec<Slot>) {
        if self.changed.is_empty() && list.capacity() <= KEPT_MAX {
            list.clear();
            self.changed = list;
        }
    }

    /// The owner that a connection is charged to, if it is charged anything.
    pub(super) fn owner(&self, slot: Slot) -> Option<Owner> {
        self.owners.get(&slot).copied()
    }

    /// Charges an owner so many bytes for a connection in all; 0 for one that holds nothing any more.
    pub(super) fn charge(&mut self, slot: Slot, owner: Owner, bytes: usize) {
        let held = self.held.get_or_default(owner);
        let before = held.get(slot);
        if before != bytes {
            held.set(slot, bytes);
            self.totals.set(owner, (self.totals.get(owner) + bytes).saturating_sub(before));
            self.bytes = (self.bytes + bytes).saturating_sub(before);
        }
        if held.is_empty() {
            self.held.remove(&owner);
        }
        if bytes == 0 {
            self.owners.remove(&slot);
        } else if before == 0 {
            self.owners.insert(slot, owner);
        }
    }

    /// A connection is charged nothing any more.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(owner) = self.owner(slot) {
            self.charge(slot, owner, 0);
        }
    }

    /// Whether too much is held.
    pub(super) fn has_surplus(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// While too much is held: the connection that gives way, and its owner.
    pub(super) fn next_surplus(&self) -> Option<(Owner, Slot)> {
        if !self.has_surplus() {
            return None;
        }
        let owner = self.totals.heaviest_of(LOOKS)?;
        Some((owner, self.held.get(&owner)?.heaviest_of(LOOKS)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Owners;

    fn owner(number: u32) -> Owner {
        Owners::new(7).address(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn the_heaviest_connection_of_the_heaviest_owner_gives_way() {
        let mut account = Account::new(1000);
        for (slot, from, bytes) in [(1, 1, 400), (2, 2, 300), (3, 2, 290)] {
            account.charge(Slot(slot), owner(from), bytes);
        }
        assert_eq!((account.bytes(), account.next_surplus()), (990, None));
        account.charge(Slot(1), owner(1), 420);
        assert_eq!(account.next_surplus(), Some((owner(2), Slot(2))));
        account.charge(Slot(2), owner(2), 0);
        assert_eq!((account.bytes(), account.next_surplus()), (710, None));
        assert_eq!([1, 2, 3].map(|slot| account.owner(Slot(slot))), [Some(owner(1)), None, Some(owner(2))]);
    }

    #[test]
    fn what_is_held_is_what_is_charged_and_nothing_is_kept_of_a_crowd() {
        let mut account = Account::new(1000);
        for slot in 0..10_000 {
            account.charge(Slot(slot), owner(slot / 3), 100);
            account.charge(Slot(slot), owner(slot / 3), 250);
        }
        assert_eq!(account.bytes(), 2_500_000);
        (0..10_000).for_each(|slot| account.release(Slot(slot)));
        assert_eq!((account.bytes(), account.next_surplus()), (0, None));
        assert!(account.owners.is_empty() && account.held.is_empty() && account.totals.is_empty());
        assert!(account.owners.capacity() < 200 && account.held.capacity() < 200);
    }

    #[test]
    fn an_owner_below_its_share_never_gives_way() {
        for seed in 0..50 {
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut account = Account::new(100_000);
            let mut held = [0; 8];
            for slot in 0..500 {
                let (from, bytes) = (chance.usize(..8), chance.usize(1..1000));
                account.charge(Slot(slot), owner(from as u32), bytes);
                held[from] += bytes;
                while let Some((heaviest, slot)) = account.next_surplus() {
                    let from = (0..8).find(|from| owner(*from) == heaviest).unwrap() as usize;
                    assert!(held[from] >= 100_000 / 8, "seed {seed}: {} bytes", held[from]);
                    held[from] -= account.held.get(&heaviest).unwrap().get(slot);
                    account.release(slot);
                }
            }
            assert_eq!(account.bytes(), held.iter().sum::<usize>());
        }
    }
}
