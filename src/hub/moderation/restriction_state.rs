//! Bans and mutes that are in force, and the addresses of the connections that they may concern.

use std::time::Duration;

use crate::restrictions::{PeerAddresses, Restrictions};
use crate::time::Now;

/// The clock of the day may be set, so what it decides is looked at again at least so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Bans and mutes, and whom they concern here.
#[derive(Debug, Default)]
pub(in crate::hub) struct RestrictionState {
    pub(in crate::hub) table: Restrictions,
    pub(in crate::hub) addresses: PeerAddresses,
    /// Chat messages refused because their user is muted.
    pub(in crate::hub) muted: u64,
    /// Handshakes refused because their user or address is banned.
    pub(in crate::hub) banned: u64,
}

impl RestrictionState {
    pub(in crate::hub) fn has_work(&self) -> bool {
        self.table.is_sweeping()
    }

    /// How long until the next one expires.
    pub(in crate::hub) fn timeout(&self, now: Now) -> Option<Duration> {
        let at = self.table.next_expiry()?;
        Some(Duration::from_millis(at.saturating_sub(now.unix_ms)).min(LOOK_INTERVAL))
    }
}
