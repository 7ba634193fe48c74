//! What the host has done about a user on all nodes: connections closed, or taken out of a room.
//!
//! A command goes the way of a publication, into a room of its own that nobody can name and that every hub opens at its start.
//! So the bus gives commands one order, carries each out once, and brings what was missed while its link was cut. What is delivered there
//! is not appended to a log but carried out on the connections of this node.

mod command;

use std::collections::VecDeque;
use std::time::Duration;

use crate::bus::message::{BusRequest, Numbered, Outcome, Publication, ReadFrom, Ticket};
use crate::deadline::Tick;
use crate::error::Error;
use crate::id::{ConnectionId, ConnectionSerial, RoomName, Slot, UserId};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::time::Now;

pub use self::command::Moderation;
use super::arrivals::{Arrivals, MEMORY_MILLIS};
use super::attendance::{Here, Presence};
use super::connection::Place;
use super::presence::{Due, Parting};
use super::publish::Pending;
use super::room::CatchUpReason;
use super::{Complaint, Hub, Refused};

/// By how much the clocks of two nodes may differ where it matters: who came no later than this after a command was there.
const SKEW_MILLIS: u64 = 5000;

/// How long after a cut commands may be late. Before it, and later, they are on time, whatever the clocks of other nodes say.
const LATE: Duration = Duration::from_secs(60);

/// How long until the place of commands is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Slots that a turn looks at, in search of a user's connections.
const SLOTS_PER_TURN: usize = 64 * 1024;

/// Commands that wait for their turn. Beyond these the oldest is done at once, whatever its time: the bus cannot be refused.
const TASKS_MAX: usize = 1024;

/// What the hub knows of the room of commands, and has to carry out.
#[derive(Debug, Default)]
pub(super) struct Moderator {
    phase: Phase,
    /// The number of the last command that was delivered.
    delivered: Option<u64>,
    tasks: VecDeque<Task>,
    link: Link,
    pub(super) arrivals: Arrivals,
}

/// Whether it is known where this node stands in the order of commands.
#[derive(Debug)]
enum Phase {
    /// Not yet, so that a command which was said now might be numbered before deliveries begin, and never come back. Own ones wait.
    Opening(VecDeque<BusRequest>),
    Open,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Opening(VecDeque::new())
    }
}

/// Whether commands may come late.
#[derive(Clone, Copy, Debug, Default)]
enum Link {
    /// The bus has not been ready yet; what was said before it is does not come at all.
    #[default]
    New,
    Sure,
    /// It was not ready, the last time just now.
    Cut {
        at: Duration,
    },
}

/// A command that is being carried out.
#[derive(Debug)]
struct Task {
    moderation: Moderation,
    /// Later connections are not meant.
    newest: ConnectionSerial,
    /// Connections in lower slots have been looked at.
    next_slot: u32,
    /// For how many it was done.
    done: usize,
}

/// What a turn may still do.
struct Budget {
    slots: usize,
    connections: usize,
}

impl Moderator {
    pub(super) fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }
}

impl Hub {
    /// Has something done about a user on all nodes; [`Notice::Published`](super::Notice::Published) tells what the bus made of it.
    ///
    /// It is done to connections that are there now. It forbids nothing: who may come back is for
    /// [`Policy`](super::Policy) to say.
    ///
    /// # Errors
    /// [`Error::Command`] if something is out of its bounds, or the server is busy or shutting down.
    pub fn moderate_for_host(&mut self, now: Now, moderation: &Moderation) -> Result<Ticket, Error> {
        self.moderate_for_request(now, moderation).map_err(|(_, words)| Error::Command(words))
    }

    /// As [`Hub::moderate_for_host`], for who passes a refusal on.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn moderate_for_request(&mut self, now: Now, moderation: &Moderation) -> Result<Ticket, Refused> {
        self.check_can_publish()?;
        moderation.check().map_err(|words| (ErrorCode::BadMessage, words))?;
        let room = RoomName::moderation();
        let ticket =
            self.ticket(Pending::Publication { connection: None, name: room.clone(), id: None, reserved: None });
        let (user, body) = (moderation.user().clone(), moderation.body(now));
        let request = BusRequest::Publish { ticket, publication: Publication { room, user, id: None, body } };
        self.publications_pending += 1;
        match &mut self.moderator.phase {
            Phase::Opening(held) => held.push_back(request),
            Phase::Open => self.requests.push_back(request),
        }
        Ok(ticket)
    }

    /// Opens the room of commands; it stays open.
    pub(super) fn open_moderation(&mut self) {
        self.requests.push_back(BusRequest::Open(RoomName::moderation()));
        self.locate_moderation();
    }

    /// Asks where the order of commands stands: from there on they are delivered.
    pub(super) fn locate_moderation(&mut self) {
        let ticket = self.ticket(Pending::Moderation);
        let (room, from) = (RoomName::moderation(), ReadFrom::Newest(0));
        self.requests.push_back(BusRequest::Read { ticket, room, from, bytes_max: 0 });
    }

    /// It is known where the order of commands stands, or why it is not.
    pub(super) fn handle_moderation_located(&mut self, now: Now, refusal: Option<&'static str>) {
        let Phase::Opening(held) = &mut self.moderator.phase else { return };
        let held = std::mem::take(held);
        match refusal {
            None => {
                self.moderator.phase = Phase::Open;
                self.requests.extend(held);
            }
            Some(words) => {
                for request in held {
                    let BusRequest::Publish { ticket, .. } = request else { continue };
                    self.handle_published(now, ticket, Outcome::Refused(words));
                }
                self.wheel.insert(Tick::of(now).after(RETRY), Due::Moderation);
            }
        }
    }

    /// The bus can be reached, or cannot: after a cut commands come late, and then are about those who were there when they were said.
    pub fn handle_readiness(&mut self, now: Now, is_ready: bool) {
        let link = &mut self.moderator.link;
        *link = match *link {
            Link::New if !is_ready => Link::New,
            Link::Cut { at } if is_ready && now.uptime < at + LATE => Link::Cut { at },
            _ if is_ready => Link::Sure,
            _ => Link::Cut { at: now.uptime },
        };
    }

    /// Who is meant by a command that was said at `ts`: connections up to this one, or nobody if it is too old to know.
    fn newest_meant(&self, now: Now, ts: u64) -> Option<ConnectionSerial> {
        let said_at = match self.moderator.link {
            Link::New | Link::Sure => now.unix_ms,
            Link::Cut { .. } => ts,
        };
        let is_known = now.unix_ms.saturating_sub(said_at) <= MEMORY_MILLIS;
        is_known.then(|| self.moderator.arrivals.newest_at(said_at.saturating_add(SKEW_MILLIS)))
    }

    /// A command was delivered.
    pub(super) fn handle_command(&mut self, now: Now, message: &Numbered) {
        let before = self.moderator.delivered;
        if before.is_some_and(|before| message.seq <= before) {
            return;
        }
        if let Some(missed) = before.map(|before| message.seq - before - 1).filter(|missed| *missed > 0) {
            log::warn!("moderation: {missed} commands were not delivered, and are not carried out here");
        }
        self.moderator.delivered = Some(message.seq);
        let (moderation, ts) = match Moderation::read(&message.body) {
            Ok(read) => read,
            Err(words) => return log::warn!("moderation: a command was passed over: {words}"),
        };
        let Some(newest) = self.newest_meant(now, ts) else {
            let seconds = now.unix_ms.saturating_sub(ts) / 1000;
            return log::warn!("moderation: a command was passed over: it is {seconds} s old");
        };
        if self.moderator.tasks.len() >= TASKS_MAX
            && let Some(mut task) = self.moderator.tasks.pop_front()
        {
            let all = &mut Budget { slots: usize::MAX, connections: usize::MAX };
            self.carry_on(now, &mut task, all);
        }
        self.moderator.tasks.push_back(Task { moderation, newest, next_slot: 0, done: 0 });
    }

    /// The order of commands is not continued.
    pub(super) fn handle_commands_lost(&mut self, top: u64) {
        self.moderator.delivered = Some(top);
        log::warn!("moderation: the order of commands was lost; some may not have been carried out here");
    }

    /// Carries out what was delivered, as far as a turn's budget goes.
    pub(super) fn moderate(&mut self, now: Now) {
        self.moderator.arrivals.keep_time(now);
        let budget = &mut Budget { slots: SLOTS_PER_TURN, connections: self.limits.closes_per_turn as usize };
        while let Some(mut task) = self.moderator.tasks.pop_front() {
            if !self.carry_on(now, &mut task, budget) {
                return self.moderator.tasks.push_front(task);
            }
        }
    }

    /// Goes on with a command; says whether it is done.
    fn carry_on(&mut self, now: Now, task: &mut Task, budget: &mut Budget) -> bool {
        while let Some(user) = self.users.find(task.moderation.user().as_str()) {
            if task.next_slot >= self.connections.slots() {
                break;
            }
            if budget.slots == 0 || budget.connections == 0 {
                return false;
            }
            budget.slots -= 1;
            let slot = task.next_slot;
            task.next_slot += 1;
            let is_meant = |id: &ConnectionId| !id.serial.is_after(task.newest);
            let Some(id) = self.connections.of_user(Slot(slot), user).filter(is_meant) else { continue };
            let is_done = match &task.moderation {
                Moderation::Disconnect { reason, .. } => {
                    self.close(now, id, reason.clone());
                    true
                }
                Moderation::Kick { room, .. } => self.remove(now, id, room),
            };
            if is_done {
                budget.connections -= 1;
                task.done += 1;
            }
        }
        self.stats.moderated += task.done as u64;
        match &task.moderation {
            Moderation::Disconnect { user, reason } => {
                log::debug!("moderation: {} connections of {user} are closed with {}", task.done, reason.code);
            }
            Moderation::Kick { room, user } => {
                self.end_grace(now, room, user);
                log::debug!("moderation: {} connections of {user} are out of room {room}", task.done);
            }
        }
        true
    }

    /// Takes a connection out of a room, with nothing more of it; says whether it was in it.
    fn remove(&mut self, now: Now, id: ConnectionId, name: &RoomName) -> bool {
        let Some(index) = self.room_named(name.as_str()) else { return false };
        let Some(place) = self.connections.member(id.slot).place_in(index) else { return false };
        let room = &mut self.rooms[index as usize];
        // What it has asked for and is answered by this: that it came in, or that it wanted to leave.
        let join_id = match place {
            Place::Live(_) => None,
            Place::CatchingUp(place) => match &mut room.catching_up[place as usize].reason {
                CatchUpReason::Join { id, .. } => id.take(),
                CatchUpReason::FellBack => None,
            },
        };
        let leaving = room.leaving.iter().position(|leaving| leaving.slot == id.slot);
        let leave_id = leaving.and_then(|at| room.leaving.swap_remove(at).id);
        self.part(now, id.slot, index, Parting::Left);
        let complaint = Complaint::new(ErrorCode::Removed, "taken out of the room by the application");
        self.error(id, &complaint.about(Some(name.as_str()), join_id.as_deref()));
        self.say(id, &ServerMessage::Left { room: name.as_str(), id: leave_id.as_deref() });
        true
    }

    /// Who was taken out is not awaited back.
    fn end_grace(&mut self, now: Now, room: &RoomName, user: &UserId) {
        let Some((index, user)) = self.room_named(room.as_str()).zip(self.users.find(user.as_str())) else { return };
        let presence = self.rooms[index as usize].users.get(user);
        if let Some(Presence { here: Here::Grace(_), .. }) = presence {
            self.end_presence_here(now, index, user);
            self.forget_if_unused(index);
        }
    }
}

#[cfg(test)]
mod tests;
