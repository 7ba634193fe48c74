//! The handler of the net: messages go to the hub, and requests to the routes.

use crate::bus::Bus;
use crate::hub::{Hub, NewConnection};
use crate::id::{ConnectionId, Unique, UserId};
use crate::net::{AdmissionTicket, BodyDecision, Capacity, Handler, Verdict, WriteBuffer};
use crate::owner::Owner;
use crate::protocol::CloseReason;
use crate::time::Now;

use super::authenticator::{Admission, Authenticator};
use super::http::api::{ApiRoute, CommandContext};
use super::http::{Decision, RequestContext, Routes};
use super::metrics::MetricsSnapshot;
use super::turn_watch::TurnWatch;

pub(super) struct Dispatch<'a> {
    pub(super) now: Now,
    pub(super) hub: &'a mut Hub,
    pub(super) routes: &'a mut Routes,
    pub(super) authenticator: &'a mut dyn Authenticator,
    pub(super) names: &'a mut Unique,
    pub(super) is_draining: bool,
    pub(super) bus: &'a dyn Bus,
    /// The counts for `/metrics`, if there is such a path.
    pub(super) metrics: Option<MetricsSnapshot>,
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
            capacity,
            metrics: self.metrics.clone().map(|metrics| MetricsSnapshot { bus: self.bus.metrics(), ..metrics }),
        };
        self.routes.decide(request, &context, self.authenticator)
    }

    fn on_body(&mut self, id: ConnectionId, route: ApiRoute, body: &[u8]) -> BodyDecision {
        let mut context = CommandContext { now: self.now, hub: self.hub, owner: route.owner };
        self.routes.api.run(&mut context, id, route.command, body)
    }

    fn on_abandoned(&mut self, ticket: AdmissionTicket) {
        self.authenticator.abandon(ticket);
    }

    fn on_open(&mut self, id: ConnectionId, Admission { identity, owner }: Admission) {
        let user = identity.user.unwrap_or_else(|| self.guest());
        let (name, expires_at, grants) = (identity.name.as_deref(), identity.expires_at, identity.grants);
        self.hub.connect(self.now, id, NewConnection { user: &user, name, owner, expires_at, grants });
    }

    fn on_text(&mut self, id: ConnectionId, text: &str, _answers: &mut WriteBuffer) -> Verdict {
        self.hub.handle_text(self.now, id, text);
        Verdict::Continue
    }

    fn on_binary(&mut self, _id: ConnectionId, _bytes: &[u8], _answers: &mut WriteBuffer) -> Verdict {
        Verdict::Close(CloseReason::BINARY)
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
}
