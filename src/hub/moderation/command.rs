//! What a host wants done about a user, and how nodes tell each other.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{RoomName, UserId};
use crate::protocol::{CloseReason, append_json};
use crate::time::Now;

/// The close codes that are the application's.
const CODES: std::ops::RangeInclusive<u16> = 4000..=4999;

/// No command is larger: names have a bound, and so has a reason, however much of it has to be escaped.
const COMMAND_BYTES_MAX: usize = 2048;

/// What a host wants done about a user, on all nodes; see [`Hub::moderate_for_host`](super::Hub::moderate_for_host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moderation {
    /// Close all connections of a user.
    Disconnect {
        /// Whose.
        user: UserId,
        /// With what; the code is one of 4000 to 4999, as for a [`CloseReason`] of ours.
        reason: CloseReason,
    },
    /// Take all connections of a user out of a room; they go on in their other rooms.
    Kick {
        /// Out of which.
        room: RoomName,
        /// Whose.
        user: UserId,
    },
}

/// A command as nodes tell each other. A later version may have more kinds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
enum Command<'a> {
    Disconnect {
        user_id: Cow<'a, str>,
        code: u16,
        reason: Cow<'a, str>,
        ts: u64,
    },
    Kick {
        room: Cow<'a, str>,
        user_id: Cow<'a, str>,
        ts: u64,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Command<'_> {
    /// JSON without its end: see [`Publication::body`](crate::bus::message::Publication::body).
    fn body(&self) -> Bytes {
        let mut body = Vec::new();
        append_json(&mut body, self);
        body.pop();
        debug_assert!(body.len() < COMMAND_BYTES_MAX);
        Bytes::from(body)
    }
}

impl Moderation {
    /// The command as it is published now.
    pub(super) fn body(&self, now: Now) -> Bytes {
        self.command(now).body()
    }

    fn command(&self, now: Now) -> Command<'_> {
        let ts = now.unix_ms;
        match self {
            Self::Disconnect { user, reason } => {
                let (user_id, text) = (user.as_str().into(), reason.reason().into());
                Command::Disconnect { user_id, code: reason.code(), reason: text, ts }
            }
            Self::Kick { room, user } => {
                Command::Kick { room: room.as_str().into(), user_id: user.as_str().into(), ts }
            }
        }
    }

    pub(super) fn user(&self) -> &UserId {
        match self {
            Self::Disconnect { user, .. } | Self::Kick { user, .. } => user,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Disconnect { reason, .. } => check_code(reason.code()),
            Self::Kick { .. } => Ok(()),
        }
    }

    /// A command to close all connections of a user.
    ///
    /// # Errors
    /// What was found and what is allowed.
    pub(crate) fn disconnect(user: UserId, code: u16, reason: &str) -> Result<Self, String> {
        check_code(code)?;
        let reason = CloseReason::new(code, reason.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self::Disconnect { user, reason })
    }

    /// What another node wants done, and when it said so; or why nothing can be done.
    pub(super) fn read(body: &[u8]) -> Result<(Self, u64), String> {
        if body.len() >= COMMAND_BYTES_MAX {
            return Err(format!("{} bytes; {COMMAND_BYTES_MAX} are allowed", body.len() + 1));
        }
        let text = [body, b"}"].concat();
        let user = |text: &str| UserId::new(text).map_err(|error| error.to_string());
        let (moderation, ts) = match serde_json::from_slice(&text).map_err(|error| error.to_string())? {
            Command::Disconnect { user_id, code, reason, ts } => {
                (Self::disconnect(user(&user_id)?, code, &reason)?, ts)
            }
            Command::Kick { room, user_id, ts } => {
                let room = RoomName::new(&room).map_err(|error| error.to_string())?;
                (Self::Kick { room, user: user(&user_id)? }, ts)
            }
            Command::Unknown => return Err("it is of a kind that this version does not know".to_owned()),
        };
        Ok((moderation, ts))
    }
}

/// A command closes with a code of the application.
fn check_code(code: u16) -> Result<(), String> {
    if CODES.contains(&code) {
        return Ok(());
    }
    Err(format!("close code {code}; {} to {} are allowed", CODES.start(), CODES.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disconnect(user: &str, code: u16, reason: &str) -> Moderation {
        Moderation::disconnect(UserId::new(user).unwrap(), code, reason).unwrap()
    }

    #[test]
    fn commands_are_json_and_come_back_as_they_were() {
        let now = Now { unix_ms: 7, ..Now::default() };
        let kick = Moderation::Kick { room: RoomName::new("a").unwrap(), user: UserId::new("ann").unwrap() };
        let expected = r#"{"type":"kick","room":"a","userId":"ann","ts":7"#;
        assert_eq!((kick.body(now), Moderation::read(expected.as_bytes())), (expected.into(), Ok((kick, 7))));
        let disconnect = disconnect("ann", 4600, "said \"no\"");
        let expected = r#"{"type":"disconnect","userId":"ann","code":4600,"reason":"said \"no\"","ts":7"#;
        assert_eq!(
            (disconnect.body(now), Moderation::read(expected.as_bytes())),
            (expected.into(), Ok((disconnect, 7)))
        );
    }

    #[test]
    fn the_longest_command_is_within_the_bound() {
        let longest = disconnect(&"u".repeat(128), 4999, &"\u{1}".repeat(123));
        let body = longest.body(Now { unix_ms: u64::MAX, ..Now::default() });
        assert!(body.len() < COMMAND_BYTES_MAX, "{} bytes", body.len());
        assert_eq!(Moderation::read(&body), Ok((longest, u64::MAX)));
        let message = Moderation::read(&[b' '; COMMAND_BYTES_MAX]).unwrap_err();
        assert_eq!(message, "2049 bytes; 2048 are allowed");
    }
}
