//! `POST /api/kick` takes a user out of a room, and `POST /api/disconnect` off the server.

use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, room_of, user_of};
use crate::hub::{Moderation, Refused};
use crate::id::UserId;
use crate::protocol::{self, CloseReason, ErrorCode, Text};

pub(super) const KICK: ApiCommand = ApiCommand { path: "/api/kick", run: kick };
pub(super) const DISCONNECT: ApiCommand = ApiCommand { path: "/api/disconnect", run: disconnect };

/// The body of `POST /api/kick` and `POST /api/disconnect`.
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
    let code = body.code.unwrap_or(usual.code());
    let reason = body.reason.as_deref().unwrap_or(usual.reason());
    let moderation = Moderation::disconnect(user.clone(), code, reason);
    moderate(context, &moderation.map_err(|message| (ErrorCode::BadMessage, message))?, user)
}

fn moderate(context: &mut CommandContext<'_>, moderation: &Moderation, user: UserId) -> Result<Begun, Refused> {
    let ticket = context.hub.moderate_for_api(context.now, context.owner, moderation)?;
    let done = move |_| to_json(&Moderated { user_id: user.as_str() });
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}
