//! The HTTP API for back-ends. Commands are JSON, and are carried out like those of the host. They
//! are answered when the bus has answered.

mod answer;
mod command;
mod delete;
mod history;
mod list;
mod members;
mod moderation;
mod publish;
mod purge;
mod restrictions;
mod room;
mod rooms;
mod stats;

use std::collections::HashMap;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use sha2::{Digest, Sha256};

use self::answer::{MEDIA_TYPE, error_response, json, refuse, status_of};
use self::command::{Accepted, Begun, Done, PageDone, PurgeDone, ViewRoom};
pub(in crate::server) use self::command::{ApiCommand, ApiRoute, CommandContext, ListScope};
use crate::bus::message::{BusRefusal, Outcome, Page, Ticket};
use crate::hub::{Purged, RoomAnswer};
use crate::id::ConnectionId;
use crate::metric::counts;
use crate::net::{BodyDecision, BodyRules, Response};
use crate::owner::{Owner, Owners};
use crate::protocol::ErrorCode;
use crate::settings::{API_KEY_BYTES_MIN, ApiKey, Config};

/// The prefix of all paths of the API.
pub(super) const PREFIX: &str = "/api/";

/// All commands.
static COMMANDS: [ApiCommand; 16] = [
    publish::PUBLISH,
    delete::DELETE,
    purge::PURGE,
    moderation::KICK,
    moderation::DISCONNECT,
    restrictions::BAN,
    restrictions::UNBAN,
    restrictions::MUTE,
    restrictions::UNMUTE,
    restrictions::BANS,
    restrictions::MUTES,
    rooms::ROOMS,
    room::ROOM,
    members::MEMBERS,
    stats::STATS,
    history::HISTORY,
];

/// How many times as long as the message in it a body may be. Many libraries write `ü` as `\u00fc`,
/// which is three times as long.
const ESCAPED_FACTOR: usize = 3;

counts! {
    /// Requests of the API, by outcome.
    struct ApiStats {
        /// HTTP API requests that were carried out.
        accepted: u64 = Counter("api_accepted");
        /// HTTP API requests that repeated the id of an earlier one.
        duplicates: u64 = Counter("api_duplicates");
        /// HTTP API requests rejected for good: wrong key, path or body.
        rejected: u64 = Counter("api_rejected");
        /// HTTP API requests rejected for now; the caller may send them again.
        rejected_temporary: u64 = Counter("api_rejected_temporary");
    }
}

/// The command at a path.
pub(super) fn find(path: &str) -> Option<&'static ApiCommand> {
    COMMANDS.iter().find(|command| command.path == path)
}

/// The paths of all commands.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| command.path)
}

/// A request that waits for the bus.
struct PendingCommand {
    connection: ConnectionId,
    done: Done,
}

/// A request that waits for an answer about a room.
struct PendingQuestion {
    connection: ConnectionId,
    view: ViewRoom,
}

/// A request that waits for a page of history.
struct PendingPage {
    connection: ConnectionId,
    done: PageDone,
}

fn digests(keys: &[ApiKey]) -> Vec<[u8; 32]> {
    keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect()
}

/// See the [module](self).
pub(in crate::server) struct Api {
    /// Digests of the keys. The time that it takes to compare digests tells nothing about a key: nobody
    /// can look for keys whose digests agree a little more.
    keys: Vec<[u8; 32]>,
    body_bytes_max: usize,
    /// Commands that wait for the bus, as many as publications at most. An entry outlives its
    /// connection, not its publication.
    pending: HashMap<Ticket, PendingCommand>,
    /// Commands that wait for an answer about a room; the hub bounds them.
    questions: HashMap<Ticket, PendingQuestion>,
    /// Purges that are not answered, as many as the hub lets wait.
    purges: HashMap<Ticket, (ConnectionId, PurgeDone)>,
    /// Requests that wait for a page, as many as the hub has asked for. An entry outlives its connection, too.
    pages: HashMap<Ticket, PendingPage>,
    stats: ApiStats,
}

impl Api {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keys: digests(&config.api_keys),
            body_bytes_max: config.net.message_bytes_max * ESCAPED_FACTOR,
            pending: HashMap::new(),
            questions: HashMap::new(),
            purges: HashMap::new(),
            pages: HashMap::new(),
            stats: ApiStats::default(),
        }
    }

    /// Replaces the keys.
    pub(in crate::server) fn set_keys(&mut self, keys: &[ApiKey]) {
        self.keys = digests(keys);
    }

    pub(in crate::server) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(in crate::server) fn stats(&self) -> ApiStats {
        self.stats
    }

    /// Whether a request has one of the keys.
    pub(super) fn has_key(&self, request: &Request<()>) -> bool {
        self.is_on() && self.check_key(request.headers()).is_ok()
    }

    /// Checks the head of a request, so that a request that cannot be carried out need not send its
    /// body. Returns how the body is read and the owner of the key, or the answer.
    pub(super) fn check(&mut self, request: &Request<()>, owners: Owners) -> Result<(BodyRules, Owner), Response> {
        let checked = self.check_head(request).map(|key| {
            let owner = owners.api_key(&key);
            (BodyRules { bytes_max: self.body_bytes_max, refuse, owner }, owner)
        });
        checked.inspect_err(|_| self.stats.rejected += 1)
    }

    /// Answers a request for a command that does not exist.
    pub(super) fn not_found(&mut self, path: &str) -> Response {
        self.stats.rejected += 1;
        self.check_is_on().err().unwrap_or_else(|| {
            let paths: Vec<_> = paths().collect();
            refuse(StatusCode::NOT_FOUND, &format!("nothing is at {path}; there are {}", paths.join(", ")))
        })
    }

    fn check_is_on(&self) -> Result<(), Response> {
        if self.is_on() {
            return Ok(());
        }
        let reason = format!(
            "the API is off; start the server with --api-key KEY or ROOMCAST_API_KEY=KEY, a secret of at least \
             {API_KEY_BYTES_MIN} bytes, to turn it on"
        );
        Err(refuse(StatusCode::NOT_FOUND, &reason))
    }

    /// Gives the digest of the key.
    fn check_head(&self, request: &Request<()>) -> Result<[u8; 32], Response> {
        self.check_is_on()?;
        if request.method() != Method::POST {
            let reason = format!("method {}; POST allowed", request.method());
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, &reason).with("Allow", "POST"));
        }
        let key = self.check_key(request.headers())?;
        check_media_type(request.headers()).map(|()| key)
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<[u8; 32], Response> {
        let refuse = |reason| refuse(StatusCode::UNAUTHORIZED, reason).with("WWW-Authenticate", "Bearer");
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
        Ok(digest)
    }

    /// Carries out a request whose head has passed [`Api::check`].
    pub(in crate::server) fn run(
        &mut self,
        context: &mut CommandContext<'_>,
        connection: ConnectionId,
        command: &ApiCommand,
        body: &[u8],
    ) -> BodyDecision {
        let text = std::str::from_utf8(body).map_err(|error| (ErrorCode::BadJson, format!("not UTF-8: {error}")));
        match text.and_then(|text| (command.run)(context, text)) {
            Ok(Begun::Done(body)) => {
                self.stats.accepted += 1;
                BodyDecision::Respond(json(StatusCode::OK, body))
            }
            Ok(Begun::Asked { ticket, done }) => {
                self.pending.insert(ticket, PendingCommand { connection, done });
                BodyDecision::Later
            }
            Ok(Begun::AskedAboutRoom { ticket, view }) => {
                self.questions.insert(ticket, PendingQuestion { connection, view });
                BodyDecision::Later
            }
            Ok(Begun::Purging { ticket, done }) => {
                self.purges.insert(ticket, (connection, done));
                BodyDecision::Later
            }
            Ok(Begun::Reading { ticket, done }) => {
                self.pages.insert(ticket, PendingPage { connection, done });
                BodyDecision::Later
            }
            Err((code, reason)) => BodyDecision::Respond(self.reject(code, &reason)),
        }
    }

    /// The hub has answered a question about a room. Returns the answer and its connection. `nodes` is what a list covers if the bus
    /// could be asked.
    pub(in crate::server) fn finish_question(
        &mut self,
        (ticket, answer): (Ticket, &RoomAnswer),
        nodes: ListScope,
    ) -> Option<(ConnectionId, Response)> {
        let PendingQuestion { connection, view } = self.questions.remove(&ticket)?;
        self.stats.accepted += 1;
        let nodes = if answer.is_current { nodes } else { ListScope::ThisNode };
        Some((connection, json(StatusCode::OK, view(answer, nodes))))
    }

    /// The bus has answered. Returns the answer and its connection, if a request waits for this ticket.
    pub(in crate::server) fn finish(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<(ConnectionId, Response)> {
        let PendingCommand { connection, done } = self.pending.remove(&ticket)?;
        let accepted = match *outcome {
            Outcome::Accepted(seq) | Outcome::AcceptedUnseen(seq) => Accepted { seq, duplicate: false },
            Outcome::Duplicate(seq) => Accepted { seq, duplicate: true },
            Outcome::Refused(refusal) => return Some((connection, self.reject(refusal.code(), refusal.message))),
        };
        let counter = if accepted.duplicate { &mut self.stats.duplicates } else { &mut self.stats.accepted };
        *counter += 1;
        Some((connection, json(StatusCode::OK, done(accepted))))
    }

    /// A purge has come so far that it is answered. Returns the answer and its connection.
    pub(in crate::server) fn finish_purge(
        &mut self,
        ticket: Ticket,
        purged: Purged,
    ) -> Option<(ConnectionId, Response)> {
        let (connection, done) = self.purges.remove(&ticket)?;
        self.stats.accepted += 1;
        Some((connection, json(StatusCode::OK, done(purged))))
    }

    /// The bus has given a page, or refused to. Returns as [`Api::finish`] does.
    pub(in crate::server) fn finish_page(
        &mut self,
        ticket: Ticket,
        page: &Result<Page, BusRefusal>,
    ) -> Option<(ConnectionId, Response)> {
        let PendingPage { connection, done } = self.pages.remove(&ticket)?;
        let response = match page {
            Ok(page) => {
                self.stats.accepted += 1;
                json(StatusCode::OK, done(page))
            }
            Err(refusal) => self.reject(refusal.code(), refusal.message),
        };
        Some((connection, response))
    }

    fn reject(&mut self, code: ErrorCode, reason: &str) -> Response {
        let counter = if code.is_temporary() { &mut self.stats.rejected_temporary } else { &mut self.stats.rejected };
        *counter += 1;
        error_response(status_of(code), code.as_str(), reason, code.is_temporary())
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Response> {
    let refuse = |found: &str| {
        let reason = format!("Content-Type is {found}; {MEDIA_TYPE} is allowed");
        Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &reason))
    };
    let Some(found) = headers.get(CONTENT_TYPE) else { return refuse("missing") };
    let found = found.to_str().unwrap_or("(not text)");
    let kind = found.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(MEDIA_TYPE) { Ok(()) } else { refuse(found) }
}
