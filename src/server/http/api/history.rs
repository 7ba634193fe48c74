//! `POST /api/history`: a page of what was said in a room.

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach, room_of};
use super::schema::{self, Operation, answer, number, object};
use super::whole_number::WholeNumber;
use crate::bus::message::Page;
use crate::hub::{HistoryQuestion, Refused};
use crate::protocol::{self, ErrorCode, HISTORY_LIMIT_MAX, Text};

pub(super) const HISTORY: ApiCommand = ApiCommand {
    name: "history",
    reach: Reach::Room,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: history,
};

/// The body of `POST /api/history`. Unknown fields are ignored.
#[derive(Deserialize)]
struct HistoryBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    before: Option<WholeNumber>,
    limit: Option<WholeNumber>,
}

#[derive(Serialize)]
struct Head<'a> {
    room: &'a str,
    epoch: &'a str,
}

/// The bus has the messages of all nodes.
#[derive(Serialize)]
struct Tail {
    more: bool,
    nodes: ListScope,
}

fn operation() -> Operation {
    let more = schema::flag("Whether there are older messages.");
    Operation {
        summary: "Tells what was said in a room, oldest first.",
        request: object([
            ("room", schema::room()),
            ("before?", number(0, u64::MAX, "Messages with lower numbers; without it, the newest.")),
            ("limit?", number(1, HISTORY_LIMIT_MAX.into(), "At most so many; as many as may be if it is missing.")),
        ]),
        response: answer([
            ("room", schema::room()),
            ("epoch", schema::described(json!({"type": "string"}), "The numbers count in it.")),
            ("messages", schema::list(&json!({"type": "object"}))),
            ("more", more),
            ("nodes", schema::nodes()),
        ]),
    }
}

fn history(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let HistoryBody { room, before, limit } = protocol::parse_object(body)?;
    let room = room_of("history", room.as_deref())?;
    let limit = limit.map_or(HISTORY_LIMIT_MAX, |limit| u64::from(limit).try_into().unwrap_or(u32::MAX));
    let limit = protocol::check_history_limit(limit).map_err(|message| (ErrorCode::BadMessage, message))?;
    let question = HistoryQuestion { room: room.clone(), before: before.map(u64::from), limit };
    let ticket = context.hub.read_history_for_api(context.owner(), question)?;
    let done = move |page: &Page| {
        let mut json = Vec::new();
        let head = Head { room: room.as_str(), epoch: page.epoch.as_str() };
        let tail = Tail { more: !page.complete, nodes: ListScope::AllNodes };
        protocol::append_page(&mut json, &head, page.bodies(), &tail);
        json.push(b'\n');
        json
    };
    Ok(Begun::Reading { ticket, done: Box::new(done) })
}
