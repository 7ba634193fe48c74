//! `POST /api/kick` takes a user out of a room, and `POST /api/disconnect` off the server.

use log::Level;
use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, Reach, room_of, user_of};
use super::schema::{self, Operation, answer, number, object, text_of_bytes};
use super::whole_number::WholeNumber;
use crate::hub::{Moderation, Refused};
use crate::id::UserId;
use crate::protocol::{self, CLOSE_REASON_BYTES_MAX, CloseReason, ErrorCode, Text};

pub(super) const KICK: ApiCommand = ApiCommand {
    name: "kick",
    reach: Reach::Room,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_kick,
    run: kick,
};

pub(super) const DISCONNECT: ApiCommand = ApiCommand {
    name: "disconnect",
    reach: Reach::Everything,
    audit: Level::Info,
    body_bytes_extra: 0,
    operation: describe_disconnect,
    run: disconnect,
};

/// The body of `POST /api/kick` and `POST /api/disconnect`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModerationBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    code: Option<WholeNumber>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moderated<'a> {
    user_id: &'a str,
}

fn describe_kick() -> Operation {
    Operation {
        summary: "Takes all connections of a user out of a room, on all nodes.",
        request: object([("room", schema::room()), ("userId", schema::user_id())]),
        response: answer([("userId", schema::user_id())]),
    }
}

fn describe_disconnect() -> Operation {
    Operation {
        summary: "Closes all connections of a user, on all nodes.",
        request: object([
            ("userId", schema::user_id()),
            ("code?", number(4000, 4999, "The close code; 4500 if it is missing.")),
            ("reason?", text_of_bytes(CLOSE_REASON_BYTES_MAX, "The reason that the user is told")),
        ]),
        response: answer([("userId", schema::user_id())]),
    }
}

fn kick(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: ModerationBody<'_> = protocol::parse_object(body)?;
    let room = room_of("kick", body.room.as_deref())?;
    let user = user_of("kick", body.user_id.as_deref())?;
    moderate(context, &Moderation::Kick { room, user: user.clone() }, user)
}

fn disconnect(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: ModerationBody<'_> = protocol::parse_object(body)?;
    let user = user_of("disconnect", body.user_id.as_deref())?;
    let usual = CloseReason::EXPELLED;
    // A number that is no code at all is refused like one that is not allowed.
    let code = body.code.map_or(usual.code(), |code| u64::from(code).try_into().unwrap_or(u16::MAX));
    let reason = body.reason.as_deref().unwrap_or(usual.reason());
    let moderation = Moderation::disconnect(user.clone(), code, reason);
    moderate(context, &moderation.map_err(|message| (ErrorCode::BadMessage, message))?, user)
}

fn moderate(context: &mut CommandContext<'_>, moderation: &Moderation, user: UserId) -> Result<Begun, Refused> {
    context.tell(moderation);
    let ticket = context.hub.moderate_for_api(context.now, context.owner(), moderation)?;
    let done = move |_| to_json(&Moderated { user_id: user.as_str() });
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}
