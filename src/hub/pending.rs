//! Requests that the bus has not answered, and where each answer goes.

use std::collections::{HashMap, VecDeque};

use crate::bus::message::{Outcome, Ticket};
use crate::id::{ConnectionId, RoomName};

use super::index::RoomRef;

/// The source of a publication or a command, which is told what became of it.
#[derive(Debug)]
pub(super) enum Requester {
    /// A member, by an error or an acknowledgement.
    Member {
        connection: ConnectionId,
        room: RoomName,
        /// The id of its message.
        id: Option<Box<str>>,
        /// Where space in a log is promised, and how much.
        reserved: (RoomRef, usize),
    },
    /// The embedding program, by a notice.
    Host,
    /// A request of the HTTP API, which is answered by itself.
    Api,
}

/// A request to the bus.
#[derive(Debug)]
pub(super) enum Asked {
    /// That a message is published, or a control message passed on.
    Publication(Requester),
    /// A page for a member that catches up.
    Page { connection: ConnectionId, room: RoomRef, bytes_max: usize },
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pending {
    asked: HashMap<Ticket, Asked>,
    newest: u64,
    publications: usize,
    publications_max: usize,
    /// Answers for the HTTP API. They count among the publications, which bounds them.
    api_answers: VecDeque<(Ticket, Outcome)>,
}

impl Pending {
    pub(super) fn new(publications_max: usize) -> Self {
        Self { asked: HashMap::new(), newest: 0, publications: 0, publications_max, api_answers: VecDeque::new() }
    }

    pub(super) fn has_publications(&self) -> bool {
        self.publications > 0
    }

    /// How many publications wait, if no more may.
    pub(super) fn publications_if_full(&self) -> Option<usize> {
        (self.publications >= self.publications_max).then_some(self.publications)
    }

    /// A new ticket, under which something is asked.
    pub(super) fn ask(&mut self, asked: Asked) -> Ticket {
        self.publications += usize::from(matches!(asked, Asked::Publication(_)));
        self.newest += 1;
        let ticket = Ticket(self.newest);
        self.asked.insert(ticket, asked);
        ticket
    }

    /// What was asked under a ticket, which is answered now.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Asked> {
        let asked = self.asked.remove(&ticket)?;
        self.publications -= usize::from(matches!(asked, Asked::Publication(_)));
        Some(asked)
    }

    pub(super) fn answer_api(&mut self, ticket: Ticket, outcome: Outcome) {
        self.api_answers.push_back((ticket, outcome));
    }

    pub(super) fn poll_api_answer(&mut self) -> Option<(Ticket, Outcome)> {
        self.api_answers.pop_front()
    }
}
