//! The routes: the resource of a request is found once, and decides about the request.

use http::{Method, Request, StatusCode};

use super::api::{self, Api, ApiResource, ApiRoute};
use super::origin::Origins;
use super::request_context::RequestContext;
use super::static_file::StaticFile;
use super::{health, page, websocket};
use crate::error::Error;
use crate::net::{HeadDecision, ListenerRole, Response, method_not_allowed};
use crate::owner::Owners;
use crate::server::authenticator::{Admission, Authentication, Refusal, TokenPolicy, address_of};
use crate::server::gate::Gate;
use crate::server::metrics::MetricsSnapshot;
use crate::settings::Config;

/// A decision about the head of a request.
pub(in crate::server) type Decision = HeadDecision<Admission, ApiRoute>;

/// A resource.
#[derive(Clone, Copy, Debug)]
enum Route<'a> {
    Page,
    Client,
    WebSocket,
    Liveness,
    Readiness,
    Metrics(&'a MetricsSnapshot),
    Api(ApiResource),
    Unknown,
}

/// The resources that a listener answers, besides the paths for health checks.
#[derive(Clone, Copy, Debug)]
struct Offer {
    /// The page, the client and the WebSockets.
    public: bool,
    /// The API and `/metrics`.
    admin: bool,
}

impl<'a> Route<'a> {
    fn find(path: &str, offer: Offer, context: &'a RequestContext) -> Self {
        match (path, &context.metrics) {
            ("/", _) if offer.public => Self::Page,
            ("/roomcast.js", _) if offer.public => Self::Client,
            ("/ws", _) if offer.public => Self::WebSocket,
            ("/healthz", _) => Self::Liveness,
            ("/readyz", _) => Self::Readiness,
            ("/metrics", Some(metrics)) if offer.admin => Self::Metrics(metrics),
            (path, _) if offer.admin && path.starts_with(api::PREFIX) => Self::Api(api::find(path)),
            _ => Self::Unknown,
        }
    }
}

/// All resources, with their state.
pub(in crate::server) struct Routes {
    page: StaticFile,
    client: StaticFile,
    origins: Origins,
    pub(in crate::server) api: Api,
    pub(in crate::server) owners: Owners,
    /// Whether the API and `/metrics` have a listener of their own, and no other answers them.
    is_admin_apart: bool,
}

impl Routes {
    pub(in crate::server) fn new(config: &Config, owners: Owners, tokens: TokenPolicy) -> Result<Self, Error> {
        Ok(Self {
            page: page::page(tokens),
            client: page::client(),
            origins: Origins::new(&config.allow_origins)?,
            api: Api::new(config),
            owners,
            is_admin_apart: false,
        })
    }

    /// From now on only the listeners for operators answer the API and `/metrics`.
    pub(in crate::server) fn set_admin_apart(&mut self) {
        self.is_admin_apart = true;
    }

    fn offer(&self, request: &Request<()>) -> Offer {
        match request.extensions().get() {
            Some(ListenerRole::Admin) => Offer { public: false, admin: true },
            Some(ListenerRole::Public) | None => Offer { public: true, admin: !self.is_admin_apart },
        }
    }

    /// Whether a request is one of a back-end with a right key, which is charged to the key.
    pub(in crate::server) fn has_api_key(&self, request: &Request<()>) -> bool {
        self.offer(request).admin && request.uri().path().starts_with(api::PREFIX) && self.api.has_key(request)
    }

    /// Decides about a request whose head has come.
    pub(in crate::server) fn decide(
        &mut self,
        request: &Request<()>,
        context: &RequestContext,
        gate: &mut Gate<'_>,
    ) -> Decision {
        let (path, offer) = (request.uri().path(), self.offer(request));
        let response = match Route::find(path, offer, context) {
            Route::WebSocket if request.method() == Method::OPTIONS => {
                return HeadDecision::Respond(websocket::preflight());
            }
            Route::WebSocket => return self.open(request, context, gate),
            Route::Api(ApiResource::Command(command)) => {
                let accept = |(rules, route)| HeadDecision::ReadBody(rules, route);
                return self.api.check(request, command, self.owners).map_or_else(HeadDecision::Respond, accept);
            }
            Route::Api(ApiResource::Description) => return HeadDecision::Respond(self.api.describe(request)),
            Route::Api(ApiResource::Unknown) => return HeadDecision::Respond(self.api.not_found(path)),
            Route::Unknown => return HeadDecision::Respond(self.not_found(path, offer, context)),
            Route::Page => self.page.response(request.headers()),
            Route::Client => self.client.response(request.headers()),
            Route::Liveness => health::liveness(),
            Route::Readiness => health::readiness(context),
            Route::Metrics(metrics) => metrics.response(),
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return HeadDecision::Respond(method_not_allowed(request, "GET, HEAD"));
        }
        HeadDecision::Respond(response)
    }

    fn open(&mut self, request: &Request<()>, context: &RequestContext, gate: &mut Gate<'_>) -> Decision {
        // To strangers it says nothing: not even whether an address is banned.
        let is_for_pages = self.origins.allow(request.headers());
        let refuse = |refusal: Refusal| {
            let response = Response::from(refusal);
            HeadDecision::Respond(if is_for_pages { response.for_pages() } else { response })
        };
        // First of all: a banned address takes nothing that others could have.
        if let Err(refusal) = gate.check_address(context.now, address_of(request)) {
            return refuse(refusal);
        }
        let handshake = match websocket::check(request, context, &mut self.origins) {
            Ok(handshake) => handshake,
            Err(response) => return HeadDecision::Respond(response),
        };
        match gate.authenticator.authenticate(context.now, request) {
            Authentication::Admit(identity) => match gate.check_user(context.now, &identity) {
                Ok(()) => HeadDecision::Upgrade(handshake, Admission::new(self.owners, identity, request)),
                Err(refusal) => refuse(refusal),
            },
            Authentication::Refuse(refusal) => refuse(refusal),
            Authentication::Later(ticket) => {
                let held_bytes = gate.authenticator.held_bytes(ticket);
                HeadDecision::Later(handshake.with_handler_bytes(held_bytes), ticket)
            }
        }
    }

    fn not_found(&self, path: &str, offer: Offer, context: &RequestContext) -> Response {
        let mut paths: Vec<String> = Vec::new();
        let mut offer_paths = |offered: &[&str]| paths.extend(offered.iter().map(|path| (*path).to_owned()));
        if offer.public {
            offer_paths(&["/", "/ws", "/roomcast.js"]);
        }
        offer_paths(&["/healthz", "/readyz"]);
        if offer.admin && context.metrics.is_some() {
            offer_paths(&["/metrics"]);
        }
        if offer.admin && self.api.is_on() {
            paths.extend(api::paths());
        }
        Response::text(StatusCode::NOT_FOUND, &format!("nothing is at {path}; there are {}", paths.join(", ")))
    }
}
