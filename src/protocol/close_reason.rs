//! Why a connection is closed.

use std::borrow::Cow;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::error::Error;

/// A code and a reason with which a connection is closed. Both fit into a Close frame.
///
/// After 4000 to 4499 a client reconnects, with full jitter. After 4500 to 4999 it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    code: u16,
    reason: Cow<'static, str>,
}

/// The longest text of a [`CloseReason`]: the payload of a control frame without the code (RFC 6455 section 5.5).
pub(crate) const CLOSE_REASON_BYTES_MAX: usize = 123;

impl CloseReason {
    /// The server shuts down or restarts.
    pub const GOING_AWAY: Self = Self::fixed(1001, "the server is shutting down; come back");
    /// The bytes are not WebSocket frames as a client must send them.
    pub const PROTOCOL: Self = Self::fixed(1002, "protocol error");
    /// A binary message.
    pub const BINARY: Self = Self::fixed(1003, "binary message; only text messages are allowed");
    /// A text that is not UTF-8.
    pub const NOT_UTF8: Self = Self::fixed(1007, "text is not UTF-8");
    /// A message of more bytes or fragments than allowed.
    pub const TOO_BIG: Self = Self::fixed(1009, "message is larger than allowed");
    /// The host closed the connection. The client may come back.
    pub const CLOSED: Self = Self::fixed(4000, "closed by the server; come back");
    /// The client sent no byte after a ping.
    pub const NO_PONG: Self = Self::fixed(4001, "no answer to a ping");
    /// The client took no bytes for longer than `--stall-timeout`.
    pub const STALLED: Self = Self::fixed(4002, "took no bytes for too long; come back");
    /// The server was short of memory, and of all users and addresses this one's connections held the most.
    pub const SHORT_OF_MEMORY: Self =
        Self::fixed(4002, "the server is short of memory, of which this user or address holds the most; come back");
    /// The client's token, or what a back-end has said of it, has expired, or the key of the token is there no more. It may come
    /// back with a new one.
    pub const TOKEN_EXPIRED: Self = Self::fixed(4003, "the token or session has expired; come back with a new one");
    /// The host closed the connection for good.
    pub const EXPELLED: Self = Self::fixed(4500, "closed by the server; do not come back");
    /// The client sent ten bursts beyond the rate limit that no message within the limit has made up for.
    pub const FLOODING: Self = Self::fixed(4501, "far more messages than the rate limit allows");
    /// The user stalled three times within five minutes.
    pub const STALLED_OFTEN: Self = Self::fixed(4502, "took no bytes for too long, three times in five minutes");
    /// The user has opened more connections than one may have, and this was the oldest one.
    pub const REPLACED: Self = Self::fixed(4504, "replaced by a newer connection of the same user");

    /// The user or the address is banned.
    pub const BANNED: Self = Self::fixed(4503, "banned");

    const fn fixed(code: u16, reason: &'static str) -> Self {
        assert!(reason.len() <= CLOSE_REASON_BYTES_MAX);
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// A code of RFC 6455 section 7.4, and a sentence for a person, of at most 123 bytes of UTF-8. The codes of an application are
    /// 4000 to 4999.
    ///
    /// # Errors
    /// [`Error::Command`] if no Close frame may have this code, or has room for this sentence.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        if !CloseCode::from(code).is_allowed() {
            let message = format!("close code {code}; 1000 to 1003, 1007 to 1013 and 3000 to 4999 are allowed");
            return Err(Error::Command(message));
        }
        let reason = reason.into();
        let (bytes, max) = (reason.len(), CLOSE_REASON_BYTES_MAX);
        if bytes > max {
            return Err(Error::Command(format!("close reason of {bytes} bytes exceeds {max}")));
        }
        Ok(Self { code, reason })
    }

    pub(crate) fn into_parts(self) -> (u16, Cow<'static, str>) {
        (self.code, self.reason)
    }

    /// The code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The sentence.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
