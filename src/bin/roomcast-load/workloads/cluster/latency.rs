//! From saying to hearing, one message under way at a time: through a bus alone, back on the same node and on the other one; next
//! to a bare PUBLISH through the same Redis, to the script of the bus without a node, and to a node without any Redis. What is
//! measured alternates from message to message.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use redis::cmd;
use roomcast::NameError;
use roomcast::bus::Publication;
use roomcast::internals::PublishScript;
use roomcast::{Config, RoomName, UserId};

use super::own_bus::OwnBus;
use super::{ALONE, Cluster, FLAGS, PREFIX};
use crate::error::LoadError;
use crate::marker::Marker;
use crate::record::{self, Record};
use crate::redis_server::ask;
use crate::target::Running;

/// Messages of each kind a second.
const PER_SECOND: u32 = 100;

const KINDS: [Kind; 6] = [Kind::Back, Kind::Across, Kind::Bare, Kind::Script, Kind::Bus, Kind::Local];

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The room, as a client calls it.
const ROOM: &str = "latency";

/// Rooms that no node has open.
const SCRIPT_ROOM: &str = "latency-alone";
const BUS_ROOM: &str = "latency-bus";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Said on the first node, heard there.
    Back,
    /// Said on the first node, heard on the second.
    Across,
    /// Published to Redis, heard from it.
    Bare,
    /// The same by the script with which nodes publish.
    Script,
    /// Published by a bus without a node, and delivered by it.
    Bus,
    /// Said and heard on a node that has no Redis.
    Local,
}

/// A connection that waits for what it reads.
struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// Those that take part.
struct Lines {
    first: Line,
    second: Line,
    local: Line,
    publisher: Line,
    subscriber: Line,
    script: Script,
    bus: OwnBus,
    user: UserId,
}

/// The script of the bus, as Redis knows it.
struct Script {
    script: PublishScript,
    sha: String,
    said: u64,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    cluster.bench.announce("latency");
    let (first, second) = (cluster.node()?, cluster.node()?);
    let local = cluster.node_with(FLAGS)?;
    let redis = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.redis.port));
    let mut lines = Lines {
        first: Line::join(&first)?,
        second: Line::join(&second)?,
        local: Line::join(&local)?,
        publisher: Line::connect(redis)?,
        subscriber: Line::connect(redis)?,
        script: Script::load(cluster)?,
        bus: OwnBus::start(cluster, RoomName::new(BUS_ROOM).map_err(name)?)?,
        user: UserId::new("alone").map_err(name)?,
    };
    let channel = lines.script.channel()?;
    lines.subscriber.say(&cmd("SUBSCRIBE").arg(ROOM).arg(channel).get_packed_command())?;
    lines.subscriber.wait_for(b":2\r\n")?;
    let mut latency = KINDS.map(|_| record::latencies());
    let text_bytes = cluster.bench.text_bytes();
    // The first of each kind bring code and caches to life.
    for serial in 0..8 * KINDS.len() as u32 {
        lines.measure(KINDS[serial as usize % KINDS.len()], serial, text_bytes, &local)?;
    }
    let began = Instant::now();
    for nth in 0.. {
        let due = began + Duration::from_secs(1) * nth / (PER_SECOND * KINDS.len() as u32);
        if due > began + cluster.bench.duration() {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let which = nth as usize % KINDS.len();
        let took = lines.measure(KINDS[which], 1000 + nth, text_bytes, &local)?;
        latency[which].saturating_record((took.as_nanos() as u64).div_ceil(1000).max(1));
    }
    keep(cluster, &latency)
}

fn keep(cluster: &mut Cluster<'_, '_>, latency: &[Histogram<u64>; KINDS.len()]) -> Result<(), LoadError> {
    let [back, across, bare, script, bus, local] = latency;
    let fill = |record: &mut Record, histogram: &Histogram<u64>| {
        record.set_latency("", histogram);
        record.latency_curve = record::curve(histogram);
    };
    let compare = |record: &mut Record, histogram: &Histogram<u64>| {
        let p50 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.5) as f64;
        fill(record, histogram);
        record.set("of_alone", p50(histogram) / p50(bare));
    };
    let bus_step = "a message, the bus alone";
    cluster.bench.record(bus_step, |record| compare(record, bus))?;
    cluster.record_of(ALONE, bus_step, |record| fill(record, bare))?;
    cluster.record_of(ALONE, "the script", |record| compare(record, script))?;
    cluster.bench.record("to the other node", |record| compare(record, across))?;
    cluster.bench.record("to the same node", |record| compare(record, back))?;
    cluster.record_of("without Redis", "to the same node", |record| fill(record, local))
}

impl Lines {
    /// Says something, and how long it takes until it is heard.
    fn measure(&mut self, kind: Kind, serial: u32, text_bytes: usize, node: &Running) -> Result<Duration, LoadError> {
        let text = Marker { serial, ..Marker::default() }.text(text_bytes);
        let needle = text.as_bytes();
        let Self { first, second, local, publisher, subscriber, script, bus, user } = self;
        let bytes = match kind {
            Kind::Bare => cmd("PUBLISH").arg(ROOM).arg(&text).get_packed_command(),
            Kind::Script => {
                let words = script.call(serial, &text)?;
                cmd(&words[0]).arg(&words[1..]).get_packed_command()
            }
            Kind::Bus => Vec::new(),
            Kind::Back | Kind::Across | Kind::Local => node.wire.chat(ROOM, &text),
        };
        let began = Instant::now();
        match kind {
            // Whoever hears it first here is measured; the other hears it, too, in its own time.
            Kind::Back => {
                first.say(&bytes)?;
                first.wait_for(needle)?;
                let took = began.elapsed();
                second.wait_for(needle)?;
                Ok(took)
            }
            Kind::Across => {
                first.say(&bytes)?;
                second.wait_for(needle)?;
                let took = began.elapsed();
                first.wait_for(needle)?;
                Ok(took)
            }
            Kind::Bare | Kind::Script => {
                publisher.say(&bytes)?;
                subscriber.wait_for(needle)?;
                let took = began.elapsed();
                // So many have heard it; of the script, the number that it has given: it was no double.
                publisher.wait_for(&if kind == Kind::Bare { b":1\r\n".to_vec() } else { script.answer() })?;
                Ok(took)
            }
            Kind::Bus => {
                bus.publish(user, &text)?;
                Ok(began.elapsed())
            }
            Kind::Local => {
                local.say(&bytes)?;
                local.wait_for(needle)?;
                Ok(began.elapsed())
            }
        }
    }
}

fn name(error: NameError) -> LoadError {
    LoadError::Usage(error.to_string())
}

impl Script {
    fn load(cluster: &Cluster<'_, '_>) -> Result<Self, LoadError> {
        let script = PublishScript::new(&Config::default(), PREFIX);
        let sha = ask(&mut cluster.redis.connection()?, &["SCRIPT", "LOAD", &script.source()])?;
        Ok(Self { script, sha, said: 0 })
    }

    /// The words that say something.
    fn call(&mut self, serial: u32, text: &str) -> Result<Vec<String>, LoadError> {
        let publication = Publication {
            room: RoomName::new(SCRIPT_ROOM).map_err(name)?,
            user: UserId::new("alone").map_err(name)?,
            id: Some(serial.to_string().into()),
            body: format!(r#"{{"type":"chat","room":"{SCRIPT_ROOM}","userId":"alone","text":"{text}""#).into(),
        };
        Ok(self.script.call(&self.sha, publication))
    }

    /// How the answer to the next one ends.
    fn answer(&mut self) -> Vec<u8> {
        self.said += 1;
        format!(" {}\r\n", self.said).into_bytes()
    }

    /// Where it is heard: what the names of the room's keys begin with.
    fn channel(&mut self) -> Result<String, LoadError> {
        let words = self.call(0, "")?;
        let channel = words.iter().find_map(|word| word.strip_suffix(":meta"));
        channel.map(str::to_owned).ok_or_else(|| LoadError::Silence(format!("a key in {words:?}")))
    }
}

impl Line {
    fn connect(address: SocketAddr) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(address).map_err(|source| LoadError::Connect { address, source })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Connects to a node and joins the room.
    fn join(node: &Running) -> Result<Self, LoadError> {
        let mut line = Self::connect(node.address)?;
        line.say(&node.wire.hello())?;
        line.wait_for(b"\r\n\r\n")?;
        line.say(&node.wire.join(0, ROOM))?;
        line.wait_for(br#"{"type":"joined""#)?;
        Ok(line)
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads until the words come, and forgets what came up to them.
    fn wait_for(&mut self, words: &[u8]) -> Result<(), LoadError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, words) {
                self.unread.drain(..at + words.len());
                return Ok(());
            }
            let bytes = self.stream.read(&mut chunk).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => LoadError::Silence(String::from_utf8_lossy(words).into_owned()),
                _ => error.into(),
            })?;
            if bytes == 0 {
                return Err(LoadError::Gone { count: 1, why: "closed by the other end".to_owned() });
            }
            self.unread.extend_from_slice(&chunk[..bytes]);
        }
    }
}
