//! What is behind the URLs: the page, the client, health, and who may open a WebSocket.

use std::collections::HashSet;

use data_encoding::BASE64;
use http::{HeaderMap, Method, Request, StatusCode};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::Error;
use crate::hub::{Identity, Policy};
use crate::net::{Answer, Handshake, OriginPolicy, Response, method_not_allowed};
use crate::protocol::{SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX};

use super::api;
use super::metrics::{MEDIA_TYPE, MetricsSnapshot};

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const CLIENT: &str = include_str!("../page/roomcast.js");
const PAGE_SCRIPT: &str = include_str!("../page/page.js");

/// How many refused origins are remembered, so that each is warned of once and a flood of them is not.
const WARNED_MAX: usize = 64;

/// What a server can do for a request at the moment.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) is_draining: bool,
    pub(super) is_bus_ready: bool,
    /// Whether there are as many WebSockets as allowed.
    pub(super) is_full: bool,
    pub(super) has_api: bool,
    /// What `/metrics` tells, if there is such a path.
    pub(super) metrics: Option<MetricsSnapshot>,
}

pub(super) struct Site {
    page: String,
    content_security_policy: String,
    origins: OriginPolicy,
    warned: HashSet<String>,
}

impl Site {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let origins = OriginPolicy::new(&config.allow_origins).map_err(Error::Config)?;
        let page = PAGE.replace("/*STYLE*/", STYLE).replace("/*CLIENT*/", CLIENT).replace("/*PAGE*/", PAGE_SCRIPT);
        let hash = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
        // Only what was put into the page runs: not even a hole in the page's own code lets a message become one.
        let content_security_policy = format!(
            "default-src 'none'; script-src {} {}; style-src {}; connect-src 'self' ws: wss:; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(CLIENT),
            hash(PAGE_SCRIPT),
            hash(STYLE)
        );
        Ok(Self { page, content_security_policy, origins, warned: HashSet::new() })
    }

    /// Answers a request; who may open a WebSocket is told apart by the identity.
    pub(super) fn answer(
        &mut self,
        request: &Request<()>,
        context: &RequestContext,
        policy: &mut dyn Policy,
    ) -> (Answer, Option<Identity>) {
        let path = request.uri().path();
        if path == "/ws" {
            return match self.open(request, context, policy) {
                Ok((handshake, identity)) => (Answer::Upgrade(handshake), Some(identity)),
                Err(response) => (Answer::Respond(response), None),
            };
        }
        let response = match (path, &context.metrics) {
            ("/", _) => self.page(),
            ("/roomcast.js", _) => client(),
            ("/healthz", _) => Response::text(StatusCode::OK, "ok"),
            ("/readyz", _) => readiness(context),
            ("/metrics", Some(metrics)) => metrics_page(metrics),
            _ => return (Answer::Respond(not_found(path, context)), None),
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return (Answer::Respond(method_not_allowed(request, "GET, HEAD")), None);
        }
        (Answer::Respond(response), None)
    }

    fn page(&self) -> Response {
        Response::new(StatusCode::OK, "text/html; charset=utf-8", self.page.clone().into_bytes())
            .with("Content-Security-Policy", self.content_security_policy.clone())
            .with("Referrer-Policy", "no-referrer")
            .with("Cache-Control", "no-cache")
    }

    fn open(
        &mut self,
        request: &Request<()>,
        context: &RequestContext,
        policy: &mut dyn Policy,
    ) -> Result<(Handshake, Identity), Response> {
        let handshake = Handshake::check(request)?;
        if context.is_draining {
            return Err(unavailable("the server is shutting down"));
        }
        if context.is_full {
            return Err(unavailable("the server has as many connections as it may"));
        }
        self.check_origin(request.headers())?;
        let selected = select_subprotocol(request.headers())?;
        let identity = policy.admit(request).map_err(|refusal| Response::text(refusal.status, &refusal.message))?;
        let handshake = match selected {
            Some(subprotocol) => handshake.with_subprotocol(subprotocol),
            None => handshake,
        };
        Ok((handshake, identity))
    }

    fn check_origin(&mut self, headers: &HeaderMap) -> Result<(), Response> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("(not text)"));
        let (origin, host) = (text("Origin"), text("Host"));
        if self.origins.allows(origin, host) {
            return Ok(());
        }
        let origin = origin.unwrap_or_default();
        // An opaque origin has no name by which it could be allowed.
        let flag = match origin.contains("://") {
            true => format!("--allow-origin {origin}"),
            false => "--allow-origin '*'".to_owned(),
        };
        let words = format!("pages of origin {origin} may not connect; to allow them start the server with {flag}");
        if self.warned.len() < WARNED_MAX && self.warned.insert(origin.to_owned()) {
            log::warn!("{words}");
        }
        Err(Response::text(StatusCode::FORBIDDEN, &words))
    }
}

fn client() -> Response {
    // Other people's pages load it from here.
    Response::new(StatusCode::OK, "text/javascript; charset=utf-8", CLIENT.as_bytes())
        .with("Cache-Control", "no-cache")
        .with("Access-Control-Allow-Origin", "*")
        .with("Cross-Origin-Resource-Policy", "cross-origin")
}

fn not_found(path: &str, context: &RequestContext) -> Response {
    let mut paths = vec!["/", "/ws", "/roomcast.js", "/healthz", "/readyz"];
    paths.extend(context.metrics.is_some().then_some("/metrics"));
    paths.extend(context.has_api.then_some(api::PATHS));
    Response::text(StatusCode::NOT_FOUND, &format!("nothing is at {path}; there are {}", paths.join(", ")))
}

fn metrics_page(metrics: &MetricsSnapshot) -> Response {
    Response::new(StatusCode::OK, MEDIA_TYPE, metrics.text().into_bytes()).with("Cache-Control", "no-store")
}

fn readiness(context: &RequestContext) -> Response {
    match context {
        RequestContext { is_draining: true, .. } => unavailable("shutting down"),
        RequestContext { is_bus_ready: false, .. } => unavailable("the bus is not ready"),
        RequestContext { .. } => Response::text(StatusCode::OK, "ready"),
    }
}

fn unavailable(words: &str) -> Response {
    Response::text(StatusCode::SERVICE_UNAVAILABLE, words).with("Retry-After", "1")
}

/// Selects our subprotocol if it is offered. A client that offers nothing we know goes without: RFC 6455 lets it decide.
fn select_subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Response> {
    let offers = || {
        let values = headers.get_all("Sec-WebSocket-Protocol").iter();
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
    };
    if offers().any(|offer| offer == SUBPROTOCOL) {
        return Ok(Some(SUBPROTOCOL));
    }
    if offers().any(|offer| offer.starts_with(TOKEN_SUBPROTOCOL_PREFIX)) {
        // A browser fails a connection of which none of its offers was selected, and a token is never sent back.
        let words = format!("a token was offered as subprotocol, alone; offer {SUBPROTOCOL} beside it");
        return Err(Response::text(StatusCode::BAD_REQUEST, &words));
    }
    Ok(None)
}
