//! Decisions about handshakes that the authenticator has put off.

use crate::net::{AdmissionTicket, Response};
use crate::time::Now;

use super::Server;
use super::authenticator::{Identity, Refusal};

impl Server {
    /// Decides about a handshake that was [put off](crate::Authentication::Later). Returns whether it was
    /// still waiting; a ticket that is out of date has no effect.
    ///
    /// [`Remote::admit`](super::Remote::admit) does the same from another thread.
    pub fn admit(&mut self, ticket: AdmissionTicket, decision: Result<Identity, Refusal>) -> bool {
        let now = self.clock.resume();
        self.net.begin_turn(now);
        self.admit_at(now, ticket, decision)
    }

    pub(super) fn admit_at(&mut self, now: Now, ticket: AdmissionTicket, decision: Result<Identity, Refusal>) -> bool {
        let (net, mut dispatch) = self.dispatch(now);
        net.admit(ticket, decision.map_err(Response::from), &mut dispatch)
    }
}
