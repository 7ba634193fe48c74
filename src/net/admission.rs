//! Handshakes that wait for a decision: parked within bounds, then upgraded or refused.

use crate::id::{ConnectionId, Slot};

use super::Net;
use super::handler::{AdmissionTicket, Handler};
use super::http::Response;
use super::parked::ParkedSource;
use super::phase::{ParkedHandshake, Phase};

impl<R> Net<R> {
    /// Where a handshake came from, if it waits for a decision.
    pub fn source_of_parked(&self, ticket: AdmissionTicket) -> Option<ParkedSource> {
        self.parked.source(ticket)
    }

    /// Parks a connection until [`Net::admit`], [`Timing::admission_timeout`](crate::settings::Timing::admission_timeout), a
    /// shutdown, or its peer's end.
    pub(super) fn park(&mut self, slot: Slot, parked: ParkedHandshake, handler: &mut impl Handler<Route = R>) {
        let ticket = parked.ticket;
        if self.parked.source(ticket).is_some() {
            // To tell the handler that it is abandoned would end the first one.
            log::error!("{ticket:?} was given to a second handshake while the first waits; the second is refused");
            return self.answer(
                slot,
                &Response::unavailable("this connection could not be told from another one"),
                handler,
            );
        }
        let source = parked.source;
        if !self.parked.has_space(source.owner) {
            self.stats.admissions_rejected += 1;
            handler.on_abandoned(ticket);
            return self.answer(slot, &Response::unavailable("too many connections wait for a decision"), handler);
        }
        let connection = &mut self.connections[slot.index()];
        connection.phase = Phase::AwaitingAdmission(Box::new(parked));
        connection.since = self.timers.tick;
        self.parked.insert(ticket, connection.id(slot), source);
        self.schedule_by(slot, self.timers.tick.after(self.timing.admission_timeout));
    }

    /// Decides about a handshake that was [put off](super::HeadDecision::Later): it is upgraded, or answered with a refusal.
    /// Says whether it was still waiting; a ticket that is out of date does nothing.
    pub fn admit<H: Handler<Route = R>>(
        &mut self,
        ticket: AdmissionTicket,
        decision: Result<H::Admission, Response>,
        handler: &mut H,
    ) -> bool {
        let Some(ConnectionId { slot, .. }) = self.parked.remove(ticket) else { return false };
        let phase = &mut self.connections[slot.index()].phase;
        let Phase::AwaitingAdmission(parked) = std::mem::replace(phase, Phase::Draining) else { return false };
        match decision.and_then(|admission| Ok((admission, parked.handshake.to_bytes()?))) {
            Ok((admission, answer)) => {
                self.upgrade(slot, &answer, admission, handler);
                self.take_rest_of_head(slot, &parked.rest, handler);
                self.queue_if_readable(slot);
            }
            Err(response) => self.answer(slot, &response, handler),
        }
        self.note_held(slot);
        true
    }

    /// A parked handshake is given up without a decision.
    pub(super) fn abandon(&mut self, parked: &ParkedHandshake, handler: &mut impl Handler<Route = R>) {
        self.parked.remove(parked.ticket);
        handler.on_abandoned(parked.ticket);
    }
}
