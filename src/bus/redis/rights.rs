//! Whether the Redis user may call all that the scripts call, at all servers.

use super::RedisBus;
use super::commands::RightsPlace;
use crate::id::RoomName;

/// What is known of the rights of the Redis user.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// The commands that it may not call at the server that has the heartbeats, when they were last checked.
    missing: Vec<String>,
    /// A room at whose server a right was refused; in a cluster that may be another one. It is checked until nothing is missing.
    pub(super) doubted: Option<RoomName>,
    /// The commands that it may not call there.
    missing_in_doubt: Vec<String>,
    /// What the log was told.
    said: Vec<String>,
}

impl Rights {
    /// A right was refused at the server of a room.
    pub(super) fn doubt(&mut self, room: RoomName) {
        if self.doubted.is_none() {
            self.doubted = Some(room);
        }
    }
}

impl RedisBus {
    /// Takes the commands that the Redis user may not call. A node that lacks one is not ready: it
    /// would refuse what clients ask.
    pub(super) fn take_rights(&mut self, place: &RightsPlace, missing: Vec<String>) {
        let rights = &mut self.rights;
        match place {
            RightsPlace::Nodes => rights.missing = missing,
            RightsPlace::Room(_) => {
                if missing.is_empty() {
                    rights.doubted = None;
                }
                rights.missing_in_doubt = missing;
            }
        }
        let mut all = [&rights.missing[..], &rights.missing_in_doubt].concat();
        all.sort();
        all.dedup();
        self.counters.rights_missing.set(!all.is_empty() || rights.doubted.is_some());
        if all != rights.said {
            if all.is_empty() {
                log::info!("the redis user has all rights now");
            } else {
                log::error!("the redis user lacks rights: give it +{} (ACL SETUSER)", all.join(" +"));
            }
            rights.said = all;
        }
    }
}
