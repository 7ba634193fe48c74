//! The counts of a server.

use crate::hub::HubStats;
use crate::metric::{Metric, MetricKind};
use crate::net::NetStats;

use super::http::api::ApiStats;

/// All counts of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Counts of rooms, members and messages.
    pub hub: HubStats,
    /// Counts of sockets and bytes.
    pub net: NetStats,
    /// Counts of requests to the HTTP API.
    pub api: ApiStats,
    /// Turns of the loop.
    pub turns: u64,
}

impl Stats {
    /// The same counts as metrics.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let Self { hub, net, api, turns } = self;
        let help = "Turns of the event loop.";
        let turns = Metric { name: "turns", share: None, help, kind: MetricKind::Counter, value: *turns as f64 };
        [hub.metrics(), net.metrics(), api.metrics(), vec![turns]].concat()
    }
}
