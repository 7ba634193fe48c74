//! Which requests become WebSockets.

use http::{HeaderMap, Request, StatusCode};

use super::RequestContext;
use super::origin::Origins;
use crate::net::{Capacity, Handshake, Response};
use crate::protocol::{SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX};

/// Checks all of a handshake but whose it is.
///
/// # Errors
/// The answer that says why it cannot become a WebSocket.
pub(super) fn check(
    request: &Request<()>,
    context: &RequestContext,
    origins: &mut Origins,
) -> Result<Handshake, Response> {
    let handshake = Handshake::check(request)?;
    if context.is_draining {
        return Err(Response::unavailable("the server is shutting down"));
    }
    if context.capacity == Capacity::Full {
        return Err(Response::unavailable("the server has as many connections as it may"));
    }
    origins.check(request.headers())?;
    Ok(match select_subprotocol(request.headers())? {
        Some(subprotocol) => handshake.with_subprotocol(subprotocol),
        None => handshake,
    })
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
        let reason = format!("a token was offered as subprotocol, alone; offer {SUBPROTOCOL} beside it");
        return Err(Response::text(StatusCode::BAD_REQUEST, &reason));
    }
    Ok(None)
}
