//! What identities take of memory, charged to the owners of their connections.

use crate::id::ConnectionId;
use crate::owner::Owner;

use super::Hub;
use super::account::Held;
use super::credentials::Credentials;
use super::timers::Timers;
use super::users::NameCharge;

impl Hub {
    /// Changes the credential of a connection, and charges its owner for what it takes then, whether there is space or not.
    pub(super) fn change_credential<T>(
        &mut self,
        (id, owner): (ConnectionId, Owner),
        change: impl FnOnce(&mut Credentials, &mut Timers) -> T,
    ) -> T {
        let before = self.credentials.held_bytes(id);
        let changed = change(&mut self.credentials, &mut self.timers);
        let after = self.credentials.held_bytes(id);
        if after != before {
            self.rooms.account.charge(owner, Held::Identity(after));
            self.rooms.account.release(owner, Held::Identity(before));
        }
        changed
    }

    /// Charges for display names that have come, and releases from those that have gone.
    pub(super) fn settle_names(&mut self) {
        for change in self.users.take_name_charges() {
            match change {
                NameCharge::Charged(owner, bytes) => self.rooms.account.charge(owner, Held::Identity(bytes)),
                NameCharge::Released(owner, bytes) => self.rooms.account.release(owner, Held::Identity(bytes)),
            }
        }
    }
}
