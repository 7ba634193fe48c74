//! Which handshakes wait for a decision, and whose they are.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::quota::Quota;

use super::handler::AdmissionTicket;

/// Where a handshake came from that waits for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedSource {
    /// Its address, or the listener of its Unix socket: what it is charged to.
    pub owner: Owner,
    /// Its address, if it has one.
    pub address: Option<IpAddr>,
}

/// The handshakes that wait for a decision, and the addresses that they came from.
///
/// **Bound:** all, of which each address has a [quota](crate::quota), so that one alone cannot keep others out.
#[derive(Debug)]
pub(super) struct ParkedHandshakes {
    by_ticket: HashMap<AdmissionTicket, (ConnectionId, ParkedSource)>,
    quota: Quota,
}

impl ParkedHandshakes {
    pub(super) fn new(max: u32) -> Self {
        Self { by_ticket: HashMap::new(), quota: Quota::new(max as usize) }
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Where a handshake came from.
    pub(super) fn source(&self, ticket: AdmissionTicket) -> Option<ParkedSource> {
        self.by_ticket.get(&ticket).map(|(_, source)| *source)
    }

    /// Whether another handshake of an owner may wait.
    pub(super) fn has_space(&self, owner: Owner) -> bool {
        self.quota.has_space(owner, 1)
    }

    pub(super) fn insert(&mut self, ticket: AdmissionTicket, id: ConnectionId, source: ParkedSource) {
        self.by_ticket.insert(ticket, (id, source));
        self.quota.charge(source.owner, 1);
    }

    pub(super) fn remove(&mut self, ticket: AdmissionTicket) -> Option<ConnectionId> {
        let (id, source) = self.by_ticket.remove(&ticket)?;
        self.quota.release(source.owner, 1);
        Some(id)
    }
}
