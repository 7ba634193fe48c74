//! The HTTP API for back-ends. Commands are JSON, and are carried out like those of the host. They
//! are answered when the bus has answered.

mod answer;
mod broadcast;
mod broadcast_parts;
mod command;
mod delete;
mod finish;
mod history;
mod keys;
mod list;
mod members;
mod moderation;
mod openapi;
mod publish;
mod purge;
mod restrictions;
mod room;
mod rooms;
mod schema;
mod stats;
mod whole_number;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};

use self::answer::{MEDIA_TYPE, error_response, json, refuse, status_of};
use self::broadcast_parts::OpenBroadcasts;
pub(in crate::server) use self::command::{ApiCommand, ApiRoute, CommandContext, ListScope};
use self::command::{Begun, PendingCommand, PendingPage, PendingQuestion, PurgeDone, Reach, too_far};
use self::keys::{Keys, KnownKey};
use crate::budget::units;
use crate::bus::message::Ticket;
use crate::error::Error;
use crate::hub::Refused;
use crate::id::ConnectionId;
use crate::metric::counts;
use crate::net::{BodyDecision, BodyRules, Response};
use crate::owner::Owners;
use crate::protocol::ErrorCode;
use crate::settings::{API_KEY_BYTES_MIN, ApiKey, Config};
use crate::unicode::Escaped;

/// The prefix of all paths of the API.
pub(super) const PREFIX: &str = "/api/";

/// The path of the description of the API.
const DESCRIPTION_PATH: &str = "/api/openapi.json";

/// All commands.
static COMMANDS: &[ApiCommand] = &[
    publish::PUBLISH,
    broadcast::BROADCAST,
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

/// A resource of the API.
#[derive(Clone, Copy, Debug)]
pub(super) enum ApiResource {
    Command(&'static ApiCommand),
    Description,
    Unknown,
}

/// The resource at a path below [`PREFIX`].
pub(super) fn find(path: &str) -> ApiResource {
    if path == DESCRIPTION_PATH {
        return ApiResource::Description;
    }
    let name = path.strip_prefix(PREFIX).unwrap_or_default();
    COMMANDS.iter().find(|command| command.name == name).map_or(ApiResource::Unknown, ApiResource::Command)
}

/// The paths of all resources.
pub(super) fn paths() -> impl Iterator<Item = String> {
    COMMANDS.iter().map(|command| format!("{PREFIX}{}", command.name)).chain([DESCRIPTION_PATH.to_owned()])
}

/// Checks keys, and that the commands exist that they are limited to.
///
/// # Errors
/// [`Error::Config`] with the first that cannot be used. It repeats nothing of a key, nor of what stands beside it.
pub(in crate::server) fn check_keys(keys: &[ApiKey]) -> Result<(), Error> {
    ApiKey::check_all(keys)?;
    let exists = |name: &String| COMMANDS.iter().any(|command| command.name == name);
    for (index, key) in keys.iter().enumerate() {
        let commands = key.limits().commands().unwrap_or_default();
        if let Some(unknown) = commands.iter().position(|name| !exists(name)) {
            let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
            let (key, unknown, names) = (index + 1, unknown + 1, names.join(", "));
            let problem = format!("api-key {key}: command {unknown} of its list does not exist; there are {names}");
            return Err(Error::Config(problem));
        }
    }
    Ok(())
}

/// See the [module](self).
pub(in crate::server) struct Api {
    keys: Keys,
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
    /// Broadcasts that wait for it.
    broadcasts: OpenBroadcasts,
    /// Units of work beyond one a request.
    work: u32,
    /// The description, once somebody has asked for it.
    description: OnceCell<Vec<u8>>,
    stats: ApiStats,
}

impl Api {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keys: Keys::new(&config.api_keys),
            body_bytes_max: config.net.message_bytes_max * ESCAPED_FACTOR,
            pending: HashMap::new(),
            questions: HashMap::new(),
            purges: HashMap::new(),
            pages: HashMap::new(),
            broadcasts: OpenBroadcasts::default(),
            work: 0,
            description: OnceCell::new(),
            stats: ApiStats::default(),
        }
    }

    /// Replaces the keys, which have passed [`check_keys`].
    pub(in crate::server) fn set_keys(&mut self, keys: &[ApiKey]) {
        self.keys = Keys::new(keys);
    }

    pub(in crate::server) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(in crate::server) fn stats(&self) -> ApiStats {
        self.stats
    }

    /// Units of work since the last call, beyond one a request: the messages of a broadcast.
    pub(in crate::server) fn take_work(&mut self) -> u32 {
        std::mem::take(&mut self.work)
    }

    /// Whether a request has one of the keys.
    pub(super) fn has_key(&self, request: &Request<()>) -> bool {
        self.is_on() && self.keys.find(request.headers()).is_ok()
    }

    /// Checks the head of a request, so that a request that cannot be carried out need not send its
    /// body. Returns how the body is read and the owner of the key, or the answer.
    pub(super) fn check(
        &mut self,
        request: &Request<()>,
        command: &'static ApiCommand,
        owners: Owners,
    ) -> Result<(BodyRules, ApiRoute), Response> {
        let checked = self.check_head(request, command).map(|key| {
            let owner = owners.api_key(&key.digest);
            let bytes_max = self.body_bytes_max + command.body_bytes_extra;
            (BodyRules { bytes_max, refuse, owner }, ApiRoute { command, key, owner })
        });
        checked.inspect_err(|_| self.stats.rejected += 1)
    }

    /// Answers a request for a resource that does not exist.
    pub(super) fn not_found(&mut self, path: &str) -> Response {
        self.stats.rejected += 1;
        self.check_is_on().err().unwrap_or_else(|| {
            let paths: Vec<_> = paths().collect();
            refuse(StatusCode::NOT_FOUND, &format!("nothing is at {path}; there are {}", paths.join(", ")))
        })
    }

    /// Answers with the description of the API, to holders of any key.
    pub(super) fn describe(&mut self, request: &Request<()>) -> Response {
        let checked = self.check_is_on().and_then(|()| {
            check_method(request, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            self.keys.find(request.headers()).map(|_| ())
        });
        match checked {
            Ok(()) => {
                let text = self.description.get_or_init(|| openapi::description(PREFIX, COMMANDS));
                json(StatusCode::OK, text.clone())
            }
            Err(response) => {
                self.stats.rejected += 1;
                response
            }
        }
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

    fn check_head(&self, request: &Request<()>, command: &ApiCommand) -> Result<Arc<KnownKey>, Response> {
        self.check_is_on()?;
        check_method(request, &[Method::POST], "POST")?;
        let key = self.keys.find(request.headers())?;
        check_media_type(request.headers())?;
        check_command(key, command).map_err(|reason| {
            log::info!("api: refused {}, asked for by key {}: {reason}", command.name, key.name);
            refuse(StatusCode::FORBIDDEN, &reason)
        })?;
        Ok(Arc::clone(key))
    }

    /// Carries out a request whose head has passed [`Api::check`].
    pub(in crate::server) fn run(
        &mut self,
        context: &mut CommandContext<'_>,
        connection: ConnectionId,
        body: &[u8],
    ) -> BodyDecision {
        let text = std::str::from_utf8(body).map_err(|error| (ErrorCode::BadJson, format!("not UTF-8: {error}")));
        let begun = text.and_then(|text| {
            context.check_reach(text)?;
            (context.route.command.run)(context, text)
        });
        let begun = begun.and_then(|begun| match begun {
            Begun::AskedForRooms(parts) => {
                self.work += units(parts.len() as u32, parts.len() * body.len());
                // The bus was asked for no room.
                let is_refused = parts.is_complete();
                if is_refused {
                    parts.answer().map(|answer| Begun::Done(answer.body))
                } else {
                    Ok(Begun::AskedForRooms(parts))
                }
            }
            begun => Ok(begun),
        });
        audit(context, &begun);
        match begun {
            Ok(Begun::Done(body)) => {
                self.stats.accepted += 1;
                BodyDecision::Respond(json(StatusCode::OK, body))
            }
            Ok(Begun::Asked { ticket, done }) => {
                self.pending.insert(ticket, PendingCommand { connection, done });
                BodyDecision::Later
            }
            Ok(Begun::AskedForRooms(parts)) => {
                self.broadcasts.insert(connection, parts);
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

    fn reject(&mut self, code: ErrorCode, reason: &str) -> Response {
        let counter = if code.is_temporary() { &mut self.stats.rejected_temporary } else { &mut self.stats.rejected };
        *counter += 1;
        error_response(status_of(code), code.as_str(), reason, code.is_temporary())
    }
}

/// Has the log tell which key has asked for what.
fn audit(context: &CommandContext<'_>, begun: &Result<Begun, Refused>) {
    let (command, key) = (context.route.command, &context.route.key.name);
    let act = Escaped(if context.act.is_empty() { command.name } else { &context.act });
    match begun {
        Ok(_) => log::log!(command.audit, "api: {act}, asked for by key {key}"),
        Err((ErrorCode::Forbidden, reason)) => {
            log::info!("api: refused {}, asked for by key {key}: {}", command.name, Escaped(reason));
        }
        Err(_) => {}
    }
}

fn check_method(request: &Request<()>, allowed: &[Method], allow: &'static str) -> Result<(), Response> {
    if allowed.contains(request.method()) {
        return Ok(());
    }
    let reason = format!("method {}; {allow} allowed", request.method());
    Err(refuse(StatusCode::METHOD_NOT_ALLOWED, &reason).with("Allow", allow))
}

/// Whether a key may use a command at all.
fn check_command(key: &KnownKey, command: &ApiCommand) -> Result<(), String> {
    if !key.limits.allow_command(command.name) {
        return Err(format!("the key does not allow {}", command.name));
    }
    if key.limits.are_of_rooms() && command.reach == Reach::Everything {
        return Err(too_far(command.name).1);
    }
    Ok(())
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
