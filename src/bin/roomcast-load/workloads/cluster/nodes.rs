//! The Redis of the cluster workload, and the nodes on it.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::ClientIndex;
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::Cores;
use crate::marker::Marker;
use crate::metrics;
use crate::record::Record;
use crate::redis_server::RedisServer;
use crate::target::{RateLimits, Running};

/// The target of rows that show Redis without a node.
pub(super) const ALONE: &str = "redis alone";

/// The nodes ping nobody, since their clients may be busy with another step. A connection has thousands of rooms, and a room's
/// log has space for all messages that are under way.
pub(super) const FLAGS: &str = "--metrics --ping-interval 1h --rooms-per-connection 4096 --log-bytes 4MiB";

/// How long a node may take until it knows Redis.
const READY_PATIENCE: Duration = Duration::from_secs(15);

/// The prefix of the nodes' names in Redis.
pub(super) const PREFIX: &str = "load";

pub(super) struct Cluster<'a, 'b> {
    pub(super) bench: &'a mut Bench<'b>,
    pub(super) redis: RedisServer,
    pub(super) began: Instant,
}

impl Cluster<'_, '_> {
    /// A node on database 0.
    pub(super) fn node(&self) -> Result<Running, LoadError> {
        self.node_in(0)
    }

    pub(super) fn node_in(&self, database: u32) -> Result<Running, LoadError> {
        self.node_with(&format!("{FLAGS} --redis {}/{database} --redis-prefix {PREFIX}", self.redis.url()))
    }

    /// A node with these flags, on other cores than Redis, which has the server's to itself.
    pub(super) fn node_with(&self, flags: &str) -> Result<Running, LoadError> {
        let Cores { load, rest, .. } = self.bench.cores.clone();
        let node = self.bench.target.start(flags, RateLimits::Off, &Cores { server: rest.clone(), load, rest })?;
        let deadline = Instant::now() + READY_PATIENCE;
        while !metrics::is_ready(node.address)? {
            if Instant::now() > deadline {
                return Err(LoadError::Timeout(format!("the node on {} to be ready", node.address)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(node)
    }

    pub(super) fn crowd(&self, node: &Running) -> Result<Crowd, LoadError> {
        Crowd::new(node.address, node.wire.clone())
    }

    /// Keeps a record of another target than the nodes.
    pub(super) fn record_of(
        &mut self,
        target: &str,
        step: &str,
        fill: impl FnOnce(&mut Record),
    ) -> Result<(), LoadError> {
        self.bench.record(step, |record| {
            target.clone_into(&mut record.target);
            fill(record);
        })
    }

    /// Publishes a message of the usual length; returns the channel and the payload that its node publishes to Redis.
    pub(super) fn capture_payload(
        &self,
        crowd: &mut Crowd,
        client: ClientIndex,
        room: u32,
    ) -> Result<(String, String), LoadError> {
        let mut connection = self.redis.connection()?;
        let mut subscription = connection.as_pubsub();
        subscription.psubscribe(format!("*{}*", crowd.room_name(room)))?;
        let marker = Marker { publisher: client, ..Marker::default() };
        let bytes = crowd.chat_bytes(room, &marker.text(self.bench.text_bytes()));
        crowd.send(client, &bytes)?;
        let message = subscription.get_message()?;
        crowd.wait_until_quiet(Duration::from_millis(20))?;
        Ok((message.get_channel_name().to_owned(), message.get_payload()?))
    }
}
