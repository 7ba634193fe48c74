//! Owners share the reads and sends of a turn, and the pages of history: much work of one does not hold up another.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use roomcast::OpenPolicy;
use roomcast::bus::{BusRequest, LocalBus};
use roomcast::internals::{Hub, NewConnection, Owners};
use roomcast::net::Slot;
use roomcast::{Config, ConnectionId, Now, UserId};

use crate::support::host::{Host, config};
use crate::support::local_room::run_bus;
use crate::support::{Raw, TEXT, frame, upgrade_request};

/// The connections of the owner that sends much, and the rooms of each.
const CROWD: u32 = 400;
const ROOMS: u32 = 64;

/// The most sends of one room in a row.
const SLICE: u32 = 64;

const NOW: Now = Now { uptime: Duration::from_secs(1), unix_ms: 0 };

/// A crowd of one owner, and members of another owner behind it.
struct World {
    hub: Hub,
    bus: LocalBus,
}

/// Sends to each of the two owners.
#[derive(Clone, Copy, Debug, Default)]
struct Sends {
    crowd: u32,
    others: u32,
}

impl World {
    /// `room_of` names the rooms of the crowd's connections; the others have one room.
    fn new(room_of: impl Fn(u32, u32) -> String, others: u32) -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        config.hub.users_listed_max = 1;
        config.timing.members_interval = Duration::from_secs(3600);
        let hub = Hub::new(&config, Box::new(OpenPolicy));
        let mut world = Self { hub, bus: LocalBus::new(&config, 1) };
        let owners = Owners::new(1);
        for slot in 0..CROWD + others {
            let address = if slot < CROWD { "192.0.2.1" } else { "192.0.2.2" };
            let (user, owner) = (UserId::new(&format!("u{slot}")).unwrap(), owners.address(address.parse().unwrap()));
            let id = ConnectionId::new(slot, 1);
            world.hub.connect(Now::default(), id, NewConnection::new(&user, owner));
            let rooms = if slot < CROWD { ROOMS } else { 1 };
            for number in 0..rooms {
                let room = if slot < CROWD { room_of(slot, number) } else { "other".to_owned() };
                world.tell(slot, &format!(r#"{{"type":"join","room":"{room}"}}"#));
            }
        }
        world.hub.poll_output(|_| {});
        while world.hub.has_work() {
            world.turn(&mut Sends::default());
        }
        world
    }

    fn tell(&mut self, slot: u32, text: &str) {
        self.hub.handle_text(NOW, ConnectionId::new(slot, 1), text);
        run_bus(&mut self.hub, &mut self.bus, NOW);
    }

    fn say(&mut self, slot: u32, room: &str) {
        self.tell(slot, &format!(r#"{{"type":"chat","room":"{room}","text":"hello"}}"#));
    }

    fn turn(&mut self, sends: &mut Sends) {
        let mut members = BTreeMap::<u32, u32>::new();
        self.hub.poll_sends(NOW, SLICE, &mut || NOW, &mut |Slot(slot), frames| {
            *members.entry(slot).or_default() += 1;
            frames.len()
        });
        let to_crowd: u32 = members.range(..CROWD).map(|(_, sends)| sends).sum();
        sends.crowd += to_crowd;
        sends.others += members.values().sum::<u32>() - to_crowd;
    }

    /// Turns until the others were sent so much. Says what was sent by then.
    fn turn_until_sent(&mut self, others: u32) -> Sends {
        let mut sends = Sends::default();
        while sends.others < others {
            assert!(self.hub.has_work(), "{sends:?} and nothing else to do");
            self.turn(&mut sends);
        }
        sends
    }
}

#[test]
fn a_room_does_not_wait_for_all_the_small_rooms_of_another_owner() {
    // Pairs of connections, each with rooms of its own.
    let mut world = World::new(|slot, number| format!("r{}-{number}", slot / 2), 2);
    for pair in 0..CROWD / 2 {
        (0..ROOMS).for_each(|number| world.say(2 * pair, &format!("r{pair}-{number}")));
    }
    for _ in 0..10 {
        world.say(CROWD, "other");
        let sends = world.turn_until_sent(2);
        assert!(sends.crowd <= 2 * SLICE, "{sends:?}");
    }
}

#[test]
fn a_large_room_gets_on_however_many_large_rooms_another_owner_has() {
    const MEMBERS: u32 = 600;
    let mut world = World::new(|_, number| format!("r{number}"), MEMBERS);
    (0..ROOMS).for_each(|number| world.say(0, &format!("r{number}")));
    world.say(CROWD, "other");
    let sends = world.turn_until_sent(MEMBERS);
    // Half of the sends are for rooms that begin a round, of which only the crowd has any here; the other half is shared.
    assert!(sends.crowd <= 3 * MEMBERS + 4 * SLICE, "{sends:?}");
}

/// Opens a WebSocket from an address of this machine.
fn open_from(source: &str, host: &mut Host, server: SocketAddr) -> Raw<TcpStream> {
    host.serve(|| {
        let mut raw = Raw::connect_from(source, server);
        raw.send(upgrade_request("/ws", &[]).as_bytes());
        raw.upgraded();
        raw.json_of("welcome");
        raw
    })
}

#[test]
fn a_connection_is_read_soon_however_many_of_another_address_wait() {
    const WAITING: usize = 25;
    let mut config = config();
    (config.net.reads_per_turn, config.net.messages_per_read, config.hub.message_rate) = (1, 1, 0);
    let mut host = Host::new(config);
    let server = host.listen();
    let mut crowd: Vec<_> = (0..WAITING).map(|_| open_from("127.0.0.2", &mut host, server)).collect();
    let mut ann = open_from("127.0.0.3", &mut host, server);
    let ping = frame(TEXT, true, br#"{"type":"ping"}"#);
    crowd.iter_mut().for_each(|raw| raw.send(&ping.repeat(400)));
    let received = |host: &Host| host.server.stats().hub.messages_received;
    host.turn_until("all of the crowd wait", |host| received(host) > 2 * WAITING as u64);
    for _ in 0..10 {
        let before = received(&host);
        ann.send(&ping);
        // Its event comes with the next poll, at the latest when those of the crowd have been taken; then one turn of the crowd may
        // be under way.
        let mut turns = 0;
        ann.stream.set_nonblocking(true).unwrap();
        while ann.stream.peek(&mut [0]).is_err() {
            assert!(turns < 5, "{} messages of the crowd were read first", received(&host) - before);
            host.turn(Duration::ZERO);
            turns += 1;
        }
        ann.stream.set_nonblocking(false).unwrap();
        ann.json_of("pong");
        // Until its line has gone it is not new.
        for _ in 0..3 * WAITING {
            host.turn(Duration::ZERO);
        }
    }
}

#[test]
fn a_publication_waits_for_a_few_pages_however_many_are_wanted() {
    let mut world = World::new(|slot, number| format!("r{slot}-{number}"), 2);
    for slot in 0..CROWD {
        world.hub.handle_text(NOW, ConnectionId::new(slot, 1), &format!(r#"{{"type":"leave","room":"r{slot}-0"}}"#));
        let join = format!(r#"{{"type":"join","room":"new-{slot}","history":10}}"#);
        world.hub.handle_text(NOW, ConnectionId::new(slot, 1), &join);
    }
    let mut pages = 0;
    while let Some(request) = world.hub.poll_bus_request() {
        pages += u32::from(matches!(request, BusRequest::Read { .. }));
    }
    assert_eq!(pages, 16, "at once");
    let say = r#"{"type":"chat","room":"other","text":"hello"}"#;
    world.hub.handle_text(NOW, ConnectionId::new(CROWD, 1), say);
    assert!(matches!(world.hub.poll_bus_request(), Some(BusRequest::Publish { .. })), "it waits for pages");
}
