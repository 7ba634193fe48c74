//! The clock of the loop, read through the host's function. It leaves out the time in which the
//! process did not run.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Now;

/// How late a turn may be before the lateness counts as a pause of the whole process.
const LATE_MAX: Duration = Duration::from_millis(300);

/// The time that a pause counts, however long it was.
const PAUSE_COUNTED: Duration = Duration::from_millis(250);

impl Now {
    /// Reads the system's clocks; the usual [`HostLoop::clock`](crate::HostLoop).
    #[expect(clippy::disallowed_methods, reason = "here the host lets the server read clocks")]
    pub fn system() -> Self {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { uptime: BEGINNING.get_or_init(Instant::now).elapsed(), unix_ms: unix.as_millis() as u64 }
    }
}

/// The CPU time that this thread has used.
#[expect(clippy::disallowed_methods, reason = "what a turn costs is measured, and decides nothing")]
pub(super) fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Monotonic time that is cheap to read, and advances in steps of some milliseconds where the system has such a clock.
#[expect(clippy::disallowed_methods, reason = "what a turn costs is measured, and decides nothing")]
pub(super) fn coarse_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::MonotonicCoarse;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Time without pauses. While the process is suspended, stopped by a debugger, or kept from running
/// by its host, no deadline comes nearer, so a pause closes no connection.
#[derive(Debug)]
pub(super) struct Clock {
    read: fn() -> Now,
    paused: Duration,
    /// When the next turn is expected at the latest. None while nothing can become due.
    expected_by: Option<Duration>,
    /// When the process was last known to run.
    ran_at: Duration,
}

impl Clock {
    pub(super) fn new(read: fn() -> Now) -> Self {
        Self { read, paused: Duration::ZERO, expected_by: None, ran_at: Duration::ZERO }
    }

    /// The time now without the pauses noticed so far. It serves to compare, not to set deadlines.
    pub(super) fn now(&self) -> Now {
        (self.read)().without(self.paused)
    }

    /// The time now for calls of the host between two turns, which may come right after a pause.
    pub(super) fn resume(&mut self) -> Now {
        self.leave_out_pause();
        self.now()
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) -> Now {
        let now = self.resume();
        self.ran_at = (self.read)().uptime;
        self.expected_by = Some(self.ran_at);
        now
    }

    /// A turn ends; the next one comes within `timeout`.
    pub(super) fn end_turn(&mut self, timeout: Option<Duration>) {
        self.leave_out_pause();
        self.ran_at = (self.read)().uptime;
        self.expected_by = timeout.map(|timeout| self.ran_at + timeout);
    }

    fn leave_out_pause(&mut self) {
        let Some(expected_by) = self.expected_by else { return };
        let uptime = (self.read)().uptime;
        let late = uptime.saturating_sub(expected_by);
        if late > LATE_MAX {
            log::warn!("did not run for {late:?}; deadlines are put off by this time");
            // The sleep that was intended is left out too. Otherwise the deadline that ended the sleep
            // would pass now, before its peer had a chance. A little counts, so that time goes on for
            // a host that is late every time.
            self.paused += uptime.saturating_sub(self.ran_at + PAUSE_COUNTED);
            // The pause is left out once.
            self.ran_at = uptime;
            self.expected_by = Some(uptime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static MILLIS: Cell<u64> = const { Cell::new(0) };
    }

    fn read() -> Now {
        Now { uptime: Duration::from_millis(MILLIS.get()), unix_ms: 0 }
    }

    #[test]
    fn pauses_are_left_out_and_sleep_is_not() {
        let mut clock = Clock::new(read);
        let mut turn = |begins: u64, ends: u64, timeout| {
            MILLIS.set(begins);
            let now = clock.begin_turn().millis();
            MILLIS.set(ends);
            clock.end_turn(timeout);
            now
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(turn(1_000, 1_001, second), 1_000);
        assert_eq!(turn(2_001, 2_002, second), 2_001, "as expected");
        assert_eq!(turn(3_200, 3_201, second), 3_200, "a little late");
        assert_eq!(turn(60_000, 60_001, second), 3_451, "stopped while asleep");
        assert_eq!(turn(60_500, 90_000, None), 3_951, "stopped within a turn");
        assert_eq!(turn(990_000, 990_000, None), 904_201, "nothing was expected");
    }
}
