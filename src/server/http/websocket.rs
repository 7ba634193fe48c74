//! The checks that a request passes before it becomes a WebSocket.

use http::{HeaderMap, Request, StatusCode};

use super::RequestContext;
use super::origin::Origins;
use crate::net::{Capacity, Handshake, Response};
use crate::protocol::{SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX};
use crate::server::bearer::subprotocol_offers;

/// Checks everything about a handshake except its user.
///
/// # Errors
/// The answer that says why the request cannot become a WebSocket.
pub(super) fn check(
    request: &Request<()>,
    context: &RequestContext,
    origins: &mut Origins,
) -> Result<Handshake, Response> {
    let handshake = Handshake::check(request)?;
    origins.check(request.headers()).map_err(Response::for_pages)?;
    if context.is_draining {
        return Err(Response::unavailable("the server is shutting down").for_pages());
    }
    if context.capacity == Capacity::Full {
        return Err(Response::unavailable("the server has as many connections as are allowed").for_pages());
    }
    Ok(match select_subprotocol(request.headers())? {
        Some(subprotocol) => handshake.with_subprotocol(subprotocol),
        None => handshake,
    })
}

/// The answer to a browser that asks whether a page may send a token when it asks why a handshake was refused.
pub(super) fn preflight() -> Response {
    Response::text(StatusCode::OK, "GET is allowed")
        .with("Access-Control-Allow-Methods", "GET")
        .with("Access-Control-Allow-Headers", "Authorization")
        .with("Access-Control-Max-Age", "600")
        .for_pages()
}

/// Selects our subprotocol if it is offered. If only unknown ones are offered, none is selected, and
/// the client decides whether it goes on (RFC 6455 section 4.2.2).
fn select_subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Response> {
    let offers = || subprotocol_offers(headers);
    if offers().any(|offer| offer == SUBPROTOCOL) {
        return Ok(Some(SUBPROTOCOL));
    }
    if offers().any(|offer| offer.starts_with(TOKEN_SUBPROTOCOL_PREFIX)) {
        // A browser fails the connection if the server selects none of its offers, and a token is never
        // sent back.
        let reason = format!("a token was offered as the only subprotocol; offer {SUBPROTOCOL} beside it");
        return Err(Response::text(StatusCode::BAD_REQUEST, &reason));
    }
    Ok(None)
}
