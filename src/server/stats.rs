//! The counts of a server.

use crate::hub::HubStats;
use crate::metric::{Metric, MetricKind};
use crate::net::NetStats;

use super::http::api::ApiStats;
use super::turn_watch::PhaseUnits;

pub(super) const TURN_UNITS_MAX: &str = "turn_units_max";
pub(super) const TURN_UNITS_HELP: &str = "The most units of work that a phase has done in one turn.";

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
    /// The most work of each phase in one turn.
    pub units_max: PhaseUnits,
}

impl Stats {
    /// The same counts as metrics.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let Self { hub, net, api, turns, units_max } = self;
        let help = "Turns of the event loop.";
        let turns = Metric { name: "turns", label: None, help, kind: MetricKind::Counter, value: *turns as f64 };
        let of_phase = |(phase, units): (&'static str, u32)| {
            let (name, label, kind) = (TURN_UNITS_MAX, Some(("phase", phase)), MetricKind::Gauge);
            Metric { name, label, help: TURN_UNITS_HELP, kind, value: units.into() }
        };
        let units = units_max.by_phase().map(of_phase).collect();
        [hub.metrics(), net.metrics(), api.metrics(), vec![turns], units].concat()
    }
}
