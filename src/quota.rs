//! A bound that many owners share, fairly.

use crate::owner::Owner;
use crate::sharded_map::ShardedMap;

/// What each owner holds of something, and what all may hold together.
///
/// **Bound:** an owner may hold as much as is free. So one owner alone can have half of it, and n that want all have an
/// n-plus-first part each, and as much is left for newcomers.
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
        self.held_by(owner).saturating_add(more) <= self.max.saturating_sub(self.held)
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

    #[test]
    fn each_of_many_gets_as_much_as_is_left_for_a_newcomer() {
        let mut quota = Quota::new(1000);
        for number in (1..=3).cycle().take(3000) {
            if quota.has_space(owner(number), 1) {
                quota.charge(owner(number), 1);
            }
        }
        assert_eq!(quota.held(), 750);
        assert!(quota.has_space(owner(4), 250) && !quota.has_space(owner(4), 251) && !quota.has_space(owner(1), 1));
        quota.release(owner(2), 250);
        assert!(quota.has_space(owner(1), 250) && !quota.has_space(owner(1), 251));
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory() {
        let mut quota = Quota::new(usize::MAX);
        (0..10_000).for_each(|number| quota.charge(owner(number), 1));
        (0..10_000).for_each(|number| quota.release(owner(number), 1));
        assert!(quota.held() == 0 && quota.owners.capacity() < 200);
    }
}
