//! A bound that many owners share, fairly.

use crate::owner::Owner;
use crate::sharded_map::ShardedMap;

/// A quarter of a quota is kept for owners that hold little.
const KEPT_PART: usize = 4;

/// An owner holds little that has at most this part of what each would have if all had the same. So little for every owner, each
/// counted when it came, is less than the quarter that is kept: the sum of 1/n stays below 16 for millions of owners.
const LITTLE_PART: usize = 64;

/// What each owner holds of something, and what all may hold together.
///
/// **Bound:** an owner may hold as much as is free beyond a quarter. So one owner alone can have three eighths of all. The
/// quarter is for owners that hold little, which are always accepted: at most a sixty-fourth of an equal part, or one.
#[derive(Debug)]
pub(crate) struct Quota {
    held: usize,
    max: usize,
    owners: ShardedMap<Owner, usize>,
}

impl Quota {
    pub(crate) fn new(max: usize) -> Self {
        Self { held: 0, max, owners: ShardedMap::default() }
    }

    /// What all hold together.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// What an owner holds.
    pub(crate) fn held_by(&self, owner: Owner) -> usize {
        self.owners.get(&owner).copied().unwrap_or_default()
    }

    /// Whether an owner may hold so much more.
    pub(crate) fn has_space(&self, owner: Owner, more: usize) -> bool {
        let (free, held) = (self.max.saturating_sub(self.held), self.held_by(owner));
        let wanted = held.saturating_add(more);
        wanted <= free.saturating_sub(self.max / KEPT_PART) || more <= free && wanted <= self.little(held)
    }

    /// What an owner that holds so much may always hold.
    fn little(&self, held: usize) -> usize {
        let owners = self.owners.len() + usize::from(held == 0);
        (self.max / LITTLE_PART / owners).max(1)
    }

    /// An owner holds so much more, whether there is space or not.
    pub(crate) fn charge(&mut self, owner: Owner, more: usize) {
        self.held += more;
        *self.owners.get_or_default(owner) += more;
    }

    /// An owner holds so much less, of what it was charged.
    pub(crate) fn release(&mut self, owner: Owner, less: usize) {
        self.held -= less;
        if let Some(held) = self.owners.get_mut(&owner) {
            *held -= less;
            if *held == 0 {
                self.owners.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Owners;
    use std::net::Ipv4Addr;

    fn owner(number: u32) -> Owner {
        Owners::new(1).address(Ipv4Addr::from_bits(number).into())
    }

    /// Has an owner take as much as it may. Says how much that is.
    fn take_all(quota: &mut Quota, owner: Owner) -> usize {
        while quota.has_space(owner, 1) {
            quota.charge(owner, 1);
        }
        quota.held_by(owner)
    }

    #[test]
    fn each_of_many_gets_as_much_as_is_left_for_a_newcomer() {
        let mut quota = Quota::new(1000);
        for number in (1..=3).cycle().take(3000) {
            if quota.has_space(owner(number), 1) {
                quota.charge(owner(number), 1);
            }
        }
        assert_eq!([1, 2, 3].map(|number| quota.held_by(owner(number))), [188, 188, 187]);
        assert!(quota.has_space(owner(4), 187) && !quota.has_space(owner(4), 188) && !quota.has_space(owner(1), 1));
        quota.release(owner(2), 188);
        assert!(quota.has_space(owner(1), 187) && !quota.has_space(owner(1), 188));
    }

    #[test]
    fn owners_that_come_one_after_the_other_and_take_all_they_can_leave_something_for_the_next() {
        let mut quota = Quota::new(1_000_000);
        let first: Vec<usize> = (1..=4).map(|number| take_all(&mut quota, owner(number))).collect();
        assert_eq!(first, [375_000, 187_500, 93_750, 46_875]);
        for number in 5..=10_000 {
            let equal_part = 1_000_000 / number as usize;
            let taken = take_all(&mut quota, owner(number));
            assert!(taken >= (equal_part / LITTLE_PART).max(1), "owner {number} got {taken}");
        }
        assert!(quota.held() <= 1_000_000);
    }

    #[test]
    fn the_bound_holds_even_for_owners_that_hold_little() {
        let mut quota = Quota::new(100);
        let taken: usize = (0..1000).map(|number| take_all(&mut quota, owner(number))).sum();
        assert_eq!((taken, quota.held()), (100, 100));
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory() {
        let mut quota = Quota::new(usize::MAX);
        (0..10_000).for_each(|number| quota.charge(owner(number), 1));
        (0..10_000).for_each(|number| quota.release(owner(number), 1));
        assert!(quota.held() == 0 && quota.owners.capacity() < 200);
    }
}
