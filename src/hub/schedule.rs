//! When a room's turn comes: what the room itself keeps of it.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::fair_queue::QueuePlace;
use crate::owner::Owner;
use crate::time::Now;

/// A moment of [`Now::uptime`] in microseconds; the option of one takes eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(NonZeroU64);

impl Deadline {
    pub(super) fn after(now: Now, delay: Duration) -> Self {
        let micros = (now.uptime + delay).as_micros() as u64;
        Self(NonZeroU64::new(micros).unwrap_or(NonZeroU64::MIN))
    }

    /// How long until then.
    pub(super) fn wait(self, now: Now) -> Duration {
        Duration::from_micros(self.0.get()).saturating_sub(now.uptime)
    }

    pub(super) fn is_over(self, now: Now) -> bool {
        self.wait(now).is_zero()
    }
}

/// In which of the scheduler's lists a room is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Queue {
    /// The room has nothing to send.
    #[default]
    None,
    /// The room has its turn soon.
    Turn(QueuePlace),
    /// The room is in the middle of a round.
    Round(QueuePlace),
    /// The room's batch delay is not over.
    Delayed,
}

/// What a room keeps for the scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    pub(super) queue: Queue,
    /// The owner of the oldest message that no round has begun to send, while there is one.
    pub(super) unsent_owner: Option<Owner>,
    /// The next round does not begin before this, if there is a batch delay.
    pub(super) next_round_at: Option<Deadline>,
}
