//! Purges: all messages of a user are deleted, page by page of history, in one room or in all that have members here.
//!
//! A purge has one request to the bus at a time, so what others ask waits for little. It deletes what history holds when it comes to a
//! room; what the user says meanwhile stays.

use std::collections::VecDeque;
use std::time::Duration;

use crate::bus::message::{BusRefusal, DeletionTargets, Outcome, Page, ReadFrom, RefusalKind, Ticket};
use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, ErrorCode};
use crate::time::Now;

use super::Hub;
use super::deletion::announced;
use super::error_reply::Refused;
use super::index::{PurgeKey, RoomIndex};

/// Purges under way at once, and requests that wait for one of them. Others are refused.
const PURGES_MAX: usize = 16;
const WAITING_MAX: usize = 16;

/// How much history is read at once.
const PAGE_BYTES: usize = 64 * 1024;

/// A request is answered after this time, also if the purge still goes on.
const ANSWER_AFTER: Duration = Duration::from_secs(10);

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
    running: Vec<Purge>,
    newest: u64,
    answers: VecDeque<(Ticket, Purged)>,
}

#[derive(Debug)]
struct Purge {
    key: PurgeKey,
    owner: Owner,
    user: UserId,
    /// The only room, if not all are meant.
    scope: Option<RoomName>,
    /// Rooms with lower indices have been looked at.
    next_index: u32,
    room: Option<RoomPurge>,
    deleted: u64,
    /// Whether something could not be read or deleted.
    has_failed: bool,
    begun_at: Duration,
    waiting: Vec<Ticket>,
}

/// How far a purge has come in a room.
#[derive(Debug)]
struct RoomPurge {
    name: RoomName,
    epoch: Option<Epoch>,
    /// History has been read up to this number …
    reached: u64,
    /// … of this one, once it is known.
    until: Option<u64>,
    /// Messages that are to be deleted.
    found: VecDeque<u64>,
    /// How many the bus is asked to delete.
    asked: usize,
}

impl RoomPurge {
    fn new(name: RoomName) -> Self {
        Self { name, epoch: None, reached: 0, until: None, found: VecDeque::new(), asked: 0 }
    }

    fn is_read(&self) -> bool {
        self.until.is_some_and(|until| self.reached >= until)
    }

    /// Looks for messages of a user in a page. Says whether it continues what was read before.
    fn take_page(&mut self, page: &Page, user: &UserId) -> bool {
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
    fn of(&mut self, user: &UserId, scope: Option<&RoomName>) -> Option<&mut Purge> {
        self.running.iter_mut().find(|purge| purge.user == *user && purge.scope.as_ref() == scope)
    }

    fn take(&mut self, key: PurgeKey) -> Option<Purge> {
        let at = self.running.iter().position(|purge| purge.key == key)?;
        Some(self.running.swap_remove(at))
    }

    fn answer(&mut self, purge: &mut Purge, is_complete: bool) {
        let purged = Purged { deleted: purge.deleted, is_complete };
        self.answers.extend(purge.waiting.drain(..).map(|ticket| (ticket, purged)));
    }
}

impl Hub {
    /// Deletes what a user has said, in a room or in all rooms that have members here, for a request of the HTTP API; how far that has
    /// come is told by [`Hub::poll_purged`]. A request for what is under way already waits for that.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn purge_for_api(
        &mut self,
        now: Now,
        owner: Owner,
        (user, room): (&UserId, Option<&RoomName>),
    ) -> Result<Ticket, Refused> {
        self.pending.check_running()?;
        let busy = |what: &str| Err((ErrorCode::ServerBusy, format!("{what}; try again later")));
        if let Some(purge) = self.purges.of(user, room) {
            if purge.waiting.len() >= WAITING_MAX {
                return busy("as many requests as are allowed wait for this purge");
            }
            let ticket = self.pending.new_ticket();
            purge.waiting.push(ticket);
            return Ok(ticket);
        }
        if self.purges.running.len() >= PURGES_MAX {
            return busy("as many purges as are allowed are under way");
        }
        let ticket = self.pending.new_ticket();
        self.purges.newest += 1;
        let purge = Purge {
            key: PurgeKey(self.purges.newest),
            owner,
            user: user.clone(),
            scope: room.cloned(),
            next_index: 0,
            room: room.cloned().map(RoomPurge::new),
            deleted: 0,
            has_failed: false,
            begun_at: now.uptime,
            waiting: vec![ticket],
        };
        self.carry_on_purge(now, purge);
        Ok(ticket)
    }

    /// How far the next purge has come that a request of the HTTP API waits for.
    pub fn poll_purged(&mut self) -> Option<(Ticket, Purged)> {
        self.purges.answers.pop_front()
    }

    /// The bus has given a page of history for a purge.
    pub(super) fn handle_purge_page(&mut self, now: Now, key: PurgeKey, page: Result<Page, BusRefusal>) {
        let Some(mut purge) = self.purges.take(key) else { return };
        match page {
            Ok(page) => {
                self.work += page.messages.len() as u32;
                let room = purge.room.as_mut();
                if room.is_some_and(|room| !room.take_page(&page, &purge.user)) {
                    purge.give_up_room();
                }
                self.carry_on_purge(now, purge);
            }
            Err(_) => self.fail_purge(purge),
        }
    }

    /// The bus has deleted messages for a purge.
    pub(super) fn handle_purge_deletion(&mut self, now: Now, key: PurgeKey, outcome: &Outcome) {
        let Some(mut purge) = self.purges.take(key) else { return };
        match outcome {
            Outcome::Accepted(_) | Outcome::AcceptedUnseen(_) | Outcome::Duplicate(_) => {
                let asked = purge.room.as_mut().map_or(0, |room| std::mem::take(&mut room.asked));
                purge.deleted += asked as u64;
                self.carry_on_purge(now, purge);
            }
            Outcome::Refused(BusRefusal { kind: RefusalKind::NotFound, .. }) => {
                // The room has a new epoch.
                purge.give_up_room();
                self.carry_on_purge(now, purge);
            }
            Outcome::Refused(_) => self.fail_purge(purge),
        }
    }

    /// Asks the bus for the next thing, or ends the purge.
    fn carry_on_purge(&mut self, now: Now, mut purge: Purge) {
        if now.uptime >= purge.begun_at + ANSWER_AFTER {
            self.purges.answer(&mut purge, false);
        }
        if self.pending.check_running().is_err() {
            return self.fail_purge(purge);
        }
        loop {
            let Some(room) = &mut purge.room else {
                let next = purge.scope.is_none().then(|| self.rooms.next_from(RoomIndex(purge.next_index))).flatten();
                let Some(index) = next else { break };
                purge.next_index = index.0 + 1;
                purge.room = Some(RoomPurge::new(self.rooms[index].name.clone()));
                continue;
            };
            let (key, owner) = (purge.key, purge.owner);
            if !room.found.is_empty() {
                room.asked = room.found.len().min(protocol::DELETIONS_MAX);
                let seqs = room.found.drain(..room.asked).collect();
                let deletion = announced(now, owner, &room.name, DeletionTargets { epoch: room.epoch.clone(), seqs });
                if self.pending.check_publication(&deletion.announcement).is_err() {
                    return self.fail_purge(purge);
                }
                self.pending.delete_for_purge(key, deletion);
                return self.purges.running.push(purge);
            }
            if !room.is_read() {
                let (name, from) = (room.name.clone(), ReadFrom::After(room.reached));
                self.pending.read_for_purge((key, owner), name, from, PAGE_BYTES);
                return self.purges.running.push(purge);
            }
            purge.room = None;
            if purge.scope.is_some() {
                break;
            }
        }
        self.end_purge(purge);
    }

    fn fail_purge(&mut self, mut purge: Purge) {
        purge.has_failed = true;
        self.end_purge(purge);
    }

    fn end_purge(&mut self, mut purge: Purge) {
        let is_complete = !purge.has_failed;
        log::debug!("moderation: {} messages of {} are purged", purge.deleted, purge.user);
        self.purges.answer(&mut purge, is_complete);
    }
}

impl Purge {
    /// What is left of this room cannot be read or deleted: it has a new epoch, for example.
    fn give_up_room(&mut self) {
        self.has_failed = true;
        self.room = None;
    }
}
