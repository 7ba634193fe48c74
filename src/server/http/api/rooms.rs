//! `POST /api/rooms`: the rooms of this node, by name.

use log::Level;
use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach};
use super::list::{self, limit_of};
use super::schema::{self, Operation, answer, count, object};
use super::whole_number::WholeNumber;
use crate::hub::{Refused, RoomSummary};
use crate::id::RoomName;
use crate::protocol::{self, ErrorCode, Text};
use crate::rights::RoomPattern;

pub(super) const ROOMS: ApiCommand = ApiCommand {
    name: "rooms",
    reach: Reach::Everything,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: list_rooms,
};

/// The pattern of all rooms.
const ALL: &str = "*";

#[derive(Deserialize)]
struct RoomsBody<'a> {
    limit: Option<WholeNumber>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    #[serde(borrow, rename = "match")]
    pattern: Option<Text<'a>>,
}

#[derive(Serialize)]
struct SummaryView<'a> {
    room: &'a str,
    users: usize,
    connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

/// A page of the list. `more` says whether the next one has any.
#[derive(Serialize)]
struct RoomList<'a> {
    rooms: Vec<SummaryView<'a>>,
    more: bool,
    nodes: ListScope,
}

fn view(RoomSummary { name, users, connections, seq }: RoomSummary<'_>) -> SummaryView<'_> {
    SummaryView { room: name.as_str(), users, connections, seq }
}

fn operation() -> Operation {
    let room = answer([
        ("room", schema::room()),
        ("users", count("Users that are present, on all nodes.")),
        ("connections", count("Connections to this node that are in the room.")),
        ("seq?", count("The number of the last message.")),
    ]);
    Operation {
        summary: "Lists the rooms of this node.",
        request: object([
            ("limit?", list::limit()),
            ("after?", schema::described(schema::room(), "The last room of the page before.")),
            ("match?", schema::room_pattern()),
        ]),
        response: answer([("rooms", schema::list(&room)), ("more", list::more()), ("nodes", schema::nodes())]),
    }
}

fn list_rooms(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let RoomsBody { limit, after, pattern } = protocol::parse_object(body)?;
    let limit = limit_of(limit)?;
    let bad = |field: &str, error: &dyn std::fmt::Display| (ErrorCode::BadMessage, format!("{field}: {error}"));
    let pattern = pattern.as_deref().unwrap_or(ALL).parse::<RoomPattern>().map_err(|error| bad("match", &error))?;
    let after = after.as_deref().map(RoomName::new).transpose().map_err(|error| bad("after", &error))?;
    let mut found = context.hub.list_rooms(&pattern, after.as_ref());
    let rooms: Vec<_> = found.by_ref().take(limit).map(view).collect();
    let (listed, more) = (rooms.len(), found.next().is_some());
    drop(found);
    // Other nodes have rooms of their own.
    let list = to_json(&RoomList { rooms, more, nodes: ListScope::ThisNode });
    context.hub.note_listed(listed);
    Ok(Begun::Done(list))
}
