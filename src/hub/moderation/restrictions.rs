//! Bans and mutes in force: what the bus tells of them, and what they do to the connections that are there.

use crate::bus::message::RestrictionsPage;
use crate::hub::Hub;
use crate::hub::error_reply::{ErrorReply, Refused};
use crate::hub::index::RoomIndex;
use crate::hub::users::UserKey;
use crate::id::{ConnectionId, Slot, UserId};
use crate::protocol::{ChatRequest, CloseReason, ErrorCode};
use crate::restrictions::{Network, Restriction, RestrictionKind, RestrictionTarget, Restrictions, Term};
use crate::time::Now;

use super::command::Moderation;
use super::moderator::{CHECK_SLOTS, CommandBudget, Task, TaskKind};

/// Restrictions that expire in a turn.
const EXPIRIES_PER_TURN: usize = 256;

/// Restrictions that are looked at in a turn after a load.
const SWEPT_PER_TURN: usize = 1024;

/// The connections that a ban concerns.
enum Meant {
    User(UserKey),
    Network(Network),
    All,
}

impl Hub {
    /// The bans and mutes that are in force.
    pub(crate) fn restrictions(&self) -> &Restrictions {
        &self.restrictions.table
    }

    /// A handshake was refused because of a ban.
    pub(crate) fn note_banned(&mut self) {
        self.restrictions.banned += 1;
    }

    /// Whether a user is banned.
    pub fn bans(&self, now: Now, user: &UserId) -> bool {
        self.restrictions.table.ban_of_user(now.unix_ms, user).is_some()
    }

    /// The keys of all bans and mutes that are in force, in their order.
    pub fn restrictions_in_force(&self, now: Now) -> Vec<String> {
        let (table, kinds) = (&self.restrictions.table, [RestrictionKind::Bans, RestrictionKind::Mutes]);
        let list = |kind| table.list(now.unix_ms, kind, None).map(|(target, _)| target.key());
        kinds.into_iter().flat_map(list).collect()
    }

    /// Whether there may be another restriction. The bus counts them, too, where other nodes write them.
    pub(super) fn check_restrictions(&self, moderation: &Moderation) -> Result<(), Refused> {
        let Moderation::Restrict(Restriction { target, .. }) = moderation else { return Ok(()) };
        let (table, max) = (&self.restrictions.table, self.settings.hub.restrictions_max);
        if table.contains(target) || table.len() + self.pending.restrictions() < max as usize {
            return Ok(());
        }
        Err((ErrorCode::StorageFull, format!("there are {} bans and mutes; {max} are allowed", table.len())))
    }

    pub(super) fn put_restriction(&mut self, restriction: Restriction) {
        let target = restriction.target.clone();
        self.restrictions.table.put(restriction);
        self.note_mutes(&target);
        if !matches!(target, RestrictionTarget::Muted { .. }) {
            self.moderator.begin_ban(target);
        }
    }

    pub(super) fn lift_restriction(&mut self, target: &RestrictionTarget) {
        self.restrictions.table.lift(target);
        self.note_mutes(target);
    }

    /// The bus tells of restrictions that it keeps.
    pub(in crate::hub) fn handle_restrictions(&mut self, now: Now, page: RestrictionsPage) {
        let RestrictionsPage { is_first, is_last, bodies } = page;
        if is_first {
            self.restrictions.table.begin_load();
        }
        for body in bodies {
            match Moderation::read(&body) {
                Ok((Moderation::Restrict(restriction), _)) => self.load_restriction(now, restriction),
                Ok(_) => log::warn!("moderation: what is kept as a restriction is none"),
                Err(reason) => log::warn!("moderation: a restriction was passed over: {reason}"),
            }
        }
        if is_last {
            self.restrictions.table.end_load();
            let count = self.restrictions.table.len();
            if count > 0 {
                log::info!("moderation: {count} bans and mutes were loaded");
                self.moderator.begin_all_bans();
            }
        }
    }

    fn load_restriction(&mut self, now: Now, restriction: Restriction) {
        if restriction.expires_at.is_some_and(|at| at <= now.unix_ms) {
            return;
        }
        let target = restriction.target.clone();
        self.restrictions.table.load(restriction);
        self.note_mutes(&target);
    }

    /// A mute was written, or has gone.
    fn note_mutes(&mut self, target: &RestrictionTarget) {
        if let RestrictionTarget::Muted { user, .. } = target
            && let Some(key) = self.users.find(user.as_str())
        {
            self.users.note_mutes(key, self.restrictions.table.has_mutes(user));
        }
    }

    /// Removes what has expired, and what a load did not have.
    pub(in crate::hub) fn tidy_restrictions(&mut self, now: Now) {
        for _ in 0..EXPIRIES_PER_TURN {
            let Some(target) = self.restrictions.table.expire(now.unix_ms) else { break };
            self.note_mutes(&target);
        }
        for target in self.restrictions.table.sweep(SWEPT_PER_TURN) {
            self.note_mutes(&target);
        }
    }

    /// Closes connections that are banned, as far as the budget goes. Says whether the task is done.
    pub(super) fn carry_on_ban(&mut self, now: Now, task: &mut Task, budget: &mut CommandBudget) -> bool {
        let Some((meant, cost)) = self.meant(now, &task.kind) else { return true };
        while task.next_slot < self.connections.slots() {
            if budget.slots < cost || budget.connections == 0 {
                return false;
            }
            budget.slots -= cost;
            let slot = Slot(task.next_slot);
            task.next_slot += 1;
            let Some((id, reason)) = self.banned_at(now, slot, &meant) else { continue };
            self.close(now, id, reason);
            budget.connections -= 1;
            task.done += 1;
        }
        self.moderator.moderated += task.done as u64;
        log::debug!("moderation: {} connections were banned", task.done);
        true
    }

    /// The connections that a task concerns, and how much it costs to look at one; none if nobody is meant any more.
    fn meant(&self, now: Now, kind: &TaskKind) -> Option<(Meant, usize)> {
        let target = match kind {
            TaskKind::AllBans => return Some((Meant::All, CHECK_SLOTS)),
            TaskKind::Ban(target) => target,
            TaskKind::Command { .. } => return None,
        };
        self.restrictions.table.find(now.unix_ms, target)?;
        let meant = match target {
            RestrictionTarget::BannedUser(user) => Meant::User(self.users.find(user.as_str())?),
            RestrictionTarget::BannedNetwork(network) => Meant::Network(*network),
            RestrictionTarget::Muted { .. } => return None,
        };
        Some((meant, 1))
    }

    /// The connection in a slot, if it is meant and banned, and why.
    fn banned_at(&self, now: Now, slot: Slot, meant: &Meant) -> Option<(ConnectionId, CloseReason)> {
        let id = match meant {
            Meant::User(user) => self.connections.of_user(slot, *user)?,
            Meant::Network(_) | Meant::All => self.connections.id(slot)?,
        };
        let address = self.restrictions.addresses.get(slot);
        if let Meant::Network(network) = meant
            && !network.contains(address?)
        {
            return None;
        }
        let (table, user) = (&self.restrictions.table, self.users.id(self.connections.get(id)?.user));
        let by_address = || address.and_then(|address| table.ban_of_address(now.unix_ms, address));
        let term = table.ban_of_user(now.unix_ms, user).or_else(by_address)?;
        Some((id, close_reason(term)))
    }

    /// The mute that concerns a connection in a room.
    pub(in crate::hub) fn mute_of(&self, now: Now, id: ConnectionId, room: RoomIndex) -> Option<&Term> {
        let user = self.connections.get(id)?.user;
        if !self.users.may_be_muted(user) {
            return None;
        }
        self.restrictions.table.mute(now.unix_ms, self.users.id(user), &self.rooms[room].name)
    }

    /// Refuses a message if its user is muted in a room that the connection is in. Says whether it did.
    pub(in crate::hub) fn refuse_by_mute(&mut self, now: Now, id: ConnectionId, chat: &ChatRequest<'_>) -> bool {
        if self.connections.get(id).is_none_or(|connection| !self.users.may_be_muted(connection.user)) {
            return false;
        }
        let Ok((room, _)) = self.rooms.joined(&self.connections, id, &chat.room) else { return false };
        let Some(term) = self.mute_of(now, id, room) else { return false };
        let message = term.reason.as_ref().map_or_else(|| "muted".to_owned(), |reason| format!("muted: {reason}"));
        let retry_after_ms = term.expires_at.map(|at| at.saturating_sub(now.unix_ms));
        let reply = ErrorReply::new(ErrorCode::Muted, &message).about(Some(&chat.room), chat.id.as_deref());
        self.out.error(&mut self.connections, id, ErrorReply { retry_after_ms, ..reply });
        self.restrictions.muted += 1;
        true
    }
}

/// Why a banned connection is closed.
fn close_reason(term: &Term) -> CloseReason {
    let given = term.reason.as_ref().map(|reason| CloseReason::new(CloseReason::BANNED.code(), reason.to_string()));
    given.and_then(Result::ok).unwrap_or(CloseReason::BANNED)
}
