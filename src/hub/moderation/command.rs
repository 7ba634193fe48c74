//! What a host wants done about a user, and how nodes tell each other.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bus::message::{RestrictionAction, RestrictionChange};
use crate::id::{RoomName, UserId};
use crate::protocol::{CloseReason, append_json};
use crate::restrictions::{Restriction, RestrictionTarget};
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
    /// Delete what a user has said, in all rooms that have members on any node.
    Purge {
        /// Who.
        user: UserId,
    },
    /// Ban or mute; from now on, until it expires or is lifted.
    Restrict(Restriction),
    /// Lift a ban or a mute, if there is one.
    Lift(RestrictionTarget),
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
    Purge {
        user_id: Cow<'a, str>,
        ts: u64,
    },
    Ban {
        #[serde(flatten)]
        who: Banned<'a>,
        #[serde(flatten)]
        term: WrittenTerm<'a>,
        ts: u64,
    },
    Unban {
        #[serde(flatten)]
        who: Banned<'a>,
        ts: u64,
    },
    Mute {
        #[serde(flatten)]
        who: Muted<'a>,
        #[serde(flatten)]
        term: WrittenTerm<'a>,
        ts: u64,
    },
    Unmute {
        #[serde(flatten)]
        who: Muted<'a>,
        ts: u64,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

/// One of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Banned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Muted<'a> {
    user_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenTerm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// The two forms of a target.
enum WrittenTarget<'a> {
    Banned(Banned<'a>),
    Muted(Muted<'a>),
}

impl<'a> WrittenTarget<'a> {
    fn of(target: &'a RestrictionTarget) -> Self {
        match target {
            RestrictionTarget::BannedUser(user) => {
                Self::Banned(Banned { user_id: Some(user.as_str().into()), network: None })
            }
            RestrictionTarget::BannedNetwork(network) => {
                Self::Banned(Banned { user_id: None, network: Some(network.to_string().into()) })
            }
            RestrictionTarget::Muted { user, room } => {
                let room = room.as_ref().map(|room| room.as_str().into());
                Self::Muted(Muted { user_id: user.as_str().into(), room })
            }
        }
    }

    fn read(self) -> Result<RestrictionTarget, String> {
        match self {
            Self::Banned(Banned { user_id: Some(user), network: None }) => {
                Ok(RestrictionTarget::BannedUser(read_user(&user)?))
            }
            Self::Banned(Banned { user_id: None, network: Some(network) }) => {
                Ok(RestrictionTarget::BannedNetwork(network.parse()?))
            }
            Self::Banned(_) => Err("a ban is of a user or of a network".to_owned()),
            Self::Muted(Muted { user_id, room }) => {
                let room = room.map(|room| read_room(&room)).transpose()?;
                Ok(RestrictionTarget::Muted { user: read_user(&user_id)?, room })
            }
        }
    }

    fn restrict(self, term: WrittenTerm<'_>) -> Result<Moderation, String> {
        let WrittenTerm { reason, expires_at } = term;
        let reason = reason.map(Cow::into_owned);
        let restriction = Restriction { target: self.read()?, reason, expires_at };
        restriction.check()?;
        Ok(Moderation::Restrict(restriction))
    }

    fn lift(self) -> Result<Moderation, String> {
        self.read().map(Moderation::Lift)
    }
}

fn read_user(text: &str) -> Result<UserId, String> {
    UserId::new(text).map_err(|error| error.to_string())
}

fn read_room(text: &str) -> Result<RoomName, String> {
    RoomName::new(text).map_err(|error| error.to_string())
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
    pub fn body(&self, now: Now) -> Bytes {
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
            Self::Purge { user } => Command::Purge { user_id: user.as_str().into(), ts },
            Self::Restrict(Restriction { target, reason, expires_at }) => {
                let term = WrittenTerm { reason: reason.as_deref().map(Into::into), expires_at: *expires_at };
                match WrittenTarget::of(target) {
                    WrittenTarget::Banned(who) => Command::Ban { who, term, ts },
                    WrittenTarget::Muted(who) => Command::Mute { who, term, ts },
                }
            }
            Self::Lift(target) => match WrittenTarget::of(target) {
                WrittenTarget::Banned(who) => Command::Unban { who, ts },
                WrittenTarget::Muted(who) => Command::Unmute { who, ts },
            },
        }
    }

    /// The change of the restrictions that it is, if it is one.
    pub fn change(&self) -> Option<RestrictionChange> {
        let (target, action) = match self {
            Self::Disconnect { .. } | Self::Kick { .. } | Self::Purge { .. } => return None,
            Self::Restrict(Restriction { target, expires_at, .. }) => {
                (target, RestrictionAction::Keep { expires_at: *expires_at })
            }
            Self::Lift(target) => (target, RestrictionAction::Lift),
        };
        Some(RestrictionChange { key: target.key().into(), action })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Disconnect { reason, .. } => check_code(reason.code()),
            Self::Restrict(restriction) => restriction.check(),
            Self::Kick { .. } | Self::Purge { .. } | Self::Lift(_) => Ok(()),
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
        let (moderation, ts) = match serde_json::from_slice(&text).map_err(|error| error.to_string())? {
            Command::Disconnect { user_id, code, reason, ts } => {
                (Self::disconnect(read_user(&user_id)?, code, &reason)?, ts)
            }
            Command::Kick { room, user_id, ts } => {
                (Self::Kick { room: read_room(&room)?, user: read_user(&user_id)? }, ts)
            }
            Command::Purge { user_id, ts } => (Self::Purge { user: read_user(&user_id)? }, ts),
            Command::Ban { who, term, ts } => (WrittenTarget::Banned(who).restrict(term)?, ts),
            Command::Unban { who, ts } => (WrittenTarget::Banned(who).lift()?, ts),
            Command::Mute { who, term, ts } => (WrittenTarget::Muted(who).restrict(term)?, ts),
            Command::Unmute { who, ts } => (WrittenTarget::Muted(who).lift()?, ts),
            Command::Unknown => return Err("it is of a kind that this version does not know".to_owned()),
        };
        Ok((moderation, ts))
    }
}

/// As the log has it.
impl fmt::Display for Moderation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnect { user, reason } => write!(f, "disconnect {user} with {}", reason.code()),
            Self::Kick { room, user } => write!(f, "kick {user} out of room {room}"),
            Self::Purge { user } => write!(f, "purge {user} from all rooms"),
            Self::Restrict(Restriction { target, expires_at: None, .. }) => f.write_str(&target.key()),
            Self::Restrict(Restriction { target, expires_at: Some(at), .. }) => {
                write!(f, "{} until {at} (Unix milliseconds)", target.key())
            }
            Self::Lift(target) => write!(f, "lift {}", target.key()),
        }
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
        let purge = Moderation::Purge { user: UserId::new("ann").unwrap() };
        let expected = r#"{"type":"purge","userId":"ann","ts":7"#;
        assert_eq!((purge.body(now), Moderation::read(expected.as_bytes())), (expected.into(), Ok((purge, 7))));
        let disconnect = disconnect("ann", 4600, "said \"no\"");
        let expected = r#"{"type":"disconnect","userId":"ann","code":4600,"reason":"said \"no\"","ts":7"#;
        assert_eq!(
            (disconnect.body(now), Moderation::read(expected.as_bytes())),
            (expected.into(), Ok((disconnect, 7)))
        );
    }

    #[test]
    fn restrictions_are_json_and_come_back_as_they_were() {
        let now = Now { unix_ms: 7, ..Now::default() };
        let ann = UserId::new("ann").unwrap();
        let ban = |target| Restriction {
            reason: Some("said \"no\"".into()),
            expires_at: Some(9),
            ..Restriction::new(target)
        };
        let network = RestrictionTarget::BannedNetwork("192.0.2.0/24".parse().unwrap());
        let mute = |room: Option<&str>| RestrictionTarget::Muted {
            user: ann.clone(),
            room: room.map(|room| RoomName::new(room).unwrap()),
        };
        for (moderation, expected) in [
            (
                Moderation::Restrict(ban(RestrictionTarget::BannedUser(ann.clone()))),
                r#"{"type":"ban","userId":"ann","reason":"said \"no\"","expiresAt":9,"ts":7"#,
            ),
            (
                Moderation::Restrict(Restriction::new(network.clone())),
                r#"{"type":"ban","network":"192.0.2.0/24","ts":7"#,
            ),
            (Moderation::Lift(network), r#"{"type":"unban","network":"192.0.2.0/24","ts":7"#),
            (Moderation::Restrict(Restriction::new(mute(None))), r#"{"type":"mute","userId":"ann","ts":7"#),
            (Moderation::Lift(mute(Some("a"))), r#"{"type":"unmute","userId":"ann","room":"a","ts":7"#),
        ] {
            assert_eq!(
                (moderation.body(now), Moderation::read(expected.as_bytes())),
                (expected.into(), Ok((moderation, 7)))
            );
        }
        for bad in [r#""type":"ban""#, r#""type":"ban","userId":"ann","network":"::1""#, r#""type":"mute","room":"a""#]
        {
            assert!(Moderation::read(format!(r#"{{{bad},"ts":7"#).as_bytes()).is_err(), "{bad}");
        }
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
