//! What the back-end says about a handshake.

use http::StatusCode;
use serde::Deserialize;

use crate::id::UserId;
use crate::rights::Grants;
use crate::server::authenticator::{Identity, Refusal};
use crate::server::json_field::present;

/// How much is shown of the reason of a refusal.
const MESSAGE_CHARS_MAX: usize = 200;

/// A decision of the back-end, or why there is none.
pub(super) type Reply = Result<Result<Identity, Refusal>, Failure>;

/// The back-end has made no decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// What the log says about it. It has nothing of the handshake, and nothing secret of the URL.
    pub(super) problem: String,
}

/// How a handshake is answered without a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The back-end cannot be reached: 503.
    Unreachable,
    /// It has not answered in time: 504.
    Late,
    /// It has answered something else than a decision: 502.
    NoDecision,
}

impl Failure {
    pub(super) fn no_decision(problem: impl Into<String>) -> Self {
        Self { kind: FailureKind::NoDecision, problem: problem.into() }
    }
}

impl FailureKind {
    pub(super) fn refusal(self) -> Refusal {
        let (status, message) = match self {
            Self::Unreachable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the back-end that decides about connections cannot be reached; come back later",
            ),
            Self::Late => {
                (StatusCode::GATEWAY_TIMEOUT, "the back-end that decides about connections did not answer in time")
            }
            Self::NoDecision => {
                (StatusCode::BAD_GATEWAY, "the back-end that decides about connections has made no decision")
            }
        };
        Refusal::new(status, message)
    }
}

/// An identity. What is not known is refused, so that a misspelt field is noticed at once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawIdentity {
    user: String,
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// In Unix milliseconds.
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    rooms: Option<Grants>,
}

#[derive(Deserialize)]
struct RawRefusal {
    message: String,
}

/// Reads the body of an answer with the status 200.
///
/// # Errors
/// What is wrong with it.
pub(super) fn identity(body: &[u8]) -> Result<Identity, Failure> {
    // serde would take an array for an object whose fields have no names.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::no_decision("its answer is no JSON object"));
    }
    // The place alone: the error of serde would repeat what stands there.
    let raw: RawIdentity = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Failure::no_decision(format!("its answer is no identity; see line {line}, column {column} of it"))
    })?;
    let user = UserId::new(&raw.user).map_err(|error| Failure::no_decision(format!("user in its answer: {error}")))?;
    if let Some(grants) = &raw.rooms {
        let too_many = |problem| Failure::no_decision(format!("rooms in its answer: {problem}"));
        grants.check_count().map_err(too_many)?;
    }
    let expires_at = raw.expires_at.map(|millis| millis as u64);
    Ok(Identity { name: raw.name, expires_at, grants: raw.rooms, ..Identity::verified(user) })
}

/// Reads an answer with the status 401 or 403. The reason is `message` of a JSON object, or a plain text.
pub(super) fn refusal(status: StatusCode, is_plain_text: bool, body: &[u8]) -> Refusal {
    let of_json = || serde_json::from_slice::<RawRefusal>(body).ok().map(|refusal| refusal.message);
    let of_text = || is_plain_text.then(|| String::from_utf8_lossy(body).into_owned());
    let found = of_json().or_else(of_text).unwrap_or_default();
    let shown: String = found.trim().chars().take(MESSAGE_CHARS_MAX).map(without_control).collect();
    Refusal::new(status, if shown.is_empty() { "the back-end has refused the connection" } else { &shown })
}

fn without_control(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Right;

    #[test]
    fn an_identity_is_read() {
        let read = |body: &str| identity(body.as_bytes()).unwrap();
        assert_eq!(read(r#" {"user":"ann"}"#), Identity::verified(UserId::new("ann").unwrap()));
        let full = read(
            r#"{"user":"ann","name":"Ann","expiresAt":1700000000000.5,"rooms":[{"match":"lobby","allow":["join"]}]}"#,
        );
        assert_eq!((full.name.as_deref(), full.expires_at), (Some("Ann"), Some(1_700_000_000_000)));
        let lobby = full.grants.unwrap().in_room(&crate::RoomName::new("lobby").unwrap());
        assert!(full.is_verified && lobby.has(Right::Join) && !lobby.has(Right::Say));
        assert_eq!(read(r#"{"user":"ann","expiresAt":-1}"#).expires_at, Some(0));
    }

    #[test]
    fn nothing_else_is_an_identity() {
        for body in [
            "",
            "null",
            "[]",
            r#"["ann"]"#,
            "{}",
            r#"{"user":null}"#,
            r#"{"user":7}"#,
            r#"{"user":"a b"}"#,
            r#"{"user":""}"#,
            r#"{"user":"ann","name":null}"#,
            r#"{"user":"ann","expiresAt":"2030-01-01"}"#,
            r#"{"user":"ann","expiresAt":null}"#,
            r#"{"user":"ann","rooms":null}"#,
            r#"{"user":"ann","rooms":["lobby"]}"#,
            r#"{"user":"ann","rooms":[{"match":"lobby","allow":["fly"]}]}"#,
            r#"{"user":"ann","room":[]}"#,
            r#"{"user":"ann","user":"bob"}"#,
            r#"{"user":"ann"} {"user":"bob"}"#,
            r#"{"user":"ann""#,
        ] {
            assert_eq!(identity(body.as_bytes()).unwrap_err().kind, FailureKind::NoDecision, "{body}");
        }
        let secret = identity(br#"{"user":"ann","password":"hunter2"}"#).unwrap_err().problem;
        assert!(!secret.contains("hunter2") && secret.contains("column"), "{secret}");
    }

    #[test]
    fn an_identity_has_a_bounded_number_of_grants() {
        let body = |grants: usize| {
            let rooms = vec![r#"{"match":"a","allow":[]}"#; grants].join(",");
            format!(r#"{{"user":"ann","rooms":[{rooms}]}}"#)
        };
        assert!(identity(body(256).as_bytes()).unwrap().grants.is_some());
        let Failure { kind, problem } = identity(body(257).as_bytes()).unwrap_err();
        let problem_told = "rooms in its answer: 257 grants; 256 are allowed";
        assert_eq!((kind, &*problem), (FailureKind::NoDecision, problem_told));
    }

    #[test]
    fn the_reason_of_a_refusal_is_one_short_line() {
        let message =
            |is_plain_text, body: &str| refusal(StatusCode::FORBIDDEN, is_plain_text, body.as_bytes()).message;
        let nothing = "the back-end has refused the connection";
        assert_eq!(message(false, r#"{"message":"log in first","code":7}"#), "log in first");
        assert_eq!(message(true, "log in\r\nfirst\u{1b}[2J\n"), "log in  first [2J");
        assert_eq!(message(false, "<h1>Forbidden</h1>"), nothing);
        assert_eq!(message(true, ""), nothing);
        assert_eq!(message(false, r#"{"message":7}"#), nothing);
        assert_eq!(message(true, &"ü".repeat(1000)), "ü".repeat(200));
    }
}
