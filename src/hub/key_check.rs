//! Keys that have been taken away: the connections whose identities they have verified are closed, over several turns.

use crate::id::{KeyNumber, Slot};
use crate::protocol::CloseReason;
use crate::time::Now;

use super::Hub;
use super::credentials::KeyCheck;
use super::moderation::{CHECK_SLOTS, CommandBudget};

impl Hub {
    /// Some keys have been taken away, and these are left. Connections whose identity another key has verified are closed with
    /// [`CloseReason::TOKEN_EXPIRED`], as many a turn as commands close.
    pub fn keep_keys(&mut self, mut left: Vec<KeyNumber>) {
        left.sort_unstable();
        // Also those that were looked at may be of a key that has gone only now.
        let closed = self.credentials.key_check.take().map_or(0, |check| check.closed);
        self.credentials.key_check = Some(KeyCheck { left, next_slot: 0, closed });
    }

    /// Goes on with the comparison that is under way, as far as the budget goes.
    pub(super) fn check_keys(&mut self, now: Now, budget: &mut CommandBudget) {
        let Some(mut check) = self.credentials.key_check.take() else { return };
        while check.next_slot < self.connections.slots() {
            if budget.slots < CHECK_SLOTS || budget.connections == 0 {
                self.credentials.key_check = Some(check);
                return;
            }
            budget.slots -= CHECK_SLOTS;
            let slot = Slot(check.next_slot);
            check.next_slot += 1;
            let Some((id, key)) = self.credentials.key_at(slot) else { continue };
            if check.left.binary_search(&key).is_err() {
                self.close(now, id, CloseReason::TOKEN_EXPIRED);
                budget.connections -= 1;
                check.closed += 1;
            }
        }
        log::info!("tokens: closed {} connections whose key has been taken away", check.closed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::hub::{NewConnection, OpenPolicy, Output, RefreshedIdentity, Validity};
    use crate::id::{ConnectionId, UserId};
    use crate::owner::Owner;
    use crate::settings::Config;

    const CLOSES_PER_TURN: u32 = 3;

    fn keys(count: usize) -> Vec<KeyNumber> {
        std::iter::successors(Some(KeyNumber::FIRST), |key| Some(key.next())).take(count).collect()
    }

    fn of(key: Option<KeyNumber>) -> Validity {
        Validity { key, expires_at: Some(u64::MAX), grants: None }
    }

    /// Takes a turn. Says which slots were closed in it.
    fn turn(hub: &mut Hub) -> Vec<u32> {
        hub.handle_deadlines(Now::default(), &mut Now::default);
        let mut closed = Vec::new();
        hub.poll_output(|output| {
            if let Output::Close(id, reason) = output {
                assert_eq!(reason, CloseReason::TOKEN_EXPIRED);
                closed.push(id.slot.0);
            }
        });
        closed
    }

    #[test]
    fn connections_of_keys_that_have_gone_are_closed_some_each_turn() {
        let mut config = Config::default();
        config.hub.closes_per_turn = CLOSES_PER_TURN;
        let mut hub = Hub::new(&config, Box::new(OpenPolicy));
        let (keys, user) = (keys(3), UserId::new("ann").unwrap());
        let connect = |hub: &mut Hub, slot: u32, key| {
            let new = NewConnection { validity: of(key), ..NewConnection::new(&user, Owner::HOST) };
            hub.connect(Now::default(), ConnectionId::new(slot, slot), new);
        };
        // Every fourth has no key, as with a back-end that is asked.
        (0..40).for_each(|slot| connect(&mut hub, slot, keys.get(slot as usize % 4).copied()));
        // One of the first key has brought a token of the second.
        hub.handle_text(Now::default(), ConnectionId::new(0, 0), r#"{"type":"refresh","token":"t"}"#);
        let refreshed = RefreshedIdentity { user: Some(user.clone()), name: None, validity: of(Some(keys[1])) };
        hub.finish_refresh(Now::default(), ConnectionId::new(0, 0), Ok(refreshed));
        assert!(turn(&mut hub).is_empty());

        hub.keep_keys(vec![keys[2], keys[1]]);
        assert_eq!(turn(&mut hub), [4, 8, 12]);
        assert!(hub.has_work());
        // The second key goes meanwhile: also those are closed that were passed.
        hub.keep_keys(vec![keys[2]]);
        let mut closed = BTreeSet::new();
        while hub.has_work() {
            let slots = turn(&mut hub);
            assert!(slots.len() <= CLOSES_PER_TURN as usize, "{slots:?}");
            closed.extend(slots);
        }
        let expected = (0..40).filter(|slot| matches!(slot % 4, 0 | 1) && ![4, 8, 12].contains(slot));
        assert!(closed.into_iter().eq(expected));
        assert_eq!(hub.stats().connections, 20);
    }
}
