//! A coarse timer wheel whose entries are checked again when they come due.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::Now;

/// The length of a tick. Coarse on purpose: it bounds how often an idle loop wakes.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How many entries a turn should look at. After a rush of arrivals thousands come due in one tick; what is left over
/// makes [`Wheel::timeout`] zero, so the next turn goes on.
pub(crate) const LOOKS_PER_TURN: usize = 256;

const SLOTS: u32 = 64;

/// What a block of entries takes, with what an allocator adds.
const BLOCK_BYTES: usize = 512 - 8;

/// A moment on the wheel: ticks of [`TICK`], counted from 1 at the clock's beginning. The option of one takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// The tick in which the clock begins.
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);

    /// The tick that `now` lies in.
    pub(crate) fn of(now: Now) -> Self {
        Self::FIRST.later((now.uptime.as_millis() / TICK.as_millis()) as u32)
    }

    /// The tick as a number; below 2^31 it lies within seventeen years.
    pub(crate) fn number(self) -> NonZeroU32 {
        self.0
    }

    /// The tick with this number.
    pub(crate) fn numbered(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// The first tick at which `wait` has passed since any moment of this one: never early, at most two ticks late.
    pub(crate) fn after(self, wait: Duration) -> Self {
        let ticks = wait.as_millis().div_ceil(TICK.as_millis()) as u32;
        self.later(ticks).later(1)
    }

    /// How much later it is than another one; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        TICK * self.0.get().saturating_sub(earlier.0.get())
    }

    /// So many ticks later.
    fn later(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// The slot of the wheel in which its entries lie.
    fn slot(self) -> usize {
        (self.0.get() % SLOTS) as usize
    }
}

/// Entries by the tick at which they are to be looked at.
///
/// An entry does not mean that something is due, only that it is to be looked at: the caller of [`Wheel::pop`] checks, and
/// inserts the entry again when there is still time. Thus nothing has to be removed when a deadline
/// moves, which on a chat server happens with every byte received.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    /// The entries of each slot in blocks of equal size. Lists that double would leave holes of all sizes in the heap as the
    /// wheel turns; what one slot gives back of blocks, another one takes.
    slots: Vec<Vec<Vec<T>>>,
    /// The tick whose slot is being emptied; all earlier ones are empty.
    current: Tick,
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), current: Tick::FIRST }
    }

    /// Has `entry` looked at in tick `at`, or earlier when that is further away than the wheel reaches (16 s), or in
    /// the next tick when it is past. Says which tick it became.
    pub(crate) fn insert(&mut self, at: Tick, entry: T) -> Tick {
        let at = at.clamp(self.current.later(1), self.current.later(SLOTS - 1));
        let slot = &mut self.slots[at.slot()];
        match slot.last_mut() {
            Some(block) if block.len() < block.capacity() => block.push(entry),
            _ => {
                let mut block = Vec::with_capacity((BLOCK_BYTES / size_of::<T>().max(1)).max(1));
                block.push(entry);
                slot.push(block);
            }
        }
        at
    }

    /// An entry that is to be looked at by `now`, and the tick that it stood in.
    pub(crate) fn pop(&mut self, now: Tick) -> Option<(Tick, T)> {
        loop {
            let current = self.current;
            let slot = &mut self.slots[current.slot()];
            while let Some(block) = slot.last_mut() {
                if let Some(entry) = block.pop() {
                    return Some((current, entry));
                }
                slot.pop();
            }
            if current >= now {
                return None;
            }
            // An emptied slot gives back what a burst made it grow to: there are many, and it is allocated once a turn
            // of the wheel at most.
            *slot = Vec::new();
            self.current = current.later(1);
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().map(Vec::len).sum()
    }

    /// How long until [`Wheel::pop`] has something, or `None` when the wheel is empty.
    pub(crate) fn timeout(&self, now: Now) -> Option<Duration> {
        let is_empty = |slot: &Vec<Vec<T>>| slot.iter().all(Vec::is_empty);
        let mut ahead = (0..SLOTS).map(|ticks| self.current.later(ticks));
        let due = TICK * (ahead.find(|tick| !is_empty(&self.slots[tick.slot()]))?.0.get() - 1);
        Some(due.saturating_sub(now.uptime))
    }
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
    }

    #[test]
    fn entries_come_out_when_they_are_due_and_not_before() {
        let mut wheel = Wheel::new();
        for wait in [0, 1, 250, 251, 1000, 15_000] {
            wheel.insert(Tick::of(at(100)).after(Duration::from_millis(wait)), wait);
        }
        let mut seen = Vec::new();
        for millis in (100..20_000).step_by(10) {
            while let Some((_, wait)) = wheel.pop(Tick::of(at(millis))) {
                assert!(millis >= 100 + wait, "{wait} came out at {millis}");
                assert!(millis <= 100 + wait + 520, "{wait} came out at {millis}");
                seen.push(wait);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 250, 251, 1000, 15_000]);
    }

    #[test]
    fn far_entries_come_early_to_be_inserted_again() {
        let mut wheel = Wheel::new();
        let due = Tick::of(at(0)).after(Duration::from_secs(60));
        wheel.insert(due, ());
        let mut looks = 0;
        let mut millis = 0;
        loop {
            millis += wheel.timeout(at(millis)).unwrap().as_millis() as u64;
            let Some((tick, ())) = wheel.pop(Tick::of(at(millis))) else { continue };
            looks += 1;
            if tick >= due {
                break;
            }
            wheel.insert(due, ());
        }
        assert!((60_000..=60_500).contains(&millis), "{millis}");
        assert!(looks <= 5, "{looks}");
    }

    #[test]
    fn of_many_in_one_tick_none_is_lost_and_none_is_kept() {
        let mut wheel = Wheel::new();
        let due = Tick::of(at(0)).after(TICK);
        for entry in 0..1000u32 {
            wheel.insert(due, entry);
        }
        let mut seen: Vec<_> = std::iter::from_fn(|| Some(wheel.pop(due)?.1)).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..1000));
        assert_eq!(wheel.timeout(at(0)), None);
    }

    #[test]
    fn a_long_sleep_turns_the_wheel_once() {
        let mut wheel = Wheel::new();
        wheel.insert(Tick::of(at(0)).after(TICK), 1);
        assert_eq!(wheel.pop(Tick::of(at(3_600_000))).unwrap().1, 1);
        assert!(wheel.pop(Tick::of(at(3_600_000))).is_none());
        assert_eq!(wheel.timeout(at(3_600_000)), None);
    }
}
