//! Commands of the host about a user, for all nodes: connections are closed or taken out of a room, or messages are purged.
//!
//! A command is a control message: the bus gives them one order, tells each node of each once, and brings those that were
//! missed while its link was cut. Each node carries out the commands that it is told of, the node that asked included.

mod command;
mod moderator;
mod restriction_state;
mod restrictions;

use crate::bus::message::{Numbered, Ticket};
use crate::error::Error;
use crate::id::{ConnectionId, RoomName, Slot, UserId};
use crate::owner::Owner;
use crate::protocol::{ErrorCode, ServerMessage};
use crate::time::Now;
use crate::unicode::Escaped;

pub use self::command::Moderation;
pub(super) use self::moderator::{CHECK_SLOTS, CommandBudget, Moderator};
use self::moderator::{Task, TaskKind};
pub(super) use self::restriction_state::RestrictionState;
use super::Hub;
use super::error_reply::{ErrorReply, Refused};
use super::leaving::AfterLeave;
use super::members::Parting;
use super::pending::Requester;
use super::presence::Mover;

/// Commands that wait for their turn. Beyond these the oldest is carried out at once, however long that takes: deliveries of
/// the bus cannot be refused.
const TASKS_MAX: usize = 1024;

impl Hub {
    /// Has a command carried out on all nodes. [`Notice::Published`](super::Notice::Published) tells what the bus made of it.
    ///
    /// It concerns connections that are there now. It forbids nothing: [`Policy`](super::Policy) decides whether a user may
    /// come back.
    ///
    /// # Errors
    /// [`Error::Command`] if something is out of its bounds, or the server is busy or shutting down.
    pub fn moderate_for_host(&mut self, now: Now, moderation: &Moderation) -> Result<Ticket, Error> {
        self.moderate(now, (Requester::Host, Owner::HOST), moderation).map_err(|(_, message)| Error::Command(message))
    }

    /// As [`Hub::moderate_for_host`], for a request of the HTTP API; what the bus made of it is told by
    /// [`Hub::poll_answer`], and by no notice.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn moderate_for_api(&mut self, now: Now, owner: Owner, moderation: &Moderation) -> Result<Ticket, Refused> {
        self.moderate(now, (Requester::Api, owner), moderation)
    }

    fn moderate(
        &mut self,
        now: Now,
        requester: (Requester, Owner),
        moderation: &Moderation,
    ) -> Result<Ticket, Refused> {
        moderation.check().map_err(|message| (ErrorCode::BadMessage, message))?;
        let body = moderation.body(now);
        self.pending.check_control(requester.1, &body)?;
        self.check_restrictions(moderation)?;
        // The API tells which key has asked.
        if !matches!(requester.0, Requester::Api) {
            log::info!("moderation: {moderation}, asked for by the host");
        }
        Ok(match moderation.change() {
            Some(change) => self.pending.restrict(requester, (change, body)),
            None => self.pending.control(requester, body),
        })
    }

    /// The bus can be reached, or cannot. After a cut commands come late, and concern the connections that were there at their
    /// time.
    pub fn handle_readiness(&mut self, now: Now, is_ready: bool) {
        self.moderator.note_readiness(now, is_ready);
        self.note_presence_readiness(now, is_ready);
    }

    /// The bus tells of a command.
    pub(super) fn handle_command(&mut self, now: Now, message: &Numbered) {
        let (moderation, ts) = match Moderation::read(&message.body) {
            Ok(read) => read,
            Err(reason) => return log::warn!("moderation: a command was passed over: {}", Escaped(reason)),
        };
        match moderation {
            Moderation::Restrict(restriction) => return self.put_restriction(restriction),
            Moderation::Lift(target) => return self.lift_restriction(&target),
            Moderation::Purge { user } => return self.purge_for_node(now, &user),
            Moderation::Disconnect { .. } | Moderation::Kick { .. } => {}
        }
        let Some(newest) = self.moderator.newest_meant(now, ts) else {
            let seconds = now.unix_ms.saturating_sub(ts) / 1000;
            return log::warn!("moderation: a command was passed over: it is {seconds} s old");
        };
        if self.moderator.tasks.len() >= TASKS_MAX
            && let Some(mut task) = self.moderator.tasks.pop_front()
        {
            let all = &mut CommandBudget { slots: usize::MAX, connections: usize::MAX };
            self.carry_on(now, &mut task, all);
        }
        self.moderator.tasks.push_back(Task::new(TaskKind::Command { moderation, newest }));
    }

    /// Carries out what was delivered, as far as a turn's budget goes.
    pub(super) fn carry_out_commands(&mut self, now: Now, budget: &mut CommandBudget) {
        self.moderator.arrivals.keep_time(now);
        while let Some(mut task) = self.moderator.tasks.pop_front() {
            if !self.carry_on(now, &mut task, budget) {
                return self.moderator.tasks.push_front(task);
            }
        }
    }

    /// Goes on with a task; says whether it is done.
    fn carry_on(&mut self, now: Now, task: &mut Task, budget: &mut CommandBudget) -> bool {
        let TaskKind::Command { moderation, newest } = &task.kind else { return self.carry_on_ban(now, task, budget) };
        let (Moderation::Disconnect { user: name, .. } | Moderation::Kick { user: name, .. }) = moderation else {
            return true;
        };
        while let Some(user) = self.users.find(name.as_str()) {
            if task.next_slot >= self.connections.slots() {
                break;
            }
            if budget.slots == 0 || budget.connections == 0 {
                return false;
            }
            budget.slots -= 1;
            let slot = task.next_slot;
            task.next_slot += 1;
            let is_meant = |id: &ConnectionId| !id.serial.is_after(*newest);
            let Some(id) = self.connections.of_user(Slot(slot), user).filter(is_meant) else { continue };
            let is_done = match moderation {
                Moderation::Disconnect { reason, .. } => {
                    self.close(now, id, reason.clone());
                    true
                }
                Moderation::Kick { room, .. } => {
                    self.take_out(now, id, room, "taken out of the room by the application")
                }
                Moderation::Purge { .. } | Moderation::Restrict(_) | Moderation::Lift(_) => false,
            };
            if is_done {
                budget.connections -= 1;
                task.done += 1;
            }
        }
        self.moderator.moderated += task.done as u64;
        match moderation {
            Moderation::Disconnect { user, reason } => {
                log::debug!("moderation: {} connections of {user} are closed with {}", task.done, reason.code());
            }
            Moderation::Kick { room, user } => {
                self.end_grace(now, room, user);
                log::debug!("moderation: {} connections of {user} are out of room {room}", task.done);
            }
            Moderation::Purge { .. } | Moderation::Restrict(_) | Moderation::Lift(_) => {}
        }
        true
    }

    /// Takes a connection out of a room, with nothing more of it. Says whether it was in it.
    pub(super) fn take_out(&mut self, now: Now, id: ConnectionId, name: &RoomName, reason: &str) -> bool {
        let Some(index) = self.rooms.named(name.as_str()) else { return false };
        let leaving = self.rooms.take_leaving(index, id.slot, &self.connections);
        let (leave_id, then) = leaving.map_or((None, AfterLeave::Nothing), |leaving| (leaving.id, leaving.then));
        let Some(former) = self.remove_member(now, id.slot, index, Parting::Left) else { return false };
        // This answers what the connection has asked for: to join, or to leave.
        let (join_id, second_leave) = match then {
            AfterLeave::Nothing => (former.join_id(), None),
            AfterLeave::Join(request) => (request.id, None),
            AfterLeave::Leave(id) => (None, Some(id)),
        };
        let reply = ErrorReply::new(ErrorCode::Removed, reason);
        self.out.error(&mut self.connections, id, reply.about(Some(name.as_str()), join_id.as_deref()));
        let left = ServerMessage::Left { room: name.as_str(), id: leave_id.as_deref() };
        self.out.say(&mut self.connections, id, &left);
        if let Some(leave_id) = second_leave {
            let left = ServerMessage::Left { room: name.as_str(), id: leave_id.as_deref() };
            self.out.say(&mut self.connections, id, &left);
        }
        true
    }

    /// A user that was taken out is not awaited back.
    fn end_grace(&mut self, now: Now, room: &RoomName, user: &UserId) {
        let Some((index, user)) = self.rooms.named(room.as_str()).zip(self.users.find(user.as_str())) else { return };
        if self.rooms[index].users.grace(user).is_some() {
            self.end_presence_of(now, index, Mover::without_connection(user));
            self.forget_if_unused(index);
        }
    }
}

#[cfg(test)]
mod tests;
