//! How requests end that had to wait for the hub or the bus.

use http::StatusCode;

use super::Api;
use super::answer::json;
use super::broadcast_parts::BroadcastParts;
use super::command::{Accepted, ListScope, PendingCommand, PendingPage, PendingQuestion};
use crate::bus::message::{BusRefusal, Outcome, Page, Ticket};
use crate::hub::{Purged, RoomAnswer};
use crate::id::ConnectionId;
use crate::net::Response;

impl Api {
    /// The hub has answered a question about a room. Returns the answer and its connection. `nodes` is what a list covers if the bus
    /// could be asked.
    pub(in crate::server) fn finish_question(
        &mut self,
        (ticket, answer): (Ticket, &RoomAnswer),
        nodes: ListScope,
    ) -> Option<(ConnectionId, Response)> {
        let PendingQuestion { connection, view } = self.questions.remove(&ticket)?;
        self.stats.accepted += 1;
        let nodes = if answer.is_current { nodes } else { ListScope::ThisNode };
        Some((connection, json(StatusCode::OK, view(answer, nodes))))
    }

    /// The bus has answered. Returns the answer and its connection, if a request waits for this ticket.
    pub(in crate::server) fn finish(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<(ConnectionId, Response)> {
        let Some(PendingCommand { connection, done }) = self.pending.remove(&ticket) else {
            let (connection, parts) = self.broadcasts.finish(ticket, outcome)?;
            return Some((connection, self.answer_broadcast(parts)));
        };
        let accepted = match *outcome {
            Outcome::Accepted(seq) | Outcome::AcceptedUnseen(seq) => Accepted { seq, duplicate: false },
            Outcome::Duplicate(seq) => Accepted { seq, duplicate: true },
            Outcome::Refused(refusal) => return Some((connection, self.reject(refusal.code(), refusal.message))),
        };
        Some((connection, self.accept(accepted.duplicate, done(accepted))))
    }

    fn answer_broadcast(&mut self, parts: BroadcastParts) -> Response {
        match parts.answer() {
            Ok(answer) => self.accept(answer.duplicate, answer.body),
            Err((code, reason)) => self.reject(code, &reason),
        }
    }

    fn accept(&mut self, duplicate: bool, body: Vec<u8>) -> Response {
        let counter = if duplicate { &mut self.stats.duplicates } else { &mut self.stats.accepted };
        *counter += 1;
        json(StatusCode::OK, body)
    }

    /// A purge has come so far that it is answered. Returns the answer and its connection.
    pub(in crate::server) fn finish_purge(
        &mut self,
        ticket: Ticket,
        purged: Purged,
    ) -> Option<(ConnectionId, Response)> {
        let (connection, done) = self.purges.remove(&ticket)?;
        self.stats.accepted += 1;
        Some((connection, json(StatusCode::OK, done(purged))))
    }

    /// The bus has given a page, or refused to. Returns as [`Api::finish`] does.
    pub(in crate::server) fn finish_page(
        &mut self,
        ticket: Ticket,
        page: &Result<Page, BusRefusal>,
    ) -> Option<(ConnectionId, Response)> {
        let PendingPage { connection, done } = self.pages.remove(&ticket)?;
        let response = match page {
            Ok(page) => {
                self.stats.accepted += 1;
                json(StatusCode::OK, done(page))
            }
            Err(refusal) => self.reject(refusal.code(), refusal.message),
        };
        Some((connection, response))
    }
}
