//! The phases of a link, from waiting for an attempt to being up.

use std::time::Instant;

use super::hello::RedisHello;
use super::run_id::RunId;
use super::stream::Stream;

pub(super) enum LinkPhase {
    Waiting {
        until: Instant,
    },
    /// The lookup of the address is under way.
    Resolving {
        until: Instant,
    },
    Connecting {
        stream: Stream,
        until: Instant,
    },
    Hello {
        stream: Stream,
        until: Instant,
        hello: RedisHello,
    },
    /// `moves` is the number of moves of the endpoint at the time when the link came up.
    Up {
        stream: Stream,
        since: Instant,
        moves: u64,
        run_id: RunId,
    },
}

impl LinkPhase {
    /// When this phase ends without an event. A link that is up has no such time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until }
            | Self::Resolving { until }
            | Self::Connecting { until, .. }
            | Self::Hello { until, .. } => Some(*until),
            Self::Up { .. } => None,
        }
    }
}
