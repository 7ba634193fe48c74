//! `POST /api/ban`, `/api/unban`, `/api/mute` and `/api/unmute`, and the lists of both: `/api/bans` and `/api/mutes`.

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach, room_of, user_of};
use super::list::{self, limit_of};
use super::schema::{self, Operation, answer, flag, number, object, text_of_bytes};
use super::whole_number::WholeNumber;
use crate::hub::{Moderation, Refused};
use crate::protocol::{self, ErrorCode, Text};
use crate::restrictions::{REASON_BYTES_MAX, Restriction, RestrictionKind, RestrictionTarget, Term};

pub(super) const BAN: ApiCommand = ApiCommand {
    name: "ban",
    reach: Reach::Everything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_ban,
    run: ban,
};

pub(super) const UNBAN: ApiCommand = ApiCommand {
    name: "unban",
    reach: Reach::Everything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_unban,
    run: unban,
};

pub(super) const MUTE: ApiCommand = ApiCommand {
    name: "mute",
    reach: Reach::RoomOrEverything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_mute,
    run: mute,
};

pub(super) const UNMUTE: ApiCommand = ApiCommand {
    name: "unmute",
    reach: Reach::RoomOrEverything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_unmute,
    run: unmute,
};

pub(super) const BANS: ApiCommand = ApiCommand {
    name: "bans",
    reach: Reach::Everything,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation: describe_bans,
    run: list_bans,
};

pub(super) const MUTES: ApiCommand = ApiCommand {
    name: "mutes",
    reach: Reach::Everything,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation: describe_mutes,
    run: list_mutes,
};

/// The longest time to live, which no sum with the time overflows: ten years.
const TTL_SECONDS_MAX: u64 = 10 * 366 * 24 * 60 * 60;

/// The target in a body: of a ban a user or a network, of a mute a user, and a room or none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetBody<'a> {
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    network: Option<Text<'a>>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
}

/// What else is in a body of `POST /api/ban` and `POST /api/mute`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TermBody<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    ttl_seconds: Option<WholeNumber>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListBody<'a> {
    limit: Option<WholeNumber>,
    #[serde(borrow)]
    after: Option<TargetBody<'a>>,
}

/// A restriction as callers see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestrictionView<'a> {
    #[serde(flatten)]
    target: TargetView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
}

/// A page of a list. `more` says whether the next one has any.
#[derive(Serialize)]
struct List<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    bans: Option<&'a [RestrictionView<'a>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutes: Option<&'a [RestrictionView<'a>]>,
    more: bool,
    nodes: ListScope,
}

impl<'a> TargetView<'a> {
    fn of(target: &'a RestrictionTarget) -> Self {
        match target {
            RestrictionTarget::BannedUser(user) => Self { user_id: Some(user.as_str()), ..Self::default() },
            RestrictionTarget::BannedNetwork(network) => Self { network: Some(network.to_string()), ..Self::default() },
            RestrictionTarget::Muted { user, room } => {
                let room = room.as_ref().map(|room| room.as_str());
                Self { user_id: Some(user.as_str()), room, ..Self::default() }
            }
        }
    }
}

impl TargetBody<'_> {
    fn banned(&self, command: &str) -> Result<RestrictionTarget, Refused> {
        match (&self.user_id, &self.network) {
            (None, Some(network)) => {
                let network = network.parse().map_err(|error| bad(format!("network: {error}")))?;
                Ok(RestrictionTarget::BannedNetwork(network))
            }
            (Some(user), None) => Ok(RestrictionTarget::BannedUser(user_of(command, Some(user))?)),
            (None, None) => Err(bad(format!("{command} without userId and network; one of them is needed"))),
            (Some(_), Some(_)) => Err(bad(format!("{command} with userId and network; one of them is allowed"))),
        }
    }

    fn muted(&self, command: &str) -> Result<RestrictionTarget, Refused> {
        let user = user_of(command, self.user_id.as_deref())?;
        let room = self.room.as_deref().map(|room| room_of(command, Some(room))).transpose()?;
        Ok(RestrictionTarget::Muted { user, room })
    }
}

/// The fields of a target as a body has them: of a user or of a network, and some more.
fn banned(more: &[(&str, Value)]) -> Value {
    let network = json!({"type": "string", "format": "roomcast-network"});
    let network = schema::described(network, "A network as 192.0.2.0/24 or 2001:db8::/32, or an address.");
    let none = || json!({"type": "null"});
    let either =
        [("userId", schema::user_id(), "network?"), ("network", network, "userId?")].map(|(name, target, other)| {
            let target = [(name, target), (other, none())];
            object(target.into_iter().chain(more.iter().cloned()))
        });
    json!({"oneOf": either})
}

fn muted(more: &[(&'static str, Value)]) -> Value {
    let target = [("userId", schema::user_id()), ("room?", schema::room())];
    object(target.into_iter().chain(more.iter().cloned()))
}

fn term() -> [(&'static str, Value); 2] {
    [
        ("reason?", text_of_bytes(REASON_BYTES_MAX, "The reason that the person is told")),
        ("ttlSeconds?", number(1, TTL_SECONDS_MAX, "After so many seconds it expires.")),
    ]
}

fn view() -> Value {
    answer([
        ("userId?", schema::user_id()),
        ("network?", json!({"type": "string"})),
        ("room?", schema::room()),
        ("reason?", json!({"type": "string"})),
        ("expiresAt?", schema::count("When it expires, in Unix milliseconds.")),
    ])
}

fn describe_ban() -> Operation {
    let summary = "Bans a user or a network, on all nodes.";
    Operation { summary, request: banned(&term()), response: view() }
}

fn describe_unban() -> Operation {
    Operation { summary: "Lifts a ban, if there is one.", request: banned(&[]), response: view() }
}

fn describe_mute() -> Operation {
    let summary = "Mutes a user in a room or everywhere, on all nodes.";
    Operation { summary, request: muted(&term()), response: view() }
}

fn describe_unmute() -> Operation {
    Operation { summary: "Lifts a mute, if there is one.", request: muted(&[]), response: view() }
}

fn page(after: Value) -> Value {
    object([("limit?", list::limit()), ("after?", schema::described(after, "The last entry of the page before."))])
}

fn describe_list(name: &'static str) -> Value {
    answer([
        (name, schema::list(&view())),
        ("more", flag("Whether there is another page.")),
        ("nodes", schema::nodes()),
    ])
}

fn describe_bans() -> Operation {
    Operation { summary: "Lists the bans.", request: page(banned(&[])), response: describe_list("bans") }
}

fn describe_mutes() -> Operation {
    Operation { summary: "Lists the mutes.", request: page(muted(&[])), response: describe_list("mutes") }
}

fn bad(message: String) -> Refused {
    (ErrorCode::BadMessage, message)
}

fn ban(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let target = protocol::parse_object::<TargetBody<'_>>(body)?.banned("ban")?;
    restrict(context, target, body)
}

fn unban(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let target = protocol::parse_object::<TargetBody<'_>>(body)?.banned("unban")?;
    moderate(context, &Moderation::Lift(target.clone()), Restriction::new(target))
}

fn mute(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let target = protocol::parse_object::<TargetBody<'_>>(body)?.muted("mute")?;
    restrict(context, target, body)
}

fn unmute(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let target = protocol::parse_object::<TargetBody<'_>>(body)?.muted("unmute")?;
    moderate(context, &Moderation::Lift(target.clone()), Restriction::new(target))
}

fn restrict(context: &mut CommandContext<'_>, target: RestrictionTarget, body: &str) -> Result<Begun, Refused> {
    let TermBody { reason, ttl_seconds } = protocol::parse_object(body)?;
    let ttl_seconds = ttl_seconds.map(u64::from);
    if let Some(ttl) = ttl_seconds.filter(|ttl| !(1..=TTL_SECONDS_MAX).contains(ttl)) {
        return Err(bad(format!("ttlSeconds is {ttl}; 1 to {TTL_SECONDS_MAX} are allowed")));
    }
    let expires_at = ttl_seconds.map(|ttl| context.now.unix_ms + ttl * 1000);
    let reason = reason.as_deref().filter(|reason| !reason.is_empty()).map(str::to_owned);
    let restriction = Restriction { target, reason, expires_at };
    moderate(context, &Moderation::Restrict(restriction.clone()), restriction)
}

fn moderate(
    context: &mut CommandContext<'_>,
    moderation: &Moderation,
    restriction: Restriction,
) -> Result<Begun, Refused> {
    context.tell(moderation);
    let ticket = context.hub.moderate_for_api(context.now, context.owner(), moderation)?;
    let done = move |_| {
        let Restriction { target, reason, expires_at } = &restriction;
        let (target, reason) = (TargetView::of(target), reason.as_deref());
        to_json(&RestrictionView { target, reason, expires_at: *expires_at })
    };
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}

fn list_bans(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let ListBody { limit, after } = protocol::parse_object(body)?;
    let after = after.map(|after| after.banned("bans after")).transpose()?;
    list(context, RestrictionKind::Bans, (limit, after))
}

fn list_mutes(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let ListBody { limit, after } = protocol::parse_object(body)?;
    let after = after.map(|after| after.muted("mutes after")).transpose()?;
    list(context, RestrictionKind::Mutes, (limit, after))
}

fn list(
    context: &CommandContext<'_>,
    kind: RestrictionKind,
    (limit, after): (Option<WholeNumber>, Option<RestrictionTarget>),
) -> Result<Begun, Refused> {
    let limit = limit_of(limit)?;
    let table = context.hub.restrictions();
    if !table.are_loaded() {
        return Err((ErrorCode::Unavailable, "the bans and mutes are not loaded yet".to_owned()));
    }
    let mut found = table.list(context.now.unix_ms, kind, after);
    let views: Vec<_> = found
        .by_ref()
        .take(limit)
        .map(|(target, Term { reason, expires_at })| RestrictionView {
            target: TargetView::of(target),
            reason: reason.as_deref(),
            expires_at: *expires_at,
        })
        .collect();
    let (more, nodes) = (found.next().is_some(), context.scope);
    let (bans, mutes) = match kind {
        RestrictionKind::Bans => (Some(&*views), None),
        RestrictionKind::Mutes => (None, Some(&*views)),
    };
    Ok(Begun::Done(to_json(&List { bans, mutes, more, nodes })))
}
