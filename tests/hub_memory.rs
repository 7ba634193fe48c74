//! What the hub charges owners for rooms, memberships, graces and publications, against what the allocator has handed out.

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use roomcast::bus::{Bus, BusEvent, BusRequest, LocalBus, Numbered, Outcome, RestrictionsPage};
use roomcast::internals::{Hub, NewConnection, Owners, RefreshedIdentity, Slot, Validity, frame};
use roomcast::{Config, ConnectionId, Grants, HostPublication, Now, OpenPolicy, Owner, RoomName, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations are those of the whole process, so one test has it at a time.
static COUNTED: Mutex<()> = Mutex::new(());

/// Nearly as many rooms as their table has space for, when it has been doubled a few times. The spare space of such a table is
/// counted by the allocator, but it is not resident until it is used.
const CROWD: u32 = 68_000;

/// A hub with a bus in memory.
struct World {
    hub: Hub,
    bus: LocalBus,
    now: Now,
    owner: Owner,
    serial: u32,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        config.hub.rooms_per_connection_max = 64;
        config.memory.total = 1 << 31;
        config.timing.presence_grace = Duration::from_secs(10);
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let owner = Owners::new(7).listener(None);
        let (hub, bus) = (Hub::new(&config, Box::new(OpenPolicy)), LocalBus::new(&config, 1));
        let mut world = Self { hub, bus, now, owner, serial: 0 };
        world.turn();
        world
    }

    fn connect(&mut self, slot: u32, user: &str, name: Option<&str>) -> ConnectionId {
        self.connect_with(slot, user, name, Validity::default())
    }

    fn connect_with(&mut self, slot: u32, user: &str, name: Option<&str>, validity: Validity) -> ConnectionId {
        self.serial += 1;
        let id = ConnectionId::new(slot, self.serial);
        let user = UserId::new(user).unwrap();
        self.hub.connect(self.now, id, NewConnection { name, validity, ..NewConnection::new(&user, self.owner) });
        self.turn();
        id
    }

    fn join(&mut self, id: ConnectionId, room: &str) {
        self.hub.handle_text(self.now, id, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        self.turn();
    }

    /// The bus answers, and sockets take everything.
    fn turn(&mut self) {
        self.turn_with(&mut |_, frames| frames.len());
    }

    /// The bus answers, and sockets take so many bytes of whole frames.
    fn turn_with(&mut self, send: &mut impl FnMut(Slot, &[u8]) -> usize) {
        self.bus.begin_turn(self.now);
        loop {
            while let Some(request) = self.hub.poll_bus_request() {
                self.bus.submit(request);
            }
            let Some(event) = self.bus.poll_event() else { break };
            self.hub.handle_bus_event(self.now, event);
        }
        self.hub.poll_output(|_| {});
        let now = self.now;
        while self.hub.has_work() {
            self.hub.poll_sends(now, 10_000, &mut || now, send);
            self.hub.handle_deadlines(now, &mut Now::default);
        }
    }

    /// Time passes, until all graces and their timers are over.
    fn wait(&mut self) {
        for _ in 0..80 {
            self.now.uptime += Duration::from_millis(250);
            // More than a turn looks at.
            for _ in 0..2000 {
                self.hub.handle_deadlines(self.now, &mut Now::default);
            }
            self.turn();
        }
    }

    fn disconnect_all(&mut self, ids: Vec<ConnectionId>) {
        for id in ids {
            self.hub.disconnect(self.now, id);
            self.turn();
        }
    }
}

impl World {
    /// What is charged for all that is held.
    fn charged(&self) -> usize {
        let (hub, bus) = (self.hub.stats(), self.bus.stats());
        hub.rooms_bytes + hub.publications_bytes + hub.log_bytes + bus.history_bytes + bus.dedupe_bytes
    }
}

/// Fills a world with something that is charged what it takes, give or take 15 %.
fn check<T>(what: &str, world: &mut World, fill: impl FnOnce(&mut World) -> T) -> T {
    let (made, ratio) = compare(world, fill);
    assert!((0.85..=1.15).contains(&ratio), "{what}: {ratio:.2} of what is held is charged");
    made
}

/// What `fill` has made, and how much of what it has allocated it is charged.
fn compare<T>(world: &mut World, fill: impl FnOnce(&mut World) -> T) -> (T, f64) {
    let before = world.charged();
    let region = Region::new(ALLOCATOR);
    let made = fill(world);
    let change = region.change();
    let counted = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    let said = (world.charged() - before) as f64;
    (made, said / counted)
}

/// A name as long as names may be.
fn long(name: u32) -> String {
    format!("{name:0>128}")
}

#[test]
fn rooms_and_memberships_are_charged_what_they_take() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let short = |name: u32| format!("r{name}");
    let one = |_: u32| "room".to_owned();
    type NameOf<'a> = &'a dyn Fn(u32) -> String;
    for (what, connections, rooms_each, name_of) in [
        ("rooms of one member", CROWD, 1, &short as NameOf<'_>),
        ("rooms with long names", CROWD, 1, &long),
        ("one room", CROWD, 1, &one),
        ("many rooms a connection", CROWD / 64, 64, &short),
    ] {
        let mut world = World::new();
        let mut ids: Vec<_> = (0..connections).map(|slot| world.connect(slot, &format!("user-{slot}"), None)).collect();
        check(what, &mut world, |world| {
            for (at, id) in ids.iter().enumerate() {
                (0..rooms_each).for_each(|room| world.join(*id, &name_of(at as u32 * rooms_each + room)));
            }
        });
        world.disconnect_all(std::mem::take(&mut ids));
        world.wait();
        assert_eq!(world.charged(), 0, "{what}");
    }
}

/// The first places of the lists are charged with the room, so that rooms of one are charged what they take. The memberships of
/// small rooms are charged once more for them.
#[test]
fn small_rooms_are_charged_a_third_more_at_most() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let ids: Vec<_> = (0..170_000).map(|slot| world.connect(slot, &format!("user-{slot}"), None)).collect();
    let ((), ratio) = compare(&mut world, |world| {
        ids.iter().enumerate().for_each(|(at, id)| world.join(*id, &format!("r{}", at / 10)));
    });
    assert!((1.0..=1.33).contains(&ratio), "{ratio:.2} of what is held is charged");
}

#[test]
fn graces_are_charged_what_they_take() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, users, rooms_each, rooms, is_long) in [
        ("a room each", CROWD, 1, CROWD, false),
        ("a room each, long names", CROWD, 1, CROWD, true),
        ("64 rooms each", CROWD / 64, 64, CROWD, false),
        ("one room", CROWD, 1, 1, false),
    ] {
        let mut world = World::new();
        check(what, &mut world, |world| {
            for user in 0..users {
                let (id, display) =
                    if is_long { (long(user), Some("n".repeat(64))) } else { (format!("u{user}"), None) };
                // Always in the same slot: connections are not what is measured.
                let id = world.connect(0, &id, display.as_deref());
                for room in 0..rooms_each {
                    let number = (user * rooms_each + room) % rooms;
                    world.join(id, &if is_long { long(number) } else { format!("r{number}") });
                }
                world.hub.disconnect(world.now, id);
                world.turn();
            }
        });
        assert!(world.hub.stats().connections == 0 && world.hub.stats().users == users as usize);
        world.wait();
        assert_eq!((world.charged(), world.hub.stats().users), (0, 0), "{what}");
    }
}

fn grants(count: usize, pattern_bytes: usize) -> Grants {
    let grant = |number: usize| serde_json::json!({"match": format!("{number:0>pattern_bytes$}*"), "allow": ["join"]});
    serde_json::from_value((0..count).map(grant).collect()).unwrap()
}

fn validity(grants: Option<Grants>) -> Validity {
    Validity { expires_at: Some(1_800_000_000_000), grants, ..Validity::default() }
}

/// What so many connections have taken whose identities differ in what `connect` gives them, as the allocator has counted; the
/// connections themselves included.
fn connections(connect: impl Fn(&mut World, u32)) -> (World, f64) {
    let mut world = World::new();
    let region = Region::new(ALLOCATOR);
    (0..CROWD).for_each(|slot| connect(&mut world, slot));
    world.turn();
    let change = region.change();
    (world, change.bytes_allocated as f64 - change.bytes_deallocated as f64)
}

/// Has a connection come in a slot.
type Connect<'a> = &'a dyn Fn(&mut World, u32);

/// A connection brings another token, and is told what became of it if its slot is even.
fn refresh(world: &mut World, slot: u32) {
    let id = world.connect_with(slot, &format!("user-{slot}"), None, validity(Some(grants(5, 100))));
    world.hub.handle_text(world.now, id, &format!(r#"{{"type":"refresh","token":"t","id":"{slot:064}"}}"#));
    world.hub.poll_refresh().unwrap();
    if slot.is_multiple_of(2) {
        let user = Some(UserId::new(&format!("user-{slot}")).unwrap());
        let refreshed = RefreshedIdentity { user, name: Some("Ann".into()), validity: validity(None) };
        world.hub.finish_refresh(world.now, id, Ok(refreshed));
    }
}

#[test]
fn identities_are_charged_what_they_take_beside_their_connections() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let connect = |world: &mut World, slot: u32, name: Option<&str>, validity: Validity| {
        world.connect_with(slot, &format!("user-{slot}"), name, validity);
    };
    let (plain_world, plain) = connections(|world, slot| connect(world, slot, None, Validity::default()));
    assert_eq!(plain_world.charged(), 0);
    drop(plain_world);
    let name = "ü".repeat(64);
    let long_id = |world: &mut World, slot: u32| {
        world.connect(slot, &long(slot), None);
    };
    let cases: [(&str, Connect<'_>); 7] = [
        ("long ids", &long_id),
        ("short names", &|world, slot| connect(world, slot, Some("Ann"), Validity::default())),
        ("long names", &|world, slot| connect(world, slot, Some(&name), Validity::default())),
        ("tokens", &|world, slot| connect(world, slot, None, validity(None))),
        ("a grant", &|world, slot| connect(world, slot, None, validity(Some(grants(1, 4))))),
        ("long grants", &|world, slot| connect(world, slot, None, validity(Some(grants(5, 100))))),
        ("a refresh", &refresh),
    ];
    let mut wrong = Vec::new();
    for (what, connect) in cases {
        let (mut world, counted) = connections(connect);
        let ratio = world.charged() as f64 / (counted - plain);
        println!("{what}: {ratio:.2} of what is held is charged");
        wrong.extend(
            (!(0.85..=1.15).contains(&ratio)).then(|| format!("{what}: {ratio:.2} of what is held is charged")),
        );
        world.disconnect_all((0..CROWD).map(|slot| ConnectionId::new(slot, slot + 1)).collect());
        assert_eq!((world.charged(), world.hub.stats().connections), (0, 0), "{what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_display_name_is_charged_as_long_as_its_user_is_known() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let (first, second) = (world.connect(0, "ann", Some("Ann")), world.connect(1, "ann", Some(&"ü".repeat(64))));
    let long_name = world.charged();
    assert!((128..256).contains(&long_name), "{long_name} bytes");
    world.join(first, "a");
    world.disconnect_all(vec![second]);
    assert!(world.charged() > long_name, "the name stays");
    world.connect(2, "ann", None);
    world.disconnect_all(vec![first]);
    world.wait();
    assert_eq!(world.charged(), 0);
}

/// Publications that wait, of a text of so many bytes, by a member or from outside: the bus has been given them.
fn publications(count: u32, name_bytes: usize, text_bytes: usize, is_from_member: bool) {
    let mut world = World::new();
    let name = |first: &str| format!("{first}{}", "n".repeat(name_bytes - 1));
    let (user, room, text) = (name("u"), name("r"), "x".repeat(text_bytes));
    let id = world.connect(0, &user, Some(&"ü".repeat(name_bytes.min(64))));
    world.join(id, &room);
    let what = format!("publications with names of {name_bytes} bytes and a text of {text_bytes}, {is_from_member}");
    let requests = check(&what, &mut world, |world| {
        let mut requests = Vec::with_capacity(count as usize);
        for number in 0..count {
            if is_from_member {
                let chat = format!(r#"{{"type":"chat","room":"{room}","text":"{text}","id":"{number:064}"}}"#);
                world.hub.handle_text(world.now, id, &chat);
            } else {
                let (room, user) = (RoomName::new(&room).unwrap(), UserId::new(&user).unwrap());
                let mut publication = HostPublication::new(room, user, text.clone());
                publication.id = Some(format!("{number:064}"));
                world.hub.publish_for_api(world.now, world.owner, &publication).unwrap();
            }
            requests.extend(world.hub.poll_bus_request());
        }
        assert_eq!(requests.len(), count as usize);
        requests
    });
    for request in requests {
        let BusRequest::Publish { ticket, .. } = request else { panic!("{request:?}") };
        world.hub.handle_bus_event(world.now, BusEvent::Published { ticket, outcome: Outcome::AcceptedUnseen(1) });
    }
    assert_eq!(world.hub.stats().publications_bytes, 0);
}

#[test]
fn publications_are_charged_until_the_bus_has_answered() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    for is_from_member in [true, false] {
        for name_bytes in [4, 128] {
            publications(250, name_bytes, 1, is_from_member);
            publications(300, name_bytes, 1, is_from_member);
            publications(450, name_bytes, 1, is_from_member);
            publications(200, name_bytes, 4096, is_from_member);
            publications(50, name_bytes, 15_000, is_from_member);
        }
    }
}

/// Messages with the longest names and ids that members have sent, of which nothing is left but history and remembered ids.
#[test]
fn what_is_kept_of_messages_is_charged_what_it_takes() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    for (messages, text_bytes) in [(20_000, 1), (20_000, 300), (3000, 16_000)] {
        for name_bytes in [4, 128] {
            let mut world = World::new();
            let name = |first: &str| format!("{first}{}", "n".repeat(name_bytes - 1));
            let (user, room, text) = (name("u"), name("r"), "\\n".repeat(text_bytes / 2) + "x");
            let id = world.connect(0, &user, Some(&"ü".repeat(name_bytes.min(64))));
            world.join(id, &room);
            check(&format!("{messages} texts of {text_bytes} bytes, names of {name_bytes}"), &mut world, |world| {
                for number in 0..messages {
                    let chat = format!(r#"{{"type":"chat","room":"{room}","text":"{text}","id":"{number:064}"}}"#);
                    world.hub.handle_text(world.now, id, &chat);
                    world.turn();
                }
                assert_eq!(world.hub.stats().publications_bytes, 0);
            });
        }
    }
}

/// How many bytes there are before the last of some frames.
fn all_but_the_last(frames: &[u8]) -> usize {
    let mut before = 0;
    loop {
        let head = frame::Head::parse(&frames[before..]).unwrap();
        let end = before + head.header_bytes + head.payload_bytes as usize;
        if end == frames.len() {
            return before;
        }
        before = end;
    }
}

/// Members that take nothing of what is said hold the logs of their rooms. Of what such a log needed for a crowd, one that holds a
/// frame gives back nearly all.
#[test]
fn logs_are_charged_the_memory_that_they_take() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    const ROOMS: u32 = 150;
    const MESSAGES: u64 = 300;
    let mut world = World::new();
    let rooms: Vec<_> = (0..ROOMS).map(|room| RoomName::new(&format!("room-{room}")).unwrap()).collect();
    let mut slow_members = Vec::new();
    for (at, room) in rooms.iter().enumerate() {
        for slot in [2 * at as u32, 2 * at as u32 + 1] {
            let id = world.connect(slot, &format!("user-{slot}"), None);
            world.join(id, room.as_str());
            slow_members.extend((slot % 2 == 1).then_some(id));
        }
    }
    let is_slow = |slot: Slot| slot.0 % 2 == 1;
    let body = Bytes::from(vec![b'x'; 1000]);
    let mut seen = 0;
    let region = Region::new(ALLOCATOR);
    let held = || {
        let change = region.change();
        change.bytes_allocated as f64 - change.bytes_deallocated as f64
    };
    for at in 0..MESSAGES {
        for room in &rooms {
            let message = Numbered { seq: at + 1, body: body.clone() };
            world.hub.handle_bus_event(world.now, BusEvent::Delivered { room: room.clone(), message, owner: None });
        }
        world.turn_with(&mut |slot, frames| if is_slow(slot) { 0 } else { frames.len() });
    }
    let full = world.hub.stats().log_bytes as f64;
    let ratio = full / held();
    assert!(full > f64::from(ROOMS) * 300_000.0 && (0.85..=1.15).contains(&ratio), "{ratio:.2} of {full} is charged");
    for id in slow_members {
        world.hub.handle_drained(id);
    }
    world.turn_with(&mut |_, frames| {
        seen += 1;
        all_but_the_last(frames)
    });
    assert_eq!(seen, ROOMS);
    let few = world.hub.stats().log_bytes as f64;
    assert!(few > f64::from(ROOMS) * 1000.0 && few < full / 50.0, "{few} of {full} bytes are left");
    let (held, ratio) = (held(), few / held());
    println!("{few} charged, {held} held");
    assert!((0.85..=1.15).contains(&ratio), "{ratio:.2} of {held} is charged");
}

/// What so many restrictions take that a bus tells of, in bytes each.
fn restrictions(body: impl Fn(u32) -> String) -> f64 {
    const COUNT: u32 = 100_000;
    let mut world = World::new();
    let region = Region::new(ALLOCATOR);
    for first in (0..COUNT).step_by(100) {
        let bodies = (first..first + 100).map(|number| Bytes::from(body(number))).collect();
        let (is_first, is_last) = (first == 0, first + 100 == COUNT);
        let page = RestrictionsPage { is_first, is_last, bodies };
        world.hub.handle_bus_event(world.now, BusEvent::Restrictions(page));
    }
    world.turn();
    assert_eq!(world.hub.stats().restrictions, COUNT as usize);
    let change = region.change();
    (change.bytes_allocated as f64 - change.bytes_deallocated as f64) / f64::from(COUNT)
}

#[test]
fn restrictions_take_no_more_than_the_page_of_bounds_says() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = restrictions(|number| {
        let user = format!("user-{number:015}");
        format!(r#"{{"type":"mute","userId":"{user}","reason":"spam","expiresAt":1800000000000,"ts":1"#)
    });
    let (room, reason) = ("r".repeat(128), "x".repeat(123));
    let longest = restrictions(|number| {
        let user = format!("{number:0>128}");
        format!(
            r#"{{"type":"mute","userId":"{user}","room":"{room}","reason":"{reason}","expiresAt":18000000{number:05},"ts":1"#
        )
    });
    println!("{usual:.0} bytes, and {longest:.0} with the longest names and reason");
    assert!(usual < 500.0 && longest < 1000.0, "{usual:.0} and {longest:.0} bytes");
}
