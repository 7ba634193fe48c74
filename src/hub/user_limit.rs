//! How many connections a user may have at once.

use std::collections::BTreeMap;

use crate::id::{ConnectionId, ConnectionSerial, Slot};
use crate::settings::{Config, UserLimitPolicy};
use crate::sharded_map::ShardedMap;

use super::users::UserKey;

/// Counts the connections of each user, and knows their order if the oldest one is to give way. Without a limit it counts
/// nothing.
#[derive(Debug)]
pub(super) struct UserLimit {
    /// 0 is no limit.
    max: u32,
    policy: UserLimitPolicy,
    counts: ShardedMap<UserKey, u32>,
    /// Those of a user one after another, by their serials.
    order: BTreeMap<(UserKey, u32), Slot>,
    /// Connections that gave way, and those that were refused.
    pub(super) replaced: u64,
    pub(super) refused: u64,
}

impl UserLimit {
    pub(super) fn new(config: &Config) -> Self {
        let (max, policy) = (config.net.connections_per_user_max, config.connections_per_user_policy);
        Self { max, policy, counts: ShardedMap::default(), order: BTreeMap::new(), replaced: 0, refused: 0 }
    }

    /// Whether another connection of somebody is to be refused, who is known by this number if at all.
    pub(super) fn refuses(&mut self, user: Option<UserKey>) -> bool {
        if self.max == 0 || self.policy != UserLimitPolicy::RefuseNewest {
            return false;
        }
        let is_over = user.and_then(|user| self.counts.get(&user)).is_some_and(|count| *count >= self.max);
        self.refused += u64::from(is_over);
        is_over
    }

    /// A user has another connection. Says which one gives way to it.
    pub(super) fn add(&mut self, user: UserKey, id: ConnectionId) -> Option<ConnectionId> {
        if self.max == 0 {
            return None;
        }
        let count = self.counts.get_or_default(user);
        *count += 1;
        if self.policy != UserLimitPolicy::CloseOldest {
            return None;
        }
        let is_over = *count > self.max;
        self.order.insert((user, id.serial.0), id.slot);
        let oldest = if is_over { self.oldest(user, id.serial) } else { None };
        self.replaced += u64::from(oldest.is_some());
        oldest
    }

    /// The oldest connection of a user, whose newest one has the serial `newest`. Serials begin anew after the last one, so the
    /// oldest comes next after the newest, around the end.
    fn oldest(&self, user: UserKey, newest: ConnectionSerial) -> Option<ConnectionId> {
        let first_of = |from: u32, to: u32| self.order.range((user, from)..=(user, to)).next();
        let around = newest.0.checked_add(1).and_then(|next| first_of(next, u32::MAX));
        let ((_, serial), slot) = around.or_else(|| first_of(0, newest.0))?;
        Some(ConnectionId { slot: *slot, serial: ConnectionSerial(*serial) })
    }

    /// A connection of a user is gone.
    pub(super) fn remove(&mut self, user: UserKey, id: ConnectionId) {
        if self.max == 0 {
            return;
        }
        self.order.remove(&(user, id.serial.0));
        if let Some(count) = self.counts.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::users::tests::key;

    fn limit(max: u32, policy: UserLimitPolicy) -> UserLimit {
        let mut config = Config::default();
        (config.net.connections_per_user_max, config.connections_per_user_policy) = (max, policy);
        UserLimit::new(&config)
    }

    #[test]
    fn the_oldest_gives_way_also_when_serials_begin_anew() {
        for first in [0, 7, u32::MAX - 1, u32::MAX] {
            let mut limit = limit(2, UserLimitPolicy::CloseOldest);
            let ids = [0, 1, 2, 3].map(|number| ConnectionId::new(number, first.wrapping_add(number)));
            let other = ConnectionId::new(9, first.wrapping_sub(1));
            assert_eq!(limit.add(key(2), other), None);
            assert_eq!([limit.add(key(1), ids[0]), limit.add(key(1), ids[1])], [None, None]);
            assert_eq!(limit.add(key(1), ids[2]), Some(ids[0]), "{first}");
            limit.remove(key(1), ids[0]);
            // The second goes by itself, so nobody has to.
            limit.remove(key(1), ids[1]);
            assert_eq!(limit.add(key(1), ids[3]), None, "{first}");
            for (user, id) in [(1, ids[2]), (1, ids[3]), (2, other)] {
                limit.remove(key(user), id);
            }
            assert!(limit.counts.is_empty() && limit.order.is_empty() && limit.replaced == 1);
        }
    }

    #[test]
    fn the_newest_is_refused() {
        let mut limit = limit(1, UserLimitPolicy::RefuseNewest);
        assert!(!limit.refuses(None) && !limit.refuses(Some(key(1))));
        assert_eq!(limit.add(key(1), ConnectionId::new(0, 0)), None);
        assert!(limit.refuses(Some(key(1))) && !limit.refuses(Some(key(2))));
        limit.remove(key(1), ConnectionId::new(0, 0));
        assert!(!limit.refuses(Some(key(1))) && limit.refused == 1 && limit.counts.is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        for policy in [UserLimitPolicy::CloseOldest, UserLimitPolicy::RefuseNewest] {
            let mut limit = limit(0, policy);
            for number in 0..100 {
                assert!(limit.add(key(1), ConnectionId::new(number, number)).is_none() && !limit.refuses(Some(key(1))));
            }
            assert_eq!((limit.counts.capacity(), limit.order.len()), (0, 0));
            limit.remove(key(1), ConnectionId::new(0, 0));
        }
    }
}
