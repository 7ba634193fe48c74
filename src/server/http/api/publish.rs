//! `POST /api/publish`: a message into a room.

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::to_json;
use super::command::{Accepted, ApiCommand, Begun, CommandContext, Reach, room_of, user_of};
use super::schema::{self, Operation, answer, count, flag, object};
use crate::hub::{HostPublication, Refused};
use crate::protocol::{self, Text, present};

pub(super) const PUBLISH: ApiCommand = ApiCommand {
    name: "publish",
    reach: Reach::Room,
    // There are as many as there are messages, and the history has them all.
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: publish,
};

/// The user of a message that is published without a `userId`.
pub(super) const SPEAKER: &str = "server";

/// The body of `POST /api/publish`. Unknown fields are ignored.
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

fn operation() -> Operation {
    Operation {
        summary: "Says something in a room.",
        request: object([
            ("room", schema::room()),
            ("text", schema::text()),
            ("data?", schema::data()),
            ("userId?", schema::user_id()),
            ("name?", schema::shown_name()),
            ("id?", schema::message_id()),
        ]),
        response: answer([
            ("room", schema::room()),
            ("seq", count("The number of the message in its room.")),
            ("duplicate", flag("Whether an earlier request had said it.")),
        ]),
    }
}

fn publish(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: PublishBody<'_> = protocol::parse_object(body)?;
    let room = room_of("publish", body.room.as_deref())?;
    let user = user_of("publish", Some(body.user_id.as_deref().unwrap_or(SPEAKER)))?;
    let publication = HostPublication {
        room,
        user,
        name: body.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
        text: body.text.as_deref().unwrap_or_default().to_owned(),
        data: body.data.map(ToOwned::to_owned),
        id: body.id.as_deref().map(str::to_owned),
    };
    context.tell(format_args!("publish into room {}", publication.room));
    let ticket = context.hub.publish_for_api(context.now, context.owner(), &publication)?;
    let room = publication.room;
    let done = move |Accepted { seq, duplicate }| to_json(&Published { room: room.as_str(), seq, duplicate });
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}
