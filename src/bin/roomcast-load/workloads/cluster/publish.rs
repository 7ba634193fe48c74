//! The publisher's path: how much a node says through Redis, next to what Redis does of the same script without any node.

use std::time::Duration;

use super::alone::{self, Alone};
use super::{ALONE, Cluster, Spent};
use crate::client::Ear;
use crate::conversation::{Conversation, Group, Pace};
use crate::error::LoadError;
use crate::rehearsal::rehearse;
use crate::target::Running;

/// Messages under way at any time, of all publishers together.
const UNDER_WAY: u32 = 4096;

/// Rooms with a publisher each.
const ROOMS: u32 = 16;

/// The database of the nodes that say it.
const DATABASE: u32 = 1;

/// How often the node and Redis alone take turns: what else the machine does then hits both.
const TURNS: u32 = 2;

/// A step, and what it has found so far.
struct Found {
    name: String,
    rooms: u32,
    talk: Talk,
    alone: Alone,
    alone_spent: Spent,
}

/// What the node did.
struct Talk {
    spent: Spent,
    said: f64,
    lost: f64,
    /// What came back while it was measured, and how long that was.
    accepted: f64,
    seconds: f64,
    complaint: Option<String>,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    let body = body(cluster)?;
    let mut steps = Vec::new();
    for (name, rooms) in [("one room".to_owned(), 1), (format!("{ROOMS} rooms"), ROOMS)] {
        let talk = Talk { spent: Spent::NOTHING, said: 0.0, lost: 0.0, accepted: 0.0, seconds: 0.0, complaint: None };
        let alone = Alone::new(&cluster.redis, &body, rooms)?;
        steps.push(Found { name, rooms, talk, alone, alone_spent: Spent::NOTHING });
    }
    for _ in 0..TURNS {
        for found in &mut steps {
            cluster.bench.announce(&found.name);
            // Each begins with an empty database: when Redis has to make its tables larger is then the same for both.
            cluster.redis.clear(DATABASE)?;
            let node = cluster.node_in(DATABASE)?;
            found.talk(cluster, &node)?;
            let count = found.talk.accepted / found.talk.seconds * time(cluster).as_secs_f64();
            cluster.redis.clear(alone::DATABASE)?;
            let before = Spent::until_now(cluster, &node);
            found.alone.run(UNDER_WAY, count as u32)?;
            found.alone_spent = found.alone_spent.and(Spent::until_now(cluster, &node).since(before));
        }
    }
    steps.into_iter().try_for_each(|found| found.keep(cluster))
}

/// What a node has Redis keep of a message.
fn body(cluster: &Cluster<'_, '_>) -> Result<String, LoadError> {
    let node = cluster.node_in(DATABASE)?;
    let mut crowd = cluster.crowd(&node)?;
    let client = crowd.open(1, Ear::Markers)?[0];
    crowd.join(&[client], |_| 0)?;
    let (_, payload) = cluster.overhear(&mut crowd, client, 0)?;
    // Behind the epoch and the number, which the script puts there.
    Ok(payload.splitn(3, ' ').nth(2).unwrap_or_default().to_owned())
}

/// A turn of one of both.
fn time(cluster: &Cluster<'_, '_>) -> Duration {
    cluster.bench.duration() / TURNS
}

impl Found {
    fn talk(&mut self, cluster: &Cluster<'_, '_>, node: &Running) -> Result<(), LoadError> {
        let mut crowd = cluster.crowd(node)?;
        let clients = crowd.open(self.rooms as usize, Ear::Markers)?;
        crowd.join(&clients, |nth| nth as u32)?;
        let publishers: Vec<_> = clients.into_iter().zip(0..).collect();
        rehearse(&mut crowd, &publishers, 1)?;
        let group = Group { publishers, members: 1, pace: Pace::Closed { window: UNDER_WAY / self.rooms } };
        let conversation = Conversation {
            warm_up: cluster.bench.warm_up() / TURNS,
            duration: time(cluster),
            ..cluster.bench.conversation(vec![group], node.pid)
        };
        let before = Spent::until_now(cluster, node);
        let findings = conversation.run(&mut crowd)?;
        let talk = &mut self.talk;
        talk.spent = talk.spent.and(Spent::until_now(cluster, node).since(before));
        talk.said += findings.said as f64;
        talk.lost += findings.lost as f64;
        talk.accepted += findings.counts.markers as f64;
        talk.seconds += findings.seconds;
        talk.complaint = talk.complaint.take().or_else(|| crowd.take_complaint());
        Ok(())
    }

    fn keep(self, cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
        let Self { name, talk, alone, alone_spent, .. } = self;
        let rate = talk.accepted / talk.seconds;
        let alone_micros = alone_spent.redis * 1e6 / alone.said();
        cluster.bench.record(&name, |record| {
            record.set("messages_per_s", rate).set("of_alone", rate / alone.rate()).set("lost", talk.lost);
            talk.spent.set_busy(record);
            talk.spent.set_per_message(record, talk.said);
            // What is left of the ratio where others take some of Redis' core.
            record.set("redis_cpu_of_alone", alone_micros * talk.said / (talk.spent.redis * 1e6));
            if talk.lost > 0.0 {
                record.remark(format!("{} of {} messages never came back", talk.lost, talk.said));
            }
            record.remarks.extend(talk.complaint.map(|words| format!("it complained: {words}")));
        })?;
        cluster.record_of(ALONE, &name, |record| {
            record.set("messages_per_s", alone.rate());
            record.set("redis_us_per_message", alone_micros);
            record.set("redis_busy", alone_spent.redis / alone_spent.seconds);
            record.remark(alone.tool());
        })
    }
}
