//! Questions about single rooms: how a room does, and which users are present there.
//!
//! A room that is not open on this node is opened for the question, as it is for a first member: the bus then tells its position
//! and, over several nodes, its users. It ends with the answer, unless somebody has joined it meanwhile. If the bus cannot be
//! asked, the answer says what this node knows.
//!
//! Users are looked through in parts, over several turns if they are many; questions take turns.

use std::collections::{BTreeSet, VecDeque};

use crate::budget::WorkBudget;
use crate::bus::message::{BusRefusal, BusRequest, Page, Ticket};
use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::ErrorCode;
use crate::settings::RoomLimits;
use crate::time::Now;

use super::Hub;
use super::error_reply::Refused;
use super::index::{RoomIndex, RoomRef};
use super::room::{Position, Room};
use super::room_users::{Here, Presence, RoomUsers};
use super::users::Users;

/// Questions that are not answered yet.
const QUESTIONS_MAX: usize = 64;

/// Users that are looked at before it is another question's turn, and how many of them count as one unit of work.
const USERS_AT_ONCE: usize = 256;
const USERS_A_UNIT: usize = 16;

/// So many users of an answer count as one unit of work.
const TOLD_A_UNIT: usize = 8;

/// What is asked about a room.
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
    asked: Vec<OpenQuestion>,
    /// Those that can be answered; the first one goes on first.
    ready: VecDeque<OpenQuestion>,
    answers: VecDeque<(Ticket, RoomAnswer)>,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct OpenQuestion {
    ticket: Ticket,
    name: RoomName,
    /// None if it is not open here, and the bus cannot be asked.
    room: Option<RoomRef>,
    is_current: bool,
    /// None for the detail.
    search: Option<UserSearch>,
}

/// The search for the first users by their ids, among all that are present.
#[derive(Debug)]
struct UserSearch {
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

    fn check_count(&self) -> Result<(), Refused> {
        let open = self.asked.len() + self.ready.len() + self.answers.len();
        if open < QUESTIONS_MAX {
            return Ok(());
        }
        Err((ErrorCode::ServerBusy, format!("{open} questions about rooms wait already; try again later")))
    }
}

impl UserSearch {
    fn new(after: Option<UserId>, limit: usize) -> Self {
        Self { after, limit, reached: usize::MAX, found: BTreeSet::new(), has_more: false }
    }

    /// Looks at some more users, from the last place to the first. Says at how many.
    fn go_on(&mut self, room: &RoomUsers, users: &Users) -> usize {
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

    fn is_over(&self) -> bool {
        self.reached == 0
    }

    /// Those that were found and are still present.
    fn page(self, room: &RoomUsers, users: &Users) -> UserPage {
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
    fn of(room: &Room, limits: &RoomLimits) -> Self {
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
    fn unknown(limits: &RoomLimits) -> Self {
        Self { users: 0, connections: 0, catching_up: 0, blocked: 0, position: None, limits: limits.clone() }
    }
}

impl Hub {
    /// Asks about a room, for an owner. [`Hub::poll_room_answer`] has the answer, in this turn or a later one.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub(crate) fn ask_about_room(
        &mut self,
        owner: Owner,
        (name, question): (RoomName, RoomQuestion),
        is_bus_ready: bool,
    ) -> Result<Ticket, Refused> {
        self.questions.check_count()?;
        let search = match question {
            RoomQuestion::Detail => None,
            RoomQuestion::Users { after, limit } => Some(UserSearch::new(after, limit)),
        };
        let open = self.rooms.named(name.as_str());
        let is_known = open.is_some_and(|index| self.rooms[index].position.epoch().is_some());
        if is_known || !is_bus_ready {
            let ticket = self.pending.next_ticket();
            let room = open.map(|index| self.hold_for_question(index));
            self.questions.ready.push_back(OpenQuestion { ticket, name, room, is_current: is_bus_ready, search });
            return Ok(ticket);
        }
        self.pending.check_running()?;
        self.pending.check_read(owner)?;
        let index = match open {
            Some(index) => index,
            None => self.open_room(&name, owner)?,
        };
        let room = Some(self.hold_for_question(index));
        let ticket = self.pending.read_position(owner, name.clone());
        self.questions.asked.push(OpenQuestion { ticket, name, room, is_current: true, search });
        Ok(ticket)
    }

    /// The next answer to a question about a room.
    pub(crate) fn poll_room_answer(&mut self) -> Option<(Ticket, RoomAnswer)> {
        self.questions.answers.pop_front()
    }

    fn open_room(&mut self, name: &RoomName, owner: Owner) -> Result<RoomIndex, Refused> {
        self.rooms.account.check_join(owner, Some(name))?;
        let index = self.rooms.open(name, owner)?;
        self.pending.request(BusRequest::Open(name.clone()));
        Ok(index)
    }

    fn hold_for_question(&mut self, index: RoomIndex) -> RoomRef {
        self.rooms.begin_question(index);
        self.rooms.reference(index)
    }

    /// The bus tells the position of a room, for a question.
    pub(super) fn handle_position(&mut self, ticket: Ticket, page: Result<Page, BusRefusal>) {
        let asked = &mut self.questions.asked;
        let Some(at) = asked.iter().position(|question| question.ticket == ticket) else { return };
        let mut question = asked.swap_remove(at);
        question.is_current = page.is_ok();
        if let (Ok(page), Some(index)) = (page, question.room.and_then(|room| self.rooms.find(room)))
            && let position @ Position::Unknown = &mut self.rooms[index].position
        {
            *position = Position::At { epoch: page.epoch, delivered: page.top };
        }
        self.questions.ready.push_back(question);
    }

    /// Answers questions about rooms, as far as the budget goes.
    pub(super) fn answer_questions(&mut self, now: Now, budget: &mut WorkBudget<'_>) {
        while budget.has_left()
            && let Some(mut question) = self.questions.ready.pop_front()
        {
            let index = question.room.and_then(|room| self.rooms.find(room));
            if let Some((index, search)) = index.zip(question.search.as_mut()) {
                let seen = search.go_on(&self.rooms[index].users, &self.users);
                budget.spend((seen / USERS_A_UNIT) as u32);
                if !search.is_over() {
                    self.questions.ready.push_back(question);
                    continue;
                }
            }
            budget.spend(1 + self.answer_question(now, question, index));
        }
    }

    /// Answers a question; says how many units of work it was.
    fn answer_question(&mut self, now: Now, question: OpenQuestion, index: Option<RoomIndex>) -> u32 {
        let OpenQuestion { ticket, name, is_current, search, .. } = question;
        let content = match (search, index) {
            (None, Some(index)) => RoomContent::Detail(RoomDetail::of(&self.rooms[index], self.rooms.limits(index))),
            (None, None) => RoomContent::Detail(RoomDetail::unknown(self.rooms.limits_of(&name))),
            (Some(search), Some(index)) => RoomContent::Users(search.page(&self.rooms[index].users, &self.users)),
            (Some(_), None) => RoomContent::Users(UserPage::default()),
        };
        let told = if let RoomContent::Users(page) = &content { page.users.len() } else { 0 };
        let is_current = is_current && self.hears_other_nodes(now);
        self.questions.answers.push_back((ticket, RoomAnswer { room: name, is_current, content }));
        if let Some(index) = index {
            self.rooms.end_question(index);
            self.forget_if_unused(index);
        }
        (told / TOLD_A_UNIT) as u32
    }
}

#[cfg(test)]
mod tests;
