//! The messages of clients: read from JSON, checked, and typed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ErrorCode, ID_BYTES_MAX, TypingStatus, parse_object, present};
use crate::id::{NAME_BYTES_MAX, RoomName};

/// Text of a client's message: borrowed from it unless it contains escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A message of a client. All its fields are there, of the right kind, and within those bounds that are the same on all
/// servers.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// The connection wants to become a member of a room.
    Join(JoinRequest<'a>),
    /// The connection wants to leave a room.
    Leave(LeaveRequest<'a>),
    /// A message for the members of a room.
    Chat(ChatRequest<'a>),
    /// The user types, or has stopped.
    Typing(TypingRequest<'a>),
    /// The client wants to be answered.
    Ping {
        /// Repeated in the answer.
        id: Option<Text<'a>>,
    },
}

/// `join`.
#[derive(Debug)]
pub struct JoinRequest<'a> {
    /// The room, checked.
    pub room: RoomName,
    /// Repeated in the answer.
    pub id: Option<Text<'a>>,
    /// Resume after this position.
    pub since: Option<Since<'a>>,
    /// How many of the newest messages, unless it resumes.
    pub history: u32,
}

/// The position after the last message that a client has seen.
#[derive(Debug, Deserialize)]
pub struct Since<'a> {
    /// The epoch that it was told.
    #[serde(borrow)]
    pub epoch: Text<'a>,
    /// The `seq` of the last message that it has seen.
    pub seq: u64,
}

/// `leave`.
#[derive(Debug)]
pub struct LeaveRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// Repeated in the answer.
    pub id: Option<Text<'a>>,
}

/// `chat`.
#[derive(Debug)]
pub struct ChatRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// Not empty.
    pub text: Text<'a>,
    /// Any JSON, passed on as it is, `null` included.
    pub data: Option<&'a RawValue>,
    /// Makes it safe to send the message again.
    pub id: Option<Text<'a>>,
}

/// `typing`.
#[derive(Debug)]
pub struct TypingRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// Repeated in an error.
    pub id: Option<Text<'a>>,
    /// Whether the user types.
    pub status: TypingStatus,
}

/// Why a message is not one of the protocol's, and which message it is, as far as that is known.
#[derive(Debug)]
pub struct InvalidMessage<'a> {
    /// The code of the error.
    pub code: ErrorCode,
    /// What was found and what is allowed.
    pub message: String,
    room: Option<Text<'a>>,
    id: Option<Text<'a>>,
}

impl InvalidMessage<'_> {
    /// The room and the id of the message, to be repeated in an error.
    pub fn about(&self) -> (Option<&str>, Option<&str>) {
        about(self.room.as_deref(), self.id.as_deref())
    }
}

/// What is too long to be a name or an id is not repeated.
fn about<'t>(room: Option<&'t str>, id: Option<&'t str>) -> (Option<&'t str>, Option<&'t str>) {
    (room.filter(|room| room.len() <= NAME_BYTES_MAX), id.filter(|id| id.len() <= ID_BYTES_MAX))
}

/// A message as it stands in the JSON: nothing is checked but the kinds of its fields.
#[derive(Debug, Deserialize)]
struct RawMessage<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    since: Option<Since<'a>>,
    history: Option<u32>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
}

impl<'a> ClientMessage<'a> {
    /// Reads and checks a message.
    ///
    /// # Errors
    /// The code, a sentence that says what was found and what is allowed, and which message it is.
    pub fn parse(text: &'a str) -> Result<Self, InvalidMessage<'a>> {
        let raw: RawMessage<'a> =
            parse_object(text).map_err(|(code, message)| InvalidMessage { code, message, room: None, id: None })?;
        raw.typed()
    }

    /// The room and the id of the message, to be repeated in an error.
    pub fn about(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Join(JoinRequest { room, id, .. }) => about(Some(room.as_str()), id.as_deref()),
            Self::Leave(LeaveRequest { room, id })
            | Self::Chat(ChatRequest { room, id, .. })
            | Self::Typing(TypingRequest { room, id, .. }) => about(Some(room), id.as_deref()),
            Self::Ping { id } => about(None, id.as_deref()),
        }
    }
}

impl<'a> RawMessage<'a> {
    fn typed(self) -> Result<ClientMessage<'a>, InvalidMessage<'a>> {
        let Self { kind, room, text, data, id, since, history, status } = self;
        let bad = |message, room, id| Err(InvalidMessage { code: ErrorCode::BadMessage, message, room, id });
        if let Some(bytes) = id.as_ref().map(|id| id.len()).filter(|bytes| !(1..=ID_BYTES_MAX).contains(bytes)) {
            return bad(format!("id of {bytes} bytes; 1 to {ID_BYTES_MAX} are allowed"), room, id);
        }
        match (&*kind, room) {
            ("ping", _) => Ok(ClientMessage::Ping { id }),
            ("join", Some(room)) => match RoomName::new(&room) {
                Ok(room) => Ok(ClientMessage::Join(JoinRequest { room, id, since, history: history.unwrap_or(0) })),
                Err(error) => bad(format!("room: {error}"), Some(room), id),
            },
            ("leave", Some(room)) => Ok(ClientMessage::Leave(LeaveRequest { room, id })),
            ("chat", Some(room)) => match text.filter(|text| !text.is_empty()) {
                Some(text) => Ok(ClientMessage::Chat(ChatRequest { room, text, data, id })),
                None => bad("chat without text; at least one byte is needed".to_owned(), Some(room), id),
            },
            ("typing", Some(room)) => match typing_status(status.as_deref()) {
                Ok(status) => Ok(ClientMessage::Typing(TypingRequest { room, id, status })),
                Err(message) => bad(message, Some(room), id),
            },
            (kind @ ("join" | "leave" | "chat" | "typing"), None) => bad(format!("{kind} without a room"), None, id),
            (other, room) => {
                let found: String = other.chars().take(32).collect();
                let message = format!("type {found:?}; chat, join, leave, typing and ping are allowed");
                Err(InvalidMessage { code: ErrorCode::UnknownType, message, room, id })
            }
        }
    }
}

fn typing_status(text: Option<&str>) -> Result<TypingStatus, String> {
    let text = text.unwrap_or_default();
    TypingStatus::read(text).ok_or_else(|| {
        let found: String = text.chars().take(32).collect();
        format!("status {found:?}; \"start\" and \"stop\" are allowed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_messages_are_told_apart() {
        let check = |text: &str, code: ErrorCode, needle: &str| {
            let error = ClientMessage::parse(text).unwrap_err();
            assert_eq!(error.code, code, "{text}: {}", error.message);
            assert!(error.message.contains(needle), "{text}: {}", error.message);
        };
        check("", ErrorCode::BadJson, "EOF");
        check("[]", ErrorCode::BadJson, "not a JSON object");
        check("7", ErrorCode::BadJson, "not a JSON object");
        check("{", ErrorCode::BadJson, "EOF");
        check("{}", ErrorCode::BadMessage, "missing field `type`");
        check(r#"{"type":"join","room":5}"#, ErrorCode::BadMessage, "integer `5`, expected a string");
        check(r#"{"type":"join","history":-1}"#, ErrorCode::BadMessage, "-1");
        check(r#"{"type":"dance","room":"a"}"#, ErrorCode::UnknownType, r#"type "dance"; chat, join,"#);
        for kind in ["join", "leave", "chat", "typing"] {
            check(&format!(r#"{{"type":"{kind}"}}"#), ErrorCode::BadMessage, &format!("{kind} without a room"));
        }
        check(r#"{"type":"join","room":"a b"}"#, ErrorCode::BadMessage, "room: name contains ' '");
        check(r#"{"type":"chat","room":"a","text":""}"#, ErrorCode::BadMessage, "chat without text");
        check(r#"{"type":"typing","room":"a","status":"on"}"#, ErrorCode::BadMessage, r#"status "on"; "start""#);
        check(r#"{"type":"ping","id":""}"#, ErrorCode::BadMessage, "id of 0 bytes; 1 to 64 are allowed");
    }

    #[test]
    fn an_error_says_which_message_it_is_about() {
        let about = |text: &str| {
            let error = ClientMessage::parse(text).unwrap_err();
            let (room, id) = error.about();
            (room.map(str::to_owned), id.map(str::to_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(about(r#"{"type":"chat","room":"a","id":"7"}"#), (some("a"), some("7")));
        assert_eq!(about(r#"{"type":"dance","id":"7"}"#), (None, some("7")));
        let long = "x".repeat(200);
        assert_eq!(about(&format!(r#"{{"type":"chat","room":"{long}","id":"{long}"}}"#)), (None, None));
    }

    #[test]
    fn unknown_fields_are_ignored_and_data_is_passed_on_as_it_is() {
        let text = r#"{"x":[1],"type":"chat","room":"a","text":"b","data":{ "a" : 1.50 }}"#;
        let Ok(ClientMessage::Chat(chat)) = ClientMessage::parse(text) else { panic!("not a chat message") };
        assert_eq!(chat.data.unwrap().get(), r#"{ "a" : 1.50 }"#);
    }
}
