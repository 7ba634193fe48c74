//! The handler of the net: messages go to the hub, and requests to the routes.

use http::StatusCode;

use crate::bus::Bus;
use crate::hub::{Hub, NewConnection, RefreshedIdentity, TokenRefresh, Validity};
use crate::id::{ConnectionId, Unique, UserId};
use crate::net::{AdmissionTicket, BodyDecision, Capacity, Handler, Response, Verdict, WriteBuffer};
use crate::owner::Owner;
use crate::protocol::{CloseReason, ErrorCode};
use crate::time::Now;

use super::authenticator::{Admission, Authentication, Authenticator, Identity, Refusal};
use super::gate::Gate;
use super::http::api::{ApiRoute, CommandContext, ListScope};
use super::http::{Decision, RequestContext, Routes};
use super::metrics::MetricsSnapshot;
use super::refreshes::Refreshes;
use super::report::ServerReport;
use super::turn_watch::TurnWatch;

pub(super) struct Dispatch<'a> {
    pub(super) now: Now,
    pub(super) hub: &'a mut Hub,
    pub(super) routes: &'a mut Routes,
    pub(super) authenticator: &'a mut dyn Authenticator,
    pub(super) refreshes: &'a mut Refreshes,
    pub(super) names: &'a mut Unique,
    pub(super) is_draining: bool,
    pub(super) bus: &'a dyn Bus,
    /// The counts for `/metrics`, if there is such a path.
    pub(super) metrics: Option<MetricsSnapshot>,
    /// What a back-end may ask of the server, if it has a key.
    pub(super) report: Option<ServerReport<'a>>,
    /// Told where one phase of the net ends and the next begins.
    pub(super) watch: &'a mut TurnWatch,
}

impl Dispatch<'_> {
    /// A guest name that no user has here. Names begin anew after a restart, and a guest from before
    /// may have come back under the one that is next.
    fn guest(&mut self) -> UserId {
        loop {
            let guest = self.names.guest();
            if !self.hub.knows_user(&guest) {
                return guest;
            }
        }
    }
}

impl Dispatch<'_> {
    /// Lets an admission pass unless its user has as many connections as are allowed.
    pub(super) fn within_user_limit(&mut self, admission: Admission) -> Result<Admission, Refusal> {
        match &admission.identity.user {
            Some(user) if self.hub.refuses_another(user) => {
                let message = "the user has as many connections as are allowed; close another one first";
                Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message))
            }
            _ => Ok(admission),
        }
    }

    /// Has the authenticator look at the token that the last text has brought, if it has.
    pub(super) fn look_at_refresh(&mut self) {
        let Some(TokenRefresh { connection, user, token }) = self.hub.poll_refresh() else { return };
        match self.authenticator.refresh(self.now, &user, &token) {
            Authentication::Admit(identity) => self.finish_refresh(connection, Ok(identity)),
            Authentication::Refuse(refusal) => self.finish_refresh(connection, Err(refusal)),
            Authentication::Later(ticket) => {
                if !self.refreshes.insert(self.now, ticket, connection) {
                    self.authenticator.abandon(ticket);
                    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many tokens wait for a decision");
                    self.finish_refresh(connection, Err(refusal));
                }
            }
        }
    }

    /// Ends those that have waited for too long.
    pub(super) fn end_overdue_refreshes(&mut self) {
        while let Some((ticket, connection)) = self.refreshes.take_overdue(self.now) {
            self.authenticator.abandon(ticket);
            let refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, "no decision about the token came in time");
            self.finish_refresh(connection, Err(refusal));
        }
    }

    pub(super) fn finish_refresh(&mut self, connection: ConnectionId, decision: Result<Identity, Refusal>) {
        let outcome = decision.map_err(refused).map(|identity| {
            let Identity { user, name, expires_at, key, grants, .. } = identity;
            RefreshedIdentity { user, name, validity: Validity { expires_at, key, grants } }
        });
        self.hub.finish_refresh(self.now, connection, outcome);
    }
}

impl Handler for Dispatch<'_> {
    type Admission = Admission;
    type Route = ApiRoute;

    fn is_charged_elsewhere(&mut self, request: &http::Request<()>) -> bool {
        self.routes.has_api_key(request)
    }

    fn owner(&self, id: ConnectionId) -> Option<Owner> {
        self.hub.owner(id)
    }

    fn on_request(&mut self, _id: ConnectionId, request: &http::Request<()>, capacity: Capacity) -> Decision {
        let context = RequestContext {
            now: self.now,
            is_draining: self.is_draining,
            is_bus_ready: self.bus.status().is_ready,
            are_restrictions_loaded: self.hub.restrictions().are_loaded(),
            capacity,
            metrics: self.metrics.clone().map(|metrics| MetricsSnapshot {
                bus: self.bus.metrics(),
                authenticator: self.authenticator.metrics(),
                ..metrics
            }),
        };
        let restrictions = self.hub.restrictions();
        let mut gate = Gate { authenticator: &mut *self.authenticator, restrictions, has_met_ban: false };
        let decision = self.routes.decide(request, &context, &mut gate);
        if gate.has_met_ban {
            self.hub.note_banned();
        }
        match decision {
            Decision::Upgrade(handshake, admission) => match self.within_user_limit(admission) {
                Ok(admission) => Decision::Upgrade(handshake, admission),
                Err(refusal) => Decision::Respond(Response::from(refusal).for_pages()),
            },
            decision => decision,
        }
    }

    fn on_body(&mut self, id: ConnectionId, route: ApiRoute, body: &[u8]) -> BodyDecision {
        let (scope, report) = (ListScope::of(self.bus.status()), self.report.as_ref());
        let (now, bus) = (self.now, self.bus);
        let mut context = CommandContext { now, hub: self.hub, scope, bus, report, route: &route, act: String::new() };
        self.routes.api.run(&mut context, id, body)
    }

    fn on_abandoned(&mut self, ticket: AdmissionTicket) {
        self.authenticator.abandon(ticket);
    }

    fn on_open(&mut self, id: ConnectionId, Admission { identity, owner, address }: Admission) {
        let Identity { user, name, expires_at, key, grants, .. } = identity;
        let (user, validity) = (user.unwrap_or_else(|| self.guest()), Validity { expires_at, key, grants });
        let name = name.as_deref();
        self.hub.connect(self.now, id, NewConnection { user: &user, name, owner, address, validity });
    }

    fn on_text(&mut self, id: ConnectionId, text: &str, _answers: &mut WriteBuffer) -> Verdict {
        self.hub.handle_text(self.now, id, text);
        self.look_at_refresh();
        Verdict::Continue
    }

    fn on_binary(&mut self, _id: ConnectionId, _bytes: &[u8], _answers: &mut WriteBuffer) -> Verdict {
        Verdict::Close(CloseReason::BINARY)
    }

    fn take_answers(&mut self, id: ConnectionId) -> &[u8] {
        self.hub.take_last_output(id)
    }

    fn on_drained(&mut self, id: ConnectionId) {
        self.hub.handle_drained(id);
    }

    fn on_stalled(&mut self, id: ConnectionId) {
        self.hub.handle_stalled(self.now, id);
    }

    fn on_closed(&mut self, id: ConnectionId) {
        self.hub.disconnect(self.now, id);
    }

    fn may_read(&self) -> bool {
        !self.hub.has_backlog()
    }

    fn take_work(&mut self) -> u32 {
        self.hub.take_work() + self.routes.api.take_work()
    }
}

/// What a connection is told in place of an HTTP answer.
fn refused(Refusal { status, message }: Refusal) -> (ErrorCode, String) {
    let code = if status.is_server_error() { ErrorCode::Unavailable } else { ErrorCode::InvalidToken };
    (code, message)
}
