//! What a server counts.

use crate::hub::HubStats;
use crate::metric::{Metric, MetricKind};
use crate::net::NetStats;

use super::http::api::ApiStats;

/// Counts of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Of rooms and members.
    pub hub: HubStats,
    /// Of sockets.
    pub net: NetStats,
    /// Of the HTTP API.
    pub api: ApiStats,
    /// Turns since the server was made.
    pub turns: u64,
}

impl Stats {
    /// The same as metrics.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let Self { hub, net, api, turns } = self;
        let help = "Turns of the event loop.";
        let turns = Metric { name: "turns", help, kind: MetricKind::Counter, value: *turns as f64 };
        [hub.metrics(), net.metrics(), api.metrics(), vec![turns]].concat()
    }
}
