//! `POST /api/broadcast`: one message into many rooms.

use std::collections::HashSet;

use log::Level;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::broadcast_parts::BroadcastParts;
use super::command::{ApiCommand, Begun, CommandContext, Reach, room_of, user_of};
use super::publish::SPEAKER;
use super::schema::{self, Operation, answer, count, flag, object};
use crate::hub::{HostPublication, Refused};
use crate::id::{NAME_BYTES_MAX, RoomName};
use crate::protocol::{self, ErrorCode, Text, present};

/// The most rooms of one request: their messages are made in one turn.
const ROOMS_MAX: usize = 100;

/// How many bytes a name takes in JSON at most, if letters that need no escape are escaped: `\u00fc` for two bytes.
const NAME_JSON_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 4;

pub(super) const BROADCAST: ApiCommand = ApiCommand {
    name: "broadcast",
    reach: Reach::EachRoom,
    audit: Level::Info,
    body_bytes_extra: ROOMS_MAX * NAME_JSON_BYTES_MAX,
    operation,
    run: broadcast,
};

/// The body. Unknown fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BroadcastBody<'a> {
    #[serde(borrow)]
    rooms: Option<Vec<Text<'a>>>,
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

fn operation() -> Operation {
    let rooms =
        json!({"type": "array", "items": schema::room(), "minItems": 1, "maxItems": ROOMS_MAX, "uniqueItems": true});
    let said = answer([
        ("room", schema::room()),
        ("seq", count("The number of the message in its room.")),
        ("duplicate", flag("Whether an earlier request had said it.")),
    ]);
    let refused = answer([("room", schema::room()), ("error", schema::error_detail())]);
    Operation {
        summary: "Says the same in many rooms.",
        request: object([
            ("rooms", rooms),
            ("text", schema::text()),
            ("data?", schema::data()),
            ("userId?", schema::user_id()),
            ("name?", schema::shown_name()),
            ("id?", schema::message_id()),
        ]),
        response: answer([("rooms", schema::list(&json!({"oneOf": [said, refused]})))]),
    }
}

fn rooms_of(rooms: Option<Vec<Text<'_>>>) -> Result<Vec<RoomName>, Refused> {
    let bad = |message: String| (ErrorCode::BadMessage, message);
    let rooms = rooms.ok_or_else(|| bad("broadcast without rooms".to_owned()))?;
    if !(1..=ROOMS_MAX).contains(&rooms.len()) {
        return Err(bad(format!("{} rooms; 1 to {ROOMS_MAX} are allowed", rooms.len())));
    }
    let rooms = rooms.iter().map(|room| room_of("broadcast", Some(room))).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::new();
    // Without an id nothing else would keep it from being said there twice.
    match rooms.iter().find(|room| !seen.insert(*room)) {
        Some(room) => Err(bad(format!("room {room} is given twice"))),
        None => Ok(rooms),
    }
}

fn broadcast(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: BroadcastBody<'_> = protocol::parse_object(body)?;
    let rooms = rooms_of(body.rooms)?;
    let Some(first) = rooms.first() else { return Err((ErrorCode::BadMessage, "no rooms".to_owned())) };
    let mut publication = HostPublication {
        room: first.clone(),
        user: user_of("broadcast", Some(body.user_id.as_deref().unwrap_or(SPEAKER)))?,
        name: body.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
        text: body.text.as_deref().unwrap_or_default().to_owned(),
        data: body.data.map(ToOwned::to_owned),
        id: body.id.as_deref().map(str::to_owned),
    };
    context.tell(format_args!("broadcast into {} rooms, {first} first", rooms.len()));
    let mut parts = BroadcastParts::default();
    for room in rooms {
        let asked = context.allows_room(&room).and_then(|()| {
            publication.room = room.clone();
            context.hub.publish_for_api(context.now, context.owner(), &publication)
        });
        parts.push(room, asked);
    }
    Ok(Begun::AskedForRooms(parts))
}
