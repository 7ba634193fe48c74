//! A member that catches up: which part of history it still wants, and what it waits for.

use crate::bus::message::{Page, ReadFrom, Ticket};
use crate::id::{ConnectionId, Epoch};
use crate::room_log::Offset;

/// A member that reads history until it has reached what is delivered live.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) connection: ConnectionId,
    pub(super) reason: CatchUpReason,
    /// The epoch that `from` counts in, once known.
    pub(super) epoch: Option<Epoch>,
    pub(super) from: ReadFrom,
    /// Whether something that the member asked for, or was owed, is not in history any more.
    pub(super) gap: bool,
    pub(super) shown: Shown,
    pub(super) step: CatchUpStep,
}

/// What a member that joins has been sent of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Pages,
    /// Pages that the rest does not continue: the epoch has ended since, or history was cut off in between. The member
    /// has yet to be told.
    Void,
}

/// Why a member catches up.
#[derive(Debug)]
pub(super) enum CatchUpReason {
    /// It joins. It is not present yet.
    Join {
        id: Option<Box<str>>,
        /// Whether it is told whether it has missed something: because it asked to resume, or because its reading began
        /// anew.
        resumes: bool,
        /// How many of the newest messages it wants if it does not resume.
        history: u32,
    },
    /// It was live, and its socket refused bytes while the log needed the space.
    FellBack,
}

/// What a member that catches up waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchUpStep {
    /// Its own output to drain, or a page of another room to come into it.
    Output,
    /// The time to ask again.
    Retry,
    /// A page of history.
    Page { ticket: Ticket, pin: Option<Pin> },
}

/// Where the live log stood when a page was asked for: a reader who has everything up to `seq` continues at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) offset: Offset,
    pub(super) seq: u64,
}

impl CatchUp {
    /// The part of history that was asked for is gone: from now on it is as if `since` had been absent.
    pub(super) fn meet_gap(&mut self) {
        self.gap = true;
        if self.shown == Shown::Pages {
            self.shown = Shown::Void;
        }
        self.from = match self.reason {
            CatchUpReason::Join { history, .. } => ReadFrom::Newest(history),
            CatchUpReason::FellBack => ReadFrom::Newest(0),
        };
    }

    /// The epoch ended. A member that fell back has not asked for history of the new one.
    pub(super) fn lose_epoch(&mut self) {
        if matches!(self.reason, CatchUpReason::FellBack) {
            (self.gap, self.epoch, self.from) = (true, None, ReadFrom::Newest(0));
        }
    }

    /// Compares what is wanted with a position. Says whether nothing is left to read up to there.
    pub(super) fn is_level(&mut self, epoch: &Epoch, delivered: u64) -> bool {
        if self.epoch.as_ref().is_some_and(|known| known != epoch) {
            self.meet_gap();
        }
        self.epoch = Some(epoch.clone());
        matches!(self.from, ReadFrom::Newest(0)) || self.from == ReadFrom::After(delivered)
    }

    /// Whether messages that this member wants are missing at the beginning of a page.
    pub(super) fn misses_something(&self, page: &Page) -> bool {
        let ReadFrom::After(seq) = self.from else { return false };
        match page.messages.first() {
            Some(first) => first.seq > seq + 1,
            None => page.complete && page.top > seq,
        }
    }

    /// The id of the join that this member awaits the answer to.
    pub(super) fn take_join_id(&mut self) -> Option<Box<str>> {
        match &mut self.reason {
            CatchUpReason::Join { id, .. } => id.take(),
            CatchUpReason::FellBack => None,
        }
    }

    pub(super) fn has_joined(&self) -> bool {
        matches!(self.reason, CatchUpReason::FellBack)
    }
}
