//! How much one call of [`Hub::poll_sends`](super::Hub::poll_sends) may send: a number of sends, and a time.

use std::time::Duration;

use crate::time::Now;

use super::fanout::Sent;

/// The most sends of one room in a row.
pub(super) const SLICE_SENDS_MAX: u32 = 64;

/// Small sends between two looks at the clock. A look costs about a hundredth of one.
const STRIDE_SENDS: u32 = 8;

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

    /// Counts [small sends](Sent::small_sends), and looks at the clock if they make a stride. Says what time has gone by since it
    /// last looked.
    pub(super) fn count(&mut self, small_sends: u32) -> Duration {
        self.unwatched += small_sends;
        if self.unwatched < STRIDE_SENDS { Duration::ZERO } else { self.look() }
    }

    fn look(&mut self) -> Duration {
        let now = (self.clock)();
        self.unwatched = 0;
        let before = self.looked_at.replace(now);
        before.map_or(Duration::ZERO, |before| now.uptime.saturating_sub(before.uptime))
    }
}

/// What one slice of a room's round may use of what is left in the call.
pub(super) struct SliceBudget<'b, 'c, C> {
    left: &'b mut Budget,
    /// What has to be left for others.
    kept: Budget,
    sends: u32,
    watch: &'b mut Stopwatch<'c, C>,
}

impl<'b, 'c, C: FnMut() -> Now> SliceBudget<'b, 'c, C> {
    pub(super) fn new(left: &'b mut Budget, kept: Budget, watch: &'b mut Stopwatch<'c, C>) -> Self {
        Self { left, kept, sends: SLICE_SENDS_MAX, watch }
    }

    /// How much may be sent until the clock is looked at again, if anything may.
    #[inline]
    pub(super) fn stride(&self) -> Option<u32> {
        let may_send = self.sends > 0 && self.left.exceeds(self.kept);
        may_send.then(|| self.sends.min(self.left.sends - self.kept.sends).min(STRIDE_SENDS))
    }

    #[inline]
    pub(super) fn spend(&mut self, sent: Sent) {
        // A stride that found nobody to serve takes time, too.
        let sends = sent.sends.max(1);
        self.sends -= sends.min(self.sends);
        self.left.spend(sends, self.watch.count(sent.small_sends().max(1)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How many sends of so many bytes, which take so long each, fit into 300 µs.
    fn sends_that_fit(bytes: usize, micros: u64) -> u32 {
        let uptime = Cell::new(Duration::ZERO);
        let clock = &mut || Now { uptime: uptime.get(), unix_ms: 0 };
        let mut left = Budget { sends: 64, time: Duration::from_micros(300) };
        let mut watch = Stopwatch::new(clock);
        let mut slice = SliceBudget::new(&mut left, Budget::default(), &mut watch);
        let mut total = 0;
        while let Some(stride) = slice.stride() {
            let mut sent = Sent::default();
            while sent.small_sends() < stride {
                uptime.set(uptime.get() + Duration::from_micros(micros));
                (sent.sends, sent.bytes) = (sent.sends + 1, sent.bytes + bytes);
            }
            slice.spend(sent);
            total += sent.sends;
        }
        total
    }

    #[test]
    fn the_clock_is_looked_at_after_each_large_send() {
        assert_eq!(sends_that_fit(100, 2), 64);
        assert_eq!(sends_that_fit(100, 20), 24, "of the first eight the time is not known");
        assert_eq!(sends_that_fit(64 * 1024, 200), 3, "of the first the time is not known");
        assert_eq!(sends_that_fit(256 * 1024, 1000), 2);
    }
}
