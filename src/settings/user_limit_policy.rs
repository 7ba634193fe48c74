//! What becomes of a connection too many of a user.

use std::str::FromStr;

/// Which connection gives way when a user has more than [`connections_per_user_max`](super::NetLimits::connections_per_user_max).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserLimitPolicy {
    /// The oldest one is closed with [`CloseReason::REPLACED`](crate::CloseReason::REPLACED), and its client does not come back
    /// by itself.
    #[default]
    CloseOldest,
    /// The newest one is refused: its handshake is answered by 429.
    RefuseNewest,
}

impl FromStr for UserLimitPolicy {
    type Err = String;

    /// Reads `close-oldest` or `refuse-newest`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "close-oldest" => Ok(Self::CloseOldest),
            "refuse-newest" => Ok(Self::RefuseNewest),
            _ => Err("close-oldest and refuse-newest are allowed".to_owned()),
        }
    }
}
