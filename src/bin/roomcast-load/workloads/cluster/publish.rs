//! The publisher's path: how many messages a node publishes through Redis, beside Redis running the same script alone.

use std::time::Duration;

use super::alone::{self, Alone};
use super::cpu_seconds::CpuSeconds;
use super::nodes::{ALONE, Cluster};
use crate::client::ReadMode;
use crate::conversation::{Conversation, Group, Pace};
use crate::delivery_check::check_delivery;
use crate::error::LoadError;
use crate::target::Running;

/// Messages under way at any time, of all publishers together.
const UNDER_WAY: u32 = 4096;

/// Rooms with a publisher each.
const ROOMS: u32 = 16;

/// The database of the publishing nodes.
const DATABASE: u32 = 1;

/// How often the node and Redis alone take turns, so that what else the machine does affects both.
const TURNS: u32 = 2;

/// A step, and its figures so far.
struct PublishStep {
    name: String,
    rooms: u32,
    node: NodeTotals,
    alone: Alone,
    alone_spent: CpuSeconds,
}

/// Totals of the node.
struct NodeTotals {
    spent: CpuSeconds,
    published: f64,
    lost: f64,
    /// Messages that came back while it was measured.
    accepted: f64,
    /// How long it was measured.
    seconds: f64,
    error_message: Option<String>,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    let body = body(cluster)?;
    let mut steps = Vec::new();
    for (name, rooms) in [("one room".to_owned(), 1), (format!("{ROOMS} rooms"), ROOMS)] {
        let node = NodeTotals {
            spent: CpuSeconds::ZERO,
            published: 0.0,
            lost: 0.0,
            accepted: 0.0,
            seconds: 0.0,
            error_message: None,
        };
        let alone = Alone::new(&cluster.redis, &body, rooms)?;
        steps.push(PublishStep { name, rooms, node, alone, alone_spent: CpuSeconds::ZERO });
    }
    for _ in 0..TURNS {
        for step in &mut steps {
            cluster.bench.announce(&step.name);
            // Both begin with an empty database, so that Redis enlarges its tables at the same time for both.
            cluster.redis.clear(DATABASE)?;
            let node = cluster.node_in(DATABASE)?;
            step.run_node(cluster, &node)?;
            let count = step.node.accepted / step.node.seconds * time(cluster).as_secs_f64();
            cluster.redis.clear(alone::DATABASE)?;
            let before = CpuSeconds::until_now(cluster, &node);
            step.alone.run(UNDER_WAY, count as u32)?;
            step.alone_spent = step.alone_spent.and(CpuSeconds::until_now(cluster, &node).since(before));
        }
    }
    steps.into_iter().try_for_each(|step| step.keep(cluster))
}

/// The body that a node has Redis keep of a message.
fn body(cluster: &Cluster<'_, '_>) -> Result<String, LoadError> {
    let node = cluster.node_in(DATABASE)?;
    let mut crowd = cluster.crowd(&node)?;
    let client = crowd.open(1, ReadMode::Markers)?[0];
    crowd.join(&[client], |_| 0)?;
    let (_, payload) = cluster.capture_payload(&mut crowd, client, 0)?;
    // Behind the epoch and the number, which the script adds.
    Ok(payload.splitn(3, ' ').nth(2).unwrap_or_default().to_owned())
}

/// How long each turn is.
fn time(cluster: &Cluster<'_, '_>) -> Duration {
    cluster.bench.duration() / TURNS
}

impl PublishStep {
    fn run_node(&mut self, cluster: &Cluster<'_, '_>, node: &Running) -> Result<(), LoadError> {
        let mut crowd = cluster.crowd(node)?;
        let clients = crowd.open(self.rooms as usize, ReadMode::Markers)?;
        crowd.join(&clients, |nth| nth as u32)?;
        let publishers: Vec<_> = clients.into_iter().zip(0..).collect();
        check_delivery(&mut crowd, &publishers, 1)?;
        let group = Group { publishers, members: 1, pace: Pace::Closed { window: UNDER_WAY / self.rooms } };
        let conversation = Conversation {
            warm_up: cluster.bench.warm_up() / TURNS,
            duration: time(cluster),
            ..cluster.bench.conversation(vec![group], node.pid)
        };
        let before = CpuSeconds::until_now(cluster, node);
        let findings = conversation.run(&mut crowd)?;
        let totals = &mut self.node;
        totals.spent = totals.spent.and(CpuSeconds::until_now(cluster, node).since(before));
        totals.published += findings.totals.published as f64;
        totals.lost += findings.totals.lost as f64;
        totals.accepted += findings.counts.markers as f64;
        totals.seconds += findings.seconds;
        totals.error_message = totals.error_message.take().or_else(|| crowd.take_error_message());
        Ok(())
    }

    fn keep(self, cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
        let Self { name, node, alone, alone_spent, .. } = self;
        let rate = node.accepted / node.seconds;
        let alone_micros = alone_spent.redis * 1e6 / alone.requests();
        cluster.bench.record(&name, |record| {
            record.set_rate("messages_per_s", rate).set("of_alone", rate / alone.rate()).set("lost", node.lost);
            node.spent.set_busy(record);
            node.spent.set_per_message(record, node.published);
            // Independent of other processes that take time on the core of Redis.
            record.set("redis_cpu_of_alone", alone_micros * node.published / (node.spent.redis * 1e6));
            if node.lost > 0.0 {
                record.remark(format!("{} of {} messages never came back", node.lost, node.published));
            }
            record.remarks.extend(node.error_message.map(|message| format!("it answered: {message}")));
        })?;
        cluster.record_of(ALONE, &name, |record| {
            record.set("messages_per_s", alone.rate());
            record.set("redis_us_per_message", alone_micros);
            record.set("redis_busy", alone_spent.redis / alone_spent.seconds);
            record.remark(alone.tool());
        })
    }
}
