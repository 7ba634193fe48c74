//! The commands that are being carried out, and which connections a late one concerns.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hub::arrivals::{Arrivals, MEMORY_MILLIS};
use crate::id::ConnectionSerial;
use crate::restrictions::RestrictionTarget;
use crate::settings::HubLimits;
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

/// Bans that are carried out one by one. Beyond them all connections are checked against all bans, at once.
const BANS_MAX: usize = 64;

/// Slots that a turn searches for a user's connections.
const SLOTS_PER_TURN: usize = 64 * 1024;

/// To look a connection up in a table takes a while; so many slots of a search for one user count the same.
pub(in crate::hub) const CHECK_SLOTS: usize = 16;

/// Something that is being carried out, connection by connection.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) kind: TaskKind,
    /// Connections in lower slots have been looked at.
    pub(super) next_slot: u32,
    /// For how many connections it was carried out.
    pub(super) done: usize,
}

/// The closes and removals that a turn may still make.
pub(in crate::hub) struct CommandBudget {
    pub(in crate::hub) slots: usize,
    pub(in crate::hub) connections: usize,
}

impl CommandBudget {
    pub(in crate::hub) fn of_turn(limits: &HubLimits) -> Self {
        Self { slots: SLOTS_PER_TURN, connections: limits.closes_per_turn as usize }
    }
}

/// What is being carried out.
#[derive(Debug)]
pub(super) enum TaskKind {
    /// A command about a user. Connections later than the newest are not meant.
    Command { moderation: Moderation, newest: ConnectionSerial },
    /// A ban. Later connections are not there: their handshakes were refused.
    Ban(RestrictionTarget),
    /// Every ban there is.
    AllBans,
}

impl Task {
    pub(super) fn new(kind: TaskKind) -> Self {
        Self { kind, next_slot: 0, done: 0 }
    }
}

impl Moderator {
    /// Has a ban carried out.
    pub(super) fn begin_ban(&mut self, target: RestrictionTarget) {
        if self.tasks.len() < BANS_MAX {
            self.tasks.push_back(Task::new(TaskKind::Ban(target)));
        } else {
            self.begin_all_bans();
        }
    }

    /// Has all connections checked.
    pub(super) fn begin_all_bans(&mut self) {
        let is_to_come = |task: &Task| matches!(task.kind, TaskKind::AllBans) && task.next_slot == 0;
        if !self.tasks.back().is_some_and(is_to_come) {
            self.tasks.push_back(Task::new(TaskKind::AllBans));
        }
    }

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
