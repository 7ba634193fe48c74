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

impl CatchUpStep {
    /// From where on the log is kept for it.
    pub(super) fn pinned(self) -> Option<Offset> {
        match self {
            Self::Page { pin, .. } => pin.map(|pin| pin.offset),
            Self::Output | Self::Retry => None,
        }
    }
}

/// Where the live log stood when a page was asked for: a reader who has everything up to `seq` continues at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) offset: Offset,
    pub(super) seq: u64,
}

/// What comes next for a member that catches up and has been given a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// It has everything up to there.
    GoLive(Pin),
    /// It asks for another page.
    Ask,
    /// It asks again when time has passed.
    AskLater,
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

    /// Whether what is wanted counts in another epoch than this one.
    pub(super) fn is_strange(&self, epoch: &Epoch) -> bool {
        self.epoch.as_ref().is_some_and(|known| known != epoch)
    }

    /// Compares what is wanted with a position. Says whether nothing is left to read up to there.
    pub(super) fn is_level(&mut self, epoch: &Epoch, delivered: u64) -> bool {
        if self.is_strange(epoch) {
            self.meet_gap();
        }
        self.epoch = Some(epoch.clone());
        matches!(self.from, ReadFrom::Newest(0)) || self.from == ReadFrom::After(delivered)
    }

    /// Compares a page with what the member wants up to `pin`. Says what comes next, if that is not to send the page's messages.
    pub(super) fn check_page(&mut self, page: &Page, epoch: &Epoch, pin: Pin) -> Option<NextStep> {
        let asked = self.from;
        if self.is_level(epoch, pin.seq) {
            return Some(NextStep::GoLive(pin));
        }
        if matches!(self.from, ReadFrom::After(seq) if seq > pin.seq.max(page.top)) {
            self.meet_gap();
        }
        if self.from != asked {
            // The page answers a question that makes no sense in this epoch.
            return Some(NextStep::Ask);
        }
        if matches!(asked, ReadFrom::After(seq) if seq > pin.seq) {
            // It was told on another node what has yet to be delivered here.
            return Some(NextStep::AskLater);
        }
        if self.misses_something(page) {
            let is_first = !self.gap;
            self.meet_gap();
            if is_first && !self.has_joined() {
                return Some(NextStep::Ask);
            }
            // The second time it goes on with what there is: history might be cut off faster than it reads.
            self.from = asked;
        }
        None
    }

    /// The member has been sent the messages of a page up to `pin`.
    pub(super) fn advance(&mut self, page: &Page, pin: Pin) -> NextStep {
        let mut reached = match self.from {
            ReadFrom::After(seq) => seq,
            // A member that catches up never reads backwards.
            ReadFrom::Newest(_) | ReadFrom::Before { .. } => 0,
        };
        if let Some(last) = page.messages.iter().take_while(|message| message.seq <= pin.seq).last() {
            self.shown = Shown::Pages;
            reached = last.seq;
        }
        if page.complete {
            reached = reached.max(page.top.min(pin.seq));
        }
        let asked = std::mem::replace(&mut self.from, ReadFrom::After(reached));
        if reached >= pin.seq {
            return NextStep::GoLive(pin);
        }
        let is_stuck = page.complete && asked == ReadFrom::After(reached);
        if is_stuck { NextStep::AskLater } else { NextStep::Ask }
    }

    /// Whether messages that this member wants are missing at the beginning of a page.
    fn misses_something(&self, page: &Page) -> bool {
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
