//! The token that a handshake brings, in one of two places: `Authorization: Bearer`, or beside the subprotocol, where browsers
//! can put it.

use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

use crate::protocol::TOKEN_SUBPROTOCOL_PREFIX;

/// The subprotocols that a handshake offers.
pub(super) fn subprotocol_offers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// There is more than one token. Programs on the way could each take another one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeveralTokens;

/// The token of a handshake.
pub(super) fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, SeveralTokens> {
    let authorizations = headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let bearers = authorizations.filter_map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start())
    });
    let offered = subprotocol_offers(headers).filter_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL_PREFIX));
    let mut tokens = bearers.chain(offered);
    match (tokens.next(), tokens.next()) {
        (token, None) => Ok(token),
        (_, Some(_)) => Err(SeveralTokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_in_one_of_two_places() {
        let check = |fields: &[(&str, &str)], expected: Result<Option<&str>, SeveralTokens>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            assert_eq!(bearer_token(&headers), expected, "{fields:?}");
        };
        let (authorization, protocol) = ("Authorization", "Sec-WebSocket-Protocol");
        check(&[], Ok(None));
        check(&[(authorization, "Basic YTpi")], Ok(None));
        check(&[(protocol, "roomcast.v1")], Ok(None));
        check(&[(authorization, "Bearer a.b.c")], Ok(Some("a.b.c")));
        check(&[(authorization, "bearer  a.b.c")], Ok(Some("a.b.c")));
        check(&[(protocol, "roomcast.v1, roomcast.token.a.b.c")], Ok(Some("a.b.c")));
        check(&[(protocol, "roomcast.v1"), (protocol, "roomcast.token.a.b.c")], Ok(Some("a.b.c")));
        check(&[(protocol, "roomcast.token.")], Ok(Some("")));
        check(&[(protocol, "roomcast.token.a, roomcast.token.a")], Err(SeveralTokens));
        check(&[(authorization, "Bearer a"), (protocol, "roomcast.token.a")], Err(SeveralTokens));
        check(&[(authorization, "Bearer a"), (authorization, "Bearer b")], Err(SeveralTokens));
    }
}
