//! Latency with one message under way at a time: back to the same node, to the other node, and through a bus without a
//! node. It is compared with a bare PUBLISH through the same Redis, with the script of the bus without a node, and with a
//! node without Redis. The routes alternate from message to message.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use redis::cmd;
use roomcast::{RoomName, UserId};

use super::blocking_client::{BlockingClient, ROOM};
use super::nodes::{ALONE, Cluster, FLAGS};
use super::own_bus::OwnBus;
use super::script::Script;
use crate::error::LoadError;
use crate::marker::Marker;
use crate::record::{self, Record};
use crate::target::Running;

/// Messages per second on each route.
const PER_SECOND: u32 = 100;

const ROUTES: [Route; 6] = [Route::Back, Route::Across, Route::Bare, Route::Script, Route::Bus, Route::Local];

/// A room that no node has open.
const BUS_ROOM: &str = "latency-bus";

/// The way of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Route {
    /// Published and received on the first node.
    Back,
    /// Published on the first node, received on the second.
    Across,
    /// A PUBLISH to Redis, received from Redis.
    Bare,
    /// The same with the script of the bus.
    Script,
    /// Published and delivered by a bus without a node.
    Bus,
    /// Published and received on a node without Redis.
    Local,
}

/// All connections of the step.
struct Participants {
    first: BlockingClient,
    second: BlockingClient,
    local: BlockingClient,
    publisher: BlockingClient,
    subscriber: BlockingClient,
    script: Script,
    bus: OwnBus,
    user: UserId,
}

pub(super) fn run(cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
    cluster.bench.announce("latency");
    let (first, second) = (cluster.node()?, cluster.node()?);
    let local = cluster.node_with(FLAGS)?;
    let redis = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.redis.port));
    let mut participants = Participants {
        first: BlockingClient::join(&first)?,
        second: BlockingClient::join(&second)?,
        local: BlockingClient::join(&local)?,
        publisher: BlockingClient::connect(redis)?,
        subscriber: BlockingClient::connect(redis)?,
        script: Script::load(cluster)?,
        bus: OwnBus::start(cluster, RoomName::new(BUS_ROOM)?)?,
        user: UserId::new("alone")?,
    };
    let channel = participants.script.channel()?;
    participants.subscriber.send(&cmd("SUBSCRIBE").arg(ROOM).arg(channel).get_packed_command())?;
    participants.subscriber.wait_for(b":2\r\n")?;
    let mut latency = ROUTES.map(|_| record::latencies());
    let text_bytes = cluster.bench.text_bytes();
    // The first messages of each route warm up code and caches.
    for serial in 0..8 * ROUTES.len() as u32 {
        participants.measure(ROUTES[serial as usize % ROUTES.len()], serial, text_bytes, &local)?;
    }
    let began = Instant::now();
    for nth in 0.. {
        let due = began + Duration::from_secs(1) * nth / (PER_SECOND * ROUTES.len() as u32);
        if due > began + cluster.bench.duration() {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let which = nth as usize % ROUTES.len();
        let took = participants.measure(ROUTES[which], 1000 + nth, text_bytes, &local)?;
        latency[which].saturating_record((took.as_nanos() as u64).div_ceil(1000).max(1));
    }
    keep(cluster, &latency)
}

fn keep(cluster: &mut Cluster<'_, '_>, latency: &[Histogram<u64>; ROUTES.len()]) -> Result<(), LoadError> {
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

impl Participants {
    /// Sends a message, and returns how long it took until it was received.
    fn measure(&mut self, route: Route, serial: u32, text_bytes: usize, node: &Running) -> Result<Duration, LoadError> {
        let text = Marker { serial, ..Marker::default() }.text(text_bytes);
        let needle = text.as_bytes();
        let Self { first, second, local, publisher, subscriber, script, bus, user } = self;
        let bytes = match route {
            Route::Bare => cmd("PUBLISH").arg(ROOM).arg(&text).get_packed_command(),
            Route::Script => {
                let command = script.call(serial, &text)?;
                cmd(&command[0]).arg(&command[1..]).get_packed_command()
            }
            Route::Bus => Vec::new(),
            Route::Back | Route::Across | Route::Local => node.wire.chat(ROOM, &text),
        };
        let began = Instant::now();
        match route {
            // One client is measured; the message is then read by the other, too.
            Route::Back => {
                first.send(&bytes)?;
                first.wait_for(needle)?;
                let took = began.elapsed();
                second.wait_for(needle)?;
                Ok(took)
            }
            Route::Across => {
                first.send(&bytes)?;
                second.wait_for(needle)?;
                let took = began.elapsed();
                first.wait_for(needle)?;
                Ok(took)
            }
            Route::Bare | Route::Script => {
                publisher.send(&bytes)?;
                subscriber.wait_for(needle)?;
                let took = began.elapsed();
                // The number of subscribers; from the script, the message's number, so it was no duplicate.
                publisher.wait_for(&if route == Route::Bare { b":1\r\n".to_vec() } else { script.answer() })?;
                Ok(took)
            }
            Route::Bus => {
                bus.publish(user, &text)?;
                Ok(began.elapsed())
            }
            Route::Local => {
                local.send(&bytes)?;
                local.wait_for(needle)?;
                Ok(began.elapsed())
            }
        }
    }
}
