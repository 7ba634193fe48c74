//! Users whose connections stalled lately.

use std::collections::VecDeque;

use crate::id::UserId;
use crate::time::Now;

const MEMORY_MILLIS: u64 = 5 * 60 * 1000;
const REMEMBERED_MAX: usize = 10_000;

/// Which users had a connection closed for stalling in the last five minutes, and when.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    recent: VecDeque<(u64, UserId)>,
}

impl Stalls {
    /// A user's connection stalls. Says how often that has happened lately, before now.
    pub(super) fn note(&mut self, now: Now, user: UserId) -> usize {
        let oldest = now.millis().saturating_sub(MEMORY_MILLIS);
        while self.recent.front().is_some_and(|(at, _)| *at < oldest) || self.recent.len() >= REMEMBERED_MAX {
            self.recent.pop_front();
        }
        let before = self.recent.iter().filter(|(_, stalled)| *stalled == user).count();
        self.recent.push_back((now.millis(), user));
        before
    }
}
