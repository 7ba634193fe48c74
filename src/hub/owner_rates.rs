//! How much an owner may do in a second: a token bucket for each owner, which may go into debt.
//!
//! A message costs one message, and as many deliveries as its room has members, which the sender does not choose. So a bucket that is not
//! empty admits a message of any cost, and the debt is waited for afterwards.

use std::collections::VecDeque;

use crate::owner::Owner;
use crate::sharded_map::ShardedMap;
use crate::time::Now;

/// Owners with a bucket of their own; those beyond them share one.
const OWNERS_MAX: usize = 64 * 1024;

/// Buckets that are looked at in a turn, to forget those that are full.
const LOOKS_PER_TURN: usize = 16;

const SECOND_NANOS: u64 = 1_000_000_000;

/// A bucket, kept as the moment at which it is full again, in nanoseconds of uptime. It holds what comes in a second.
#[derive(Clone, Copy, Debug, Default)]
struct OwnerBucket {
    full_at_nanos: u64,
}

impl OwnerBucket {
    /// Until it has something, in milliseconds; none if it has.
    fn wait_millis(self, now_nanos: u64) -> Option<u64> {
        let debt_nanos = self.full_at_nanos.checked_sub(now_nanos + SECOND_NANOS)?;
        // When the debt is paid the bucket is empty; a moment later it is not.
        Some(debt_nanos / 1_000_000 + 1)
    }

    fn take(&mut self, now_nanos: u64, nanos: u64) {
        self.full_at_nanos = self.full_at_nanos.max(now_nanos).saturating_add(nanos);
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct OwnerRates {
    /// How much a second; 0 is no limit.
    rate: u32,
    /// Buckets that are not known to be full.
    buckets: ShardedMap<Owner, OwnerBucket>,
    /// Their owners, in the order in which they are looked at.
    looks: VecDeque<Owner>,
    /// The bucket of the owners beyond [`OWNERS_MAX`].
    shared: OwnerBucket,
    /// Messages that were refused.
    pub(super) refused: u64,
}

impl OwnerRates {
    pub(super) fn new(rate: u32) -> Self {
        let (buckets, looks) = (ShardedMap::default(), VecDeque::new());
        Self { rate, buckets, looks, shared: OwnerBucket::default(), refused: 0 }
    }

    /// Whether an owner may do more now; otherwise the milliseconds until it may.
    pub(super) fn check(&mut self, now: Now, owner: Owner) -> Result<(), u64> {
        if !self.limits(owner) {
            return Ok(());
        }
        let bucket = match self.buckets.get(&owner) {
            Some(bucket) => *bucket,
            None if self.buckets.len() < OWNERS_MAX => return Ok(()),
            None => self.shared,
        };
        match bucket.wait_millis(nanos(now)) {
            Some(wait_millis) => {
                self.refused += 1;
                Err(wait_millis)
            }
            None => Ok(()),
        }
    }

    /// An owner has done so much.
    pub(super) fn charge(&mut self, now: Now, owner: Owner, cost: u32) {
        if cost == 0 || !self.limits(owner) {
            return;
        }
        let cost_nanos = u64::from(cost) * SECOND_NANOS / u64::from(self.rate);
        self.bucket_mut(owner).take(nanos(now), cost_nanos);
    }

    /// Neither the host nor other nodes are limited.
    fn limits(&self, owner: Owner) -> bool {
        self.rate > 0 && owner != Owner::HOST && owner != Owner::OTHERS
    }

    fn bucket_mut(&mut self, owner: Owner) -> &mut OwnerBucket {
        if self.buckets.get(&owner).is_none() {
            if self.buckets.len() >= OWNERS_MAX {
                return &mut self.shared;
            }
            self.looks.push_back(owner);
        }
        self.buckets.get_or_default(owner)
    }

    /// Forgets some of the buckets that are full.
    pub(super) fn forget_full(&mut self, now: Now) {
        for _ in 0..LOOKS_PER_TURN.min(self.looks.len()) {
            let Some(owner) = self.looks.pop_front() else { break };
            if self.buckets.get(&owner).is_some_and(|bucket| bucket.full_at_nanos > nanos(now)) {
                self.looks.push_back(owner);
            } else {
                self.buckets.remove(&owner);
            }
        }
        // A crowd that has gone leaves no memory.
        if self.looks.capacity() > 64 && self.looks.capacity() > 8 * self.looks.len() {
            self.looks.shrink_to(2 * self.looks.len());
        }
    }
}

fn nanos(now: Now) -> u64 {
    now.uptime.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::owner::Owners;

    fn at(millis: u64) -> Now {
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    }

    fn address(number: u32) -> Owner {
        Owners::new(1).address(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn a_message_of_any_cost_passes_and_its_debt_is_waited_for() {
        let mut rates = OwnerRates::new(1000);
        assert_eq!(rates.check(at(0), address(1)), Ok(()));
        rates.charge(at(0), address(1), 5000);
        // A thousand were there, four thousand are owed.
        assert_eq!(rates.check(at(0), address(1)), Err(4001));
        assert_eq!(rates.check(at(3999), address(1)), Err(2));
        assert_eq!(rates.check(at(4001), address(1)), Ok(()));
        assert_eq!((rates.check(at(0), address(2)), rates.refused), (Ok(()), 2));
    }

    #[test]
    fn in_the_long_run_an_owner_causes_as_many_as_the_rate() {
        for (rate, cost) in [(1000, 7), (300_000, 999), (3, 1)] {
            let mut rates = OwnerRates::new(rate);
            let mut caused = 0;
            for millis in 0..60_000 {
                while rates.check(at(millis), address(1)).is_ok() {
                    rates.charge(at(millis), address(1), cost);
                    caused += cost;
                }
            }
            // What a full bucket held comes on top, and a last message.
            let expected = 61 * rate;
            assert!((expected - rate / 100 - cost..=expected + 2 * cost).contains(&caused), "{caused} of {expected}");
        }
    }

    #[test]
    fn the_host_other_nodes_and_a_rate_of_0_know_no_limit() {
        let mut rates = OwnerRates::new(1);
        for owner in [Owner::HOST, Owner::OTHERS] {
            rates.charge(at(0), owner, u32::MAX);
            assert_eq!(rates.check(at(0), owner), Ok(()));
        }
        let mut none = OwnerRates::new(0);
        none.charge(at(0), address(1), u32::MAX);
        assert_eq!(none.check(at(0), address(1)), Ok(()));
        assert!(rates.buckets.is_empty() && none.buckets.is_empty());
    }

    #[test]
    fn owners_beyond_the_bound_share_a_bucket_and_full_buckets_are_forgotten() {
        let mut rates = OwnerRates::new(1000);
        let max = OWNERS_MAX as u32;
        (0..max).for_each(|number| rates.charge(at(0), address(number), 1));
        rates.charge(at(0), address(max), 5000);
        assert_eq!((rates.buckets.len(), rates.check(at(0), address(max + 1))), (OWNERS_MAX, Err(4001)));
        assert_eq!(rates.check(at(0), address(0)), Ok(()));
        // None is full yet, then all are.
        rates.forget_full(at(0));
        assert_eq!(rates.buckets.len(), OWNERS_MAX);
        for turn in 1..=OWNERS_MAX / LOOKS_PER_TURN {
            rates.forget_full(at(2));
            assert_eq!(rates.buckets.len(), OWNERS_MAX - turn * LOOKS_PER_TURN);
        }
        assert!(rates.buckets.capacity() < 100 && rates.looks.capacity() < 100);
        assert_eq!(rates.check(at(2), address(max + 1)), Ok(()));
    }
}
