//! The subscriber's path: what a node spends on messages that come to it as fast as Redis hands them on.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use redis::cmd;

use super::{Cluster, Spent};
use crate::client::Ear;
use crate::error::LoadError;
use crate::rehearsal::rehearse;

const PER_SECOND: f64 = 100_000.0;

/// Messages of a write, at most: what is late comes together, but not without bound.
const WRITE_MAX: u64 = 4096;

/// How often something is published.
const INTERVAL: Duration = Duration::from_millis(1);

/// How long nothing comes until what is missing is lost.
const QUIET: Duration = Duration::from_millis(1500);

/// Publishes on a room's channel what looks as if a node had said it.
struct Source {
    redis: TcpStream,
    channel: String,
    epoch: String,
    /// The number before the first.
    number: u64,
    body: String,
    said: u64,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    let step = "listening";
    cluster.bench.announce(step);
    let node = cluster.node()?;
    let mut crowd = cluster.crowd(&node)?;
    let clients = crowd.open(1, Ear::Counts)?;
    crowd.join(&clients, |_| 0)?;
    rehearse(&mut crowd, &[(clients[0], 0)], 1)?;
    let mut source = Source::new(cluster, cluster.overhear(&mut crowd, clients[0], 0)?)?;
    crowd.set_ear(clients[0], Ear::Counts);
    let heard_before = crowd.counts().markers;
    let before = Spent::until_now(cluster, &node);
    let began = Instant::now();
    while began.elapsed() < cluster.bench.duration() {
        source.publish_until((began.elapsed().as_secs_f64() * PER_SECOND) as u64)?;
        crowd.turn(Some(Instant::now() + INTERVAL))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let heard = (crowd.counts().markers - heard_before) as f64;
    let spent = Spent::until_now(cluster, &node).since(before);
    // Nobody is called lossy for a pause of the machine.
    let mut last_heard = (crowd.counts().markers, Instant::now());
    while crowd.counts().markers < heard_before + source.said && last_heard.1.elapsed() < QUIET {
        crowd.turn(Some(last_heard.1 + QUIET))?;
        if crowd.counts().markers != last_heard.0 {
            last_heard = (crowd.counts().markers, Instant::now());
        }
    }
    let lost = (heard_before + source.said).saturating_sub(crowd.counts().markers);
    cluster.bench.record(step, |record| {
        record.set("messages_per_s", heard / seconds).set("lost", lost as f64);
        spent.set_busy(record);
        spent.set_per_message(record, heard);
        if lost > 0 {
            record.remark(format!("{lost} of {} published messages were not heard", source.said));
        }
    })
}

impl Source {
    /// Goes on from a payload that a node has published.
    fn new(cluster: &Cluster<'_, '_>, (channel, payload): (String, String)) -> Result<Self, LoadError> {
        let strange = || LoadError::Silence(format!("epoch, number and body in a payload; it was {payload:?}"));
        let (epoch, rest) = payload.split_once(' ').ok_or_else(strange)?;
        let (number, body) = rest.split_once(' ').ok_or_else(strange)?;
        let number = number.parse().map_err(|_| strange())?;
        let mut redis = TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.redis.port))?;
        // Answers would only have to be read.
        redis.write_all(&cmd("CLIENT").arg("REPLY").arg("OFF").get_packed_command())?;
        Ok(Self { redis, channel, epoch: epoch.to_owned(), number, body: body.to_owned(), said: 0 })
    }

    /// Publishes what is due, so many in all, in one write.
    fn publish_until(&mut self, due: u64) -> Result<(), LoadError> {
        let Self { channel, epoch, number, body, said, .. } = self;
        let due = due.min(*said + WRITE_MAX);
        let mut bytes = Vec::new();
        while *said < due {
            *said += 1;
            let payload = format!("{epoch} {} {body}", *number + *said);
            cmd("PUBLISH").arg(&*channel).arg(payload).write_packed_command(&mut bytes);
        }
        Ok(self.redis.write_all(&bytes)?)
    }
}
