//! What is exported for monitoring: all counts, and how long turns take; as text that Prometheus reads.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::http::api::ApiStats;
use super::stats::Stats;
use crate::bus::{Metric, MetricKind};
use crate::hub::HubStats;
use crate::net::{NetStats, Response};

/// The media type of the text: OpenMetrics, which Prometheus has read since version 2.5.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of turn times, in microseconds.
const BOUNDS_MICROS: [u64; 13] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

/// How much of the processor the loop's thread has used in each turn. Plain counters: only the loop's thread comes here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TurnTimes {
    /// What the thread had used when the present turn began.
    began: Duration,
    /// Turns up to each bound and above the one before; the last are those above all.
    counts: [u64; BOUNDS_MICROS.len() + 1],
    sum: Duration,
}

impl TurnTimes {
    /// A turn begins; its thread has used so much so far.
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
    /// What the bus counts.
    pub(super) bus: Vec<Metric>,
    /// Unless nobody measures them.
    pub(super) turn_times: Option<TurnTimes>,
}

impl MetricsSnapshot {
    /// The answer to `/metrics`.
    pub(super) fn response(&self) -> Response {
        Response::new(StatusCode::OK, MEDIA_TYPE, self.text().into_bytes()).with("Cache-Control", "no-store")
    }

    /// The text; see [`MEDIA_TYPE`].
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
        let (gauges, counters) = list(&self.stats);
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        for Metric { name, help, kind, value } in &self.bus {
            match kind {
                MetricKind::Gauge => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    ConstGauge::new(*value).encode(metric)?;
                }
                MetricKind::Counter => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    ConstCounter::new(*value).encode(metric)?;
                }
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

/// Name, help and value.
type Line = (&'static str, &'static str, u64);

/// The gauges and the counters. What is missing here does not compile: everything that is counted is exported.
fn list(stats: &Stats) -> (Vec<Line>, Vec<Line>) {
    let Stats { hub, net, api, turns } = *stats;
    let (mut gauges, mut counters) = list_hub(hub);
    let (gauges_of_net, counters_of_net) = list_net(net);
    gauges.extend(gauges_of_net);
    counters.extend(counters_of_net);
    counters.extend(list_api(api));
    counters.push(("turns", "Turns of the event loop.", turns));
    (gauges, counters)
}

fn list_hub(stats: HubStats) -> (Vec<Line>, Vec<Line>) {
    let HubStats {
        connections,
        users,
        rooms,
        log_bytes,
        messages_received,
        messages_delivered,
        sends,
        sent_bytes,
        appended_bytes,
        rounds_delayed,
        rounds_hastened,
        fallbacks,
        stalled,
        moderated,
        rate_limited,
        errors,
    } = stats;
    let gauges = vec![
        ("connections", "Connections that were welcomed and are still there.", connections as u64),
        (
            "users",
            "Distinct users: connected, within their grace period, or present on another node in a room that is open here.",
            users as u64,
        ),
        ("rooms", "Rooms that are held in memory.", rooms as u64),
        ("room_log_bytes", "Bytes held in the fan-out logs of all rooms.", log_bytes as u64),
    ];
    let counters = vec![
        ("messages_received", "Messages received from clients, of any type.", messages_received),
        ("messages_delivered", "Chat messages delivered to rooms, each counted once.", messages_delivered),
        ("room_sends", "Writes of a room log to a member.", sends),
        ("room_sent_bytes", "Bytes that sockets took in these writes.", sent_bytes),
        (
            "room_appended_bytes",
            "Bytes appended to room logs, counted once however many members a room has.",
            appended_bytes,
        ),
        ("room_rounds_delayed", "Rounds of rooms that waited for the batch delay.", rounds_delayed),
        ("room_rounds_hastened", "Of these, rounds that began before the delay was over.", rounds_hastened),
        ("member_fallbacks", "Times a slow member fell back from the room log to reading history.", fallbacks),
        ("stall_timeouts", "Connections closed because they took no bytes within --stall-timeout.", stalled),
        ("connections_moderated", "Connections that a moderation command closed or removed from a room.", moderated),
        ("messages_rate_limited", "Messages refused by the rate limit.", rate_limited),
        ("error_messages", "Error messages sent to clients.", errors),
    ];
    (gauges, counters)
}

fn list_net(stats: NetStats) -> (Vec<Line>, Vec<Line>) {
    let NetStats {
        sockets,
        open,
        accepted,
        admissions_pending,
        admissions_rejected,
        admission_timeouts,
        upgraded,
        answered,
        accept_pauses,
        received_bytes,
        partial_frame_bytes,
        heartbeat_timeouts,
    } = stats;
    let gauges = vec![
        ("sockets", "Sockets that were accepted and are not closed yet.", sockets as u64),
        ("websockets", "Open WebSockets, without those that are closing.", open as u64),
        ("admissions_pending", "Handshakes that wait for a decision.", admissions_pending as u64),
    ];
    let counters = vec![
        ("sockets_accepted", "Sockets accepted.", accepted),
        ("admissions_rejected", "Handshakes refused because too many waited for a decision.", admissions_rejected),
        ("admission_timeouts", "Handshakes refused because no decision came in time.", admission_timeouts),
        ("http_upgrades", "HTTP requests upgraded to a WebSocket.", upgraded),
        ("http_responses", "HTTP requests answered without an upgrade, timeouts included.", answered),
        (
            "accept_pauses",
            "Times that accepting paused because the system was out of file descriptors or memory.",
            accept_pauses,
        ),
        ("received_bytes", "Bytes received from sockets.", received_bytes),
        ("partial_frame_bytes", "Bytes copied because a socket took only part of a frame.", partial_frame_bytes),
        (
            "heartbeat_timeouts",
            "Connections closed because no answer to a ping came within --pong-timeout.",
            heartbeat_timeouts,
        ),
    ];
    (gauges, counters)
}

fn list_api(stats: ApiStats) -> Vec<Line> {
    let ApiStats { accepted, duplicates, rejected, rejected_temporary } = stats;
    vec![
        ("api_accepted", "HTTP API requests that were carried out.", accepted),
        ("api_duplicates", "HTTP API requests that repeated the id of an earlier one.", duplicates),
        ("api_rejected", "HTTP API requests rejected for good: wrong key, path or body.", rejected),
        (
            "api_rejected_temporary",
            "HTTP API requests rejected for now; the caller may send them again.",
            rejected_temporary,
        ),
    ]
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
        let text = MetricsSnapshot { stats: Stats::default(), bus: Vec::new(), turn_times: Some(times) }.text();
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
