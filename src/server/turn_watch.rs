//! Notices turns that take long, and tells the log which phase took most.

use std::time::Duration;

/// The CPU time beyond which a turn is slow: longer than any budget of a turn allows on any machine.
const SLOW: Duration = Duration::from_millis(50);

/// How much time turns may take together before the CPU time is read again.
const READ_AFTER: Duration = Duration::from_millis(10);

/// The least time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The phases of a turn, in their order.
#[derive(Clone, Copy, Debug)]
pub(super) enum TurnPhase {
    Commands,
    Accepts,
    Reads,
    Deadlines,
    Bus,
    Answers,
    WriteBuffers,
    Sends,
    Freeing,
    Shutdown,
}

impl TurnPhase {
    const ALL: [Self; 10] = [
        Self::Commands,
        Self::Accepts,
        Self::Reads,
        Self::Deadlines,
        Self::Bus,
        Self::Answers,
        Self::WriteBuffers,
        Self::Sends,
        Self::Freeing,
        Self::Shutdown,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Accepts => "accepts",
            Self::Reads => "reads",
            Self::Deadlines => "deadlines",
            Self::Bus => "bus",
            Self::Answers => "answers",
            Self::WriteBuffers => "write buffers",
            Self::Sends => "sends",
            Self::Freeing => "freeing",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The most units of work of each phase of a turn, in one turn since the start. What a unit is differs between phases: a read, a
/// frame, a write, an event, a send, 1 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseUnits([u32; TurnPhase::ALL.len()]);

impl PhaseUnits {
    /// The units of a phase by its name, in the order of a turn.
    pub fn by_phase(&self) -> impl Iterator<Item = (&'static str, u32)> {
        TurnPhase::ALL.into_iter().map(|phase| (phase.name(), self.0[phase as usize]))
    }
}

/// The clocks that a watch reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchClocks {
    /// Monotonic time that costs a few nanoseconds to read, and advances in steps of some milliseconds.
    pub(super) coarse: fn() -> Duration,
    /// The CPU time that the thread has used. Reading it is a system call.
    pub(super) processor: fn() -> Duration,
}

/// Measures each phase by the coarse clock. A turn that took long by it is slow only if the thread has used the CPU meanwhile: a
/// process that was stopped, or did not get the CPU, is not.
///
/// The CPU time is not read in each turn, which would be one system call more. So what is told can be too much by what the
/// thread has used since the last reading: the turns since then have taken [`READ_AFTER`] at most.
#[derive(Debug)]
pub(super) struct TurnWatch {
    clocks: WatchClocks,
    /// The coarse clock when the turn began.
    began: Duration,
    /// The last reading of the coarse clock.
    marked: Duration,
    /// What each phase of this turn has taken so far, by the coarse clock.
    took: [Duration; TurnPhase::ALL.len()],
    /// The last reading of the CPU time.
    used: Duration,
    /// What the turns since then have taken, by the coarse clock.
    unread: Duration,
    pub(super) units_max: PhaseUnits,
    warned_at: Option<Duration>,
    /// Slow turns since the last warning, of which there was none.
    left_out: u64,
}

/// A turn that was slow.
#[derive(Debug, PartialEq, Eq)]
struct SlowTurn {
    took: Duration,
    phase: &'static str,
    left_out: u64,
}

impl TurnWatch {
    pub(super) fn new(clocks: WatchClocks) -> Self {
        Self {
            clocks,
            began: Duration::ZERO,
            marked: Duration::ZERO,
            took: Default::default(),
            used: (clocks.processor)(),
            unread: Duration::ZERO,
            units_max: PhaseUnits::default(),
            warned_at: None,
            left_out: 0,
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.began = (self.clocks.coarse)();
        self.marked = self.began;
    }

    /// The CPU time was read for something else.
    pub(super) fn note_used(&mut self, used: Duration) {
        self.used = used;
        self.unread = Duration::ZERO;
    }

    /// A phase ends, which was so many units of work, and the next one begins.
    pub(super) fn end_phase(&mut self, phase: TurnPhase, units: u32) {
        let most = &mut self.units_max.0[phase as usize];
        *most = units.max(*most);
        let now = (self.clocks.coarse)();
        if now != self.marked {
            self.took[phase as usize] += now.saturating_sub(self.marked);
            self.marked = now;
        }
    }

    /// The turn ends.
    pub(super) fn end_turn(&mut self) {
        if let Some(SlowTurn { took, phase, left_out }) = self.take_slow_turn() {
            let took = took.as_millis();
            log::warn!(
                "a turn took {took} ms of CPU time, most of it in the phase: {phase}; everybody waited meanwhile \
                 ({left_out} slow turns since the last such line)"
            );
        }
    }

    /// The turn that ends, if it was slow and is to be told.
    fn take_slow_turn(&mut self) -> Option<SlowTurn> {
        let all = self.marked.saturating_sub(self.began);
        if all.is_zero() {
            return None;
        }
        let took = std::mem::take(&mut self.took);
        self.unread += all;
        if self.unread < READ_AFTER {
            return None;
        }
        self.unread = Duration::ZERO;
        let used = (self.clocks.processor)();
        let used_now = used.saturating_sub(std::mem::replace(&mut self.used, used)).min(all);
        if used_now <= SLOW {
            return None;
        }
        if self.warned_at.is_some_and(|warned_at| self.marked < warned_at + WARNING_INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.warned_at = Some(self.marked);
        let longest = TurnPhase::ALL.into_iter().max_by_key(|phase| took[*phase as usize])?;
        Some(SlowTurn { took: used_now, phase: longest.name(), left_out: std::mem::take(&mut self.left_out) })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static COARSE: Cell<Duration> = const { Cell::new(Duration::from_secs(100)) };
        static USED: Cell<Duration> = const { Cell::new(Duration::from_secs(7)) };
        static READINGS: Cell<u32> = const { Cell::new(0) };
    }

    const CLOCKS: WatchClocks = WatchClocks {
        coarse: || COARSE.get(),
        processor: || {
            READINGS.set(READINGS.get() + 1);
            USED.get()
        },
    };

    fn pass(millis: u64, used: u64) {
        COARSE.set(COARSE.get() + Duration::from_millis(millis));
        USED.set(USED.get() + Duration::from_millis(used));
    }

    /// A turn whose phases take these milliseconds, and use these of the CPU.
    fn turn(watch: &mut TurnWatch, phases: &[(TurnPhase, u64, u64)]) -> Option<SlowTurn> {
        watch.begin_turn();
        for (phase, millis, used) in phases {
            pass(*millis, *used);
            watch.end_phase(*phase, 0);
        }
        watch.take_slow_turn()
    }

    #[test]
    fn a_slow_turn_names_the_phase_that_took_most() {
        let mut watch = TurnWatch::new(CLOCKS);
        let slow = |millis, phase, left_out| Some(SlowTurn { took: Duration::from_millis(millis), phase, left_out });
        let phases = [(TurnPhase::Reads, 20, 20), (TurnPhase::Sends, 32, 32), (TurnPhase::Freeing, 4, 4)];
        assert_eq!(turn(&mut watch, &phases), slow(56, "sends", 0));
        // Within ten seconds the next ones are only counted.
        (0..3).for_each(|_| assert_eq!(turn(&mut watch, &phases), None));
        pass(10_000, 0);
        assert_eq!(turn(&mut watch, &[(TurnPhase::Bus, 60, 60)]), slow(60, "bus", 3));
        pass(10_000, 0);
        assert_eq!(turn(&mut watch, &[(TurnPhase::Bus, 60, 60)]), slow(60, "bus", 0));
    }

    #[test]
    fn a_turn_in_which_the_thread_did_not_run_is_not_slow() {
        let mut watch = TurnWatch::new(CLOCKS);
        assert_eq!(turn(&mut watch, &[(TurnPhase::Reads, 60_000, 10)]), None, "stopped");
        assert_eq!(turn(&mut watch, &[(TurnPhase::Reads, 70, 40)]), None, "did not get the CPU");
        pass(10_000, 1_000);
        watch.note_used(USED.get());
        assert_eq!(turn(&mut watch, &[(TurnPhase::Reads, 70, 40)]), None, "what the host has used is known");
    }

    #[test]
    fn short_turns_seldom_read_the_cpu_time() {
        let mut watch = TurnWatch::new(CLOCKS);
        let before = READINGS.get();
        (0..1000).for_each(|_| assert_eq!(turn(&mut watch, &[(TurnPhase::Reads, 0, 0)]), None));
        assert_eq!(READINGS.get(), before);
        (0..100).for_each(|_| assert_eq!(turn(&mut watch, &[(TurnPhase::Reads, 4, 1)]), None));
        assert_eq!(READINGS.get() - before, 33);
    }
}
