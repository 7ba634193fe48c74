//! Whether the Redis user may call all that the scripts call, at all servers.

use super::commands::RightsPlace;
use crate::id::RoomName;

/// The rights that the Redis user is known to lack.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// The commands that it may not call at the server that has the heartbeats, when they were last checked.
    missing: Vec<String>,
    /// A room at whose server a right was refused; in a cluster that may be another one. It is checked until nothing is missing.
    pub(super) doubted: Option<RoomName>,
    /// The commands that it may not call there.
    missing_in_doubt: Vec<String>,
    /// The commands that the log has named last.
    said: Vec<String>,
}

impl Rights {
    /// A right was refused at the server of a room.
    pub(super) fn doubt(&mut self, room: RoomName) {
        if self.doubted.is_none() {
            self.doubted = Some(room);
        }
    }

    /// Takes the commands that the Redis user may not call. Says whether any are missing, or may be.
    pub(super) fn answer(&mut self, place: &RightsPlace, missing: Vec<String>) -> bool {
        match place {
            RightsPlace::Nodes => self.missing = missing,
            RightsPlace::Room(_) => {
                if missing.is_empty() {
                    self.doubted = None;
                }
                self.missing_in_doubt = missing;
            }
        }
        let mut all = [&self.missing[..], &self.missing_in_doubt].concat();
        all.sort();
        all.dedup();
        let is_any_missing = !all.is_empty() || self.doubted.is_some();
        if all != self.said {
            if all.is_empty() {
                log::info!("the redis user has all rights now");
            } else {
                log::error!("the redis user lacks rights: give it +{} (ACL SETUSER)", all.join(" +"));
            }
            self.said = all;
        }
        is_any_missing
    }
}
