//! The messages of clients: they are read from JSON, checked, and typed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::history::check_history_limit;
use super::{EPOCH_BYTES_MAX, ErrorCode, ID_BYTES_MAX, TypingStatus, parse_object, present};
use crate::id::{NAME_BYTES_MAX, RoomName};

/// A text in a client's message. It is borrowed unless it contains escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A message of a client. All required fields are there, and all have the right kind and are within the
/// bounds that are the same on all servers.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// A request to become a member of a room.
    Join(JoinRequest<'a>),
    /// A request to leave a room.
    Leave(LeaveRequest<'a>),
    /// A message for the members of a room.
    Chat(ChatRequest<'a>),
    /// The user types, or has stopped.
    Typing(TypingRequest<'a>),
    /// A request for older messages of a room.
    History(HistoryRequest<'a>),
    /// A new token in place of the last one.
    Refresh(RefreshRequest<'a>),
    /// A request for a `pong`.
    Ping {
        /// An id that the answer repeats.
        id: Option<Text<'a>>,
    },
}

/// The fields of a `join`.
#[derive(Debug)]
pub struct JoinRequest<'a> {
    /// The room, whose name is valid.
    pub room: RoomName,
    /// An id that the answer repeats.
    pub id: Option<Text<'a>>,
    /// The position to resume after.
    pub since: Option<Since<'a>>,
    /// How many of the newest messages are sent, unless the client resumes.
    pub history: u32,
}

/// The position after the last message that a client has seen.
#[derive(Debug, Deserialize)]
pub struct Since<'a> {
    /// The epoch of the last message that the client has seen.
    #[serde(borrow)]
    pub epoch: Text<'a>,
    /// The `seq` of that message.
    pub seq: u64,
}

/// The fields of a `leave`.
#[derive(Debug)]
pub struct LeaveRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// An id that the answer repeats.
    pub id: Option<Text<'a>>,
}

/// The fields of a `chat`.
#[derive(Debug)]
pub struct ChatRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// The text, of at least one byte.
    pub text: Text<'a>,
    /// Any JSON, `null` included. It is passed on verbatim.
    pub data: Option<&'a RawValue>,
    /// The id of the message, which makes it safe to send it again.
    pub id: Option<Text<'a>>,
}

/// The fields of a `typing`.
#[derive(Debug)]
pub struct TypingRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// An id that an error repeats.
    pub id: Option<Text<'a>>,
    /// Whether the user types.
    pub status: TypingStatus,
}

/// The fields of a `history`.
#[derive(Debug)]
pub struct HistoryRequest<'a> {
    /// The room as it stands in the message.
    pub room: Text<'a>,
    /// An id that the answer repeats.
    pub id: Option<Text<'a>>,
    /// Messages with lower numbers are wanted; without it, the newest.
    pub before: Option<u64>,
    /// How many are wanted at most.
    pub limit: u32,
}

/// The fields of a `refresh`.
pub struct RefreshRequest<'a> {
    /// The token, which nobody has looked at.
    pub token: Text<'a>,
    /// An id that the answer repeats.
    pub id: Option<Text<'a>>,
}

/// Of a token nothing is ever shown.
impl fmt::Debug for RefreshRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshRequest").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A message that the protocol does not allow, with its room and id as far as they are known.
#[derive(Debug)]
pub struct InvalidMessage<'a> {
    /// The code of the error.
    pub code: ErrorCode,
    /// A sentence with the fault and the allowed values.
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

/// Texts that are too long for a name or an id are not repeated.
fn about<'t>(room: Option<&'t str>, id: Option<&'t str>) -> (Option<&'t str>, Option<&'t str>) {
    (room.filter(|room| room.len() <= NAME_BYTES_MAX), id.filter(|id| id.len() <= ID_BYTES_MAX))
}

/// A message as it stands in the JSON. Only the kinds of its fields are checked.
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
    /// Read by itself, because it has to be an object, too.
    #[serde(borrow)]
    since: Option<&'a RawValue>,
    history: Option<u32>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
    before: Option<u64>,
    limit: Option<u32>,
}

impl<'a> ClientMessage<'a> {
    /// Reads and checks a message.
    ///
    /// # Errors
    /// The code, a sentence with the fault and the allowed values, and the room and id of the message.
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
            | Self::Typing(TypingRequest { room, id, .. })
            | Self::History(HistoryRequest { room, id, .. }) => about(Some(room), id.as_deref()),
            Self::Refresh(RefreshRequest { id, .. }) | Self::Ping { id } => about(None, id.as_deref()),
        }
    }
}

impl<'a> RawMessage<'a> {
    fn typed(self) -> Result<ClientMessage<'a>, InvalidMessage<'a>> {
        let Self { kind, room, text, data, id, since, history, status, token, before, limit } = self;
        let bad = |message, room, id| Err(InvalidMessage { code: ErrorCode::BadMessage, message, room, id });
        if let Some(bytes) = id.as_ref().map(|id| id.len()).filter(|bytes| !(1..=ID_BYTES_MAX).contains(bytes)) {
            return bad(format!("id of {bytes} bytes; 1 to {ID_BYTES_MAX} are allowed"), room, id);
        }
        let since = match since.map(|since| parse_object::<Since<'a>>(since.get())).transpose() {
            Ok(since) => since,
            Err((_, message)) => return bad(format!("since: {message}"), room, id),
        };
        let epoch_bytes = since.as_ref().map_or(0, |since| since.epoch.len());
        if epoch_bytes > EPOCH_BYTES_MAX {
            return bad(format!("since: epoch of {epoch_bytes} bytes; {EPOCH_BYTES_MAX} are allowed"), room, id);
        }
        match (&*kind, room) {
            ("ping", _) => Ok(ClientMessage::Ping { id }),
            ("refresh", room) => match token {
                Some(token) => Ok(ClientMessage::Refresh(RefreshRequest { token, id })),
                None => bad("refresh without a token".to_owned(), room, id),
            },
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
            ("history", Some(room)) => {
                match limit.ok_or("history without a limit".to_owned()).and_then(check_history_limit) {
                    Ok(limit) => Ok(ClientMessage::History(HistoryRequest { room, id, before, limit })),
                    Err(message) => bad(message, Some(room), id),
                }
            }
            (kind @ ("join" | "leave" | "chat" | "typing" | "history"), None) => {
                bad(format!("{kind} without a room"), None, id)
            }
            (other, room) => {
                let found: String = other.chars().take(32).collect();
                let message =
                    format!("type {found:?}; chat, join, leave, typing, history, refresh and ping are allowed");
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
        check(r#"["ping",null,null,null,null,null,null,null]"#, ErrorCode::BadJson, "not a JSON object");
        check("{", ErrorCode::BadJson, "EOF");
        check("{}", ErrorCode::BadMessage, "missing field `type`");
        check(r#"{"type":"join","room":5}"#, ErrorCode::BadMessage, "integer `5`, expected a string");
        check(r#"{"type":"join","history":-1}"#, ErrorCode::BadMessage, "-1");
        check(r#"{"type":"dance","room":"a"}"#, ErrorCode::UnknownType, r#"type "dance"; chat, join,"#);
        for kind in ["join", "leave", "chat", "typing", "history"] {
            check(&format!(r#"{{"type":"{kind}"}}"#), ErrorCode::BadMessage, &format!("{kind} without a room"));
        }
        check(r#"{"type":"join","room":"a b"}"#, ErrorCode::BadMessage, "room: name contains ' '");
        check(r#"{"type":"chat","room":"a","text":""}"#, ErrorCode::BadMessage, "chat without text");
        check(r#"{"type":"typing","room":"a","status":"on"}"#, ErrorCode::BadMessage, r#"status "on"; "start""#);
        check(r#"{"type":"history","room":"a"}"#, ErrorCode::BadMessage, "history without a limit");
        for limit in [0, 101] {
            let text = format!(r#"{{"type":"history","room":"a","limit":{limit}}}"#);
            check(&text, ErrorCode::BadMessage, &format!("limit is {limit}; 1 to 100 are allowed"));
        }
        check(r#"{"type":"history","room":"a","limit":1,"before":-1}"#, ErrorCode::BadMessage, "-1");
        check(r#"{"type":"refresh"}"#, ErrorCode::BadMessage, "refresh without a token");
        check(r#"{"type":"ping","id":""}"#, ErrorCode::BadMessage, "id of 0 bytes; 1 to 64 are allowed");
    }

    #[test]
    fn a_position_is_an_object_with_both_fields() {
        let parse =
            |since: &str| match ClientMessage::parse(&format!(r#"{{"type":"join","room":"a","since":{since}}}"#)) {
                Ok(ClientMessage::Join(join)) => Ok(join.since.map(|since| (since.epoch.to_string(), since.seq))),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err((error.code, error.message)),
            };
        let of_bytes = |bytes| format!(r#"{{"epoch":"{}","seq":7}}"#, "e".repeat(bytes));
        assert_eq!(parse("null"), Ok(None));
        assert_eq!(parse(&of_bytes(64)), Ok(Some(("e".repeat(64), 7))));
        assert_eq!(parse(r#"{"epoch":"e\u0041","x":[],"seq":7}"#), Ok(Some(("eA".to_owned(), 7))));
        for (since, needle) in [
            (r#"["e",7]"#, "since: not a JSON object"),
            (r#""e""#, "since: not a JSON object"),
            (r#"{"epoch":"e"}"#, "since: missing field `seq`"),
            (r#"{"epoch":"e","seq":-7}"#, "since: invalid value"),
            (r#"{"epoch":"\ud800","seq":7}"#, "since: not JSON"),
            (&of_bytes(65), "since: epoch of 65 bytes; 64 are allowed"),
        ] {
            let (code, message) = parse(since).unwrap_err();
            assert!(code == ErrorCode::BadMessage && message.contains(needle), "{since}: {code:?} {message}");
        }
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
