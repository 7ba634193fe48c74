//! The seam at which an embedder decides about handshakes: it admits a connection as a user, or
//! refuses it.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::{Request, StatusCode};

use super::bearer::{SeveralTokens, bearer_token};
use crate::id::{KeyNumber, UserId};
use crate::metric::Metric;
use crate::net::{AdmissionTicket, Response};
use crate::owner::{Owner, Owners};
use crate::restrictions::PeerAddress;
use crate::rights::Grants;
use crate::time::Now;

/// The user that a connection belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, or `None` for a guest, to whom the server gives a name (`guest-` and thirteen characters).
    pub user: Option<UserId>,
    /// A name to show beside the id. Characters beyond 64 are cut off.
    pub name: Option<String>,
    /// Whether somebody has vouched for the user, by a token for example. What a verified user costs is charged to the user, and
    /// what others cost to their address, since they can have as many names as they like.
    pub is_verified: bool,
    /// When the identity expires, in Unix milliseconds. The connection is then closed with
    /// [`CloseReason::TOKEN_EXPIRED`](crate::CloseReason::TOKEN_EXPIRED).
    pub expires_at: Option<u64>,
    /// The key that has verified the user, of an authenticator that tells when
    /// [keys have gone](Authenticator::poll_keys_left).
    pub key: Option<KeyNumber>,
    /// What the user may do in which rooms, or `None` for [`Config::default_grants`](crate::Config::default_grants).
    pub grants: Option<Grants>,
}

impl Identity {
    /// A user whose identity was verified.
    pub fn verified(user: UserId) -> Self {
        Self { user: Some(user), is_verified: true, ..Self::default() }
    }
}

/// The address that a request comes from, if it has one.
pub(super) fn address_of(request: &Request<()>) -> Option<PeerAddress> {
    request.extensions().get::<SocketAddr>().map(|address| address.ip().into())
}

/// The owner of what the peer of a request costs, as long as nobody vouches for its user.
pub(super) fn owner_of(owners: Owners, request: &Request<()>) -> Owner {
    request.extensions().get().copied().unwrap_or_else(|| owners.listener(None))
}

/// Whose a connection is, and what it is charged to.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) identity: Identity,
    pub(super) owner: Owner,
    pub(super) address: Option<PeerAddress>,
}

impl Admission {
    pub(super) fn new(owners: Owners, identity: Identity, request: &Request<()>) -> Self {
        let address = address_of(request);
        Self::with_owner(owners, identity, (owner_of(owners, request), address))
    }

    /// Of a connection from `address`, which is charged to `unverified` unless somebody vouches for the user.
    pub(super) fn with_owner(
        owners: Owners,
        identity: Identity,
        (unverified, address): (Owner, Option<PeerAddress>),
    ) -> Self {
        let verified = identity.user.as_ref().filter(|_| identity.is_verified);
        let owner = verified.map_or(unverified, |user| owners.user(user));
        Self { identity, owner, address }
    }
}

/// The HTTP answer to a handshake that is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A status of 400 to 599; any other becomes 403. The answer to 401 asks for a `Bearer` token.
    pub status: StatusCode,
    /// The body, a sentence for a person.
    pub message: String,
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<SeveralTokens> for Refusal {
    fn from(SeveralTokens: SeveralTokens) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "there is more than one token; one is allowed")
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, message } = refusal;
        match status {
            StatusCode::UNAUTHORIZED => Self::text(status, &message).with("WWW-Authenticate", "Bearer"),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(&message),
            status if status.is_client_error() || status.is_server_error() => Self::text(status, &message),
            // The peer could take any other status for an admission.
            _ => Self::text(StatusCode::FORBIDDEN, &message),
        }
    }
}

/// A decision about a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The handshake becomes a connection of this user.
    Admit(Identity),
    /// The handshake is answered with this refusal.
    Refuse(Refusal),
    /// [`Server::admit`](crate::Server::admit) decides later, given the same ticket. Every handshake needs
    /// a ticket of its own.
    ///
    /// Until then the connection is parked and nothing is read from it. At most
    /// [`admissions_pending_max`](crate::settings::NetLimits::admissions_pending_max) handshakes wait; others
    /// are answered 503. Each waits for at most
    /// [`admission_timeout`](crate::settings::Timing::admission_timeout), and is answered 504 then.
    Later(AdmissionTicket),
}

/// Whether handshakes need a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPolicy {
    /// Every handshake does.
    Needed,
    /// None does: users are told apart by something else, or not at all.
    NotNeeded,
}

/// Decides for every handshake to which user its connection belongs.
///
/// ```
/// use roomcast::{AdmissionTicket, Authentication, Authenticator, Now, Refusal, http};
///
/// /// Has another service check tokens.
/// #[derive(Default)]
/// struct TokenService {
///     last: u64,
///     questions: Vec<(AdmissionTicket, String)>,
/// }
///
/// impl Authenticator for TokenService {
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
    /// Decides about a request for a WebSocket, or about a plain GET by which a page asks why that was refused. It runs on the loop and must not block. A decision that
    /// has to wait for something comes [later](Authentication::Later).
    fn authenticate(&mut self, now: Now, request: &Request<()>) -> Authentication;

    /// How many bytes are held for a handshake that has just been put off, until it is decided or
    /// [abandoned](Self::abandon). Its connection is charged for them, or for
    /// the length of its head if that is more.
    fn held_bytes(&self, ticket: AdmissionTicket) -> usize {
        let _ = ticket;
        0
    }

    /// Whether handshakes need a token. The page at `/` asks for one then.
    fn token_policy(&self) -> TokenPolicy {
        TokenPolicy::NotNeeded
    }

    /// Decides about a token that a connection of `user` brings in place of its last one. The new identity must be of the same
    /// user. A decision that has to wait comes later, as for a handshake; until then, and after a refusal, the last token counts.
    fn refresh(&mut self, now: Now, user: &UserId, token: &str) -> Authentication {
        let _ = (now, user, token);
        Authentication::Refuse(Refusal::new(StatusCode::UNAUTHORIZED, "this server takes no new tokens"))
    }

    /// The next decision that was [put off](Authentication::Later), for an authenticator that the host does not have to ask. It is
    /// polled in every turn, so what waits for a thread has that thread wake the loop.
    fn poll_decision(&mut self, now: Now) -> Option<(AdmissionTicket, Result<Identity, Refusal>)> {
        let _ = now;
        None
    }

    /// The keys that are left, once after some have been taken away. Connections whose [`Identity::key`] is another one are closed
    /// with [`CloseReason::TOKEN_EXPIRED`](crate::CloseReason::TOKEN_EXPIRED), some each turn; those without a key stay. It is
    /// polled in every turn, after decisions that were put off.
    fn poll_keys_left(&mut self) -> Option<Vec<KeyNumber>> {
        None
    }

    /// [`Server::reload`](crate::Server::reload) was called: keys and the like are read again, without blocking.
    fn reload(&mut self, now: Now) {
        let _ = now;
    }

    /// What it counts, for monitoring.
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }

    /// A decision with this ticket is not needed any more: the peer has gone, too many wait or it has waited for too long, or the
    /// server shuts down.
    fn abandon(&mut self, ticket: AdmissionTicket) {
        let _ = ticket;
    }
}

/// Admits everybody as the user that the request names; see [`open_identity`]. A request with a token is refused: nobody would
/// look at the token, and its sender counts on the opposite.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAuthenticator;

impl Authenticator for OpenAuthenticator {
    fn authenticate(&mut self, _now: Now, request: &Request<()>) -> Authentication {
        let identity = match bearer_token(request.headers()) {
            Ok(None) => open_identity(request),
            Ok(Some(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "a token was sent, and this server takes none")),
            Err(several) => Err(several.into()),
        };
        identity.map_or_else(Authentication::Refuse, Authentication::Admit)
    }
}

/// The identity that a request names with `?userId=` and `?name=`, or that of a guest without a `userId`.
///
/// Both are percent-encoded. In an id a `+` stands for itself: it is a character of ids, and a space is not. In a name it is a space,
/// as in forms.
///
/// # Errors
/// 400 if the id is not a valid name, or one of them is not UTF-8.
pub fn open_identity(request: &Request<()>) -> Result<Identity, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let asked = |field: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='));
        value.filter(|value| !value.is_empty())
    };
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let decoded = |field: &str, value: &str| {
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
        decoded.map(Cow::into_owned).map_err(|_| bad(format!("{field} is not UTF-8")))
    };
    let user = asked("userId").map(|value| {
        let decoded = decoded("userId", value)?;
        UserId::new(&decoded).map_err(|error| bad(format!("userId: {error}")))
    });
    let name = asked("name").map(|value| decoded("name", &value.replace('+', " ")));
    Ok(Identity { user: user.transpose()?, name: name.transpose()?, ..Identity::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_and_the_name_asked_for_are_decoded_and_checked() {
        let identity = |uri: &str| open_identity(&Request::get(uri).body(()).unwrap());
        assert_eq!(identity("/ws").unwrap().user, None);
        assert_eq!(identity("/ws?userId=").unwrap().user, None);
        assert_eq!(identity("/ws?a=b&userId=alice").unwrap().user.unwrap().as_str(), "alice");
        assert_eq!(identity("/ws?userId=Zo%C3%AB").unwrap().user.unwrap().as_str(), "Zoë");
        assert_eq!(identity("/ws?userId=a+b%2Bc").unwrap().user.unwrap().as_str(), "a+b+c");
        assert!(identity("/ws?userId=a%20b").unwrap_err().message.contains("' '"));
        assert!(identity("/ws?userId=%ff").unwrap_err().message.contains("userId is not UTF-8"));
        assert_eq!(identity("/ws?userId=a").unwrap().name, None);
        assert_eq!(identity("/ws?userId=a&name=").unwrap().name, None);
        assert_eq!(identity("/ws?userId=a&names=b").unwrap().name, None);
        let named = identity("/ws?name=Bob+M%C3%BCller%20%2B%26&userId=bob").unwrap();
        assert_eq!((named.user.unwrap().as_str(), named.name.as_deref()), ("bob", Some("Bob Müller +&")));
        assert_eq!(identity("/ws?name=Bob").unwrap().user, None);
        assert!(identity("/ws?userId=a&name=%ff").unwrap_err().message.contains("name is not UTF-8"));
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
