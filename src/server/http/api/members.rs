//! `POST /api/members`: the users that are present in a room, by their ids.

use serde::{Deserialize, Serialize};

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, room_of};
use super::list::limit_of;
use crate::hub::{PresentUser, Refused, RoomAnswer, RoomContent, RoomQuestion, UserPage};
use crate::id::UserId;
use crate::protocol::{self, ErrorCode, Text};

pub(super) const MEMBERS: ApiCommand = ApiCommand { path: "/api/members", run: list_members };

#[derive(Deserialize)]
struct MembersBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
    limit: Option<usize>,
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
