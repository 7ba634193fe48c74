//! The HTTP API for back-ends: commands as JSON, carried out like those of the host and answered when the bus has answered.

use std::collections::HashMap;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::config::{API_KEY_BYTES_MIN, Config};
use crate::hub::{HostPublication, Hub, Moderation, Refused};
use crate::id::{ConnectionId, RoomName, UserId};
use crate::net::{Answer, BodyRules, Reply, Response};
use crate::protocol::{self, CloseReason, ErrorCode, Text, present};
use crate::publication::{Outcome, Ticket};
use crate::time::Now;

use super::Server;

/// What all its paths begin with.
pub(super) const PREFIX: &str = "/api/";

/// Its paths, for who asks for another one.
pub(super) const PATHS: &str = "/api/publish, /api/kick and /api/disconnect";

const MEDIA_TYPE: &str = "application/json";

/// Who is said to say what is published without a `userId`.
const SPEAKER: &str = "server";

/// A body may be so many times as long as the message in it: `\u00fc`, as many a library writes it, is three times as long as `ü`.
const ESCAPED_FACTOR: usize = 3;

/// How long a client waits before it tries again, in seconds.
const RETRY_AFTER: &str = "1";

/// Requests of the API by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiStats {
    /// Done.
    pub accepted: u64,
    /// Done before, under the same id.
    pub duplicates: u64,
    /// Not to be done, however often they are sent: a key, a path or a body that is not as it must be.
    pub rejected: u64,
    /// Not done; they may be sent again.
    pub rejected_temporary: u64,
}

/// A command from its body to where it is under way.
type Command = fn(&mut Hub, Now, &str, &Bounds) -> Result<Begun, Refused>;

fn command(path: &str) -> Option<Command> {
    match path {
        "/api/publish" => Some(publish),
        "/api/kick" => Some(kick),
        "/api/disconnect" => Some(disconnect),
        _ => None,
    }
}

/// What a command is held to beyond what the hub checks.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    data_bytes_max: usize,
}

/// A command that is under way.
struct Begun {
    ticket: Ticket,
    done: Done,
}

/// The body of the answer to what was done, with this number; a second time if it is a duplicate.
type Done = Box<dyn FnOnce(Seq) -> String>;

#[derive(Clone, Copy, Debug)]
struct Seq {
    seq: u64,
    duplicate: bool,
}

/// A request that waits for the bus.
struct Waiting {
    connection: ConnectionId,
    done: Done,
}

/// See the [module](self).
pub(super) struct Api {
    /// Digests of the keys. Digests can be compared in whatever time that takes: how much of one agrees tells nothing about a key,
    /// since nobody can look for keys whose digests agree a little more.
    keys: Vec<[u8; 32]>,
    bounds: Bounds,
    body_bytes_max: usize,
    /// No more than publications may be under way; an entry outlives its connection, not its publication.
    waiting: HashMap<Ticket, Waiting>,
    stats: ApiStats,
}

impl Api {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keys: config.api_keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect(),
            bounds: Bounds { data_bytes_max: config.limits.data_bytes_max },
            body_bytes_max: config.limits.message_bytes_max * ESCAPED_FACTOR,
            waiting: HashMap::new(),
            stats: ApiStats::default(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn stats(&self) -> ApiStats {
        self.stats
    }

    /// Looks at the head of a request: who may not ask, or asks for what there is not, need not send a body.
    pub(super) fn answer_head(&mut self, request: &Request<()>) -> Answer {
        match self.check_head(request) {
            Ok(()) => Answer::ReadBody(BodyRules { bytes_max: self.body_bytes_max, refuse }),
            Err(response) => {
                self.stats.rejected += 1;
                Answer::Respond(response)
            }
        }
    }

    fn check_head(&self, request: &Request<()>) -> Result<(), Response> {
        let path = request.uri().path();
        if !self.is_on() {
            let words = format!(
                "the API is off; start the server with --api-key KEY or ROOMCAST_API_KEY=KEY, a secret of at least \
                 {API_KEY_BYTES_MIN} bytes, to turn it on"
            );
            return Err(refuse(StatusCode::NOT_FOUND, &words));
        }
        if command(path).is_none() {
            return Err(refuse(StatusCode::NOT_FOUND, &format!("nothing is at {path}; there is {PATHS}")));
        }
        if request.method() != Method::POST {
            let words = format!("method {}; POST allowed", request.method());
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, &words).with("Allow", "POST"));
        }
        self.check_key(request.headers())?;
        check_media_type(request.headers())
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), Response> {
        let refuse = |words| refuse(StatusCode::UNAUTHORIZED, words).with("WWW-Authenticate", "Bearer");
        let credentials = headers.get(AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
        let credentials = credentials.ok_or_else(|| refuse("no Authorization; Bearer and a key are needed"))?;
        let scheme_bytes = credentials.iter().position(|byte| *byte == b' ').unwrap_or(credentials.len());
        let (scheme, key) = credentials.split_at(scheme_bytes);
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            return Err(refuse("Authorization of another kind; Bearer and a key are needed"));
        }
        let digest: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        if !self.keys.contains(&digest) {
            return Err(refuse("the key is none of this server's"));
        }
        Ok(())
    }

    /// Carries out a request whose head was found right.
    pub(super) fn answer_body(
        &mut self,
        now: Now,
        hub: &mut Hub,
        connection: ConnectionId,
        request: &Request<()>,
        body: &[u8],
    ) -> Reply {
        let Some(command) = command(request.uri().path()) else {
            unreachable!("its head was found right");
        };
        let text = std::str::from_utf8(body).map_err(|error| (ErrorCode::BadJson, format!("not UTF-8: {error}")));
        match text.and_then(|text| command(hub, now, text, &self.bounds)) {
            Ok(Begun { ticket, done }) => {
                hub.answer_apart(ticket);
                self.waiting.insert(ticket, Waiting { connection, done });
                Reply::Later
            }
            Err((code, words)) => Reply::Now(self.complain(code, &words)),
        }
    }

    /// Who is to be answered what, now that the bus has answered.
    fn answer(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<(ConnectionId, Response)> {
        let Waiting { connection, done } = self.waiting.remove(&ticket)?;
        let seq = match *outcome {
            Outcome::Accepted(seq) | Outcome::AcceptedUnseen(seq) => Seq { seq, duplicate: false },
            Outcome::Duplicate(seq) => Seq { seq, duplicate: true },
            Outcome::Refused(words) => return Some((connection, self.complain(ErrorCode::Unavailable, words))),
        };
        let counter = if seq.duplicate { &mut self.stats.duplicates } else { &mut self.stats.accepted };
        *counter += 1;
        Some((connection, json(StatusCode::OK, done(seq))))
    }

    fn complain(&mut self, code: ErrorCode, words: &str) -> Response {
        let counter = if code.is_temporary() { &mut self.stats.rejected_temporary } else { &mut self.stats.rejected };
        *counter += 1;
        complaint(status(code), code.as_str(), words, code.is_temporary())
    }
}

impl Server {
    /// Answers requests that the bus has answered.
    pub(super) fn answer_requests(&mut self, now: Now) {
        let mut answers = Vec::new();
        while let Some((ticket, outcome)) = self.hub.poll_answer() {
            answers.extend(self.api.answer(ticket, &outcome));
        }
        if answers.is_empty() {
            return;
        }
        let (net, mut dispatch) = self.dispatch(now);
        for (connection, response) in answers {
            net.respond(connection, &response, &mut dispatch);
        }
    }
}

/// What `POST /api/publish` is sent; what is missing here is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublishBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

#[derive(Serialize)]
struct Published<'a> {
    room: &'a str,
    seq: u64,
    duplicate: bool,
}

fn publish(hub: &mut Hub, now: Now, body: &str, bounds: &Bounds) -> Result<Begun, Refused> {
    let body: PublishBody<'_> = protocol::parse_object(body)?;
    let room = room_of("publish", body.room.as_deref())?;
    let user = user_of("publish", Some(body.user_id.as_deref().unwrap_or(SPEAKER)))?;
    let data_bytes = body.data.map_or(0, |data| data.get().len());
    if data_bytes > bounds.data_bytes_max {
        let words = format!("data of {data_bytes} bytes exceeds {}", bounds.data_bytes_max);
        return Err((ErrorCode::TooLarge, words));
    }
    let publication = HostPublication {
        room,
        user,
        name: body.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
        text: body.text.as_deref().unwrap_or_default().to_owned(),
        data: body.data.map(ToOwned::to_owned),
        id: body.id.as_deref().map(str::to_owned),
    };
    let ticket = hub.publish_for_request(now, &publication)?;
    let room = publication.room;
    let done = move |Seq { seq, duplicate }| to_json(&Published { room: room.as_str(), seq, duplicate });
    Ok(Begun { ticket, done: Box::new(done) })
}

/// What `POST /api/kick` and `POST /api/disconnect` are sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModerationBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    code: Option<u16>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moderated<'a> {
    user_id: &'a str,
}

fn kick(hub: &mut Hub, now: Now, body: &str, _bounds: &Bounds) -> Result<Begun, Refused> {
    let body: ModerationBody<'_> = protocol::parse_object(body)?;
    let room = room_of("kick", body.room.as_deref())?;
    let user = user_of("kick", body.user_id.as_deref())?;
    moderate(hub, now, &Moderation::Kick { room, user: user.clone() }, user)
}

fn disconnect(hub: &mut Hub, now: Now, body: &str, _bounds: &Bounds) -> Result<Begun, Refused> {
    let body: ModerationBody<'_> = protocol::parse_object(body)?;
    let user = user_of("disconnect", body.user_id.as_deref())?;
    let mut reason = CloseReason::EXPELLED;
    if let Some(code) = body.code {
        reason.code = code;
    }
    if let Some(words) = body.reason.as_deref() {
        reason.reason = words.to_owned().into();
    }
    moderate(hub, now, &Moderation::Disconnect { user: user.clone(), reason }, user)
}

fn moderate(hub: &mut Hub, now: Now, moderation: &Moderation, user: UserId) -> Result<Begun, Refused> {
    let ticket = hub.moderate_for_request(now, moderation)?;
    let done = move |_| to_json(&Moderated { user_id: user.as_str() });
    Ok(Begun { ticket, done: Box::new(done) })
}

fn room_of(command: &str, room: Option<&str>) -> Result<RoomName, Refused> {
    let room = room.ok_or_else(|| (ErrorCode::BadMessage, format!("{command} without room")))?;
    RoomName::new(room).map_err(|error| (ErrorCode::BadMessage, format!("room: {error}")))
}

fn user_of(command: &str, user: Option<&str>) -> Result<UserId, Refused> {
    let user = user.ok_or_else(|| (ErrorCode::BadMessage, format!("{command} without userId")))?;
    UserId::new(user).map_err(|error| (ErrorCode::BadMessage, format!("userId: {error}")))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Response> {
    let refuse = |found: &str| {
        let words = format!("Content-Type is {found}; {MEDIA_TYPE} is allowed");
        Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &words))
    };
    let Some(found) = headers.get(CONTENT_TYPE) else { return refuse("missing") };
    let found = found.to_str().unwrap_or("(not text)");
    let kind = found.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(MEDIA_TYPE) { Ok(()) } else { refuse(found) }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::RateLimited | ErrorCode::RoomBusy => StatusCode::TOO_MANY_REQUESTS,
        code if code.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A refusal for which HTTP has a status; where the protocol has a code as well, that is it.
fn refuse(status: StatusCode, words: &str) -> Response {
    let code = match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::LENGTH_REQUIRED => "length_required",
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge.as_str(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::GATEWAY_TIMEOUT => ErrorCode::Unavailable.as_str(),
        _ => ErrorCode::BadMessage.as_str(),
    };
    let is_temporary = [StatusCode::REQUEST_TIMEOUT, StatusCode::GATEWAY_TIMEOUT].contains(&status);
    complaint(status, code, words, is_temporary)
}

#[derive(Serialize)]
struct Failure<'a> {
    error: Complaint<'a>,
}

#[derive(Serialize)]
struct Complaint<'a> {
    code: &'a str,
    message: &'a str,
    temporary: bool,
}

fn complaint(status: StatusCode, code: &str, message: &str, temporary: bool) -> Response {
    let response = json(status, to_json(&Failure { error: Complaint { code, message, temporary } }));
    if temporary { response.with("Retry-After", RETRY_AFTER) } else { response }
}

fn json(status: StatusCode, body: String) -> Response {
    Response::new(status, MEDIA_TYPE, body.into_bytes()).with("Cache-Control", "no-store")
}

fn to_json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("texts, numbers and truths always serialise");
    text.push('\n');
    text
}
