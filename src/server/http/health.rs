//! Whether the server runs, and whether it should be given work.

use http::StatusCode;

use super::RequestContext;
use crate::net::Response;

/// Always 200: a server that answers runs.
pub(super) fn liveness() -> Response {
    Response::text(StatusCode::OK, "ok")
}

/// Whether a load balancer should send new connections here.
pub(super) fn readiness(context: &RequestContext) -> Response {
    if context.is_draining {
        Response::unavailable("shutting down")
    } else if !context.is_bus_ready {
        Response::unavailable("the bus is not ready")
    } else if !context.are_restrictions_loaded {
        Response::unavailable("the bans are not loaded")
    } else {
        Response::text(StatusCode::OK, "ready")
    }
}
