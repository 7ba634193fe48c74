//! What a back-end may ask of a server as a whole.

use crate::hub::HubStats;
use crate::metric::Metric;
use crate::net::NetStats;
use crate::settings::MemoryShares;
use crate::time::Now;

/// How a server does, as of the turn's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerReport<'a> {
    /// The name of this node, unless the bus has another one.
    pub(super) node: &'a str,
    /// When it was built.
    pub(super) started: Now,
    pub(super) hub: HubStats,
    pub(super) net: NetStats,
    /// What each share of memory may hold.
    pub(super) shares: MemoryShares,
}

impl ServerReport<'_> {
    /// The counts of hub and net.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        [self.hub.metrics(), self.net.metrics()].concat()
    }
}
