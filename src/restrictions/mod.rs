//! Bans and mutes: what they are, and the table of those that are in force.

mod network;
mod peer_addresses;
mod table;

pub use self::network::Network;
pub use self::peer_addresses::PeerAddress;
pub(crate) use self::peer_addresses::PeerAddresses;
pub(crate) use self::table::{RestrictionKind, Restrictions, Term};

use crate::id::{RoomName, UserId};

/// The longest reason of a restriction in bytes. It fits into a Close frame.
pub(crate) const REASON_BYTES_MAX: usize = 123;

/// What a restriction concerns, and whether it is a ban or a mute. There is one restriction of each at most: a new one takes
/// the place of the last.
///
/// A ban closes connections and refuses handshakes. A mute refuses chat messages and drops signals, typing for example.
// The order of lists: users, networks, mutes; those of one user together, the one for everywhere first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RestrictionTarget {
    /// The user is banned.
    BannedUser(UserId),
    /// All addresses of the network are banned.
    BannedNetwork(Network),
    /// The user is muted.
    Muted {
        /// Who.
        user: UserId,
        /// Where, or `None` for everywhere.
        room: Option<RoomName>,
    },
}

impl RestrictionTarget {
    /// A text that no other target has.
    pub(crate) fn key(&self) -> String {
        // No name contains a space.
        match self {
            Self::BannedUser(user) => format!("ban user {user}"),
            Self::BannedNetwork(network) => format!("ban network {network}"),
            Self::Muted { user, room: None } => format!("mute {user}"),
            Self::Muted { user, room: Some(room) } => format!("mute {user} {room}"),
        }
    }
}

/// A ban or a mute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// What it concerns.
    pub target: RestrictionTarget,
    /// The reason, which the banned or muted person is told: at most 123 bytes.
    pub reason: Option<String>,
    /// When it expires, in Unix milliseconds.
    pub expires_at: Option<u64>,
}

impl Restriction {
    /// A restriction without a reason that does not expire.
    pub fn new(target: RestrictionTarget) -> Self {
        Self { target, reason: None, expires_at: None }
    }

    /// What is out of its bounds, and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.reason.as_ref().map_or(0, String::len) {
            found if found > REASON_BYTES_MAX => Err(format!("reason of {found} bytes exceeds {REASON_BYTES_MAX}")),
            _ => Ok(()),
        }
    }
}
