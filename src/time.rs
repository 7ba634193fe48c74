//! The time of one turn, as everything below the server sees it: an argument, never a question to the system.

use std::time::Duration;

/// One reading of the host's clock.
///
/// A turn uses one value for everything it does, so that two things of the same turn happened at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic time since some fixed point of the process. Deadlines are measured with it.
    pub uptime: Duration,
    /// Milliseconds since 1970-01-01T00:00:00Z; stamped on messages (`ts`), and on commands for all nodes, which are about those who
    /// were there then; the times in tokens are compared with it. Used for nothing else.
    pub unix_ms: u64,
}

impl Now {
    /// The monotonic time in whole milliseconds.
    pub fn millis(&self) -> u64 {
        self.uptime.as_millis() as u64
    }

    /// The same reading with `pause` taken off the monotonic part.
    pub(crate) fn without(&self, pause: Duration) -> Self {
        Self { uptime: self.uptime.saturating_sub(pause), ..*self }
    }
}
