//! `POST /api/room`: how one room does.

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach, room_of};
use super::schema::{self, Operation, answer, count, object};
use crate::hub::{Refused, RoomAnswer, RoomContent, RoomDetail, RoomQuestion};
use crate::protocol::{self, Text};
use crate::settings::RoomLimits;

pub(super) const ROOM: ApiCommand = ApiCommand {
    name: "room",
    reach: Reach::Room,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: describe_room,
};

#[derive(Deserialize)]
struct DetailBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailView<'a> {
    room: &'a str,
    users: usize,
    connections: usize,
    catching_up: usize,
    blocked: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    rules: RulesView,
    nodes: ListScope,
}

/// What holds for the room.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RulesView {
    history_messages: u32,
    history_age_ms: u64,
    big_room: u32,
    slow_ms: u64,
    say: &'static str,
}

impl RulesView {
    fn of(limits: &RoomLimits) -> Self {
        Self {
            history_messages: limits.history_messages,
            history_age_ms: limits.history_age.as_millis() as u64,
            big_room: limits.users_listed_max,
            slow_ms: limits.slow.as_millis() as u64,
            say: limits.speakers.as_str(),
        }
    }
}

fn operation() -> Operation {
    let rules = answer([
        ("historyMessages", count("Messages that history keeps.")),
        ("historyAgeMs", count("How long it keeps them, in milliseconds.")),
        ("bigRoom", count("Users from which on members are told counts alone.")),
        ("slowMs", count("The time between two messages of a user, in milliseconds; 0 is none.")),
        ("say", schema::described(json!({"type": "string"}), "Who may speak.")),
    ]);
    Operation {
        summary: "Tells how a room does.",
        request: object([("room", schema::room())]),
        response: answer([
            ("room", schema::room()),
            ("users", count("Users that are present.")),
            ("connections", count("Connections to this node that are in the room.")),
            ("catchingUp", count("Of these, connections that read history.")),
            ("blocked", count("Of these, connections that take nothing at the moment.")),
            ("epoch?", json!({"type": "string"})),
            ("seq?", count("The number of the last message.")),
            ("rules", rules),
            ("nodes", schema::nodes()),
        ]),
    }
}

fn describe_room(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let body: DetailBody<'_> = protocol::parse_object(body)?;
    context.ask_about_room(room_of("room", body.room.as_deref())?, RoomQuestion::Detail, view)
}

fn view(RoomAnswer { room, content, .. }: &RoomAnswer, nodes: ListScope) -> Vec<u8> {
    let RoomContent::Detail(RoomDetail { users, connections, catching_up, blocked, position, limits }) = content else {
        return Vec::new();
    };
    to_json(&DetailView {
        room: room.as_str(),
        users: *users,
        connections: *connections,
        catching_up: *catching_up,
        blocked: *blocked,
        epoch: position.as_ref().map(|(epoch, _)| epoch.as_str()),
        seq: position.as_ref().map(|(_, seq)| *seq),
        rules: RulesView::of(limits),
        nodes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::{Epoch, RoomName};
    use crate::settings::Config;

    #[test]
    fn each_count_has_its_own_field() {
        let (room, table) = (RoomName::new("lobby").unwrap(), Config::default().room_limits());
        let limits = RoomLimits {
            history_messages: 5,
            history_age: Duration::from_secs(6),
            users_listed_max: 7,
            slow: Duration::from_millis(8),
            ..table.get(table.find(&room)).clone()
        };
        let position = Some((Epoch::new("e"), 9));
        let detail = RoomDetail { users: 1, connections: 2, catching_up: 3, blocked: 4, position, limits };
        let answer = RoomAnswer { room, is_current: true, content: RoomContent::Detail(detail) };
        let found: serde_json::Value = serde_json::from_slice(&view(&answer, ListScope::AllNodes)).unwrap();
        let expected = json!({
            "room": "lobby", "users": 1, "connections": 2, "catchingUp": 3, "blocked": 4, "epoch": "e", "seq": 9,
            "rules": {"historyMessages": 5, "historyAgeMs": 6000, "bigRoom": 7, "slowMs": 8, "say": "all"},
            "nodes": "all",
        });
        assert_eq!(found, expected);
    }
}
