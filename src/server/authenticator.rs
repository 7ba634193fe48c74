//! Whose connection it is: the seam at which an embedder decides about handshakes.

use http::{Request, StatusCode};

use crate::id::UserId;
use crate::net::{AdmissionTicket, Response};
use crate::time::Now;

/// Whose connection it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, or `None` for a guest, to whom the server gives a name (`guest-` and six characters).
    pub user: Option<UserId>,
    /// A name to show beside the id; at most 64 characters are kept.
    pub name: Option<String>,
}

/// Why a connection is not admitted, as an HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A status of 400 to 599; any other becomes 403. The answer to 401 asks for a `Bearer` token.
    pub status: StatusCode,
    /// A sentence for the body.
    pub message: String,
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, message } = refusal;
        match status {
            StatusCode::UNAUTHORIZED => Self::text(status, &message).with("WWW-Authenticate", "Bearer"),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(&message),
            status if status.is_client_error() || status.is_server_error() => Self::text(status, &message),
            // What the peer could take for an admission is none.
            _ => Self::text(StatusCode::FORBIDDEN, &message),
        }
    }
}

/// What is decided about a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// It becomes a connection of this user.
    Admit(Identity),
    /// It is answered with this.
    Refuse(Refusal),
    /// [`Server::admit`](crate::Server::admit) decides, given the same ticket, which must be another one for every handshake.
    ///
    /// Until then the connection is parked and nothing is read from it. At most
    /// [`admissions_pending_max`](crate::settings::NetLimits::admissions_pending_max) may wait, each for
    /// [`admission_timeout`](crate::settings::Timing::admission_timeout); beyond them it is answered 503 or 504.
    Later(AdmissionTicket),
}

/// Decides about every handshake whose connection it is.
///
/// ```
/// use roomcast::{AdmissionTicket, Authentication, Authenticator, Now, Refusal, http};
///
/// /// Asks somebody else, by their name.
/// #[derive(Default)]
/// struct AskSomebody {
///     last: u64,
///     questions: Vec<(AdmissionTicket, String)>,
/// }
///
/// impl Authenticator for AskSomebody {
///     fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
///         let Some(token) = request.headers().get("Authorization").and_then(|value| value.to_str().ok()) else {
///             return Authentication::Refuse(Refusal::new(http::StatusCode::UNAUTHORIZED, "a token is needed"));
///         };
///         self.last += 1;
///         self.questions.push((AdmissionTicket(self.last), token.to_owned()));
///         Authentication::Later(AdmissionTicket(self.last))
///     }
///
///     fn abandon(&mut self, ticket: AdmissionTicket) {
///         self.questions.retain(|(asked, _)| *asked != ticket);
///     }
/// }
/// ```
pub trait Authenticator {
    /// Decides about a request for a WebSocket. It runs on the loop and must not block; a decision that has to wait for something
    /// comes [later](Authentication::Later).
    fn authenticate(&mut self, now: Now, request: &Request<()>) -> Authentication;

    /// A handshake that was put off needs no decision any more: its peer has gone, it was refused because too many wait or it has
    /// waited for too long, or the server shuts down.
    fn abandon(&mut self, ticket: AdmissionTicket) {
        let _ = ticket;
    }
}

/// Admits everybody as the user that they say they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAuthenticator;

impl Authenticator for OpenAuthenticator {
    fn authenticate(&mut self, _now: Now, request: &Request<()>) -> Authentication {
        open_identity(request).map_or_else(Authentication::Refuse, Authentication::Admit)
    }
}

/// The identity that a request asks for with `?userId=`, a guest's without.
///
/// # Errors
/// 400 if the id asked for is not a valid name.
pub fn open_identity(request: &Request<()>) -> Result<Identity, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("userId="));
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(Identity::default());
    };
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let decoded =
        percent_encoding::percent_decode_str(asked).decode_utf8().map_err(|_| bad("userId is not UTF-8".to_owned()))?;
    let user = UserId::new(&decoded).map_err(|error| bad(format!("userId: {error}")))?;
    Ok(Identity { user: Some(user), name: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_asked_for_is_decoded_and_checked() {
        let identity = |uri: &str| open_identity(&Request::get(uri).body(()).unwrap());
        assert_eq!(identity("/ws").unwrap().user, None);
        assert_eq!(identity("/ws?userId=").unwrap().user, None);
        assert_eq!(identity("/ws?a=b&userId=alice").unwrap().user.unwrap().as_str(), "alice");
        assert_eq!(identity("/ws?userId=Zo%C3%AB").unwrap().user.unwrap().as_str(), "Zoë");
        assert!(identity("/ws?userId=a%20b").unwrap_err().message.contains("' '"));
        assert!(identity("/ws?userId=%ff").unwrap_err().message.contains("UTF-8"));
    }

    #[test]
    fn a_refusal_never_looks_like_an_admission() {
        let status = |status: StatusCode| Response::from(Refusal::new(status, "no")).status();
        for refused in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(status(refused), refused);
        }
        for other in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK, StatusCode::FOUND] {
            assert_eq!(status(other), StatusCode::FORBIDDEN);
        }
    }
}
