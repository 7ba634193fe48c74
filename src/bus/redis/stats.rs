//! What the bus counts, and whether it stands: shared by its threads and whoever watches it, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::bus::{Figure, FigureKind};

/// Counts of a [`RedisBus`](super::RedisBus) since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Whether the link that publishes stands.
    pub publishing_up: bool,
    /// Whether the link that subscribes stands.
    pub subscribing_up: bool,
    /// How often one of the links was lost.
    pub reconnects_total: u64,
    /// Requests that wait for an answer of Redis: publications, reads, questions.
    pub requests_pending: u64,
    /// Publications that Redis has numbered, duplicates not counted.
    pub published_total: u64,
    /// How long they took from the queue to the answer, added up, in microseconds.
    pub publish_micros_total: u64,
    /// The longest of them.
    pub publish_micros_max: u64,
    /// Publications and reads that were given up after [`RedisConfig::hold`](super::RedisConfig::hold) or refused by Redis.
    pub refused_total: u64,
    /// Messages delivered to rooms here.
    pub delivered_total: u64,
    /// Own messages that came back over the subscription, after how long since they were published, added up and at most.
    pub echoes_total: u64,
    /// See there.
    pub echo_micros_total: u64,
    /// See there.
    pub echo_micros_max: u64,
    /// Reads that looked for what was missing, or checked that nothing is.
    pub fills_total: u64,
    /// Rooms that began a new epoch while they were open.
    pub epochs_total: u64,
    /// Messages that were dropped because the loop was behind, to be read again.
    pub dropped_total: u64,
    /// Nodes that live, this one included.
    pub nodes_alive: u64,
    /// Users that are present on other nodes in rooms that are open here, counted once a node and room.
    pub users_elsewhere: u64,
    /// What Redis was told of who is present here: single changes or many at once.
    pub shares_sent_total: u64,
    /// What other nodes have told.
    pub shares_received_total: u64,
    /// Rooms of which Redis had not, or not rightly, who is present here, and was told again.
    pub repairs_total: u64,
}

impl RedisStats {
    /// The same, to be exported.
    pub(super) fn figures(self) -> Vec<Figure> {
        let gauge = |name, help, value: f64| Figure { name, help, kind: FigureKind::Gauge, value };
        let counter = |name, help, value: u64| Figure { name, help, kind: FigureKind::Counter, value: value as f64 };
        let seconds =
            |name, help, micros: u64| Figure { name, help, kind: FigureKind::Counter, value: micros as f64 / 1e6 };
        let is = |up: bool| if up { 1.0 } else { 0.0 };
        vec![
            gauge("redis_publishing_up", "Whether the link that publishes stands.", is(self.publishing_up)),
            gauge("redis_subscribing_up", "Whether the link that subscribes stands.", is(self.subscribing_up)),
            gauge("redis_requests_pending", "Requests that wait for an answer.", self.requests_pending as f64),
            gauge(
                "redis_publish_seconds_max",
                "The longest that a publication took from the queue to the answer.",
                self.publish_micros_max as f64 / 1e6,
            ),
            gauge(
                "redis_echo_seconds_max",
                "The longest that an own message took from publishing to delivery.",
                self.echo_micros_max as f64 / 1e6,
            ),
            counter("redis_reconnects", "Times a link was lost.", self.reconnects_total),
            counter("redis_publications", "Publications that were numbered.", self.published_total),
            seconds("redis_publish_seconds", "How long they took to be answered, added up.", self.publish_micros_total),
            counter("redis_refusals", "Publications and reads that were given up or refused.", self.refused_total),
            counter("redis_deliveries", "Messages delivered to rooms here.", self.delivered_total),
            counter("redis_echoes", "Own messages that came back.", self.echoes_total),
            seconds("redis_echo_seconds", "How long they took from publishing, added up.", self.echo_micros_total),
            counter("redis_fills", "Reads that looked for what was missing.", self.fills_total),
            counter("redis_epochs", "Open rooms that began a new epoch.", self.epochs_total),
            counter(
                "redis_drops",
                "Messages dropped because the loop was behind, to be read again.",
                self.dropped_total,
            ),
            gauge("redis_nodes", "Nodes that live, this one included.", self.nodes_alive as f64),
            gauge(
                "redis_users_elsewhere",
                "Users on other nodes in rooms open here, once a node and room.",
                self.users_elsewhere as f64,
            ),
            counter("redis_shares_sent", "Times the others were told who came and went here.", self.shares_sent_total),
            counter("redis_shares_received", "Times another node told it.", self.shares_received_total),
            counter("redis_repairs", "Rooms of which Redis did not have who is present here.", self.repairs_total),
        ]
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
            pub(super) publishing_up: AtomicBool,
            pub(super) subscribing_up: AtomicBool,
            /// The bus was dropped: its threads end.
            pub(super) stop: AtomicBool,
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

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

pub(super) fn add_time(sum: &AtomicU64, most: &AtomicU64, time: Duration) {
    let micros = time.as_micros() as u64;
    sum.fetch_add(micros, Relaxed);
    most.fetch_max(micros, Relaxed);
}

/// A handle for any thread.
#[derive(Clone, Debug)]
pub struct RedisWatch(pub(super) Arc<Counters>);

impl RedisWatch {
    /// Counts, as of now.
    pub fn stats(&self) -> RedisStats {
        self.0.read()
    }
}
