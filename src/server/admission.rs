//! Decisions about handshakes that the authenticator has put off.

use crate::net::{AdmissionTicket, ParkedSource, Response};
use crate::restrictions::PeerAddress;
use crate::time::Now;

use super::Server;
use super::authenticator::{Admission, Identity, Refusal};
use super::gate::{check_address, check_user, is_ban};

impl Server {
    /// Decides about a handshake or a new token that was [put off](crate::Authentication::Later). Returns whether it was
    /// still waiting; a ticket that is out of date has no effect.
    ///
    /// [`Remote::admit`](super::Remote::admit) does the same from another thread.
    pub fn admit(&mut self, ticket: AdmissionTicket, decision: Result<Identity, Refusal>) -> bool {
        let now = self.clock.resume();
        self.net.begin_turn(now);
        self.admit_at(now, ticket, decision)
    }

    pub(super) fn admit_at(&mut self, now: Now, ticket: AdmissionTicket, decision: Result<Identity, Refusal>) -> bool {
        if let Some(connection) = self.refreshes.take(ticket) {
            self.dispatch(now).2.finish_refresh(connection, decision);
            return true;
        }
        let Some(ParkedSource { owner, address }) = self.net.source_of_parked(ticket) else { return false };
        let address = address.map(PeerAddress::from);
        let restrictions = self.hub.restrictions();
        // A ban may have come meanwhile.
        let check = |identity: &Identity| {
            check_address(restrictions, now, address)?;
            check_user(restrictions, now, identity)
        };
        let checked = decision.as_ref().map_or(Ok(()), check);
        if checked.as_ref().is_err_and(is_ban) {
            self.hub.note_banned();
        }
        let decision = checked.and(decision);
        let owners = self.routes.owners;
        let (net, _, mut dispatch) = self.dispatch(now);
        let admission = decision
            .map(|identity| Admission::with_owner(owners, identity, (owner, address)))
            .and_then(|admission| dispatch.within_user_limit(admission));
        net.admit(ticket, admission.map_err(|refusal| Response::from(refusal).for_pages()), &mut dispatch)
    }
}
