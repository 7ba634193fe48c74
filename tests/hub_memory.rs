//! What the hub charges owners for rooms, memberships, graces and publications, against what the allocator has handed out.

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use roomcast::bus::{BusEvent, BusRequest, Epoch, Outcome, Page, RestrictionsPage};
use roomcast::internals::{Hub, NewConnection, Owners};
use roomcast::{Config, ConnectionId, HubStats, Now, OpenPolicy, Owner, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations are those of the whole process, so one test has it at a time.
static COUNTED: Mutex<()> = Mutex::new(());

/// Nearly as many rooms as their table has space for, when it has been doubled a few times. The spare space of such a table is
/// counted by the allocator, but it is not resident until it is used.
const CROWD: u32 = 68_000;

/// A hub, and a bus that answers all that it is asked at once.
struct World {
    hub: Hub,
    now: Now,
    owner: Owner,
    serial: u32,
}

impl World {
    fn new() -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        config.hub.rooms_per_connection_max = 64;
        config.memory.total = 1 << 30;
        config.timing.presence_grace = Duration::from_secs(10);
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let owner = Owners::new(7).listener(None);
        Self { hub: Hub::new(&config, Box::new(OpenPolicy)), now, owner, serial: 0 }
    }

    fn connect(&mut self, slot: u32, user: &str, name: Option<&str>) -> ConnectionId {
        self.serial += 1;
        let id = ConnectionId::new(slot, self.serial);
        let user = UserId::new(user).unwrap();
        self.hub.connect(self.now, id, NewConnection { name, ..NewConnection::new(&user, self.owner) });
        self.turn();
        id
    }

    fn join(&mut self, id: ConnectionId, room: &str) {
        self.hub.handle_text(self.now, id, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        self.turn();
    }

    /// The bus answers, and sockets take everything.
    fn turn(&mut self) {
        while let Some(request) = self.hub.poll_bus_request() {
            let event = match request {
                BusRequest::Read { ticket, .. } => {
                    let page = Page { epoch: Epoch::new("e"), top: 0, messages: Vec::new(), complete: true };
                    BusEvent::Page { ticket, page: Ok(page) }
                }
                BusRequest::Publish { ticket, .. } => {
                    BusEvent::Published { ticket, outcome: Outcome::AcceptedUnseen(1) }
                }
                _ => continue,
            };
            self.hub.handle_bus_event(self.now, event);
        }
        self.hub.poll_output(|_| {});
        let now = self.now;
        while self.hub.has_work() {
            self.hub.poll_sends(now, 10_000, &mut || now, &mut |_, frames| frames.len());
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

fn charged(stats: HubStats) -> usize {
    stats.rooms_bytes + stats.publications_bytes
}

/// Fills a world with something that is charged what it takes, give or take 15 %.
fn check<T>(what: &str, world: &mut World, fill: impl FnOnce(&mut World) -> T) -> T {
    let (made, ratio) = compare(world, fill);
    assert!((0.85..=1.15).contains(&ratio), "{what}: {ratio:.2} of what is held is charged");
    made
}

/// What `fill` has made, and how much of what it has allocated it is charged.
fn compare<T>(world: &mut World, fill: impl FnOnce(&mut World) -> T) -> (T, f64) {
    let before = charged(world.hub.stats());
    let region = Region::new(ALLOCATOR);
    let made = fill(world);
    let change = region.change();
    let counted = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    let said = (charged(world.hub.stats()) - before) as f64;
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
        assert_eq!(charged(world.hub.stats()), 0, "{what}");
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
        assert_eq!((charged(world.hub.stats()), world.hub.stats().users), (0, 0), "{what}");
    }
}

#[test]
fn publications_are_charged_until_the_bus_has_answered() {
    let _alone = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let id = world.connect(0, "user", None);
    world.join(id, "room");
    let text = "x".repeat(4096);
    let requests = check("publications", &mut world, |world| {
        let mut requests = Vec::new();
        for number in 0..200 {
            let chat = format!(r#"{{"type":"chat","room":"room","text":"{text}","id":"{number:036}"}}"#);
            world.hub.handle_text(world.now, id, &chat);
            requests.extend(world.hub.poll_bus_request());
        }
        assert_eq!(requests.len(), 200);
        requests
    });
    for request in requests {
        let BusRequest::Publish { ticket, .. } = request else { panic!("{request:?}") };
        world.hub.handle_bus_event(world.now, BusEvent::Published { ticket, outcome: Outcome::AcceptedUnseen(1) });
    }
    assert_eq!(world.hub.stats().publications_bytes, 0);
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
