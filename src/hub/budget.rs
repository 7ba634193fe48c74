//! How much one call of [`Hub::poll_sends`](super::Hub::poll_sends) may send: a number of sends, and a time.

use std::time::Duration;

use crate::time::Now;

/// Sends between two looks at the clock. A look costs about a hundredth of one send.
pub(super) const STRIDE_SENDS: u32 = 8;

/// What is left to send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    pub(super) sends: u32,
    pub(super) time: Duration,
}

impl Budget {
    pub(super) fn half(self) -> Self {
        Self { sends: self.sends / 2, time: self.time / 2 }
    }

    /// Whether something may be sent while so much is kept.
    pub(super) fn exceeds(self, kept: Self) -> bool {
        self.sends > kept.sends && self.time > kept.time
    }

    pub(super) fn at_least(self, least: Self) -> Self {
        Self { sends: self.sends.max(least.sends), time: self.time.max(least.time) }
    }

    pub(super) fn spend(&mut self, sends: u32, time: Duration) {
        self.sends = self.sends.saturating_sub(sends);
        self.time = self.time.saturating_sub(time);
    }
}

/// Tells how long sends take.
///
/// It knows nothing of the time before its first look. So the first stride takes no time, and a call that sends little does
/// not read the clock.
pub(super) struct Stopwatch<'c, C> {
    clock: &'c mut C,
    looked_at: Option<Now>,
    unwatched: u32,
}

impl<'c, C: FnMut() -> Now> Stopwatch<'c, C> {
    pub(super) fn new(clock: &'c mut C) -> Self {
        Self { clock, looked_at: None, unwatched: 0 }
    }

    /// Counts sends, and looks at the clock if they make a stride. Says what time has gone by since it last looked.
    pub(super) fn count(&mut self, sends: u32) -> Duration {
        self.unwatched += sends;
        if self.unwatched < STRIDE_SENDS { Duration::ZERO } else { self.look() }
    }

    fn look(&mut self) -> Duration {
        let now = (self.clock)();
        self.unwatched = 0;
        let before = self.looked_at.replace(now);
        before.map_or(Duration::ZERO, |before| now.uptime.saturating_sub(before.uptime))
    }
}
