//! How questions about single rooms are answered.
//!
//! A room that is not open on this node is opened for the question, as it is for a first member: the bus then tells its position
//! and, over several nodes, its users. It ends with the answer, unless somebody has joined it meanwhile. If the bus cannot be
//! asked, the answer says what this node knows.

use crate::budget::WorkBudget;
use crate::bus::message::{BusRefusal, BusRequest, Page, Ticket};
use crate::id::RoomName;
use crate::owner::Owner;
use crate::time::Now;

use super::Hub;
use super::error_reply::Refused;
use super::index::{RoomIndex, RoomRef};
use super::room::Position;
use super::room_questions::{
    OpenQuestion, RoomAnswer, RoomContent, RoomDetail, RoomQuestion, TOLD_A_UNIT, USERS_A_UNIT, UserPage, UserSearch,
};

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
            let ticket = self.pending.new_ticket();
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
