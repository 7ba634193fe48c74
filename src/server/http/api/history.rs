//! `POST /api/history`: a page of what was said in a room.

use serde::{Deserialize, Serialize};

use super::command::{ApiCommand, Begun, CommandContext, ListScope, room_of};
use crate::bus::message::Page;
use crate::hub::{HistoryQuestion, Refused};
use crate::protocol::{self, ErrorCode, HISTORY_LIMIT_MAX, Text};

pub(super) const HISTORY: ApiCommand = ApiCommand { path: "/api/history", run: history };

/// The body of `POST /api/history`. Unknown fields are ignored.
#[derive(Deserialize)]
struct HistoryBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    before: Option<u64>,
    limit: Option<u32>,
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

fn history(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let HistoryBody { room, before, limit } = protocol::parse_object(body)?;
    let room = room_of("history", room.as_deref())?;
    let limit = protocol::check_history_limit(limit.unwrap_or(HISTORY_LIMIT_MAX))
        .map_err(|message| (ErrorCode::BadMessage, message))?;
    let question = HistoryQuestion { room: room.clone(), before, limit };
    let ticket = context.hub.read_history_for_api(context.owner, question)?;
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
