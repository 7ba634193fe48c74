//! Slow mode: the least time between two messages of a user in a room, over all its connections on this node.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::id::{RoomName, UserId};
use crate::sharded_map::ShardedMap;
use crate::time::Now;

/// Users that are slow, each as often as it has spoken in another room. Beyond them the one that was looked at longest ago may
/// speak early: to refuse others instead would let a crowd of speakers silence a room.
const SPEAKERS_MAX: usize = 64 * 1024;

/// Speakers that are looked at in a turn, to forget those that may speak again.
const LOOKS_PER_TURN: usize = 16;

/// When users may speak again. It outlives memberships, so that leaving a room and coming back is no way out.
///
/// A user in a room is a hash of both names: peers choose names, therefore it is keyed by chance, and no two of them are alike.
#[derive(Debug, Default)]
pub(super) struct SlowMode {
    until: ShardedMap<u64, Duration>,
    /// In the order in which they are looked at.
    looks: VecDeque<u64>,
    hasher: RandomState,
    /// Messages that were refused.
    pub(super) refused: u64,
}

impl SlowMode {
    fn speaker(&self, room: &RoomName, user: &UserId) -> u64 {
        self.hasher.hash_one((room, user))
    }

    /// Until a user may speak in a room, in milliseconds; none if it may.
    pub(super) fn wait_millis(&self, now: Now, room: &RoomName, user: &UserId) -> Option<u64> {
        if self.until.is_empty() {
            return None;
        }
        let wait = self.until.get(&self.speaker(room, user))?.saturating_sub(now.uptime);
        (!wait.is_zero()).then(|| wait.as_micros().div_ceil(1000) as u64)
    }

    /// A user has spoken in a room where so much time has to pass before it may again.
    pub(super) fn note(&mut self, now: Now, (room, user): (&RoomName, &UserId), slow: Duration) {
        let speaker = self.speaker(room, user);
        if self.until.insert(speaker, now.uptime + slow).is_some() {
            return;
        }
        self.looks.push_back(speaker);
        if self.looks.len() > SPEAKERS_MAX
            && let Some(oldest) = self.looks.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// What a user has said was not published.
    pub(super) fn forgive(&mut self, now: Now, room: &RoomName, user: &UserId) {
        let speaker = self.speaker(room, user);
        if let Some(until) = self.until.get_mut(&speaker) {
            *until = now.uptime;
        }
    }

    /// Forgets some of those that may speak again.
    pub(super) fn forget_over(&mut self, now: Now) {
        for _ in 0..LOOKS_PER_TURN.min(self.looks.len()) {
            let Some(speaker) = self.looks.pop_front() else { break };
            if self.until.get(&speaker).is_some_and(|until| *until > now.uptime) {
                self.looks.push_back(speaker);
            } else {
                self.until.remove(&speaker);
            }
        }
        // A crowd that has gone leaves no memory.
        if self.looks.capacity() > 64 && self.looks.capacity() > 8 * self.looks.len() {
            self.looks.shrink_to(2 * self.looks.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    }

    fn names(room: &str, user: &str) -> (RoomName, UserId) {
        (RoomName::new(room).unwrap(), UserId::new(user).unwrap())
    }

    const SLOW: Duration = Duration::from_secs(10);

    #[test]
    fn a_user_waits_in_the_room_in_which_it_spoke() {
        let mut slow_mode = SlowMode::default();
        let (room, ann) = names("r", "ann");
        slow_mode.note(at(1000), (&room, &ann), SLOW);
        for (millis, wait) in [(1000, Some(10_000)), (10_999, Some(1)), (11_000, None)] {
            assert_eq!(slow_mode.wait_millis(at(millis), &room, &ann), wait);
        }
        // The boundary between the two names counts.
        for (room, user) in [("r", "bob"), ("other", "ann"), ("ra", "nn")].map(|(room, user)| names(room, user)) {
            assert_eq!(slow_mode.wait_millis(at(1000), &room, &user), None);
        }
        slow_mode.forgive(at(2000), &room, &ann);
        assert_eq!(slow_mode.wait_millis(at(2000), &room, &ann), None);
        slow_mode.forget_over(at(2000));
        assert!(slow_mode.until.is_empty() && slow_mode.looks.is_empty());
    }

    #[test]
    fn speakers_are_few_and_those_that_may_speak_again_are_forgotten() {
        let mut slow_mode = SlowMode::default();
        let user = |number: usize| names("r", &format!("u{number}"));
        for number in 0..=SPEAKERS_MAX {
            let (room, user) = user(number);
            // Speaking again is not speaking for two.
            slow_mode.note(at(0), (&room, &user), SLOW);
            slow_mode.note(at(0), (&room, &user), SLOW);
        }
        assert_eq!((slow_mode.until.len(), slow_mode.looks.len()), (SPEAKERS_MAX, SPEAKERS_MAX));
        let wait = |slow_mode: &SlowMode, number| {
            let (room, user) = user(number);
            slow_mode.wait_millis(at(0), &room, &user)
        };
        assert_eq!([0, 1, SPEAKERS_MAX].map(|number| wait(&slow_mode, number)), [None, Some(10_000), Some(10_000)]);
        slow_mode.forget_over(at(9_999));
        assert_eq!(slow_mode.until.len(), SPEAKERS_MAX);
        for _ in 0..SPEAKERS_MAX / LOOKS_PER_TURN {
            slow_mode.forget_over(at(10_000));
        }
        assert_eq!((slow_mode.until.len(), slow_mode.looks.len()), (0, 0));
        assert!(slow_mode.until.capacity() < 100 && slow_mode.looks.capacity() < 100);
    }
}
