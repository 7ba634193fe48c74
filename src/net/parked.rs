//! Which handshakes wait for a decision, and whose they are.

use std::collections::HashMap;

use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::quota::Quota;

use super::handler::AdmissionTicket;

/// The handshakes that wait for a decision, and the addresses that they came from.
///
/// **Bound:** an address may have as many as are free, so that one alone cannot keep others out.
#[derive(Debug)]
pub(super) struct ParkedHandshakes {
    by_ticket: HashMap<AdmissionTicket, (ConnectionId, Owner)>,
    quota: Quota,
}

impl ParkedHandshakes {
    pub(super) fn new(max: u32) -> Self {
        Self { by_ticket: HashMap::new(), quota: Quota::new(max as usize) }
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// The owner of the address that a handshake came from.
    pub(super) fn owner(&self, ticket: AdmissionTicket) -> Option<Owner> {
        self.by_ticket.get(&ticket).map(|(_, owner)| *owner)
    }

    /// Whether another handshake of an owner may wait.
    pub(super) fn has_space(&self, owner: Owner) -> bool {
        self.quota.has_space(owner, 1)
    }

    pub(super) fn insert(&mut self, ticket: AdmissionTicket, id: ConnectionId, owner: Owner) {
        self.by_ticket.insert(ticket, (id, owner));
        self.quota.charge(owner, 1);
    }

    pub(super) fn remove(&mut self, ticket: AdmissionTicket) -> Option<ConnectionId> {
        let (id, owner) = self.by_ticket.remove(&ticket)?;
        self.quota.release(owner, 1);
        Some(id)
    }
}
