//! Users whose connections stalled lately.

use std::collections::{HashMap, VecDeque};

use crate::id::UserId;
use crate::time::Now;

const MEMORY_MILLIS: u64 = 5 * 60 * 1000;
const REMEMBERED_MAX: usize = 10_000;

/// Which users had a connection closed for stalling in the last five minutes, and when.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    recent: VecDeque<(u64, UserId)>,
    /// How often each user is among them.
    counts: HashMap<UserId, usize>,
}

impl Stalls {
    /// A user's connection stalls. Says how often that has happened lately, before now.
    pub(super) fn note(&mut self, now: Now, user: UserId) -> usize {
        let oldest = now.millis().saturating_sub(MEMORY_MILLIS);
        while self.recent.front().is_some_and(|(at, _)| *at < oldest) || self.recent.len() >= REMEMBERED_MAX {
            self.forget_oldest();
        }
        let count = self.counts.entry(user.clone()).or_default();
        let before = *count;
        *count += 1;
        self.recent.push_back((now.millis(), user));
        before
    }

    fn forget_oldest(&mut self) {
        let Some((_, user)) = self.recent.pop_front() else { return };
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn stalls_are_counted_for_five_minutes_and_as_many_as_are_remembered() {
        let at = |seconds| Now { uptime: Duration::from_secs(seconds), unix_ms: 0 };
        let user = |name: &str| UserId::new(name).unwrap();
        let mut stalls = Stalls::default();
        assert_eq!([0, 1, 2].map(|second| stalls.note(at(second), user("ann"))), [0, 1, 2]);
        assert_eq!(stalls.note(at(2), user("bob")), 0);
        assert_eq!(stalls.note(at(302), user("ann")), 1, "two are too long ago");
        for number in 0..REMEMBERED_MAX {
            stalls.note(at(303), user(&format!("user-{number}")));
        }
        assert_eq!((stalls.note(at(303), user("ann")), stalls.counts.len()), (0, REMEMBERED_MAX));
    }
}
