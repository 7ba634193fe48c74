//! A cut subscription: how long it takes until the first room is subscribed again, until all are, and until the node has
//! compared all with the history in Redis.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::{Connection, cmd};

use super::nodes::{ALONE, Cluster};
use crate::client::ReadMode;
use crate::error::LoadError;
use crate::metrics;
use crate::record::{self, Record};
use crate::redis_server::{RedisServer, ask};
use crate::target::Running;

const PATIENCE: Duration = Duration::from_secs(30);

/// Channels per command of the bare subscriber, as many as the bus has.
const CHANNELS_PER_COMMAND: usize = 512;

/// Every node has the room of commands for all nodes open.
const OWN_ROOMS: usize = 1;

/// Microseconds that each stage after a cut took.
struct Times {
    link: u64,
    subscribed: u64,
    compared: u64,
    /// The time that Redis itself spent on the comparison.
    scripts: u64,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    let (rooms, cuts) = if cluster.bench.flags.quick { (1000, 2) } else { (10_000, 3) };
    cluster.bench.announce("a cut subscription");
    let node = cluster.node()?;
    let mut crowd = cluster.crowd(&node)?;
    let clients = crowd.open(4, ReadMode::Count)?;
    let members: Vec<_> = clients.iter().copied().cycle().take(rooms).collect();
    crowd.join(&members, |nth| nth as u32)?;
    let rooms = rooms + OWN_ROOMS;
    let mut connection = cluster.redis.connection()?;
    wait_until("all rooms to be joined", || {
        let pending = metric(node.address, "roomcast_redis_requests_pending")?;
        Ok(pending == 0.0 && channels(&mut connection)? == rooms)
    })?;
    let mut all = [(); 5].map(|()| record::latencies());
    for _ in 0..cuts {
        let Times { link, subscribed, compared, scripts } = cut(&mut connection, &node, rooms)?;
        let bare = subscribe_bare(cluster, rooms)?;
        for (histogram, micros) in all.iter_mut().zip([link, subscribed, compared, bare, scripts]) {
            histogram.saturating_record(micros.max(1));
        }
    }
    let [link, subscribed, compared, bare, scripts] = &all;
    let ratio = |one: &hdrhistogram::Histogram<u64>, two: &hdrhistogram::Histogram<u64>| {
        one.value_at_quantile(0.5) as f64 / two.value_at_quantile(0.5) as f64
    };
    let fill = |record: &mut Record, histogram| {
        record.set("rooms", rooms as f64).set_latency("", histogram);
    };
    cluster.bench.record("cut: link back", |record| fill(record, link))?;
    cluster.bench.record("cut: subscribed", |record| {
        fill(record, subscribed);
        record.set("of_alone", ratio(subscribed, bare));
    })?;
    cluster.record_of(ALONE, "cut: subscribed", |record| fill(record, bare))?;
    cluster.bench.record("cut: compared", |record| {
        fill(record, compared);
        record.set("of_alone", ratio(compared, scripts));
    })?;
    cluster.record_of(ALONE, "cut: compared", |record| fill(record, scripts))
}

fn channels(connection: &mut Connection) -> Result<usize, LoadError> {
    Ok(RedisServer::info(connection, "stats", "pubsub_channels")?.parse().unwrap_or(0))
}

/// Microseconds that Redis has spent on calls of scripts.
fn script_micros(connection: &mut Connection) -> Result<u64, LoadError> {
    let calls = RedisServer::info(connection, "commandstats", "cmdstat_evalsha")?;
    let micros = calls.split(',').find_map(|field| field.strip_prefix("usec=")?.parse().ok());
    Ok(micros.unwrap_or(0))
}

/// Asks again and again. Each question costs Redis some microseconds.
fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool, LoadError>) -> Result<Instant, LoadError> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(LoadError::Timeout(what.to_owned()));
        }
    }
    Ok(Instant::now())
}

fn cut(connection: &mut Connection, node: &Running, rooms: usize) -> Result<Times, LoadError> {
    let fills = || metric(node.address, "roomcast_redis_gap_reads_total");
    let before = (fills()?, script_micros(connection)?);
    let began = Instant::now();
    let _: u64 = ask(connection, &["CLIENT", "KILL", "TYPE", "pubsub"])?;
    let first = wait_until("a room to be subscribed again", || Ok(channels(connection)? > 0))?;
    let last = wait_until("all rooms to be subscribed again", || Ok(channels(connection)? == rooms))?;
    let compared = wait_until("all rooms to be compared", || {
        let is_asked = fills()? >= before.0 + rooms as f64;
        Ok(is_asked && metric(node.address, "roomcast_redis_requests_pending")? == 0.0)
    })?;
    let micros = |from: Instant, to: Instant| (to - from).as_micros() as u64;
    Ok(Times {
        link: micros(began, first),
        subscribed: micros(first, last),
        compared: micros(last, compared),
        scripts: script_micros(connection)? - before.1,
    })
}

/// Subscribes to as many channels in the same way, without a node; returns the microseconds.
fn subscribe_bare(cluster: &Cluster<'_, '_>, rooms: usize) -> Result<u64, LoadError> {
    let mut connection = cluster.redis.connection()?;
    let names: Vec<String> = (0..rooms).map(|room| format!("bare:{{room-{room:06}}}")).collect();
    let mut packed = Vec::new();
    for names in names.chunks(CHANNELS_PER_COMMAND) {
        cmd("SUBSCRIBE").arg(names).write_packed_command(&mut packed);
    }
    let began = Instant::now();
    redis::ConnectionLike::req_packed_command(&mut connection, &packed)?;
    for _ in 1..rooms {
        connection.recv_response()?;
    }
    Ok(began.elapsed().as_micros() as u64)
}

/// A figure of a node's `/metrics`.
fn metric(address: SocketAddr, name: &str) -> Result<f64, LoadError> {
    let answer = metrics::read(address)?;
    let figure = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    figure.ok_or_else(|| LoadError::Timeout(format!("{name} in /metrics")))
}
