//! Counters and state of the bus, shared by its threads and all watchers without a lock.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::metric::counts;

/// Declares the counts, and the same counts as the threads of the bus share them.
macro_rules! shared_counts {
    (
        $(#[doc = $about:literal])*
        struct $group:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $kind:ident($name:literal);
            )*
        }
    ) => {
        counts! {
            $(#[doc = $about])*
            struct $group {
                $($(#[doc = $doc])* $field: $type = $kind($name);)*
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: Shared<$type>,)*
        }

        impl RedisWatch {
            /// The present counts.
            pub fn stats(&self) -> $group {
                $group { $($field: self.0.$field.get(),)* }
            }
        }
    };
}

shared_counts! {
    /// Counts of a [`RedisBus`](super::RedisBus) since it was made.
    struct RedisStats {
        /// Whether the connection that publishes is up (1) or not (0).
        publishing_up: bool = Gauge("redis_publisher_up");
        /// Whether the connection that subscribes is up (1) or not (0).
        subscribing_up: bool = Gauge("redis_subscriber_up");
        /// Whether the Redis user lacks a right that the scripts need (1) or not (0).
        rights_missing: bool = Gauge("redis_rights_missing");
        /// Times a connection to Redis was lost.
        reconnects_total: u64 = Counter("redis_reconnects");
        /// Requests that wait for an answer from Redis.
        requests_pending: usize = Gauge("redis_requests_pending");
        /// Publications that Redis accepted, without duplicates.
        published_total: u64 = Counter("redis_publications");
        /// Time from queueing a publication to its answer, summed over all publications.
        publish_time_total: Duration = Counter("redis_publish_seconds");
        /// Longest time from queueing a publication to its answer, since the start.
        publish_time_max: Duration = Gauge("redis_publish_max_seconds");
        /// Publications and reads that timed out or that Redis refused.
        refused_total: u64 = Counter("redis_failed_requests");
        /// Messages delivered to rooms on this node.
        delivered_total: u64 = Counter("redis_deliveries");
        /// Messages that this node published and received back over its subscription.
        own_deliveries_total: u64 = Counter("redis_own_deliveries");
        /// Time from publishing a message to its delivery here, summed over all such messages.
        own_delivery_time_total: Duration = Counter("redis_own_delivery_seconds");
        /// Longest time from publishing a message to its delivery here, since the start.
        own_delivery_time_max: Duration = Gauge("redis_own_delivery_max_seconds");
        /// Reads of history that fill a gap, or check that there is none.
        fills_total: u64 = Counter("redis_gap_reads");
        /// Times an open room began a new epoch.
        epochs_total: u64 = Counter("redis_epoch_changes");
        /// Messages dropped because the event loop was behind; they are read again.
        dropped_total: u64 = Counter("redis_messages_dropped");
        /// Nodes that are alive, this one included.
        nodes_alive: u64 = Gauge("redis_nodes");
        /// Users present on other nodes in rooms that are open here, counted once for each node and
        /// room.
        users_elsewhere: u64 = Gauge("redis_remote_users");
        /// Presence updates sent to other nodes.
        presence_updates_sent_total: u64 = Counter("redis_presence_updates_sent");
        /// Presence updates received from other nodes.
        presence_updates_received_total: u64 = Counter("redis_presence_updates_received");
        /// Rooms whose presence in Redis was wrong and was written again.
        repairs_total: u64 = Counter("redis_presence_repairs");
    }
}

/// A handle for any thread.
#[derive(Clone, Debug)]
pub struct RedisWatch(pub(crate) Arc<Counters>);

/// A value that any thread may read and change.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(AtomicU64, PhantomData<T>);

impl<T: Count> Shared<T> {
    pub(crate) fn get(&self) -> T {
        T::from_bits(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, value: T) {
        self.0.store(value.to_bits(), Relaxed);
    }

    pub(crate) fn add(&self, value: T) {
        self.0.fetch_add(value.to_bits(), Relaxed);
    }

    /// Sets it to `value`, if that is more.
    pub(crate) fn raise(&self, value: T) {
        self.0.fetch_max(value.to_bits(), Relaxed);
    }
}

/// What fits into 64 bits.
pub(crate) trait Count {
    fn to_bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
}

macro_rules! count {
    ($type:ty, $to:expr, $from:expr) => {
        impl Count for $type {
            fn to_bits(self) -> u64 {
                $to(self)
            }

            fn from_bits(bits: u64) -> Self {
                $from(bits)
            }
        }
    };
}

count!(u64, |count| count, |bits| bits);
count!(usize, |count| count as u64, |bits| bits as usize);
count!(bool, u64::from, |bits| bits != 0);
count!(Duration, |time: Duration| time.as_micros() as u64, Duration::from_micros);
