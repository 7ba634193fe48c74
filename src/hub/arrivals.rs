//! When connections came, roughly and for the last minutes only: it costs nothing a connection, and a little a second.

use std::collections::VecDeque;

use crate::id::ConnectionSerial;
use crate::time::Now;

/// How far back it is known when connections came.
pub(super) const MEMORY_MILLIS: u64 = 10 * 60 * 1000;

/// Connections that come within so much of each other count as having come together, with the first of them.
const TOGETHER_MILLIS: u64 = 1000;

/// When connections came. Serials are in the order of arrival, so a moment is a serial: one entry a second in
/// which anybody came, of the last [`MEMORY_MILLIS`].
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The newest connection.
    newest: ConnectionSerial,
    /// The newest one that has a time.
    timed: ConnectionSerial,
    /// Unix milliseconds, and the last connection before those that came then; oldest first.
    marks: VecDeque<(u64, ConnectionSerial)>,
}

impl Arrivals {
    /// A connection came in this turn.
    pub(super) fn note(&mut self, serial: ConnectionSerial) {
        if serial.is_after(self.newest) {
            self.newest = serial;
        }
    }

    /// The time of the turn.
    pub(super) fn keep_time(&mut self, now: Now) {
        if self.newest == self.timed {
            return;
        }
        while self.marks.front().is_some_and(|(at, _)| at + MEMORY_MILLIS < now.unix_ms) {
            self.marks.pop_front();
        }
        // Marks of a clock that has been set back since. Connections that came then count as having been there before.
        while self.marks.back().is_some_and(|(at, _)| *at > now.unix_ms) {
            self.marks.pop_back();
        }
        if self.marks.back().is_none_or(|(at, _)| at + TOGETHER_MILLIS <= now.unix_ms) {
            self.marks.push_back((now.unix_ms, self.timed));
        }
        self.timed = self.newest;
    }

    /// The last connection that had come by then.
    pub(super) fn newest_at(&self, unix_ms: u64) -> ConnectionSerial {
        let later = self.marks.iter().rev().take_while(|(at, _)| *at > unix_ms).last();
        later.map_or(self.newest, |(_, before)| *before)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { uptime: Duration::from_secs(seconds), unix_ms: 1_000_000 + seconds * 1000 }
    }

    #[test]
    fn it_is_known_to_a_second_who_was_there() {
        let mut arrivals = Arrivals::default();
        for second in 1..=20 {
            arrivals.note(ConnectionSerial(second));
            arrivals.keep_time(at(second.into()));
        }
        assert_eq!(arrivals.newest_at(at(0).unix_ms).0, 0);
        for second in 1..=20 {
            assert_eq!(arrivals.newest_at(at(second.into()).unix_ms).0, second);
            assert_eq!(arrivals.newest_at(at(second.into()).unix_ms + 999).0, second);
        }
        // Nobody came in between.
        arrivals.keep_time(at(100));
        arrivals.note(ConnectionSerial(21));
        arrivals.keep_time(at(100));
        assert_eq!((arrivals.newest_at(at(99).unix_ms).0, arrivals.newest_at(at(100).unix_ms).0), (20, 21));
    }

    #[test]
    fn a_crowd_of_a_second_is_one_mark_and_an_old_mark_is_none() {
        let mut arrivals = Arrivals::default();
        for i in 1..=100_000_u32 {
            arrivals.note(ConnectionSerial(i));
            let now = Now { uptime: Duration::ZERO, unix_ms: 1_000_000 + u64::from(i) };
            arrivals.keep_time(now);
        }
        assert!(arrivals.marks.len() <= 101, "{} marks", arrivals.marks.len());
        for second in 0..10_000_u32 {
            arrivals.note(ConnectionSerial(100_001 + second));
            arrivals.keep_time(at(1000 + u64::from(second)));
        }
        let max = MEMORY_MILLIS / TOGETHER_MILLIS + 1;
        assert!(arrivals.marks.len() as u64 <= max, "{} marks", arrivals.marks.len());
    }

    #[test]
    fn numbers_begin_again() {
        let before = ConnectionSerial(u32::MAX - 1);
        let mut arrivals = Arrivals { newest: before, timed: before, marks: VecDeque::new() };
        for (second, serial) in [(1, u32::MAX), (2, 0), (3, 1)] {
            arrivals.note(ConnectionSerial(serial));
            arrivals.keep_time(at(second));
            assert_eq!(arrivals.newest_at(at(second).unix_ms).0, serial);
        }
    }
}
