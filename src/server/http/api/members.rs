//! `POST /api/members`: the users that are present in a room, by their ids.

use log::Level;
use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach, room_of};
use super::list::{self, limit_of};
use super::schema::{self, Operation, answer, count, flag, object};
use super::whole_number::WholeNumber;
use crate::hub::{PresentUser, Refused, RoomAnswer, RoomContent, RoomQuestion, UserPage};
use crate::id::UserId;
use crate::protocol::{self, ErrorCode, Text};

pub(super) const MEMBERS: ApiCommand = ApiCommand {
    name: "members",
    reach: Reach::Room,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: list_members,
};

#[derive(Deserialize)]
struct MembersBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    limit: Option<WholeNumber>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    elsewhere: bool,
}

impl<'a> MemberView<'a> {
    fn of(PresentUser { id, name, connections, is_elsewhere }: &'a PresentUser) -> Self {
        Self { user_id: id.as_str(), name: name.as_deref(), connections: *connections, elsewhere: *is_elsewhere }
    }
}

/// A page of the list. `more` says whether the next one has any.
#[derive(Serialize)]
struct MemberList<'a> {
    room: &'a str,
    users: usize,
    members: Vec<MemberView<'a>>,
    more: bool,
    nodes: ListScope,
}

fn operation() -> Operation {
    let member = answer([
        ("userId", schema::user_id()),
        ("name?", schema::shown_name()),
        ("connections?", count("Connections of the user to this node that are in the room.")),
        ("elsewhere", flag("Whether the user is there on another node, too.")),
    ]);
    Operation {
        summary: "Lists the users that are present in a room.",
        request: object([
            ("room", schema::room()),
            ("limit?", list::limit()),
            ("after?", schema::described(schema::user_id(), "The last user of the page before.")),
        ]),
        response: answer([
            ("room", schema::room()),
            ("users", count("How many are present altogether.")),
            ("members", schema::list(&member)),
            ("more", list::more()),
            ("nodes", schema::nodes()),
        ]),
    }
}

fn list_members(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let MembersBody { room, limit, after } = protocol::parse_object(body)?;
    let (room, limit) = (room_of("members", room.as_deref())?, limit_of(limit)?);
    let bad = |error| (ErrorCode::BadMessage, format!("after: {error}"));
    let after = after.as_deref().map(UserId::new).transpose().map_err(bad)?;
    context.ask_about_room(room, RoomQuestion::Users { after, limit }, view)
}

fn view(RoomAnswer { room, content, .. }: &RoomAnswer, nodes: ListScope) -> Vec<u8> {
    let RoomContent::Users(UserPage { count, users, has_more }) = content else { return Vec::new() };
    let members = users.iter().map(MemberView::of).collect();
    to_json(&MemberList { room: room.as_str(), users: *count, members, more: *has_more, nodes })
}
