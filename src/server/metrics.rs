//! What is exported for monitoring: all counts, and how long turns take; as text that Prometheus reads.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{ApiStats, Stats};
use crate::bus::{Figure, FigureKind};
use crate::hub::HubStats;
use crate::net::NetStats;

/// The media type of the text: OpenMetrics, which Prometheus has read since version 2.5.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
pub(super) struct Scrape {
    pub(super) stats: Stats,
    /// What the bus counts.
    pub(super) bus: Vec<Figure>,
    /// Unless nobody measures them.
    pub(super) turn_times: Option<TurnTimes>,
}

impl Scrape {
    /// The text; see [`MEDIA_TYPE`].
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::with_prefix("roomcast");
        registry.register_collector(Box::new(self.clone()));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("a string takes everything");
        out
    }
}

impl Collector for Scrape {
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
        for Figure { name, help, kind, value } in &self.bus {
            match kind {
                FigureKind::Gauge => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    ConstGauge::new(*value).encode(metric)?;
                }
                FigureKind::Counter => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    ConstCounter::new(*value).encode(metric)?;
                }
            }
        }
        let Some(TurnTimes { counts, sum, .. }) = self.turn_times else { return Ok(()) };
        let help = "Processor time that the loop's thread used in a turn.";
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
    counters.push(("turns", "Turns of the loop.", turns));
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
        rests,
        rests_cut,
        fallbacks,
        stalled,
        moderated,
        rate_limited,
        errors,
    } = stats;
    let gauges = vec![
        ("connections", "Connections that were welcomed and have not gone.", connections as u64),
        (
            "users",
            "Distinct users of these connections, of those in grace, and of those who are in these rooms on other nodes.",
            users as u64,
        ),
        ("rooms", "Rooms that something holds.", rooms as u64),
        ("log_bytes", "Bytes in the logs of all rooms.", log_bytes as u64),
    ];
    let counters = vec![
        ("messages_received", "Messages of clients, of any type.", messages_received),
        ("messages_delivered", "Chat messages delivered to rooms.", messages_delivered),
        ("room_sends", "Sends of a room's log to a member.", sends),
        ("room_sent_bytes", "Bytes taken by these sends.", sent_bytes),
        ("room_appended_bytes", "Bytes appended to the logs of rooms.", appended_bytes),
        ("room_rests", "Rests of rooms that had taken their share of the loop.", rests),
        ("room_rests_cut", "Rests that ended early or were not taken.", rests_cut),
        ("fallbacks", "Live members that fell back to history.", fallbacks),
        ("connections_stalled", "Connections closed because they took no bytes for too long.", stalled),
        ("connections_moderated", "Connections closed, or taken out of a room, by commands for all nodes.", moderated),
        ("messages_rate_limited", "Messages refused by the rate limit.", rate_limited),
        ("errors", "Error messages to clients, for whatever reason.", errors),
    ];
    (gauges, counters)
}

fn list_net(stats: NetStats) -> (Vec<Line>, Vec<Line>) {
    let NetStats { sockets, open, accepted, upgraded, answered, accept_pauses, received_bytes, torn_bytes, no_pongs } =
        stats;
    let gauges = vec![
        ("sockets", "Sockets that were accepted and not yet closed.", sockets as u64),
        ("websockets", "Of these, WebSockets that are not closing.", open as u64),
    ];
    let counters = vec![
        ("sockets_accepted", "Sockets accepted.", accepted),
        ("requests_upgraded", "Requests upgraded to a WebSocket.", upgraded),
        ("requests_answered", "Requests answered otherwise, or not at all in time.", answered),
        ("accept_pauses", "Times accepting paused because the system was out of something.", accept_pauses),
        ("received_bytes", "Bytes received.", received_bytes),
        ("torn_bytes", "Bytes of torn frames that were copied.", torn_bytes),
        ("connections_unanswering", "Connections closed because no answer came to a ping.", no_pongs),
    ];
    (gauges, counters)
}

fn list_api(stats: ApiStats) -> Vec<Line> {
    let ApiStats { accepted, duplicates, refused, postponed } = stats;
    vec![
        ("api_accepted", "Requests of the HTTP API that were done.", accepted),
        ("api_duplicates", "Requests of the HTTP API that had been done before.", duplicates),
        ("api_refused", "Requests of the HTTP API that were not as they must be.", refused),
        ("api_postponed", "Requests of the HTTP API that were not done and may be sent again.", postponed),
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
        let text = Scrape { stats: Stats::default(), bus: Vec::new(), turn_times: Some(times) }.text();
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
