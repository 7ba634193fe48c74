//! What owners are refused, on one node with a bus that the test plays.

use std::time::Duration;

use super::*;
use crate::bus::message::{BusEvent, BusRequest, Outcome, Page, Ticket};
use crate::hub::{Hub, NewConnection, OpenPolicy, Output};
use crate::id::{ConnectionId, Epoch, UserId};
use crate::owner::Owners;
use crate::settings::Config;
use crate::time::Now;

const GRACE: Duration = Duration::from_secs(10);

/// What rooms and memberships may take: an owner may have a dozen rooms with graces, and no membership more.
const ROOMS_BYTES: usize = 2 * 12 * (ROOM_BYTES + GRACE_BYTES + USER_BYTES) + CATCH_UP_BYTES / 2;

struct Node {
    hub: Hub,
    now: Now,
    serial: u32,
    /// Publications and reads that the bus has not answered.
    publications: Vec<Ticket>,
    reads: Vec<Ticket>,
}

fn owner(number: u8) -> Owner {
    Owners::new(1).api_key(&[number; 32])
}

impl Node {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.memory.total = ROOMS_BYTES / 15 * 100;
        config.timing.presence_grace = GRACE;
        config.hub.message_rate = 0;
        set(&mut config);
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let hub = Hub::new(&config, Box::new(OpenPolicy));
        Self { hub, now, serial: 0, publications: Vec::new(), reads: Vec::new() }
    }

    fn connect(&mut self, slot: u32, user: &str, owner: Owner) -> ConnectionId {
        self.serial += 1;
        let id = ConnectionId::new(slot, self.serial);
        self.hub.connect(self.now, id, NewConnection::new(&UserId::new(user).unwrap(), owner));
        self.turn();
        id
    }

    /// What all connections are told.
    fn tell(&mut self, id: ConnectionId, text: &str) -> String {
        self.hub.handle_text(self.now, id, text);
        self.turn()
    }

    fn join(&mut self, id: ConnectionId, room: &str) -> String {
        self.tell(id, &format!(r#"{{"type":"join","room":"{room}"}}"#)) + &self.answer_reads()
    }

    fn answer_reads(&mut self) -> String {
        for ticket in std::mem::take(&mut self.reads) {
            let page = Page { epoch: Epoch::new("e"), top: 0, messages: Vec::new(), complete: true };
            self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
        }
        self.turn()
    }

    fn turn(&mut self) -> String {
        while let Some(request) = self.hub.poll_bus_request() {
            match request {
                BusRequest::Read { ticket, .. } => self.reads.push(ticket),
                BusRequest::Publish { ticket, .. } => self.publications.push(ticket),
                _ => {}
            }
        }
        let (mut said, now) = (String::new(), self.now);
        self.hub.poll_output(|output| {
            if let Output::Frames(_, frames) = output {
                said += &String::from_utf8_lossy(frames);
            }
        });
        self.hub.poll_sends(now, 1000, &mut || now, &mut |_, frames| {
            said += &String::from_utf8_lossy(frames);
            frames.len()
        });
        said
    }

    fn wait(&mut self, time: Duration) -> String {
        self.now.uptime += time;
        self.hub.handle_deadlines(self.now, &mut Now::default);
        self.turn()
    }

    fn rooms_bytes(&self) -> usize {
        self.hub.stats().rooms_bytes
    }

    /// An owner opens rooms as invented users, and hangs up each time, until a room is refused. Says how many it has opened.
    fn open_rooms(&mut self, owner: Owner, name: &str) -> usize {
        for number in 0..1000 {
            let id = self.connect(0, &format!("{name}-{number}"), owner);
            let said = self.join(id, &format!("{name}-{number}"));
            self.hub.disconnect(self.now, id);
            if said.contains("server_busy") {
                assert!(said.contains("rooms and memberships of the user or address take"), "{said}");
                return number;
            }
        }
        panic!("nothing is refused");
    }
}

#[test]
fn an_owner_that_hangs_up_stays_charged_and_leaves_space_for_others() {
    let mut node = Node::new();
    let opened = node.open_rooms(owner(1), "a");
    let held = node.rooms_bytes();
    assert!(
        opened > 5 && held > ROOMS_BYTES * 3 / 10 && held <= ROOMS_BYTES * 3 / 8 + GRACE_BYTES,
        "{opened} rooms, {held} bytes"
    );
    // A membership in a room that is there needs space as well.
    let id = node.connect(0, "again", owner(1));
    let said = node.join(id, "a-0");
    let small = node.rooms_bytes() - held;
    assert!(said.contains("server_busy") && small == 0, "{said}");
    node.hub.disconnect(node.now, id);
    // A newcomer has half as much.
    let opened_by_other = node.open_rooms(owner(2), "b");
    assert!(opened_by_other > opened / 3, "{opened_by_other} of {opened} rooms");
    // A third one as well, and it learns nothing of the others.
    assert!(node.open_rooms(owner(3), "c") > 0);
    node.wait(GRACE * 2);
    assert_eq!((node.rooms_bytes(), node.hub.stats().rooms), (0, 0));
    let id = node.connect(0, "again", owner(1));
    assert!(node.join(id, "a-0").contains("joined"));
}

#[test]
fn a_room_is_charged_to_the_owner_that_opened_it_until_it_ends() {
    let mut node = Node::new();
    let (opener, other) = (node.connect(0, "ann", owner(1)), node.connect(1, "bob", owner(2)));
    node.join(opener, "a");
    node.join(other, "a");
    node.tell(opener, r#"{"type":"leave","room":"a"}"#);
    let held = |node: &Node, number| node.hub.rooms.account.quota.held_by(owner(number));
    let room = Held::Room(&RoomName::new("a").unwrap()).bytes();
    assert_eq!([held(&node, 1), held(&node, 2)], [room, MEMBERSHIP_BYTES]);
    node.tell(other, r#"{"type":"leave","room":"a"}"#);
    assert_eq!(node.rooms_bytes(), 0);
}

#[test]
fn a_user_is_not_awaited_back_where_the_owner_has_no_space() {
    let mut node = Node::new();
    let watcher = node.connect(1, "watcher", owner(2));
    node.join(watcher, "a");
    let members = [2, 3].map(|slot| node.connect(slot, &format!("user-{slot}"), owner(1)));
    for id in members {
        node.join(id, "a");
    }
    node.hub.disconnect(node.now, members[0]);
    assert_eq!(node.turn(), "", "the user may come back");
    node.hub.rooms.account.quota.charge(owner(1), ROOMS_BYTES / 2);
    node.hub.disconnect(node.now, members[1]);
    assert!(node.turn().contains(r#""status":"offline""#));
}

#[test]
fn a_grace_that_begins_anew_is_charged_to_the_last_owner() {
    let mut node = Node::new();
    let held = |node: &Node, number| node.hub.rooms.account.quota.held_by(owner(number));
    let keeper = node.connect(9, "keeper", owner(9));
    node.join(keeper, "a");
    for number in [1, 2] {
        let id = node.connect(0, "ann", owner(number));
        node.join(id, "a");
        node.hub.disconnect(node.now, id);
        node.turn();
        assert_eq!([held(&node, number), held(&node, 3 - number)], [GRACE_BYTES + USER_BYTES, 0]);
    }
    node.wait(GRACE * 2);
    assert_eq!([held(&node, 1), held(&node, 2)], [0, 0]);
}

#[test]
fn messages_that_wait_are_charged_until_the_bus_answers() {
    let mut node = Node::new();
    let (first, second) = (node.connect(0, "ann", owner(1)), node.connect(1, "bob", owner(2)));
    node.join(first, "a");
    node.join(second, "a");
    let chat = format!(r#"{{"type":"chat","room":"a","text":"{}"}}"#, "x".repeat(200));
    let refused = "what waits of the user or address takes";
    let said: String = (0..20).map(|_| node.tell(first, &chat)).collect();
    assert!(said.contains("server_busy") && said.contains(refused), "{said}");
    let taken = node.publications.len();
    assert!((1..20).contains(&taken));
    assert_eq!(node.tell(second, &chat), "", "the other owner has space");
    assert!(node.tell(first, &chat).contains(refused));
    for ticket in std::mem::take(&mut node.publications) {
        node.hub.handle_bus_event(node.now, BusEvent::Published { ticket, outcome: Outcome::AcceptedUnseen(1) });
    }
    assert_eq!(node.hub.stats().publications_bytes, 0);
    assert_eq!(node.tell(first, &chat), "");
}

#[test]
fn reads_that_wait_are_charged_until_the_bus_answers_even_if_the_reader_has_gone() {
    let mut node = Node::new();
    let id = node.connect(0, "ann", owner(1));
    for _ in 0..20 {
        node.tell(id, r#"{"type":"join","room":"a"}"#);
        node.tell(id, r#"{"type":"leave","room":"a"}"#);
    }
    let said = node.tell(id, r#"{"type":"join","room":"a"}"#);
    assert!(said.contains("server_busy") && node.reads.len() < 20, "{said}");
    let other = node.connect(1, "bob", owner(2));
    assert!(!node.tell(other, r#"{"type":"join","room":"b"}"#).contains("server_busy"));
    node.answer_reads();
    assert_eq!(node.hub.stats().publications_bytes, 0);
    assert!(node.join(id, "a").contains("joined"));
}

/// A room with twelve members of one owner, and a connection of another one. An owner may cause ten deliveries a second.
fn room_of_thirteen(users_listed_max: u32) -> (Node, ConnectionId) {
    let mut node = Node::with(|config| {
        config.memory.total *= 10;
        config.hub.deliveries_per_owner = 10;
        config.hub.users_listed_max = users_listed_max;
    });
    for slot in 1..=12 {
        let id = node.connect(slot, &format!("user-{slot}"), owner(2));
        assert!(node.join(id, "a").contains("joined"));
        // Until they may cause as many again, and have been counted if they are.
        node.wait(GRACE);
        node.wait(GRACE);
    }
    let mover = node.connect(0, "mover", owner(1));
    (node, mover)
}

/// Whether an owner may not join a room, because it has caused too many deliveries.
fn is_refused(node: &mut Node, number: u8) -> bool {
    let id = node.connect(50, "witness", owner(number));
    let said = node.join(id, "alone");
    node.hub.disconnect(node.now, id);
    said.contains("rate_limited")
}

#[test]
fn a_count_of_users_is_charged_to_the_owner_that_made_it_due() {
    let (mut node, mover) = room_of_thirteen(2);
    assert!(!is_refused(&mut node, 1) && !is_refused(&mut node, 2));
    node.join(mover, "a");
    assert!(!is_refused(&mut node, 1), "nobody was told of it so far");
    assert!(node.wait(Duration::from_secs(2)).contains(r#""count":13"#));
    assert_eq!([1, 2].map(|number| is_refused(&mut node, number)), [true, false]);
}

#[test]
fn the_end_of_a_grace_is_charged_to_the_owner_of_the_lost_connection() {
    let (mut node, mover) = room_of_thirteen(200);
    node.join(mover, "a");
    node.wait(GRACE);
    node.hub.disconnect(node.now, mover);
    assert!(!is_refused(&mut node, 1) && !is_refused(&mut node, 2));
    assert!(node.wait(GRACE * 2).contains("offline"));
    assert_eq!([1, 2].map(|number| is_refused(&mut node, number)), [true, false]);
}
