//! Budgets: work that comes at once is spread over turns, none of which takes long.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use roomcast::OpenPolicy;
use roomcast::bus::{Bus, BusEvent, BusRequest, Epoch, LocalBus};
use roomcast::internals::{Hub, NewConnection, Output};
use roomcast::net::Slot;
use roomcast::{Config, ConnectionId, Now, Owner, RoomName, Stats, UserId};

use crate::support::Connect;
use crate::support::host::{Host, LOOK, config};
use crate::support::local_room::run_bus;

#[test]
fn a_rush_of_deadlines_is_spread_over_turns() {
    let config = Config::default();
    let mut hub = Hub::new(&config, Box::new(OpenPolicy));
    let at = |millis| Now { uptime: Duration::from_millis(millis), unix_ms: millis };
    // Each was in a room of its own and is gone: it is absent only after a grace.
    let mut bus = LocalBus::new(&config, 1);
    let count = 2000;
    for slot in 0..count {
        let id = ConnectionId::new(slot, 1);
        hub.connect(
            Now::default(),
            id,
            NewConnection::new(&UserId::new(&format!("user-{slot}")).unwrap(), Owner::HOST),
        );
        hub.handle_text(at(1), id, &format!(r#"{{"type":"join","room":"room-{slot}"}}"#));
        run_bus(&mut hub, &mut bus, at(1));
        hub.disconnect(at(1), id);
    }
    let late = at(60_000);
    let mut turns = 0;
    hub.handle_deadlines(late, &mut Now::default);
    assert!(hub.stats().users > 0, "all at once");
    while hub.stats().users > 0 {
        assert_eq!(hub.timeout(late), Some(Duration::ZERO), "the rest is forgotten");
        hub.handle_deadlines(late, &mut Now::default);
        turns += 1;
        assert!(turns < 100, "{} users are left", hub.stats().users);
    }
    assert_eq!(hub.stats().rooms, 0);
}

/// A hub whose sends take as long as told.
struct Rooms {
    hub: Hub,
    bus: LocalBus,
    uptime: Duration,
}

/// The sends of one turn.
#[derive(Debug, Default)]
struct Turn {
    /// Sends to each room's members.
    sends: BTreeMap<&'static str, u32>,
    took: Duration,
    looks: u32,
}

const GIANT: u32 = 1000;

impl Rooms {
    /// A giant room, and small ones of two.
    fn new(small: u32) -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        config.hub.users_listed_max = 1;
        config.timing.members_interval = Duration::from_secs(3600);
        config.hub.sends_per_turn = 64;
        config.hub.send_time_per_turn = Duration::from_micros(300);
        let hub = Hub::new(&config, Box::new(OpenPolicy));
        let mut rooms = Self { hub, bus: LocalBus::new(&config, 1), uptime: Duration::from_secs(1) };
        for slot in 0..GIANT + 2 * small {
            let id = ConnectionId::new(slot, 1);
            rooms.hub.connect(
                Now::default(),
                id,
                NewConnection::new(&UserId::new(&format!("user-{slot}")).unwrap(), Owner::HOST),
            );
            let room = if slot < GIANT { "giant".to_owned() } else { format!("small-{}", (slot - GIANT) / 2) };
            rooms.tell(slot, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        }
        rooms.hub.poll_output(|_| {});
        while rooms.hub.has_work() {
            rooms.turn(Duration::ZERO);
        }
        rooms
    }

    fn tell(&mut self, slot: u32, text: &str) {
        let now = Now { uptime: self.uptime, unix_ms: 0 };
        self.hub.handle_text(now, ConnectionId::new(slot, 1), text);
        run_bus(&mut self.hub, &mut self.bus, now);
    }

    fn say_in_giant(&mut self) {
        self.tell(0, r#"{"type":"chat","room":"giant","text":"hello"}"#);
    }

    fn say_in_small(&mut self, count: u32) {
        for room in 0..count {
            self.tell(GIANT + 2 * room, &format!(r#"{{"type":"chat","room":"small-{room}","text":"hello"}}"#));
        }
    }

    fn turn(&mut self, send: Duration) -> Turn {
        let began = Now { uptime: self.uptime, unix_ms: 0 };
        let (uptime, looks) = (Cell::new(self.uptime), Cell::new(0));
        let mut turn = Turn::default();
        let clock = &mut || {
            looks.set(looks.get() + 1);
            Now { uptime: uptime.get(), unix_ms: 0 }
        };
        self.hub.poll_sends(began, 64, clock, &mut |Slot(slot), frames| {
            uptime.set(uptime.get() + send);
            *turn.sends.entry(if slot < GIANT { "giant" } else { "small" }).or_default() += 1;
            frames.len()
        });
        turn.took = uptime.get() - self.uptime;
        self.uptime = uptime.get();
        Turn { looks: looks.get(), ..turn }
    }
}

#[test]
fn sends_that_take_long_are_fewer_in_a_turn() {
    let mut rooms = Rooms::new(0);
    for (micros, sends) in [(1, 64), (4, 64), (10, 40), (20, 24), (500, 16), (100_000, 16)] {
        rooms.say_in_giant();
        let turn = rooms.turn(Duration::from_micros(micros));
        assert_eq!(turn.sends["giant"], sends, "of {micros} µs: {turn:?}");
        while rooms.hub.has_work() {
            rooms.turn(Duration::ZERO);
        }
    }
}

#[test]
fn a_turn_that_sends_little_does_not_read_the_clock() {
    let mut rooms = Rooms::new(3);
    rooms.say_in_small(3);
    let turn = rooms.turn(Duration::from_secs(1));
    assert_eq!((turn.sends["small"], turn.looks), (6, 0), "{turn:?}");
}

#[test]
fn a_giant_and_small_rooms_share_the_time_of_slow_sends() {
    let mut rooms = Rooms::new(100);
    rooms.say_in_giant();
    rooms.turn(Duration::ZERO);
    // All the time there is something new in all small rooms.
    for _ in 0..10 {
        rooms.say_in_small(100);
        let turn = rooms.turn(Duration::from_micros(20));
        assert!(turn.sends["giant"] >= 8 && turn.sends["small"] >= 8, "{turn:?}");
        assert!(turn.took <= Duration::from_micros(20 * 32), "{turn:?}");
    }
}

#[test]
fn a_crowd_that_reads_history_is_spread_over_turns() {
    let mut config = Config::default();
    config.hub.message_rate = 0;
    let (mut hub, mut bus) = (Hub::new(&config, Box::new(OpenPolicy)), LocalBus::new(&config, 1));
    let now = Now { uptime: Duration::from_secs(1), unix_ms: 0 };
    let mut join = |hub: &mut Hub, slot, history| {
        let (id, user) = (ConnectionId::new(slot, 1), UserId::new("ann").unwrap());
        hub.connect(now, id, NewConnection::new(&user, Owner::HOST));
        hub.handle_text(now, id, &format!(r#"{{"type":"join","room":"lobby","history":{history}}}"#));
        run_bus(hub, &mut bus, now);
        id
    };
    // More than two pages.
    let talker = join(&mut hub, 0, 0);
    for _ in 0..60 {
        let text = "x".repeat(3000);
        hub.handle_text(now, talker, &format!(r#"{{"type":"chat","room":"lobby","text":"{text}"}}"#));
    }
    // The first one joins before all is delivered, and reads the log.
    join(&mut hub, 500, 0);
    let readers: Vec<_> = (1..500).map(|slot| join(&mut hub, slot, 100)).collect();
    // All have taken their first page at once.
    hub.poll_output(|_| {});
    readers.iter().for_each(|reader| hub.handle_drained(*reader));
    hub.poll_sends(now, 64, &mut || now, &mut |_, frames| frames.len());
    let (mut turns, mut asked) = (0, 0);
    while asked < readers.len() {
        hub.handle_deadlines(now, &mut Now::default);
        let mut requests = 0;
        while let Some(request) = hub.poll_bus_request() {
            requests += 1;
            bus.submit(request);
            std::iter::from_fn(|| bus.poll_event()).for_each(|event| hub.handle_bus_event(now, event));
        }
        assert!(requests <= 128, "{requests} pages in a turn");
        assert!(requests > 0 || hub.has_work(), "{asked} have asked");
        asked += requests;
        turns += 1;
    }
    assert!(turns >= 4, "{turns} turns");
}

#[test]
fn a_client_that_waits_in_many_rooms_goes_on_in_some_of_them_in_each_turn() {
    let mut config = Config::default();
    (config.hub.message_rate, config.net.work_per_phase) = (0, 32);
    let (mut hub, mut bus) = (Hub::new(&config, Box::new(OpenPolicy)), LocalBus::new(&config, 1));
    let now = Now { uptime: Duration::from_secs(1), unix_ms: 0 };
    let id = ConnectionId::new(0, 1);
    hub.connect(now, id, NewConnection::new(&UserId::new("ann").unwrap(), Owner::HOST));
    // Its answers fill its write buffer, so its joins wait.
    for _ in 0..1000 {
        hub.handle_text(now, id, r#"{"type":"chat","room":"nowhere","text":"x"}"#);
    }
    for room in 0..60 {
        hub.handle_text(now, id, &format!(r#"{{"type":"join","room":"room-{room}"}}"#));
    }
    run_bus(&mut hub, &mut bus, now);
    let joined = |hub: &mut Hub| {
        let mut joined = 0;
        hub.poll_output(|output| {
            if let Output::Frames(_, frames) = output {
                joined += String::from_utf8_lossy(frames).matches(r#""joined""#).count();
            }
        });
        joined
    };
    assert_eq!(joined(&mut hub), 0);
    hub.handle_drained(id);
    hub.poll_sends(now, 64, &mut || now, &mut |_, frames| frames.len());
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < 60 {
        assert!(hub.has_work(), "the rest is forgotten: {turns:?}");
        hub.handle_deadlines(now, &mut Now::default);
        turns.push(joined(&mut hub));
    }
    assert!(turns.iter().all(|joined| (1..=4).contains(joined)), "{turns:?}");
}

/// A bus that has much to tell.
struct Talkative {
    left: Rc<Cell<u32>>,
}

impl Bus for Talkative {
    fn begin_turn(&mut self, _: Now) {}
    fn submit(&mut self, _: BusRequest) {}

    fn poll_event(&mut self) -> Option<BusEvent> {
        self.left.set(self.left.get().checked_sub(1)?);
        Some(BusEvent::EpochChanged { room: RoomName::new("nobodys").unwrap(), epoch: Epoch::new("e"), top: 0 })
    }
}

#[test]
fn what_a_bus_tells_at_once_is_heard_over_several_turns() {
    let left = Rc::new(Cell::new(20_000));
    let mut host = Host::build(Config::default(), |builder| builder.bus(Talkative { left: Rc::clone(&left) }));
    let mut turns = 0;
    while host.server.timeout() == Some(Duration::ZERO) || turns == 0 {
        let before = left.get();
        host.server.turn();
        let heard = before - left.get();
        assert!(heard <= 3 * Config::default().net.work_per_phase, "{heard} events in a turn");
        turns += 1;
    }
    assert!(left.get() == 0 && turns >= 5, "{} events are left after {turns} turns", left.get());
}

/// A bus that counts what it is asked.
struct Counting {
    bus: LocalBus,
    asked: Rc<Cell<u32>>,
}

impl Bus for Counting {
    fn begin_turn(&mut self, now: Now) {
        self.bus.begin_turn(now);
    }

    fn submit(&mut self, request: BusRequest) {
        self.asked.set(self.asked.get() + 1);
        self.bus.submit(request);
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        self.bus.poll_event()
    }
}

#[test]
fn what_is_said_at_once_is_given_to_the_bus_over_several_turns_and_reading_waits_for_it() {
    const UNITS: u32 = 16;
    const MESSAGES: u64 = 1000;
    let mut config = config();
    (config.net.work_per_phase, config.hub.message_rate) = (UNITS, 0);
    let asked = Rc::new(Cell::new(0));
    let bus = Counting { bus: LocalBus::new(&config, 1), asked: Rc::clone(&asked) };
    let mut host = Host::with_bus(config, bus);
    let server = host.listen();
    let mut ann = host.serve(|| {
        let mut ann = Connect::to(server).user("ann").connect();
        ann.join("lobby");
        ann
    });
    (0..MESSAGES).for_each(|number| ann.say("lobby", &number.to_string()));
    let delivered = |host: &Host| host.server.stats().hub.messages_delivered;
    while delivered(&host) < MESSAGES {
        let before = asked.get();
        host.turn(LOOK);
        assert!(asked.get() - before <= 3 * UNITS, "{} requests in a turn", asked.get() - before);
        let Stats { hub, .. } = host.server.stats();
        // A read brings 64 messages.
        assert!(hub.messages_received - hub.messages_delivered <= 256 + 64, "{hub:?}");
    }
    assert_eq!(host.server.stats().hub.errors, 0);
}

#[test]
fn a_client_that_joins_many_rooms_at_once_is_owed_no_more_than_its_write_buffer_holds() {
    const ROOMS: usize = 64;
    let mut config = Config::default();
    config.hub.message_rate = 0;
    let output_bytes_max = config.net.output_bytes_max;
    let (mut hub, mut bus) = (Hub::new(&config, Box::new(OpenPolicy)), LocalBus::new(&config, 1));
    let now = Now { uptime: Duration::from_secs(1), unix_ms: 0 };
    let name = "\u{1f980}".repeat(64);
    let connect = |hub: &mut Hub, slot| {
        let (id, user) = (ConnectionId::new(slot, 1), UserId::new(&format!("user-{slot}")).unwrap());
        hub.connect(now, id, NewConnection { name: Some(&name), ..NewConnection::new(&user, Owner::HOST) });
        id
    };
    let join =
        |hub: &mut Hub, id, room| hub.handle_text(now, id, &format!(r#"{{"type":"join","room":"room-{room}"}}"#));
    for slot in 1..=100 {
        let id = connect(&mut hub, slot);
        for room in 0..ROOMS {
            join(&mut hub, id, room);
            run_bus(&mut hub, &mut bus, now);
            hub.poll_output(|_| {});
            hub.handle_drained(id);
        }
        while hub.has_work() {
            hub.poll_sends(now, 64, &mut || now, &mut |_, frames| frames.len());
        }
    }
    let newcomer = connect(&mut hub, 0);
    (0..ROOMS).for_each(|room| join(&mut hub, newcomer, room));
    let (mut joined, mut turns) = (0, 0);
    while joined < ROOMS {
        run_bus(&mut hub, &mut bus, now);
        let mut bytes = 0;
        hub.poll_output(|output| {
            if let Output::Frames(id, frames) = output
                && id == newcomer
            {
                bytes += frames.len();
                joined += frames.windows(15).filter(|text| text == br#""type":"joined""#).count();
            }
        });
        assert!(bytes <= output_bytes_max, "{bytes} bytes at once");
        assert!(turns < 100, "in {joined} of {ROOMS} rooms");
        hub.handle_drained(newcomer);
        hub.poll_sends(now, 64, &mut || now, &mut |_, frames| frames.len());
        hub.handle_deadlines(now, &mut Now::default);
        turns += 1;
    }
    assert!(turns > 4, "that was not more than a write buffer holds");
}
