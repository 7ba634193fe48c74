//! What a client is told when something was not done.

use crate::protocol::{ErrorCode, ServerMessage};
use crate::rights::{Right, Rights};

/// Why a message or a command was not done: the code, and what was found and what is allowed.
pub(crate) type Refused = (ErrorCode, String);

/// Checks that a right is among those that a connection has in a room.
pub(super) fn require(rights: Rights, right: Right, room: &str) -> Result<(), Refused> {
    if rights.has(right) {
        return Ok(());
    }
    let what = match right {
        Right::Join => "to join",
        Right::Say => "to say something in",
        Right::Typing => "to show typing in",
        Right::History => "to read the history of",
    };
    Err((ErrorCode::Forbidden, format!("not allowed {what} room {room}")))
}

/// An `error` message to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorReply<'a> {
    pub(super) code: ErrorCode,
    pub(super) message: &'a str,
    pub(super) room: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) retry_after_ms: Option<u64>,
}

impl<'a> ErrorReply<'a> {
    pub(super) fn new(code: ErrorCode, message: &'a str) -> Self {
        let retry_after_ms = code.is_temporary().then_some(1000);
        Self { code, message, room: None, id: None, retry_after_ms }
    }

    /// The same about a message in this room with this id.
    pub(super) fn about(self, room: Option<&'a str>, id: Option<&'a str>) -> Self {
        Self { room, id, ..self }
    }

    pub(super) fn server_message(self) -> ServerMessage<'a> {
        let Self { code, message, room, id, retry_after_ms } = self;
        // A refusal with a time to try again is temporary, even if others with its code are not.
        let temporary = code.is_temporary() || retry_after_ms.is_some();
        ServerMessage::Error { code: code.as_str(), message, temporary, room, id, retry_after_ms }
    }
}
