//! What a room of 50,000 members, and a connection in many rooms, cost in steps: so many a member, not a member squared.

use std::time::Duration;

use bytes::Bytes;

use super::{Hub, NewConnection, OpenPolicy};
use crate::bus::message::{BusEvent, BusRefusal, BusRequest, Numbered, Outcome, Page, RefusalKind, Ticket};
use crate::id::{ConnectionId, Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::CloseReason;
use crate::settings::Config;
use crate::steps;
use crate::time::Now;

const MEMBERS: u32 = 50_000;

/// More than a connection may have.
const ROOMS: u32 = 5_000;

/// More than a search in an ordered index takes, and less than any walk over all members.
const STEPS_PER_MEMBER: u64 = 200;

struct Crowd {
    hub: Hub,
    now: Now,
    seq: u64,
    publications: Vec<Ticket>,
}

impl Crowd {
    fn new(config: &Config) -> Self {
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        Self { hub: Hub::new(config, Box::new(OpenPolicy)), now, seq: 0, publications: Vec::new() }
    }

    /// Connections of one user, in room `a`.
    fn of(members: u32) -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        let mut crowd = Self::new(&config);
        for slot in 0..members {
            crowd.connect(slot);
            crowd.tell(slot, r#"{"type":"join","room":"a"}"#);
            crowd.settle();
        }
        crowd.send(|frames| frames);
        crowd
    }

    fn connect(&mut self, slot: u32) {
        let user = UserId::new("ann").unwrap();
        self.hub.connect(self.now, ConnectionId::new(slot, 1), NewConnection::new(&user, Owner::HOST));
    }

    fn tell(&mut self, slot: u32, text: &str) {
        self.hub.handle_text(self.now, ConnectionId::new(slot, 1), text);
    }

    /// The bus answers all but publications, which it remembers.
    fn settle(&mut self) {
        while let Some(request) = self.hub.poll_bus_request() {
            match request {
                BusRequest::Read { ticket, .. } => {
                    let page = Page { epoch: Epoch::new("e"), top: self.seq, messages: Vec::new(), complete: true };
                    self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
                }
                BusRequest::Publish { ticket, .. } => self.publications.push(ticket),
                _ => {}
            }
        }
        self.hub.poll_output(|_| {});
    }

    /// Somebody elsewhere says something.
    fn deliver(&mut self, bytes: usize) {
        self.seq += 1;
        let body = format!(r#"{{"type":"chat","room":"a","text":"{}""#, "x".repeat(bytes));
        let message = Numbered { seq: self.seq, body: Bytes::from(body) };
        let room = RoomName::new("a").unwrap();
        self.hub.handle_bus_event(self.now, BusEvent::Delivered { room, message, owner: None });
    }

    /// All rounds, while sockets take as much of what they are owed.
    fn send(&mut self, takes: impl Fn(usize) -> usize) {
        let now = self.now;
        while self.hub.scheduler.has_rooms() || self.hub.scheduler.drained_count() > 0 {
            self.hub.poll_sends(now, 1000, &mut || now, &mut |_, frames| takes(frames.len()));
            self.hub.poll_output(|_| {});
        }
    }

    fn members(&self) -> usize {
        self.hub.rooms.named("a").map_or(0, |index| self.hub.rooms[index].members.count())
    }

    /// Everybody's socket refuses a message.
    fn block_all(&mut self) {
        self.deliver(100);
        self.send(|_| 0);
    }
}

#[track_caller]
fn check_steps(what: &str) {
    let (steps, max) = (steps::take(), u64::from(MEMBERS) * STEPS_PER_MEMBER);
    assert!(steps <= max, "{what}: {steps} steps for {MEMBERS} members");
}

#[test]
fn laggards_are_served_one_by_one() {
    let mut crowd = Crowd::of(MEMBERS);
    crowd.block_all();
    (0..10).for_each(|_| crowd.deliver(100));
    steps::take();
    // First they take one message only, so that their cursors differ; then all.
    for takes in [|_: usize| 0, |bytes: usize| bytes] {
        (0..MEMBERS).for_each(|slot| crowd.hub.handle_drained(ConnectionId::new(slot, 1)));
        crowd.send(takes);
    }
    check_steps("serving laggards");
    assert_eq!(crowd.hub.rooms.log_bytes(), 0);
}

#[test]
fn laggards_are_dropped_one_by_one() {
    let mut crowd = Crowd::of(MEMBERS);
    crowd.block_all();
    steps::take();
    // The log is full.
    for _ in 0..crowd.hub.settings.hub.log_bytes_max / 10_000 + 1 {
        crowd.deliver(10_000);
    }
    check_steps("dropping laggards");
    assert_eq!(crowd.hub.stats().fallbacks, u64::from(MEMBERS));
}

#[test]
fn leavers_go_one_by_one() {
    let mut crowd = Crowd::of(MEMBERS);
    crowd.deliver(100);
    steps::take();
    (0..MEMBERS).for_each(|slot| crowd.tell(slot, r#"{"type":"leave","room":"a"}"#));
    assert_eq!(crowd.members(), MEMBERS as usize, "they are owed a message");
    crowd.send(|bytes| bytes);
    assert_eq!(crowd.members(), 0);
    check_steps("leaving");
}

#[test]
fn leavers_go_one_by_one_when_a_publication_is_refused() {
    let mut crowd = Crowd::of(MEMBERS);
    crowd.tell(0, r#"{"type":"chat","room":"a","text":"hello"}"#);
    crowd.settle();
    steps::take();
    (0..MEMBERS).for_each(|slot| crowd.tell(slot, r#"{"type":"leave","room":"a"}"#));
    assert_eq!(crowd.members(), MEMBERS as usize, "a message is on its way to the bus");
    let refusal = BusRefusal { kind: RefusalKind::Unavailable, message: "not now" };
    for ticket in std::mem::take(&mut crowd.publications) {
        crowd.hub.handle_bus_event(crowd.now, BusEvent::Published { ticket, outcome: Outcome::Refused(refusal) });
    }
    while crowd.members() > 0 {
        assert!(crowd.hub.has_work());
        let before = crowd.members();
        crowd.hub.handle_deadlines(crowd.now, &mut Now::default);
        assert!(before - crowd.members() < 1200, "{} at once", before - crowd.members());
        crowd.hub.poll_output(|_| {});
    }
    check_steps("leaving");
}

#[test]
fn blocked_members_are_closed_one_by_one() {
    let mut crowd = Crowd::of(MEMBERS);
    crowd.block_all();
    (0..MEMBERS / 2).for_each(|slot| crowd.tell(slot, r#"{"type":"leave","room":"a"}"#));
    steps::take();
    while crowd.hub.stats().connections > 0 {
        crowd.hub.close_some(crowd.now, 256, &CloseReason::GOING_AWAY);
        crowd.hub.poll_output(|_| {});
    }
    check_steps("closing");
}

#[test]
fn a_connection_leaves_many_rooms_one_by_one() {
    let mut config = Config::default();
    (config.hub.message_rate, config.hub.rooms_per_connection_max) = (0, 65_536);
    let mut crowd = Crowd::new(&config);
    crowd.connect(0);
    for room in 0..ROOMS {
        crowd.tell(0, &format!(r#"{{"type":"join","room":"room-{room}"}}"#));
        crowd.settle();
        crowd.hub.handle_drained(ConnectionId::new(0, 1));
    }
    steps::take();
    crowd.hub.disconnect(crowd.now, ConnectionId::new(0, 1));
    let steps = steps::take();
    assert!(steps <= u64::from(ROOMS) * STEPS_PER_MEMBER, "{steps} steps for {ROOMS} rooms");
    assert!(crowd.hub.connections.get(ConnectionId::new(0, 1)).is_none());
}
