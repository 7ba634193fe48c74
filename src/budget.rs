//! How much one phase of a turn may do: units of work, and time.
//!
//! Units bound what a turn does when no clock runs, as in tests. Time bounds it when a unit takes longer than usual: caches are
//! cold, or the machine is shared. What a budget leaves over stays in the list that it came from.

use std::time::Duration;

use crate::time::Now;

/// Units between two looks at the clock.
const STRIDE_UNITS: u32 = 16;

/// Units between two looks at the clock, where each is a system call of many microseconds.
const COSTLY_STRIDE_UNITS: u32 = 4;

/// So many bytes that are copied or parsed count as one unit.
const UNIT_BYTES: usize = 1024;

/// What a piece of work counts: the pieces, and the bytes that they have together.
pub(crate) fn units(pieces: u32, bytes: usize) -> u32 {
    pieces.saturating_add((bytes / UNIT_BYTES) as u32)
}

/// What a phase may do in one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkLimits {
    pub(crate) units: u32,
    pub(crate) time: Duration,
}

/// What is left of a phase's limits. The clock is lent, and asked only after every few units.
///
/// The time before the first look is not known, so a phase that does little asks no clock.
pub(crate) struct WorkBudget<'c> {
    left: WorkLimits,
    clock: &'c mut dyn FnMut() -> Now,
    looked_at: Option<Now>,
    unwatched: u32,
    stride: u32,
    spent: u32,
}

impl<'c> WorkBudget<'c> {
    pub(crate) fn new(limits: WorkLimits, clock: &'c mut dyn FnMut() -> Now) -> Self {
        Self { left: limits, clock, looked_at: None, unwatched: 0, stride: STRIDE_UNITS, spent: 0 }
    }

    /// For units that are a system call of many microseconds each.
    pub(crate) fn with_costly_units(self) -> Self {
        Self { stride: COSTLY_STRIDE_UNITS, ..self }
    }

    /// Whether one more piece of work may begin.
    pub(crate) fn has_left(&self) -> bool {
        self.left.units > 0 && !self.left.time.is_zero()
    }

    /// How many units were done.
    pub(crate) fn spent(&self) -> u32 {
        self.spent
    }

    /// A piece of work is done.
    pub(crate) fn spend(&mut self, units: u32) {
        self.spent = self.spent.saturating_add(units);
        self.left.units = self.left.units.saturating_sub(units);
        self.unwatched = self.unwatched.saturating_add(units);
        if self.unwatched >= self.stride {
            self.look();
        }
    }

    /// Something is done that may have taken long, and that no units count.
    pub(crate) fn look(&mut self) {
        self.unwatched = 0;
        let now = (self.clock)();
        if let Some(before) = self.looked_at.replace(now) {
            self.left.time = self.left.time.saturating_sub(now.uptime.saturating_sub(before.uptime));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Does pieces of `units` that take `micros` each; says how many were done, and how often the clock was looked at.
    fn work(units: u32, micros: u64) -> (u32, u32) {
        let (uptime, looks) = (Cell::new(Duration::ZERO), Cell::new(0));
        let clock = &mut || {
            looks.set(looks.get() + 1);
            Now { uptime: uptime.get(), unix_ms: 0 }
        };
        let mut budget = WorkBudget::new(WorkLimits { units: 1024, time: Duration::from_micros(500) }, clock);
        let mut pieces = 0;
        while budget.has_left() {
            uptime.set(uptime.get() + Duration::from_micros(micros));
            budget.spend(units);
            pieces += 1;
        }
        (pieces, looks.get())
    }

    #[test]
    fn a_phase_ends_when_its_units_or_its_time_are_used_up() {
        assert_eq!(work(1, 0), (1024, 64));
        assert_eq!(work(64, 0), (16, 16));
        assert_eq!(work(5000, 0), (1, 1));
        // 16 pieces take 160 µs. Of the first 16 the time is not known.
        assert_eq!(work(1, 10), (80, 5));
        assert_eq!(work(64, 250), (3, 3));
    }

    #[test]
    fn bytes_count_as_pieces_do() {
        assert_eq!((units(1, 0), units(1, 1023), units(1, 64 * 1024)), (1, 1, 65));
    }
}
