//! The JSON of both directions, the codes of errors, and the codes with which a connection is closed.

pub(crate) mod client;
mod close_reason;
mod data;
mod deletion;
mod history;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use self::client::{
    ChatRequest, ClientMessage, HistoryRequest, JoinRequest, LeaveRequest, RefreshRequest, Text, TypingRequest,
};
pub(crate) use self::close_reason::CLOSE_REASON_BYTES_MAX;
pub use self::close_reason::CloseReason;
pub(crate) use self::data::check_data;
#[cfg(feature = "redis")]
pub(crate) use self::deletion::DELETED_HEAD;
pub(crate) use self::deletion::{DELETIONS_MAX, deletion_body, is_deletion, is_said_by, read_deletes, tombstone_body};
pub(crate) use self::history::{HISTORY_LIMIT_MAX, HistoryMessage, append_page, check_history_limit};
use crate::frame;

/// The longest `id` of a message, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 64;

/// The longest epoch that a client may name, in bytes.
pub(crate) const EPOCH_BYTES_MAX: usize = 64;

/// The subprotocol that is negotiated when a client offers it.
pub(crate) const SUBPROTOCOL: &str = "roomcast.v1";

/// The prefix of a second subprotocol that carries a token, for clients that cannot set headers.
pub(crate) const TOKEN_SUBPROTOCOL_PREFIX: &str = "roomcast.token.";

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident $text:literal $temporary:literal,)*) => {
        /// The `code` of an `error` message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code as it is sent.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }

            /// Whether the same message may succeed later.
            pub fn is_temporary(self) -> bool {
                match self { $(ErrorCode::$variant => $temporary,)* }
            }
        }
    };
}

error_codes! {
    /// The text is not a JSON object.
    BadJson "bad_json" false,
    /// A field is missing, of the wrong kind, or out of its bounds.
    BadMessage "bad_message" false,
    /// The `type` is not one of the protocol's.
    UnknownType "unknown_type" false,
    /// The connection is not in the room.
    NotJoined "not_joined" false,
    /// The connection is in the room already.
    AlreadyJoined "already_joined" false,
    /// The connection is in as many rooms as are allowed.
    TooManyRooms "too_many_rooms" false,
    /// `text` or `data` is larger than allowed.
    TooLarge "too_large" false,
    /// The policy forbids the join or the message.
    Forbidden "forbidden" false,
    /// There is no such message.
    NotFound "not_found" false,
    /// The token of a `refresh` is not accepted; the last one goes on.
    InvalidToken "invalid_token" false,
    /// The user is muted; temporary if the mute expires.
    Muted "muted" false,
    /// The host, or a new token, took the connection out of the room; `left` follows.
    Removed "removed" false,
    /// More messages than the rate limit allows; at most one such error a second.
    RateLimited "rate_limited" true,
    /// The room delivers as fast as it can; the message was not taken.
    RoomBusy "room_busy" true,
    /// The server has reached one of its limits; the message was not taken.
    ServerBusy "server_busy" true,
    /// The storage of the bus holds as much as it may; nothing was stored.
    StorageFull "storage_full" true,
    /// The bus cannot be reached; the message was not taken.
    Unavailable "unavailable" true,
    /// The server is shutting down; the message was not taken.
    ShuttingDown "shutting_down" true,
}

/// Reads an optional field for which `null` is a value.
pub(crate) fn present<'a, 'de: 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a JSON object from outside.
///
/// # Errors
/// A code, and a sentence with the fault and the allowed values.
pub(crate) fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, (ErrorCode, String)> {
    let not_json = |error| (ErrorCode::BadJson, format!("not JSON: {error}"));
    // serde would take an array for an object whose fields have no names.
    if !text.trim_ascii_start().starts_with('{') {
        let IgnoredAny = serde_json::from_str(text).map_err(not_json)?;
        return Err((ErrorCode::BadJson, "not a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => (ErrorCode::BadMessage, error.to_string()),
        _ => not_json(error),
    })
}

/// Appends the JSON of a value that always serialises: all its keys are texts.
#[expect(clippy::expect_used, reason = "neither the value nor memory can fail")]
pub(crate) fn append_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("the value always serialises");
}

/// A user as others are told.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserView<'a> {
    /// The id that the server has given the connection.
    pub user_id: &'a str,
    /// A name to show, if the authenticator gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
}

/// The limits that `welcome` tells a client. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WelcomeLimits {
    pub message_bytes: usize,
    pub data_bytes: usize,
    pub rooms_per_connection: u32,
    pub message_rate: u32,
    pub message_burst: u32,
    pub history_messages: u32,
    pub history_age_ms: u64,
    pub dedupe_window_ms: u64,
}

/// Whether a user is present in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceStatus {
    /// The user's first connection joined.
    Online,
    /// The user's last connection left, or the grace after its loss is over.
    Offline,
}

/// The kinds of signals, which users show a room for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalKind {
    /// A user types, or has stopped. The body is `start` or `stop`.
    Typing,
}

impl SignalKind {
    /// The word for it between nodes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Typing => "typing",
        }
    }

    /// The kind with this word. A later version may have more.
    pub fn read(word: &str) -> Option<Self> {
        [Self::Typing].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// `start` or `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TypingStatus {
    /// The user types; said again every few seconds.
    Start,
    /// The user has stopped.
    Stop,
}

impl TypingStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        [Self::Start, Self::Stop].into_iter().find(|status| status.as_str() == word)
    }
}

/// A message of the server other than `chat`, whose bytes are made once by [`chat_body`] and [`append_chat`].
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(crate) enum ServerMessage<'a> {
    /// The first message on every connection.
    Welcome {
        #[serde(flatten)]
        user: UserView<'a>,
        ping_interval: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        limits: WelcomeLimits,
    },
    /// The position in a room, after the history that was caught up.
    Joined {
        room: &'a str,
        epoch: &'a str,
        seq: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        count: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<&'a [UserView<'a>]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    /// The answer to `leave`.
    Left {
        room: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    /// The answer to a sender that will not receive its copy.
    Ack { room: &'a str, id: &'a str, seq: u64, duplicate: bool },
    /// A user came or went.
    Presence {
        room: &'a str,
        #[serde(flatten)]
        user: UserView<'a>,
        status: PresenceStatus,
    },
    /// How many users are in a big room.
    Members {
        room: &'a str,
        count: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<&'a [UserView<'a>]>,
    },
    /// A user types, or stopped.
    Typing { room: &'a str, user_id: &'a str, status: TypingStatus },
    /// The answer to `refresh`.
    Refreshed {
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    /// The answer to `ping`.
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    /// The answer to a message that was refused.
    Error {
        code: &'a str,
        message: &'a str,
        temporary: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

impl ServerMessage<'_> {
    /// Appends the message as one text frame.
    pub(crate) fn append_frame(&self, out: &mut Vec<u8>) {
        frame::append_text(out, |out| append_json(out, self));
    }
}

/// The fields of a chat message, apart from its number.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename = "chat", rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are the protocol's")]
pub struct Chat<'a> {
    pub room: &'a str,
    pub user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    pub text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    pub ts: u64,
}

/// The JSON of a chat message up to the place of its number; see [`crate::bus::message::Publication::body`].
pub fn chat_body(chat: &Chat<'_>) -> Vec<u8> {
    // Exactly as much as is needed: what is spare would stay in history, which nobody would be charged for.
    let mut body = Vec::with_capacity(chat_json_bytes(chat));
    append_json(&mut body, chat);
    body.pop();
    body
}

/// The bytes of the JSON of a chat message without its number.
fn chat_json_bytes(chat: &Chat<'_>) -> usize {
    let always = r#"{"type":"chat","room":"","userId":"","text":"","ts":}"#.len() + decimal_digits(chat.ts);
    let texts = [chat.room, chat.user_id, chat.text].map(escaped_bytes).iter().sum::<usize>();
    let name = chat.name.map_or(0, |name| r#""name":"","#.len() + escaped_bytes(name));
    let data = chat.data.map_or(0, |data| r#""data":,"#.len() + data.get().len());
    let id = chat.id.map_or(0, |id| r#""id":"","#.len() + escaped_bytes(id));
    always + texts + name + data + id
}

/// The bytes of a text as `serde_json` writes it in a string.
fn escaped_bytes(text: &str) -> usize {
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    // Hardly any text has one, and the compiler counts many bytes at once.
    if text.as_bytes().iter().filter(|byte| is_escaped(byte)).count() == 0 {
        return text.len();
    }
    let more = |byte: &u8| match *byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        _ => r"\u0000".len() - 1,
    };
    text.len() + text.as_bytes().iter().filter(|byte| is_escaped(byte)).map(more).sum::<usize>()
}

const SEQ_FIELD: &[u8] = br#","seq":"#;

/// The bytes of the frame that [`append_chat`] appends.
pub(crate) fn chat_frame_bytes(body: &[u8], seq: u64) -> usize {
    frame::frame_bytes(body.len() + SEQ_FIELD.len() + decimal_digits(seq) + 1)
}

/// The most bytes of the frame of a message with this body, with the largest number.
pub(crate) fn chat_frame_bytes_max(body: &[u8]) -> usize {
    chat_frame_bytes(body, u64::MAX)
}

/// Appends a chat message as one text frame: the body from the bus, with the number spliced in.
pub fn append_chat(out: &mut Vec<u8>, body: &[u8], seq: u64) {
    let payload_bytes = body.len() + SEQ_FIELD.len() + decimal_digits(seq) + 1;
    frame::append_header(out, frame::Payload::Text, payload_bytes);
    append_chat_json(out, body, seq);
}

/// Appends the JSON of a chat message: the body from the bus, with the number spliced in.
fn append_chat_json(out: &mut Vec<u8>, body: &[u8], seq: u64) {
    out.extend_from_slice(body);
    out.extend_from_slice(SEQ_FIELD);
    append_json(out, &seq);
    out.push(b'}');
}

fn decimal_digits(n: u64) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_fits_into_a_close_frame() {
        let error = |code, reason: String| CloseReason::new(code, reason).map_err(|error| error.to_string());
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 4000, 4999] {
            let longest = "ü".repeat(61) + "r";
            let reason = error(code, longest.clone()).unwrap();
            assert_eq!((reason.code(), reason.reason()), (code, &*longest));
            let mut frame = Vec::new();
            frame::append_close(&mut frame, reason.code(), reason.reason());
            assert_eq!((frame.len(), frame[1]), (127, 125));
        }
        for code in [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, u16::MAX] {
            assert!(error(code, String::new()).unwrap_err().starts_with(&format!("close code {code}; 1000 to 1003, ")));
        }
        assert_eq!(error(4000, "r".repeat(124)).unwrap_err(), "close reason of 124 bytes exceeds 123");
    }

    #[test]
    fn a_body_takes_no_more_memory_than_its_bytes() {
        let all_characters: String = (0..0x250).filter_map(char::from_u32).collect();
        let data = RawValue::from_string(r#"{"a":"\u0000\n"}"#.to_owned()).unwrap();
        let longest = "ü".repeat(64);
        let texts = ["x", "two\nlines", "\"\\\u{7f}😀", &all_characters, &"\u{1}".repeat(16_384), &"x".repeat(16_384)];
        for (text, name, data, id) in texts.into_iter().flat_map(|text| {
            let optional =
                [(None, None, None), (Some(text), Some(&*data), Some(&*longest)), (Some(""), None, Some(text))];
            optional.map(|(name, data, id)| (text, name, data, id))
        }) {
            for ts in [0, 9, 10, 1_700_000_000_000, u64::MAX] {
                let body = chat_body(&Chat { room: &longest, user_id: text, name, text, data, id, ts });
                // The last bracket is taken off.
                assert_eq!(body.capacity(), body.len() + 1, "{name:?} {id:?} {ts}");
            }
        }
    }

    #[test]
    fn a_chat_frame_has_the_announced_size_for_every_length_of_number() {
        for body_bytes in [60, 110, 118, 119, 125, 126, 200, 65_500, 65_530] {
            let text = "x".repeat(body_bytes);
            let body = chat_body(&Chat {
                room: "lobby",
                user_id: "ann",
                name: None,
                text: &text,
                data: None,
                id: None,
                ts: 1,
            });
            for seq in [0, 9, 10, 99_999, u64::MAX] {
                let mut out = Vec::new();
                append_chat(&mut out, &body, seq);
                assert_eq!(out.len(), chat_frame_bytes(&body, seq));
                let head = frame::Head::parse(&out).unwrap();
                assert_eq!(head.header_bytes + head.payload_bytes as usize, out.len());
                let value: serde_json::Value = serde_json::from_slice(&out[head.header_bytes..]).unwrap();
                assert_eq!(value["seq"], seq);
                assert_eq!(value["type"], "chat");
            }
        }
    }
}
