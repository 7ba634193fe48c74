//! What the back-end is told of a handshake.

use std::net::SocketAddr;

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderName, Request, StatusCode};
use serde::Serialize;

use crate::id::UserId;
use crate::server::authenticator::{Refusal, open_identity};
use crate::server::bearer::bearer_token;

/// The body of a request to the back-end. What the handshake does not have is `null`.
#[derive(Serialize)]
struct QuestionBody<'a> {
    user: Option<&'a str>,
    address: Option<String>,
    origin: Option<&'a str>,
    cookie: Option<String>,
    authorization: Option<&'a str>,
    /// That of `Authorization: Bearer` or of the subprotocols.
    token: Option<&'a str>,
}

/// The body of the request that asks about a handshake, which is hardly longer than its head.
///
/// # Errors
/// 400 if something is there twice, or cannot be told in JSON.
pub(super) fn body(request: &Request<()>) -> Result<Vec<u8>, Refusal> {
    let headers = request.headers();
    let user = open_identity(request)?.user;
    let address = request.extensions().get::<SocketAddr>();
    // HTTP/1.1 allows one, HTTP/2 several, which a proxy may pass on; RFC 9113 section 8.2.3 says how to join them.
    let cookies = headers.get_all(COOKIE).iter().map(|value| text(&COOKIE, value.as_bytes()));
    let cookies = cookies.collect::<Result<Vec<_>, _>>()?;
    let body = QuestionBody {
        user: user.as_ref().map(UserId::as_str),
        address: address.map(|address| address.ip().to_canonical().to_string()),
        origin: single(request, &ORIGIN)?,
        cookie: (!cookies.is_empty()).then(|| cookies.join("; ")),
        authorization: single(request, &AUTHORIZATION)?,
        token: bearer_token(headers)?,
    };
    let json = serde_json::to_vec(&body);
    // It waits, so it takes no more than it needs.
    let json = json.map(|json| json.into_boxed_slice().into_vec());
    json.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// The value of a header field that may be there once. Of two, programs on the way could each take another one.
fn single<'a>(request: &'a Request<()>, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => value.map(|value| text(name, value.as_bytes())).transpose(),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("there is more than one {name}; one is allowed"))),
    }
}

fn text<'a>(name: &HeaderName, value: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, format!("{name} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn check(uri: &str, address: Option<&str>, fields: &[(&str, &[u8])]) -> Result<Value, String> {
        let mut request = Request::get(uri).body(()).unwrap();
        if let Some(address) = address {
            request.extensions_mut().insert(SocketAddr::new(address.parse().unwrap(), 0));
        }
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        body(&request).map(|body| serde_json::from_slice(&body).unwrap()).map_err(|refusal| {
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
            refusal.message
        })
    }

    #[test]
    fn the_back_end_is_told_what_the_handshake_has() {
        let nothing = json!({"user": null, "address": null, "origin": null, "cookie": null, "authorization": null, "token": null});
        assert_eq!(check("/ws", None, &[]).unwrap(), nothing);
        let fields: &[(&str, &[u8])] = &[
            ("Cookie", b"a=1; b=\"2\""),
            ("Cookie", "c=ü".as_bytes()),
            ("Origin", b"https://chat.example"),
            ("Authorization", b"Basic eDp5"),
            ("Sec-WebSocket-Protocol", b"roomcast.v1, roomcast.token.t0ken"),
            ("X-Other", b"not told"),
        ];
        let all = json!({
            "user": "Zoë", "address": "192.0.2.1", "origin": "https://chat.example", "cookie": "a=1; b=\"2\"; c=ü",
            "authorization": "Basic eDp5", "token": "t0ken",
        });
        assert_eq!(check("/ws?userId=Zo%C3%AB", Some("::ffff:192.0.2.1"), fields).unwrap(), all);
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        let error = |uri: &str, fields: &[(&str, &[u8])]| check(uri, None, fields).unwrap_err();
        assert!(error("/ws?userId=a%20b", &[]).starts_with("userId: "));
        assert!(
            error("/ws", &[("Authorization", b"Basic a"), ("Authorization", b"Basic b")]).contains("more than one")
        );
        assert!(error("/ws", &[("Origin", b"a"), ("Origin", b"a")]).contains("more than one origin"));
        let two: &[(&str, &[u8])] = &[("Authorization", b"Bearer a"), ("Sec-WebSocket-Protocol", b"roomcast.token.b")];
        assert!(error("/ws", two).contains("more than one token"));
        assert_eq!(error("/ws", &[("Cookie", b"a=\xff")]), "cookie is not UTF-8");
    }
}
