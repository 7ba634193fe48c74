//! New tokens of connections about which the authenticator decides later.

use std::time::Duration;

use crate::id::ConnectionId;
use crate::net::AdmissionTicket;
use crate::time::Now;

/// A new token that a decision is awaited about.
#[derive(Debug)]
struct PendingRefresh {
    ticket: AdmissionTicket,
    connection: ConnectionId,
    until: Duration,
}

/// Those that wait, the oldest first.
#[derive(Debug)]
pub(super) struct Refreshes {
    pending: Vec<PendingRefresh>,
    max: usize,
    wait: Duration,
}

impl Refreshes {
    /// As many may wait, and as long, as handshakes.
    pub(super) fn new(max: u32, wait: Duration) -> Self {
        Self { pending: Vec::new(), max: max as usize, wait }
    }

    /// Has a connection wait. Says whether there is room for it.
    pub(super) fn insert(&mut self, now: Now, ticket: AdmissionTicket, connection: ConnectionId) -> bool {
        let has_room = self.pending.len() < self.max;
        if has_room {
            self.pending.push(PendingRefresh { ticket, connection, until: now.uptime + self.wait });
        }
        has_room
    }

    /// The connection that waits with a ticket; it waits no longer.
    pub(super) fn take(&mut self, ticket: AdmissionTicket) -> Option<ConnectionId> {
        let at = self.pending.iter().position(|pending| pending.ticket == ticket)?;
        Some(self.pending.remove(at).connection)
    }

    /// One that has waited for too long; it waits no longer.
    pub(super) fn take_overdue(&mut self, now: Now) -> Option<(AdmissionTicket, ConnectionId)> {
        self.pending.first().filter(|pending| now.uptime >= pending.until)?;
        let PendingRefresh { ticket, connection, .. } = self.pending.remove(0);
        Some((ticket, connection))
    }

    /// How long until one has waited for too long.
    pub(super) fn timeout(&self, now: Now) -> Option<Duration> {
        self.pending.first().map(|pending| pending.until.saturating_sub(now.uptime))
    }
}
