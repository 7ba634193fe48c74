//! Two nodes through a Redis of their own: what publishing, listening, resting and a cut subscription cost, and how long a
//! message takes; each beside what Redis does without a node, in the same run.

mod alone;
mod latency;
mod listen;
mod own_bus;
mod publish;
mod quiet;
mod resubscribe;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use self::quiet::Quiet;
use crate::bench::Bench;
use crate::client::ClientIndex;
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::{MAIN_THREAD, ThreadTimes};
use crate::marker::Marker;
use crate::record::Record;
use crate::redis_server::{self, RedisServer};
use crate::target::{Cores, Running};

/// How many records it makes, for the progress bar.
pub(super) const STEPS: u64 = 17;

/// The target of rows that show what Redis does without a node.
const ALONE: &str = "redis alone";

/// What Roomcast calls the threads of its bus.
const COMMANDER: &str = "redis-commander";
const LISTENER: &str = "redis-listener";

/// Nobody pings whoever is busy with something else; one connection has all the rooms; and what is under way at once fits
/// into a room's log.
const FLAGS: &str = "--metrics --ping-interval 1h --rooms-per-connection 65536 --log-bytes 4MiB";

/// What the nodes' names in Redis begin with.
const PREFIX: &str = "load";

/// The Redis, and how nodes are started on it.
struct Cluster<'a, 'b> {
    bench: &'a mut Bench<'b>,
    redis: RedisServer,
    began: Instant,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let Some(program) = redis_server::find("redis-server") else {
        let words = "left out: there is no redis-server in PATH";
        bench.results.note(&format!("cluster was {words}"));
        return bench.record("left out", |record| {
            record.remark(words);
        });
    };
    let redis = RedisServer::start(&program, bench.cores)?;
    let mut cluster = Cluster { bench, redis, began: Instant::now() };
    // Beside all the other steps, since what is rare is what costs something while nothing happens.
    let quiet = Quiet::begin(&cluster)?;
    publish::run(&mut cluster)?;
    latency::run(&mut cluster)?;
    listen::run(&mut cluster)?;
    quiet.end(&mut cluster)?;
    resubscribe::run(&mut cluster)
}

impl Cluster<'_, '_> {
    fn node(&self) -> Result<Running, LoadError> {
        self.node_in(0)
    }

    fn node_in(&self, database: u32) -> Result<Running, LoadError> {
        self.node_with(&format!("{FLAGS} --redis {}/{database} --redis-prefix {PREFIX}", self.redis.url()))
    }

    /// Redis has the server's core to itself; nodes are on others.
    fn node_with(&self, flags: &str) -> Result<Running, LoadError> {
        let Cores { load, rest, .. } = self.bench.cores.clone();
        self.bench.target.start(flags, &Cores { server: rest.clone(), load, rest })
    }

    fn crowd(&self, node: &Running) -> Result<Crowd, LoadError> {
        Crowd::new(node.address, node.wire.clone())
    }

    /// Keeps a row that is not of the nodes.
    fn record_of(&mut self, target: &str, step: &str, fill: impl FnOnce(&mut Record)) -> Result<(), LoadError> {
        self.bench.record(step, |record| {
            target.clone_into(&mut record.target);
            fill(record);
        })
    }

    /// Has a client say something of the usual length; the channel and the payload that its node publishes.
    fn overhear(&self, crowd: &mut Crowd, client: ClientIndex, room: u32) -> Result<(String, String), LoadError> {
        let mut connection = self.redis.connection()?;
        let mut subscription = connection.as_pubsub();
        subscription.psubscribe(format!("*{}*", crowd.room_name(room)))?;
        let marker = Marker { publisher: client, ..Marker::default() };
        let bytes = crowd.chat_bytes(room, &marker.text(self.bench.text_bytes()));
        crowd.say(client, &bytes)?;
        let message = subscription.get_message()?;
        crowd.settle(Duration::from_millis(20))?;
        Ok((message.get_channel_name().to_owned(), message.get_payload()?))
    }
}

/// What the threads of a node, this process and Redis have used, in seconds; of a moment, or between two.
#[derive(Clone, Copy)]
struct Spent {
    seconds: f64,
    main: f64,
    commander: f64,
    listener: f64,
    load: f64,
    redis: f64,
}

impl Spent {
    const NOTHING: Self = Self { seconds: 0.0, main: 0.0, commander: 0.0, listener: 0.0, load: 0.0, redis: 0.0 };

    fn until_now(cluster: &Cluster<'_, '_>, node: &Running) -> Self {
        // What cannot be had is not written.
        let seconds_of = |times: &ThreadTimes, name| times.seconds_of(name).unwrap_or(f64::NAN);
        let node = node.pid.map(ThreadTimes::of).unwrap_or_default();
        Self {
            seconds: cluster.began.elapsed().as_secs_f64(),
            main: seconds_of(&node, MAIN_THREAD),
            commander: seconds_of(&node, COMMANDER),
            listener: seconds_of(&node, LISTENER),
            load: seconds_of(&ThreadTimes::of(std::process::id()), MAIN_THREAD),
            redis: seconds_of(&ThreadTimes::of(cluster.redis.pid()), MAIN_THREAD),
        }
    }

    fn combine(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            seconds: with(self.seconds, other.seconds),
            main: with(self.main, other.main),
            commander: with(self.commander, other.commander),
            listener: with(self.listener, other.listener),
            load: with(self.load, other.load),
            redis: with(self.redis, other.redis),
        }
    }

    fn since(self, earlier: Self) -> Self {
        self.combine(earlier, |now, then| now - then)
    }

    fn and(self, other: Self) -> Self {
        self.combine(other, |one, two| one + two)
    }

    /// As parts of a core.
    fn set_busy(&self, record: &mut Record) {
        let Self { seconds, main, commander, listener, load, redis } = *self;
        for (name, used) in
            [("loop", main), ("commander", commander), ("listener", listener), ("load", load), ("redis", redis)]
        {
            record.set(&format!("{name}_busy"), used / seconds);
        }
    }

    fn set_per_message(&self, record: &mut Record, messages: f64) {
        let threads = [("loop", self.main), ("commander", self.commander), ("listener", self.listener)];
        for (name, used) in threads.into_iter().chain([("redis", self.redis)]) {
            record.set(&format!("{name}_us_per_message"), used * 1e6 / messages);
        }
    }
}

/// A figure of a node's `/metrics`.
fn metric(address: SocketAddr, name: &str) -> Result<f64, LoadError> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let figure = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    figure.ok_or_else(|| LoadError::Silence(format!("{name} in /metrics")))
}
