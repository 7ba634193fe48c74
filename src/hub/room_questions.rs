//! Questions about single rooms that are not answered yet, and their answers: how a room does, and which users are present.
//!
//! Users are looked through in parts, over several turns if they are many; questions take turns.

use std::collections::{BTreeSet, VecDeque};

use crate::bus::message::Ticket;
use crate::id::{Epoch, RoomName, UserId};
use crate::protocol::ErrorCode;
use crate::settings::RoomLimits;

use super::error_reply::Refused;
use super::index::RoomRef;
use super::room::{Position, Room};
use super::room_users::{Here, Presence, RoomUsers};
use super::users::Users;

/// Questions that are not answered yet.
pub(super) const QUESTIONS_MAX: usize = 64;

/// Users that are looked at before it is another question's turn, and how many of them count as one unit of work.
const USERS_AT_ONCE: usize = 256;
pub(super) const USERS_A_UNIT: usize = 16;

/// So many users of an answer count as one unit of work.
pub(super) const TOLD_A_UNIT: usize = 8;

/// A question about a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RoomQuestion {
    Detail,
    /// Users that are present, by their ids, from the one that follows `after`.
    Users {
        after: Option<UserId>,
        limit: usize,
    },
}

/// The answer to a question about a room.
#[derive(Debug)]
pub(crate) struct RoomAnswer {
    pub(crate) room: RoomName,
    /// Whether the bus could be asked. If not, it is what this node knew before.
    pub(crate) is_current: bool,
    pub(crate) content: RoomContent,
}

#[derive(Debug)]
pub(crate) enum RoomContent {
    Detail(RoomDetail),
    Users(UserPage),
}

/// How a room does.
#[derive(Debug)]
pub(crate) struct RoomDetail {
    /// Users that are present, on all nodes.
    pub(crate) users: usize,
    /// Connections on this node that are members; of these, those that catch up, and those whose sockets take nothing.
    pub(crate) connections: usize,
    pub(crate) catching_up: usize,
    pub(crate) blocked: usize,
    /// The life of the history, and the number of its last message.
    pub(crate) position: Option<(Epoch, u64)>,
    pub(crate) limits: RoomLimits,
}

/// A part of the users of a room.
#[derive(Debug, Default)]
pub(crate) struct UserPage {
    /// How many are present altogether.
    pub(crate) count: usize,
    pub(crate) users: Vec<PresentUser>,
    /// Whether others follow.
    pub(crate) has_more: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PresentUser {
    pub(crate) id: UserId,
    pub(crate) name: Option<Box<str>>,
    /// By how many connections on this node; none if it is on others only.
    pub(crate) connections: Option<u32>,
    pub(crate) is_elsewhere: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct RoomQuestions {
    /// Those for which the bus was asked.
    pub(super) asked: Vec<OpenQuestion>,
    /// Those that can be answered; the first one goes on first.
    pub(super) ready: VecDeque<OpenQuestion>,
    pub(super) answers: VecDeque<(Ticket, RoomAnswer)>,
}

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct OpenQuestion {
    pub(super) ticket: Ticket,
    pub(super) name: RoomName,
    /// None if it is not open here, and the bus cannot be asked.
    pub(super) room: Option<RoomRef>,
    pub(super) is_current: bool,
    /// None for the detail.
    pub(super) search: Option<UserSearch>,
}

/// The search for the first users by their ids, among all that are present.
#[derive(Debug)]
pub(super) struct UserSearch {
    after: Option<UserId>,
    limit: usize,
    /// All places from here on were looked at.
    reached: usize,
    found: BTreeSet<UserId>,
    has_more: bool,
}

impl RoomQuestions {
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    pub(super) fn check_count(&self) -> Result<(), Refused> {
        let open = self.asked.len() + self.ready.len() + self.answers.len();
        if open < QUESTIONS_MAX {
            return Ok(());
        }
        Err((ErrorCode::ServerBusy, format!("{open} questions about rooms wait already; try again later")))
    }
}

impl UserSearch {
    pub(super) fn new(after: Option<UserId>, limit: usize) -> Self {
        Self { after, limit, reached: usize::MAX, found: BTreeSet::new(), has_more: false }
    }

    /// Looks at some more users, from the last place to the first. Says at how many.
    pub(super) fn go_on(&mut self, room: &RoomUsers, users: &Users) -> usize {
        let (start, keys) = room.before(self.reached, USERS_AT_ONCE);
        let mut seen = 0;
        for id in keys.map(|key| users.id(key)) {
            seen += 1;
            let is_full = self.found.len() == self.limit;
            if self.after.as_ref().is_some_and(|after| id <= after) {
                continue;
            }
            if is_full && self.found.last().is_some_and(|last| id > last) {
                self.has_more = true;
            } else if self.found.insert(id.clone()) && is_full {
                self.found.pop_last();
                self.has_more = true;
            }
        }
        self.reached = start;
        seen
    }

    pub(super) fn is_over(&self) -> bool {
        self.reached == 0
    }

    /// Those that were found and are still present.
    pub(super) fn page(self, room: &RoomUsers, users: &Users) -> UserPage {
        let present = |id: UserId| {
            let key = users.find(id.as_str())?;
            let Presence { here, is_elsewhere } = room.get(key)?;
            let connections = match here {
                Here::Connected(connections) => Some(connections),
                Here::Grace(_) => Some(0),
                Here::Nobody => None,
            };
            Some(PresentUser { name: users.view(key).name.map(Into::into), id, connections, is_elsewhere })
        };
        let found = self.found.into_iter().filter_map(present).collect();
        UserPage { count: room.len(), users: found, has_more: self.has_more }
    }
}

impl RoomDetail {
    pub(super) fn of(room: &Room, limits: &RoomLimits) -> Self {
        let position = match &room.position {
            Position::At { epoch, delivered } => Some((epoch.clone(), *delivered)),
            Position::Unknown => None,
        };
        Self {
            users: room.users.len(),
            connections: room.members.count(),
            catching_up: room.members.catching_up_count(),
            blocked: room.members.blocked_count(),
            position,
            limits: limits.clone(),
        }
    }

    /// Of a room of which nothing is known here.
    pub(super) fn unknown(limits: &RoomLimits) -> Self {
        Self { users: 0, connections: 0, catching_up: 0, blocked: 0, position: None, limits: limits.clone() }
    }
}
