//! A conversation: publishers send messages, by schedule or as their own come back.

mod measure;
mod run;

use std::time::Duration;

pub(crate) use self::measure::Findings;
use crate::client::ClientIndex;

/// When a publisher sends its next message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When it has received one of its own: each publisher has `window` messages under way at any time.
    Closed { window: u32 },
    /// By schedule, whatever the server does; the publishers take turns.
    Open { per_second: f64 },
}

/// Publishers of a kind, which are measured together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Clients that read markers, with their rooms, in ascending order of clients.
    pub(crate) publishers: Vec<(ClientIndex, u32)>,
    /// How many clients receive each message.
    pub(crate) members: usize,
    pub(crate) pace: Pace,
}

/// Clients that read less than they could.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlowReaders {
    pub(crate) clients: Vec<ClientIndex>,
    pub(crate) bytes_per_second: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) groups: Vec<Group>,
    pub(crate) slow: SlowReaders,
    pub(crate) text_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// The server's process, if it is known.
    pub(crate) pid: Option<u32>,
    /// Whether to follow how many files the server has open.
    pub(crate) counts_files: bool,
}

/// Counts of a whole conversation, warm-up and end included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) published: u64,
    /// Deliveries that never came.
    pub(crate) lost: u64,
    /// How often slow readers were told that messages are missing.
    pub(crate) gap_notices: u64,
}
