//! Purges: all messages of a user are deleted, page by page of history, in one room or in all that have members.
//!
//! A purge of all rooms is announced to all nodes first, since each node knows the rooms of its own members. A room with members on
//! several nodes is purged by each: what is deleted once is found no more.
//!
//! A purge has one request to the bus at a time, so what others ask waits for little. It deletes what history holds when it comes to a
//! room; what the user says meanwhile stays.

use std::time::Duration;

use crate::bus::message::{BusRefusal, DeletionTargets, Outcome, Page, ReadFrom, RefusalKind, Ticket};
use crate::id::{RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, ErrorCode};
use crate::time::Now;

use super::Hub;
use super::deletion::announced;
use super::error_reply::Refused;
use super::index::{PurgeKey, RoomIndex};
use super::moderation::Moderation;
use super::purges::{Purge, Purged, RoomPurge, WaitingRequest};

/// Purges under way at once, and requests that wait for one of them. Others are refused.
const PURGES_MAX: usize = 16;
const WAITING_MAX: usize = 16;

/// How much history is read at once.
const PAGE_BYTES: usize = 64 * 1024;

/// A request is answered after this time, also if the purge still goes on.
const ANSWER_AFTER: Duration = Duration::from_secs(10);

impl Hub {
    /// Deletes what a user has said, in a room or in all rooms that have members, for a request of the HTTP API; how far that has
    /// come here is told by [`Hub::poll_purged`]. A request for what is under way already waits for that.
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
            purge.waiting.push(WaitingRequest { ticket, until: now.uptime + ANSWER_AFTER });
            return Ok(ticket);
        }
        if self.purges.running.len() >= PURGES_MAX {
            return busy("as many purges as are allowed are under way");
        }
        let command = Moderation::Purge { user: user.clone() }.body(now);
        if room.is_none() {
            self.pending.check_control(owner, &command)?;
        }
        let ticket = self.pending.new_ticket();
        let mut purge = self.purges.new_purge(owner, user, room);
        purge.waiting.push(WaitingRequest { ticket, until: now.uptime + ANSWER_AFTER });
        match room {
            Some(_) => self.carry_on_purge(now, purge),
            None => {
                self.pending.control_for_purge((purge.key, owner), command);
                self.purges.go_on(now, purge);
            }
        }
        Ok(ticket)
    }

    /// A node has announced a purge of all rooms, perhaps this one.
    pub(super) fn purge_for_node(&mut self, now: Now, user: &UserId) {
        if self.purges.of(user, None).is_some() {
            return;
        }
        if self.purges.running.len() >= PURGES_MAX {
            return log::warn!("moderation: {user} is not purged here: as many purges as are allowed are under way");
        }
        let purge = self.purges.new_purge(Owner::HOST, user, None);
        self.carry_on_purge(now, purge);
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

    /// The bus has deleted messages for a purge, or has announced it to all nodes.
    pub(super) fn handle_purge_step(&mut self, now: Now, key: PurgeKey, outcome: &Outcome) {
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
                return self.purges.go_on(now, purge);
            }
            if !room.is_read() {
                let (name, from) = (room.name.clone(), ReadFrom::After(room.reached));
                self.pending.read_for_purge((key, owner), name, from, PAGE_BYTES);
                return self.purges.go_on(now, purge);
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

    fn end_purge(&mut self, purge: Purge) {
        log::debug!("moderation: {} messages of {} are purged", purge.deleted, purge.user);
        self.purges.end(purge);
    }
}

impl Purge {
    /// The rest of this room cannot be read or deleted: it has a new epoch, for example.
    fn give_up_room(&mut self) {
        self.has_failed = true;
        self.room = None;
    }
}

#[cfg(test)]
mod tests;
