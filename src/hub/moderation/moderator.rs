//! The commands that are being carried out, and which connections a late one concerns.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hub::arrivals::{Arrivals, MEMORY_MILLIS};
use crate::id::ConnectionSerial;
use crate::time::Now;

use super::command::Moderation;

/// By how much the clocks of two nodes may differ: a connection that came no later than this after a command counts as having
/// been there.
const SKEW_MILLIS: u64 = 5000;

/// How long after a cut of the link commands may be late. At other times they are on time, whatever the clocks of other nodes say.
const LATE: Duration = Duration::from_secs(60);

/// The commands that are being carried out, and how late they may be.
#[derive(Debug, Default)]
pub(in crate::hub) struct Moderator {
    pub(super) tasks: VecDeque<Task>,
    link: Link,
    pub(in crate::hub) arrivals: Arrivals,
    /// Connections for which a command was carried out.
    pub(in crate::hub) moderated: u64,
}

/// Whether commands may come late.
#[derive(Clone, Copy, Debug, Default)]
enum Link {
    /// The bus has not been ready yet. Commands from before do not come at all.
    #[default]
    New,
    Sure,
    /// The bus was not ready, the last time at this moment.
    Cut {
        at: Duration,
    },
}

/// A command that is being carried out.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) moderation: Moderation,
    /// Later connections are not meant.
    pub(super) newest: ConnectionSerial,
    /// Connections in lower slots have been looked at.
    pub(super) next_slot: u32,
    /// For how many connections it was carried out.
    pub(super) done: usize,
}

impl Moderator {
    /// The bus cannot tell whether there were commands.
    pub(in crate::hub) fn note_lost() {
        log::warn!("moderation: the order of commands was lost; some may not have been carried out here");
    }

    pub(in crate::hub) fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    pub(super) fn note_readiness(&mut self, now: Now, is_ready: bool) {
        let link = &mut self.link;
        *link = match *link {
            Link::New if !is_ready => Link::New,
            Link::Cut { at } if is_ready && now.uptime < at + LATE => Link::Cut { at },
            _ if is_ready => Link::Sure,
            _ => Link::Cut { at: now.uptime },
        };
    }

    /// The newest connection that a command of the time `ts` concerns, or none if that is too long ago to know.
    pub(super) fn newest_meant(&self, now: Now, ts: u64) -> Option<ConnectionSerial> {
        let said_at = match self.link {
            Link::New | Link::Sure => now.unix_ms,
            Link::Cut { .. } => ts,
        };
        let is_known = now.unix_ms.saturating_sub(said_at) <= MEMORY_MILLIS;
        is_known.then(|| self.arrivals.newest_at(said_at.saturating_add(SKEW_MILLIS)))
    }
}
