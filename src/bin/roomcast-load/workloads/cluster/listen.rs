//! The subscriber's path: what a node spends on messages that come as fast as Redis passes them on.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use redis::cmd;

use super::cpu_seconds::CpuSeconds;
use super::nodes::Cluster;
use crate::client::ReadMode;
use crate::delivery_check::check_delivery;
use crate::error::LoadError;

const PER_SECOND: f64 = 100_000.0;

/// Maximum messages per write. Late messages are written together, but not without bound.
const WRITE_MAX: u64 = 4096;

/// How often something is published.
const INTERVAL: Duration = Duration::from_millis(1);

/// After this time without any message the missing ones count as lost. It is longer than a pause of the machine.
const QUIET: Duration = Duration::from_millis(1500);

/// Publishes messages on a room's channel as a node does.
struct BarePublisher {
    redis: TcpStream,
    channel: String,
    epoch: String,
    /// The number before the first.
    number: u64,
    body: String,
    published: u64,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    let step = "listening";
    cluster.bench.announce(step);
    let node = cluster.node()?;
    let mut crowd = cluster.crowd(&node)?;
    let clients = crowd.open(1, ReadMode::Count)?;
    crowd.join(&clients, |_| 0)?;
    check_delivery(&mut crowd, &[(clients[0], 0)], 1)?;
    let mut publisher = BarePublisher::new(cluster, cluster.capture_payload(&mut crowd, clients[0], 0)?)?;
    crowd.set_read_mode(clients[0], ReadMode::Count);
    let received_before = crowd.counts().markers;
    let before = CpuSeconds::until_now(cluster, &node);
    let began = Instant::now();
    while began.elapsed() < cluster.bench.duration() {
        publisher.publish_until((began.elapsed().as_secs_f64() * PER_SECOND) as u64)?;
        crowd.turn(Some(Instant::now() + INTERVAL))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let received = (crowd.counts().markers - received_before) as f64;
    let spent = CpuSeconds::until_now(cluster, &node).since(before);
    let mut last_received = (crowd.counts().markers, Instant::now());
    while crowd.counts().markers < received_before + publisher.published && last_received.1.elapsed() < QUIET {
        crowd.turn(Some(last_received.1 + QUIET))?;
        if crowd.counts().markers != last_received.0 {
            last_received = (crowd.counts().markers, Instant::now());
        }
    }
    let lost = (received_before + publisher.published).saturating_sub(crowd.counts().markers);
    cluster.bench.record(step, |record| {
        record.set_rate("messages_per_s", received / seconds).set("lost", lost as f64);
        spent.set_busy(record);
        spent.set_per_message(record, received);
        if lost > 0 {
            record.remark(format!("{lost} of {} published messages were not received", publisher.published));
        }
    })
}

impl BarePublisher {
    /// Continues after a payload that a node has published.
    fn new(cluster: &Cluster<'_, '_>, (channel, payload): (String, String)) -> Result<Self, LoadError> {
        let strange = || LoadError::Timeout(format!("epoch, number and body in a payload, but it was {payload:?}"));
        let (epoch, rest) = payload.split_once(' ').ok_or_else(strange)?;
        let (number, body) = rest.split_once(' ').ok_or_else(strange)?;
        let number = number.parse().map_err(|_| strange())?;
        let mut redis = TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.redis.port))?;
        // Nobody reads the answers.
        redis.write_all(&cmd("CLIENT").arg("REPLY").arg("OFF").get_packed_command())?;
        Ok(Self { redis, channel, epoch: epoch.to_owned(), number, body: body.to_owned(), published: 0 })
    }

    /// Publishes in one write until `due` messages are published in all.
    fn publish_until(&mut self, due: u64) -> Result<(), LoadError> {
        let Self { channel, epoch, number, body, published, .. } = self;
        let due = due.min(*published + WRITE_MAX);
        let mut bytes = Vec::new();
        while *published < due {
            *published += 1;
            let payload = format!("{epoch} {} {body}", *number + *published);
            cmd("PUBLISH").arg(&*channel).arg(payload).write_packed_command(&mut bytes);
        }
        Ok(self.redis.write_all(&bytes)?)
    }
}
