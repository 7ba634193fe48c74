//! Counters and state of the bus, shared by its threads and all watchers without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::bus::{Metric, MetricKind};

/// Counts of a [`RedisBus`](super::RedisBus) since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Whether the link that publishes is up.
    pub publishing_up: bool,
    /// Whether the link that subscribes is up.
    pub subscribing_up: bool,
    /// How often one of the links was lost.
    pub reconnects_total: u64,
    /// Requests that wait for an answer of Redis: publications, reads and queries.
    pub requests_pending: u64,
    /// Publications that Redis has accepted, without duplicates.
    pub published_total: u64,
    /// The sum of the times from queueing a publication to its answer, in microseconds.
    pub publish_micros_total: u64,
    /// The longest of these times.
    pub publish_micros_max: u64,
    /// Publications and reads that timed out after
    /// [`RedisTiming::hold`](super::RedisTiming::hold), or that Redis refused.
    pub refused_total: u64,
    /// Messages delivered to rooms on this node.
    pub delivered_total: u64,
    /// Messages that this node published and received back over the subscription.
    pub echoes_total: u64,
    /// The sum of the times from publishing to delivery, in microseconds.
    pub echo_micros_total: u64,
    /// The longest of these times.
    pub echo_micros_max: u64,
    /// Reads of history that fill a gap, or check that there is none.
    pub fills_total: u64,
    /// Open rooms that began a new epoch.
    pub epochs_total: u64,
    /// Messages that were dropped because the loop was behind, and are read again.
    pub dropped_total: u64,
    /// Nodes that are alive, this one included.
    pub nodes_alive: u64,
    /// Users on other nodes in rooms that are open here, counted once for each node and room.
    pub users_elsewhere: u64,
    /// Updates of the present users of this node that were sent.
    pub shares_sent_total: u64,
    /// Deltas of other nodes that were received.
    pub shares_received_total: u64,
    /// Rooms whose users of this node Redis did not have correctly, so that they were sent again.
    pub repairs_total: u64,
}

impl RedisStats {
    /// The same as metrics.
    pub(crate) fn metrics(self) -> Vec<Metric> {
        [self.request_metrics(), self.delivery_metrics(), self.presence_metrics()].concat()
    }

    fn request_metrics(self) -> Vec<Metric> {
        vec![
            gauge(
                "redis_publisher_up",
                "Whether the connection that publishes is up (1) or not (0).",
                f64::from(u8::from(self.publishing_up)),
            ),
            gauge(
                "redis_subscriber_up",
                "Whether the connection that subscribes is up (1) or not (0).",
                f64::from(u8::from(self.subscribing_up)),
            ),
            gauge(
                "redis_requests_pending",
                "Requests that wait for an answer from Redis.",
                self.requests_pending as f64,
            ),
            gauge(
                "redis_publish_max_seconds",
                "Longest time from queueing a publication to its answer, since the start.",
                self.publish_micros_max as f64 / 1e6,
            ),
            counter("redis_reconnects", "Times a connection to Redis was lost.", self.reconnects_total),
            counter(
                "redis_publications",
                "Publications that Redis accepted, without duplicates.",
                self.published_total,
            ),
            seconds(
                "redis_publish_seconds",
                "Time from queueing a publication to its answer, summed over all publications.",
                self.publish_micros_total,
            ),
            counter(
                "redis_failed_requests",
                "Publications and reads that timed out or that Redis refused.",
                self.refused_total,
            ),
        ]
    }

    fn delivery_metrics(self) -> Vec<Metric> {
        vec![
            counter("redis_deliveries", "Messages delivered to rooms on this node.", self.delivered_total),
            counter(
                "redis_own_deliveries",
                "Messages that this node published and received back over its subscription.",
                self.echoes_total,
            ),
            seconds(
                "redis_own_delivery_seconds",
                "Time from publishing a message to its delivery here, summed over all such messages.",
                self.echo_micros_total,
            ),
            gauge(
                "redis_own_delivery_max_seconds",
                "Longest time from publishing a message to its delivery here, since the start.",
                self.echo_micros_max as f64 / 1e6,
            ),
            counter(
                "redis_gap_reads",
                "Reads of history that fill a gap, or check that there is none.",
                self.fills_total,
            ),
            counter("redis_epoch_changes", "Times an open room began a new epoch.", self.epochs_total),
            counter(
                "redis_messages_dropped",
                "Messages dropped because the event loop was behind; they are read again.",
                self.dropped_total,
            ),
        ]
    }

    fn presence_metrics(self) -> Vec<Metric> {
        vec![
            gauge("redis_nodes", "Nodes that are alive, this one included.", self.nodes_alive as f64),
            gauge(
                "redis_remote_users",
                "UserSet present on other nodes in rooms that are open here, counted once for each node and room.",
                self.users_elsewhere as f64,
            ),
            counter("redis_presence_updates_sent", "Presence updates sent to other nodes.", self.shares_sent_total),
            counter(
                "redis_presence_updates_received",
                "Presence updates received from other nodes.",
                self.shares_received_total,
            ),
            counter(
                "redis_presence_repairs",
                "Rooms whose presence in Redis was wrong and was written again.",
                self.repairs_total,
            ),
        ]
    }
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, kind: MetricKind::Gauge, value }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, kind: MetricKind::Counter, value: value as f64 }
}

fn seconds(name: &'static str, help: &'static str, micros: u64) -> Metric {
    Metric { name, help, kind: MetricKind::Counter, value: micros as f64 / 1e6 }
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) publishing_up: AtomicBool,
            pub(crate) subscribing_up: AtomicBool,
            /// The bus was dropped, so its threads end.
            pub(crate) stop: AtomicBool,
        }

        impl Counters {
            fn read(&self) -> RedisStats {
                RedisStats {
                    publishing_up: self.publishing_up.load(Relaxed),
                    subscribing_up: self.subscribing_up.load(Relaxed),
                    $($name: self.$name.load(Relaxed),)*
                }
            }
        }
    };
}

counters!(
    reconnects_total,
    requests_pending,
    published_total,
    publish_micros_total,
    publish_micros_max,
    refused_total,
    delivered_total,
    echoes_total,
    echo_micros_total,
    echo_micros_max,
    fills_total,
    epochs_total,
    dropped_total,
    nodes_alive,
    users_elsewhere,
    shares_sent_total,
    shares_received_total,
    repairs_total
);

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

pub(crate) fn add_time(sum: &AtomicU64, most: &AtomicU64, time: Duration) {
    let micros = time.as_micros() as u64;
    sum.fetch_add(micros, Relaxed);
    most.fetch_max(micros, Relaxed);
}

/// A handle for any thread.
#[derive(Clone, Debug)]
pub struct RedisWatch(pub(crate) Arc<Counters>);

impl RedisWatch {
    /// The present counts.
    pub fn stats(&self) -> RedisStats {
        self.0.read()
    }
}
