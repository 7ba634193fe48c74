//! The CPU time of the server's turns, from the histogram in its `/metrics`.

use std::net::SocketAddr;

use crate::metrics;

/// A reading of the histogram.
#[derive(Clone, Debug)]
pub(crate) struct TurnTimes {
    /// Bounds in seconds, and how many turns were within them.
    buckets: Vec<(f64, f64)>,
}

impl TurnTimes {
    /// `None` if the server does not tell.
    pub(crate) fn read(address: SocketAddr) -> Option<Self> {
        let answer = metrics::read(address).ok()?;
        let buckets = answer.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(r#"roomcast_turn_cpu_seconds_bucket{le=""#)?.split_once(r#""} "#)?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        });
        Some(buckets.collect()).filter(|buckets: &Vec<_>| !buckets.is_empty()).map(|buckets| Self { buckets })
    }

    /// The bound in milliseconds that a fraction of the turns since an earlier reading did not exceed; infinite if only
    /// the last bucket has them all.
    pub(crate) fn quantile_since(&self, earlier: &Self, fraction: f64) -> Option<f64> {
        let made = |index: usize| self.buckets[index].1 - earlier.buckets[index].1;
        let all = made(self.buckets.len().checked_sub(1)?);
        let index = (0..self.buckets.len()).find(|index| made(*index) >= all * fraction)?;
        Some(self.buckets[index].0 * 1000.0)
    }

    /// The largest bound that is not infinite, in milliseconds, and how many turns since an earlier reading exceeded it.
    pub(crate) fn beyond_since(&self, earlier: &Self) -> Option<(f64, f64)> {
        let [.., last, all] = self.buckets.as_slice() else { return None };
        let [.., last_before, all_before] = earlier.buckets.as_slice() else { return None };
        Some((last.0 * 1000.0, (all.1 - all_before.1) - (last.1 - last_before.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_turns_between_two_readings() {
        let reading = |counts: [f64; 3]| {
            let bounds = [0.001, 0.05, f64::INFINITY];
            TurnTimes { buckets: bounds.into_iter().zip(counts).collect() }
        };
        let (before, after) = (reading([10.0, 30.0, 31.0]), reading([1009.0, 1030.0, 1031.0]));
        assert_eq!(after.quantile_since(&before, 0.99), Some(1.0));
        assert_eq!(after.quantile_since(&before, 1.0), Some(50.0));
        assert_eq!(after.beyond_since(&before), Some((50.0, 0.0)));
        let slow = reading([1009.0, 1030.0, 1033.0]);
        assert_eq!(slow.quantile_since(&before, 1.0), Some(f64::INFINITY));
        assert_eq!(slow.beyond_since(&before), Some((50.0, 2.0)));
    }
}
