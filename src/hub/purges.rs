//! The purges under way, and how far each has come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::bus::message::{Page, Ticket};
use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol;
use crate::time::Now;

use super::index::PurgeKey;

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Messages deleted so far.
    pub deleted: u64,
    /// Whether history has been read to its end.
    pub is_complete: bool,
}

/// The purges under way.
#[derive(Debug, Default)]
pub(super) struct Purges {
    pub(super) running: Vec<Purge>,
    newest: u64,
    pub(super) answers: VecDeque<(Ticket, Purged)>,
}

#[derive(Debug)]
pub(super) struct Purge {
    pub(super) key: PurgeKey,
    pub(super) owner: Owner,
    pub(super) user: UserId,
    /// The only room, if not all are meant.
    pub(super) scope: Option<RoomName>,
    /// Rooms with lower indices have been looked at.
    pub(super) next_index: u32,
    pub(super) room: Option<RoomPurge>,
    pub(super) deleted: u64,
    /// Whether something could not be read or deleted.
    pub(super) has_failed: bool,
    pub(super) waiting: Vec<WaitingRequest>,
}

/// A request that is answered at the end of a purge, or at its first step after a time.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    pub(super) ticket: Ticket,
    pub(super) until: Duration,
}

/// How far a purge has come in a room.
#[derive(Debug)]
pub(super) struct RoomPurge {
    pub(super) name: RoomName,
    pub(super) epoch: Option<Epoch>,
    /// History has been read up to this number …
    pub(super) reached: u64,
    /// … of this one, once it is known.
    pub(super) until: Option<u64>,
    /// Messages that are to be deleted.
    pub(super) found: VecDeque<u64>,
    /// How many the bus is asked to delete.
    pub(super) asked: usize,
}

impl RoomPurge {
    pub(super) fn new(name: RoomName) -> Self {
        Self { name, epoch: None, reached: 0, until: None, found: VecDeque::new(), asked: 0 }
    }

    pub(super) fn is_read(&self) -> bool {
        self.until.is_some_and(|until| self.reached >= until)
    }

    /// Looks for messages of a user in a page. Says whether it continues what was read before.
    pub(super) fn take_page(&mut self, page: &Page, user: &UserId) -> bool {
        if self.epoch.get_or_insert_with(|| page.epoch.clone()) != &page.epoch {
            return false;
        }
        let until = *self.until.get_or_insert(page.top);
        let own = page.messages.iter().filter(|message| message.seq <= until);
        self.found.extend(own.filter(|message| protocol::is_said_by(&message.body, user.as_str())).map(|own| own.seq));
        match page.messages.last() {
            Some(last) => self.reached = last.seq,
            None if page.complete => self.reached = until,
            None => return false,
        }
        if page.complete {
            self.reached = self.reached.max(until);
        }
        true
    }
}

impl Purges {
    pub(super) fn of(&mut self, user: &UserId, scope: Option<&RoomName>) -> Option<&mut Purge> {
        self.running.iter_mut().find(|purge| purge.user == *user && purge.scope.as_ref() == scope)
    }

    /// A purge that has yet to begin, and that no request waits for.
    pub(super) fn new_purge(&mut self, owner: Owner, user: &UserId, scope: Option<&RoomName>) -> Purge {
        self.newest += 1;
        Purge {
            key: PurgeKey(self.newest),
            owner,
            user: user.clone(),
            scope: scope.cloned(),
            next_index: 0,
            room: scope.cloned().map(RoomPurge::new),
            deleted: 0,
            has_failed: false,
            waiting: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, key: PurgeKey) -> Option<Purge> {
        let at = self.running.iter().position(|purge| purge.key == key)?;
        Some(self.running.swap_remove(at))
    }

    /// A purge has asked the bus for something more. Requests that have waited for long enough are told how far it is.
    pub(super) fn go_on(&mut self, now: Now, mut purge: Purge) {
        let purged = Purged { deleted: purge.deleted, is_complete: false };
        let overdue = purge.waiting.extract_if(.., |request| now.uptime >= request.until);
        self.answers.extend(overdue.map(|request| (request.ticket, purged)));
        self.running.push(purge);
    }

    /// A purge has come to its end.
    pub(super) fn end(&mut self, purge: Purge) {
        let purged = Purged { deleted: purge.deleted, is_complete: !purge.has_failed };
        self.answers.extend(purge.waiting.into_iter().map(|request| (request.ticket, purged)));
    }
}
