//! `POST /api/purge`: all messages of a user are deleted.

use log::Level;
use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, Reach, room_of, user_of};
use super::schema::{self, Operation, answer, count, flag, object};
use crate::hub::{Purged, Refused};
use crate::protocol::{self, Text};

pub(super) const PURGE: ApiCommand = ApiCommand {
    name: "purge",
    reach: Reach::RoomOrEverything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation,
    run: purge,
};

/// The body of `POST /api/purge`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PurgeBody<'a> {
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PurgedView<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    deleted: u64,
    complete: bool,
}

fn operation() -> Operation {
    Operation {
        summary: "Deletes what a user has said, in a room or in all rooms that have members.",
        request: object([("userId", schema::user_id()), ("room?", schema::room())]),
        response: answer([
            ("userId", schema::user_id()),
            ("room?", schema::room()),
            ("deleted", count("Messages that this node has deleted.")),
            ("complete", flag("Whether the purge has ended on this node, and nothing was left out.")),
        ]),
    }
}

fn purge(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: PurgeBody<'_> = protocol::parse_object(body)?;
    let user = user_of("purge", body.user_id.as_deref())?;
    let room = body.room.as_deref().map(|room| room_of("purge", Some(room))).transpose()?;
    match &room {
        Some(room) => context.tell(format_args!("purge {user} from room {room}")),
        None => context.tell(format_args!("purge {user} from all rooms")),
    }
    let ticket = context.hub.purge_for_api(context.now, context.owner(), (&user, room.as_ref()))?;
    let done = move |Purged { deleted, is_complete }| {
        let room = room.as_ref().map(|room| room.as_str());
        to_json(&PurgedView { user_id: user.as_str(), room, deleted, complete: is_complete })
    };
    Ok(Begun::Purging { ticket, done: Box::new(done) })
}
