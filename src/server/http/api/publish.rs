//! `POST /api/publish`: a message into a room.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::to_json;
use super::command::{Accepted, ApiCommand, Begun, CommandContext, room_of, user_of};
use crate::hub::{HostPublication, Refused};
use crate::protocol::{self, Text, present};

pub(super) const PUBLISH: ApiCommand = ApiCommand { path: "/api/publish", run: publish };

/// The user of a message that is published without a `userId`.
const SPEAKER: &str = "server";

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
    let ticket = context.hub.publish_for_api(context.now, context.owner, &publication)?;
    let room = publication.room;
    let done = move |Accepted { seq, duplicate }| to_json(&Published { room: room.as_str(), seq, duplicate });
    Ok(Begun::Asked { ticket, done: Box::new(done) })
}
