//! `POST /api/delete`: the text of a message goes, and a tombstone stays under its number.

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::to_json;
use super::command::{Accepted, ApiCommand, Begun, CommandContext, Reach, room_of};
use super::schema::{self, Operation, answer, count, flag, number, object};
use super::whole_number::WholeNumber;
use crate::hub::{MessageRef, Refused};
use crate::id::Epoch;
use crate::protocol::{self, EPOCH_BYTES_MAX, ErrorCode, Text};

pub(super) const DELETE: ApiCommand =
    ApiCommand { name: "delete", reach: Reach::Room, audit: Level::Info, body_bytes_extra: 0, operation, run: delete };

/// The body of `POST /api/delete`.
#[derive(Deserialize)]
struct DeleteBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    seq: Option<WholeNumber>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

#[derive(Serialize)]
struct Deleted<'a> {
    room: &'a str,
    seq: u64,
    duplicate: bool,
}

fn operation() -> Operation {
    let epoch = json!({"type": "string", "minLength": 1, "maxLength": EPOCH_BYTES_MAX});
    Operation {
        summary: "Takes the text of a message away, on all nodes.",
        request: object([
            ("room", schema::room()),
            ("seq", number(1, u64::MAX, "The number of the message.")),
            ("epoch?", schema::described(epoch, "The epoch of the number; the present one if it is missing.")),
        ]),
        response: answer([
            ("room", schema::room()),
            ("seq", count("The number of the message.")),
            ("duplicate", flag("Whether it was deleted before.")),
        ]),
    }
}

fn delete(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: DeleteBody<'_> = protocol::parse_object(body)?;
    let room = room_of("delete", body.room.as_deref())?;
    let seq = body.seq.map(u64::from).ok_or_else(|| (ErrorCode::BadMessage, "delete without seq".to_owned()))?;
    let epoch = body.epoch.as_deref();
    if let Some(found) = epoch.map(str::len).filter(|bytes| !(1..=EPOCH_BYTES_MAX).contains(bytes)) {
        return Err((ErrorCode::BadMessage, format!("epoch of {found} bytes; 1 to {EPOCH_BYTES_MAX} are allowed")));
    }
    let message = MessageRef { room, seq, epoch: epoch.map(Epoch::new) };
    context.tell(format_args!("delete {message}"));
    let ticket = context.hub.delete_for_api(context.now, context.owner(), &message)?;
    let done = move |Accepted { duplicate, .. }| to_json(&Deleted { room: message.room.as_str(), seq, duplicate });
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}
