//! The sockets beyond the greatest number of WebSockets, which are there for health checks and refusals: whoever holds one for
//! nothing makes room for the next.

use crate::id::ConnectionId;

use super::Net;
use super::connection::{Connection, Flag};
use super::handler::Handler;
use super::phase::Phase;

/// How many spare sockets a turn takes back. A request that is on its way when its connection is accepted arrives many turns
/// before so many others have displaced it.
const RECLAIMED_PER_TURN: usize = 8;

impl<R> Connection<R> {
    /// Whether nothing is lost with it but the answer to a request that has not come. Strangers do not displace operators.
    fn is_reclaimable(&self) -> bool {
        match self.phase {
            _ if self.is(Flag::Admin) => false,
            Phase::ProxyHeader(_) | Phase::TlsHandshake | Phase::Head(_) => !self.is(Flag::Queued),
            Phase::KeepAlive(None) | Phase::AwaitingClose(_) | Phase::Draining => {
                self.write_buffer.is_none() && !self.is(Flag::Queued)
            }
            _ => false,
        }
    }
}

impl<R> Net<R> {
    /// A connection was accepted beyond the greatest number of WebSockets.
    pub(super) fn insert_spare(&mut self, id: ConnectionId) {
        if self.queues.spares.len() >= 2 * self.limits.connections_reserved as usize {
            let mut ids = std::mem::take(&mut self.queues.spares);
            ids.retain(|id| self.find(*id).is_some());
            self.queues.spares = ids;
        }
        self.queues.spares.push_back(id);
        // Its request may be there already: it is answered in this turn, before others displace it.
        self.connections[id.slot.index()].set(Flag::Readable);
        self.queue_read(id.slot);
    }

    fn reclaimable(&self) -> impl Iterator<Item = ConnectionId> {
        let is_reclaimable = |id: &ConnectionId| self.find(*id).is_some_and(Connection::is_reclaimable);
        self.queues.spares.iter().copied().filter(is_reclaimable)
    }

    /// Whether a spare socket could be taken back for somebody who waits.
    pub(super) fn can_reclaim(&self) -> bool {
        self.reclaimable().next().is_some()
    }

    /// Ends the oldest connections that hold a spare socket for nothing; the next turn accepts others in their place.
    pub(super) fn reclaim(&mut self, handler: &mut impl Handler<Route = R>) {
        let reclaimed: Vec<_> = self.reclaimable().take(RECLAIMED_PER_TURN).collect();
        for id in reclaimed {
            log::debug!("connection {id}: makes room for another one");
            self.stats.spare_sockets_reclaimed += 1;
            self.end(id.slot, handler);
        }
    }
}
