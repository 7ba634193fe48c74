//! However many rooms are open, no turn does more than its budget when all of them have something to do. Units are counted, not
//! time.

use std::sync::Arc;

use roomcast::Config;
use roomcast::bus::{RedisBus, RedisConfig};
use serde_json::json;

use crate::harness::redis::Redis;
use crate::support::Connect;
use crate::support::chat::is;
use crate::support::host::Host;

const CLIENTS: usize = 4;
const ROOMS_EACH: usize = 3000;

/// The units of a phase.
const PHASE: u32 = 1024;

/// The bus has three of them for its events, and may have one for what brings none.
const BUS: u32 = 4 * PHASE;

/// Timers of the bus, rooms that are looked at by the clock, and one event that is larger than what was left.
const SHARE: u32 = 256 + 512 + 2 * 64 + 256;

fn config() -> Config {
    let mut config = Config::default();
    config.hub.message_rate = 0;
    config.hub.rooms_per_connection_max = ROOMS_EACH as u32;
    // Only units bound a phase here, whatever the machine does meanwhile.
    config.net.work_time_per_phase = std::time::Duration::from_secs(1);
    config
}

#[test]
fn rooms_that_are_all_subscribed_anew_are_compared_over_many_turns() {
    let redis = Redis::start();
    let mut watch = None;
    let mut host = Host::over(config(), |config, waker| {
        let bus = RedisBus::new(config, &RedisConfig::new(&redis.url()), Arc::clone(&waker), 7).unwrap();
        watch = Some(bus.watch());
        bus
    });
    let watch = watch.expect("a bus");
    let address = host.listen();
    host.turn_until("the links stand", |_| watch.stats().publishing_up && watch.stats().subscribing_up);
    let clients = host.serve(|| {
        let join = |nth: usize| {
            let mut client = loop {
                if Connect::to(address).try_open().is_ok() {
                    break Connect::to(address).user(&format!("user-{nth}")).connect();
                }
            };
            for at in 0..ROOMS_EACH {
                client.send_json(&json!({"type": "join", "room": format!("room-{nth}-{at}")}));
                if at % 50 == 49 {
                    (0..50).for_each(|_| drop(client.recv_until(|message| is(message, "joined"))));
                }
            }
            client
        };
        (0..CLIENTS).map(join).collect::<Vec<_>>()
    });
    let fills = watch.stats().fills_total;
    let reconnects = watch.stats().reconnects_total;
    redis.ask::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let all = (CLIENTS * ROOMS_EACH) as u64;
    host.turn_until("all are compared", |_| watch.stats().fills_total >= fills + all);
    assert_eq!(watch.stats().reconnects_total, reconnects + 1);
    let most = host.server.stats().units_max.by_phase().find(|(phase, _)| *phase == "bus").expect("a bus").1;
    assert!(most > PHASE / 2 && most <= BUS + SHARE, "{most} units in a turn, of at most {}", BUS + SHARE);
    drop(clients);
}
