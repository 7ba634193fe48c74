//! How many messages a connection may send: a token bucket, and how often it is told that it is empty.

use crate::time::Now;

/// A token bucket, kept as the moment at which it will be full again (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at_micros: u64,
}

/// How many messages were refused and not forgiven. Each message that passes forgives one, and a full bucket all: so refusals
/// decay at the rate of the bucket, without a clock of their own.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u16,
    /// When the connection was last told, in units of [`TOLD_UNIT_MILLIS`] modulo 2^16; 0 if it never was.
    told_at: u16,
}

/// Sixteen of these are the second that passes between two errors.
const TOLD_UNIT_MILLIS: u64 = 64;

/// What a [`Bucket`] says to a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Not now; a second has passed since the connection was told so.
    Tell {
        retry_after_ms: u64,
    },
    /// Not now, and it has been told.
    Drop,
    /// It goes on regardless.
    Flood,
}

impl Refusals {
    /// Whether a second has passed since the connection was told of a refusal; if so, it is told now.
    pub(super) fn may_tell(&mut self, now: Now) -> bool {
        // At worst one error too few every seventy minutes.
        let now_units = ((now.millis() / TOLD_UNIT_MILLIS) as u16).max(1);
        let may_tell = self.told_at == 0 || now_units.wrapping_sub(self.told_at) >= 16;
        if may_tell {
            self.told_at = now_units;
        }
        may_tell
    }
}

impl Bucket {
    /// Takes a token for a message from a bucket of `burst`, filled with `rate` a second; 0 is no limit.
    pub(super) fn take(&mut self, refusals: &mut Refusals, now: Now, rate: u32, burst: u32) -> Verdict {
        if rate == 0 {
            return Verdict::Pass;
        }
        let cost = 1_000_000 / u64::from(rate);
        let now_micros = now.uptime.as_micros() as u64;
        if self.full_at_micros <= now_micros {
            self.full_at_micros = now_micros;
            refusals.count = 0;
        }
        let allowed = now_micros + cost * u64::from(burst);
        if self.full_at_micros + cost <= allowed {
            self.full_at_micros += cost;
            refusals.count = refusals.count.saturating_sub(1);
            return Verdict::Pass;
        }
        refusals.count = refusals.count.saturating_add(1);
        if u32::from(refusals.count) >= burst.saturating_mul(10).min(u16::MAX.into()) {
            return Verdict::Flood;
        }
        if !refusals.may_tell(now) {
            return Verdict::Drop;
        }
        let wait_micros = self.full_at_micros + cost - allowed;
        Verdict::Tell { retry_after_ms: wait_micros.div_ceil(1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> Now {
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let (mut bucket, mut refusals) = (Bucket::default(), Refusals::default());
        let mut passed = |millis| {
            (0..50).filter(|_| Bucket::take(&mut bucket, &mut refusals, at(millis), 10, 5) == Verdict::Pass).count()
        };
        assert_eq!(passed(1000), 5);
        assert_eq!(passed(1100), 1);
        assert_eq!(passed(60_000), 5);
    }

    #[test]
    fn it_tells_once_a_second_and_gives_up_after_ten_bursts() {
        let (mut bucket, mut refusals) = (Bucket::default(), Refusals::default());
        let mut take = |millis| Bucket::take(&mut bucket, &mut refusals, at(millis), 10, 5);
        for _ in 0..5 {
            assert_eq!(take(1000), Verdict::Pass);
        }
        assert_eq!(take(1000), Verdict::Tell { retry_after_ms: 100 });
        assert_eq!(take(1001), Verdict::Drop);
        assert_eq!(take(1050), Verdict::Drop);
        let mut flood = 0;
        for _ in 0..50 {
            flood += u32::from(take(1002) == Verdict::Flood);
        }
        assert!(flood > 0);
    }

    /// How long a client that sends `rate` messages a second lasts under a limit of 50 a second and 100 at once.
    fn seconds_until_flood(rate: u64) -> Option<u64> {
        let (mut bucket, mut refusals) = (Bucket::default(), Refusals::default());
        (0..3600 * rate).map(|n| n * 1_000_000 / rate).find_map(|micros| {
            let now = Now { uptime: Duration::from_micros(1_000_000 + micros), unix_ms: 0 };
            (bucket.take(&mut refusals, now, 50, 100) == Verdict::Flood).then_some(micros / 1_000_000)
        })
    }

    #[test]
    fn a_client_a_little_above_the_rate_is_refused_for_ever_and_never_closed() {
        for rate in [10, 50, 51, 60, 99] {
            assert_eq!(seconds_until_flood(rate), None, "{rate} messages a second");
        }
    }

    #[test]
    fn a_client_far_above_the_rate_is_closed_the_sooner_the_more_it_sends() {
        // Each second 50 pass, as many refusals are forgiven, and 1,000 are too many.
        assert_eq!([150, 300, 1100, 100_000].map(seconds_until_flood), [20, 5, 1, 0].map(Some));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (mut bucket, mut refusals) = (Bucket::default(), Refusals::default());
        assert!((0..100_000).all(|_| Bucket::take(&mut bucket, &mut refusals, at(1), 0, 1) == Verdict::Pass));
    }
}
