//! Owners share the sends of a turn: much work of one does not hold up the rooms of another.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast::OpenPolicy;
use roomcast::bus::LocalBus;
use roomcast::internals::{Hub, NewConnection, Owners};
use roomcast::net::Slot;
use roomcast::{Config, ConnectionId, Now, UserId};

use crate::support::local_room::run_bus;

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
            world.hub.connect(id, NewConnection { user: &user, name: None, owner });
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
