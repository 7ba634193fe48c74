//! The text for Prometheus: all counts, and how long turns take.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::stats::{Stats, TURN_UNITS_HELP, TURN_UNITS_MAX};
use crate::metric::{MEMORY_BYTES, Metric, MetricKind};
use crate::net::Response;
use crate::settings::MemoryShares;

/// The media type of the text: OpenMetrics, which Prometheus has read since version 2.5.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const MEMORY_HELP: &str = "Bytes held for peers, by share of --memory.";
const MEMORY_BYTES_MAX: &str = "memory_bytes_max";
const MEMORY_MAX_HELP: &str = "Bytes that each share of --memory may hold.";

/// Upper bounds of the buckets of turn times, in microseconds.
const BOUNDS_MICROS: [u64; 13] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

/// How much processor time the loop's thread has used in each turn. Plain counters suffice, since only
/// that thread counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TurnTimes {
    /// The processor time of the thread when the present turn began.
    began: Duration,
    /// Turns up to each bound and above the bound before it, and at last those above all bounds.
    counts: [u64; BOUNDS_MICROS.len() + 1],
    sum: Duration,
}

impl TurnTimes {
    /// A turn begins. `used` is the processor time of its thread so far.
    pub(super) fn begin_turn(&mut self, used: Duration) {
        self.began = used;
    }

    /// The turn ends.
    pub(super) fn end_turn(&mut self, used: Duration) {
        let took = used.saturating_sub(self.began);
        let bucket = BOUNDS_MICROS.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.counts[bucket] += 1;
        self.sum += took;
    }
}

/// Everything that is exported, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct MetricsSnapshot {
    pub(super) stats: Stats,
    /// The counts of the bus.
    pub(super) bus: Vec<Metric>,
    /// The counts of the authenticator.
    pub(super) authenticator: Vec<Metric>,
    /// What each share of memory may hold.
    pub(super) shares: MemoryShares,
    /// None unless [`Config::metrics`](crate::Config::metrics) is set.
    pub(super) turn_times: Option<TurnTimes>,
}

impl MetricsSnapshot {
    fn shares(&self) -> Vec<Metric> {
        let gauge = |(share, bytes): (&'static str, usize)| {
            let (name, kind) = (MEMORY_BYTES_MAX, MetricKind::Gauge);
            Metric { name, label: Some(("share", share)), help: MEMORY_MAX_HELP, kind, value: bytes as f64 }
        };
        self.shares.by_name().map(gauge).to_vec()
    }

    /// The answer to `/metrics`.
    pub(super) fn response(&self) -> Response {
        Response::new(StatusCode::OK, MEDIA_TYPE, self.text().into_bytes()).with("Cache-Control", "no-store")
    }

    /// The text; see [`MEDIA_TYPE`].
    #[expect(clippy::expect_used, reason = "writing into memory does not fail")]
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::with_prefix("roomcast");
        registry.register_collector(Box::new(self.clone()));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("a string takes everything");
        out
    }
}

impl Collector for MetricsSnapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = [self.stats.metrics(), self.bus.clone(), self.authenticator.clone(), self.shares()].concat();
        let (labelled, others): (Vec<_>, Vec<_>) = metrics.iter().partition(|metric| metric.label.is_some());
        for metric in others {
            encode_value(metric, encoder.encode_descriptor(metric.name, metric.help, None, metric_type(metric.kind))?)?;
        }
        let families =
            [(MEMORY_BYTES, MEMORY_HELP), (MEMORY_BYTES_MAX, MEMORY_MAX_HELP), (TURN_UNITS_MAX, TURN_UNITS_HELP)];
        for (name, help) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for metric in labelled.iter().filter(|metric| metric.name == name) {
                encode_value(metric, family.encode_family(&metric.label.into_iter().collect::<Vec<_>>())?)?;
            }
        }
        let Some(TurnTimes { counts, sum, .. }) = self.turn_times else { return Ok(()) };
        let help = "CPU time that the loop's thread used in a turn.";
        let mut metric = encoder.encode_descriptor("turn_cpu_seconds", help, None, MetricType::Histogram)?;
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        metric.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), counts.iter().sum(), &buckets, None)
    }
}

fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Counter => MetricType::Counter,
    }
}

fn encode_value(metric: &Metric, encoder: MetricEncoder<'_>) -> fmt::Result {
    let Metric { kind, value, .. } = *metric;
    // Whole numbers are written as such.
    let is_whole = value.fract() == 0.0;
    match kind {
        MetricKind::Gauge if is_whole => ConstGauge::new(value as u64).encode(encoder),
        MetricKind::Gauge => ConstGauge::new(value).encode(encoder),
        MetricKind::Counter if is_whole => ConstCounter::new(value as u64).encode(encoder),
        MetricKind::Counter => ConstCounter::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_counted_up_to_the_bound_that_it_just_reaches() {
        let mut times = TurnTimes::default();
        let mut used = Duration::from_secs(3);
        for micros in [0, 5, 6, 1_000, 1_001, 50_000, 50_001] {
            times.begin_turn(used);
            used += Duration::from_micros(micros);
            times.end_turn(used);
        }
        assert_eq!(times.counts, [2, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1]);
        let shares = crate::Config::default().memory_shares();
        let (bus, authenticator) = (Vec::new(), Vec::new());
        let snapshot = MetricsSnapshot { stats: Stats::default(), bus, authenticator, shares, turn_times: Some(times) };
        let text = snapshot.text();
        for line in [
            "roomcast_turn_cpu_seconds_bucket{le=\"0.001\"} 4\n",
            "roomcast_turn_cpu_seconds_bucket{le=\"0.05\"} 6\n",
            "roomcast_turn_cpu_seconds_bucket{le=\"+Inf\"} 7\n",
            "roomcast_turn_cpu_seconds_count 7\n",
            "roomcast_turn_cpu_seconds_sum 0.102013\n",
        ] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
    }
}
