//! What the net finds goes to the hub, and requests to the site.

use crate::bus::Bus;
use crate::hub::{Hub, Identity};
use crate::id::{ConnectionId, Unique};
use crate::net::{Answer, Handler, Output, Reply, Verdict};
use crate::protocol::CloseReason;
use crate::time::Now;

use super::api::{self, Api};
use super::metrics::MetricsSnapshot;
use super::site::{RequestContext, Site};

pub(super) struct Dispatch<'a> {
    pub(super) now: Now,
    pub(super) hub: &'a mut Hub,
    pub(super) site: &'a mut Site,
    pub(super) api: &'a mut Api,
    pub(super) names: &'a mut Unique,
    pub(super) is_draining: bool,
    pub(super) bus: &'a dyn Bus,
    /// What `/metrics` tells, if there is such a path.
    pub(super) metrics: Option<MetricsSnapshot>,
    /// Whose request is being upgraded.
    pub(super) admitted: Option<Identity>,
}

impl Handler for Dispatch<'_> {
    fn on_request(&mut self, _id: ConnectionId, request: &http::Request<()>, is_full: bool) -> Answer {
        if request.uri().path().starts_with(api::PREFIX) {
            return self.api.answer_head(request);
        }
        let context = RequestContext {
            is_draining: self.is_draining,
            is_bus_ready: self.bus.is_ready(),
            is_full,
            has_api: self.api.is_on(),
            metrics: self.metrics.clone().map(|metrics| MetricsSnapshot { bus: self.bus.metrics(), ..metrics }),
        };
        let (answer, identity) = self.site.answer(request, &context, self.hub.policy_mut());
        self.admitted = identity;
        answer
    }

    fn on_body(&mut self, id: ConnectionId, request: &http::Request<()>, body: &[u8]) -> Reply {
        self.api.answer_body(self.now, self.hub, id, request, body)
    }

    fn on_open(&mut self, id: ConnectionId) {
        let Identity { user, name } = self.admitted.take().unwrap_or_default();
        let user = user.unwrap_or_else(|| {
            // A guest of before a restart may have come back with a name that is about to be given.
            loop {
                let guest = self.names.guest();
                if !self.hub.knows_user(&guest) {
                    break guest;
                }
            }
        });
        self.hub.connect(id, &user, name.as_deref());
    }

    fn on_text(&mut self, id: ConnectionId, text: &str, _output: &mut Output) -> Verdict {
        self.hub.handle_text(self.now, id, text);
        Verdict::Continue
    }

    fn on_binary(&mut self, _id: ConnectionId, _bytes: &[u8], _output: &mut Output) -> Verdict {
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
