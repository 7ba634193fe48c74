//! Commands carried out on one node, with a bus that the test plays.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::bus::message::{BusEvent, BusRequest, Outcome, Page};
use crate::hub::{NewConnection, Notice, OpenPolicy, Output};
use crate::id::Epoch;
use crate::owner::Owner;
use crate::protocol::CloseReason;
use crate::settings::Config;

struct Node {
    hub: Hub,
    now: Now,
    tops: BTreeMap<RoomName, u64>,
    commands: u64,
    serials: u32,
}

fn name(text: &str) -> RoomName {
    RoomName::new(text).unwrap()
}

fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn kick(room: &str, who: &str) -> Moderation {
    Moderation::Kick { room: name(room), user: user(who) }
}

fn disconnect(who: &str) -> Moderation {
    Moderation::Disconnect { user: user(who), reason: CloseReason::new(4600, "said \"no\"").unwrap() }
}

impl Node {
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { notices: true, ..Config::default() };
        change(&mut config);
        Self {
            hub: Hub::new(&config, Box::new(OpenPolicy)),
            now: Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 },
            tops: BTreeMap::new(),
            commands: 0,
            serials: 0,
        }
    }

    fn new() -> Self {
        Self::with(|_| {})
    }

    fn wait(&mut self, seconds: u64) {
        self.now.uptime += Duration::from_secs(seconds);
        self.now.unix_ms += seconds * 1000;
        self.turn();
    }

    /// One turn, and what the bus makes of it at once.
    fn turn(&mut self) {
        self.hub.handle_deadlines(self.now, &mut Now::default);
        while let Some(request) = self.hub.poll_bus_request() {
            match request {
                BusRequest::Publish { ticket, publication } => {
                    let outcome = Outcome::Accepted(self.deliver(&publication.room, publication.body));
                    self.hub.handle_bus_event(self.now, BusEvent::Published { ticket, outcome });
                }
                BusRequest::Control { ticket, body } => {
                    let outcome = Outcome::Accepted(self.pass_on(body));
                    self.hub.handle_bus_event(self.now, BusEvent::Published { ticket, outcome });
                }
                BusRequest::Read { ticket, room, .. } => {
                    let top = *self.tops.entry(room).or_default();
                    let page = Page { epoch: Epoch::new("e"), top, messages: Vec::new(), complete: true };
                    self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, room: &RoomName, body: Bytes) -> u64 {
        let top = self.tops.entry(room.clone()).or_default();
        *top += 1;
        let message = Numbered { seq: *top, body };
        let seq = *top;
        self.hub.handle_bus_event(self.now, BusEvent::Delivered { room: room.clone(), message, owner: None });
        seq
    }

    /// A command is told of.
    fn pass_on(&mut self, body: Bytes) -> u64 {
        self.commands += 1;
        let message = Numbered { seq: self.commands, body };
        self.hub.handle_bus_event(self.now, BusEvent::Control(message));
        self.commands
    }

    fn cut(&mut self) {
        for is_ready in [true, false, true] {
            self.hub.handle_readiness(self.now, is_ready);
        }
    }

    /// A command of another node, said so long ago.
    fn hear(&mut self, moderation: &Moderation, age_seconds: u64) {
        let said = Now { unix_ms: self.now.unix_ms - age_seconds * 1000, ..self.now };
        self.pass_on(moderation.body(said));
    }

    /// A command of this node, carried out.
    fn command(&mut self, moderation: &Moderation) -> Ticket {
        let ticket = self.hub.moderate_for_host(self.now, moderation).unwrap();
        self.turn();
        self.turn();
        ticket
    }

    /// A connection of a user, in these rooms.
    fn connect(&mut self, slot: u32, who: &str, rooms: &[&str]) -> ConnectionId {
        self.serials += 1;
        let id = ConnectionId::new(slot, self.serials);
        self.hub.connect(self.now, id, NewConnection::new(&user(who), Owner::HOST));
        for room in rooms {
            self.hub.handle_text(self.now, id, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        }
        self.turn();
        id
    }

    fn say(&mut self, id: ConnectionId, text: &str) {
        self.hub.handle_text(self.now, id, text);
    }

    /// What came since the last time: of each slot the texts in order, with `close` and the code.
    fn output(&mut self) -> BTreeMap<u32, String> {
        let mut said: BTreeMap<u32, String> = BTreeMap::new();
        let mut add = |Slot(slot): Slot, text: &[u8]| {
            *said.entry(slot).or_default() += &String::from_utf8_lossy(text);
        };
        self.hub.poll_output(|output| match output {
            Output::Frames(id, frames) => add(id.slot, frames),
            Output::Close(id, reason) => {
                add(id.slot, format!("close {} {}", reason.code(), reason.reason()).as_bytes());
            }
        });
        let now = self.now;
        self.hub.poll_sends(now, 1000, &mut || now, &mut |slot, frames| {
            add(slot, frames);
            frames.len()
        });
        said
    }

    fn members(&self, room: &str) -> usize {
        let index = self.hub.rooms.named(room);
        index.map_or(0, |index| {
            let room = &self.hub.rooms[index];
            room.members.count()
        })
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.hub.poll_notice()).collect()
    }
}

#[test]
fn who_is_kicked_is_out_by_all_connections_and_stays_in_other_rooms() {
    let mut node = Node::new();
    let ann = node.connect(0, "ann", &["a", "b"]);
    node.connect(1, "ann", &["a"]);
    node.connect(2, "ann", &["b"]);
    node.connect(3, "bob", &["a"]);
    node.output();
    node.notices();
    let ticket = node.command(&kick("a", "ann"));
    assert!(node.notices().contains(&Notice::Published { ticket, outcome: Outcome::Accepted(1) }));
    assert_eq!((node.members("a"), node.members("b"), node.hub.stats().moderated), (1, 2, 2));
    let said = node.output();
    for slot in [0, 1] {
        let error = r#"{"type":"error","code":"removed","message":"taken out of the room by the application","temporary":false,"room":"a"}"#;
        let at = said[&slot].find(error).expect("an error");
        assert!(said[&slot][at..].contains(r#"{"type":"left","room":"a"}"#), "{said:?}");
    }
    assert!(!said.contains_key(&2), "{said:?}");
    let offline = r#"{"type":"presence","room":"a","userId":"ann","status":"offline"}"#;
    assert_eq!(said[&3].matches(offline).count(), 1, "{said:?}");
    // It forbids nothing.
    node.say(ann, r#"{"type":"join","room":"a"}"#);
    node.turn();
    assert_eq!(node.members("a"), 2);
}

#[test]
fn what_a_kicked_member_was_owed_is_dropped_and_what_it_asked_is_answered() {
    let mut node = Node::new();
    let ann = node.connect(0, "ann", &["a"]);
    let bob = node.connect(1, "bob", &["a"]);
    node.output();
    node.say(bob, r#"{"type":"chat","room":"a","text":"owed"}"#);
    node.turn();
    node.say(ann, r#"{"type":"leave","room":"a","id":"l1"}"#);
    node.say(ann, r#"{"type":"join","room":"c","id":"j1"}"#);
    node.hub.moderate_for_host(node.now, &kick("a", "ann")).unwrap();
    node.hub.moderate_for_host(node.now, &kick("c", "ann")).unwrap();
    // History is not read before the commands are there.
    let requests: Vec<_> = std::iter::from_fn(|| node.hub.poll_bus_request()).collect();
    for request in requests {
        match request {
            BusRequest::Publish { publication, .. } => drop(node.deliver(&publication.room, publication.body)),
            BusRequest::Control { body, .. } => drop(node.pass_on(body)),
            _ => {}
        }
    }
    node.turn();
    let said = node.output();
    assert!(!said[&0].contains("owed") && said[&1].contains("owed"), "{said:?}");
    assert!(said[&0].contains(r#"{"type":"left","room":"a","id":"l1"}"#), "{said:?}");
    assert!(said[&0].contains(r#""temporary":false,"room":"c","id":"j1"}"#), "{said:?}");
    assert!(said[&0].contains(r#"{"type":"left","room":"c"}"#), "{said:?}");
    assert_eq!((node.members("a"), node.members("c")), (1, 0));
}

#[test]
fn a_kick_ends_a_grace_and_a_disconnection_does_not() {
    let mut node = Node::new();
    let bob = node.connect(1, "bob", &["a"]);
    for (command, is_offline) in [(disconnect("ann"), false), (kick("a", "ann"), true)] {
        let ann = node.connect(0, "ann", &["a"]);
        node.output();
        if is_offline {
            node.hub.disconnect(node.now, ann);
        }
        node.command(&command);
        let said = node.output();
        let offline = said.get(&bob.slot.0).is_some_and(|said| said.contains("offline"));
        assert_eq!(offline, is_offline, "{command:?}: {said:?}");
    }
}

#[test]
fn a_disconnected_user_is_closed_everywhere_with_the_reason() {
    let mut node = Node::new();
    node.connect(0, "ann", &["a"]);
    node.connect(1, "bob", &["a"]);
    node.connect(2, "ann", &[]);
    node.output();
    node.command(&disconnect("ann"));
    let said = node.output();
    for slot in [0, 2] {
        assert_eq!(said[&slot], "close 4600 said \"no\"");
    }
    assert_eq!((node.hub.stats().connections, node.members("a")), (1, 1));
}

#[test]
fn a_late_command_is_about_those_who_were_there() {
    let mut node = Node::new();
    node.connect(0, "ann", &["a"]);
    node.wait(60);
    node.connect(1, "ann", &["a"]);
    node.wait(30);
    node.cut();
    node.hear(&kick("a", "ann"), 60);
    node.turn();
    assert_eq!(node.members("a"), 1);
    node.hear(&disconnect("ann"), 31);
    node.turn();
    assert_eq!(node.hub.stats().connections, 0, "the clocks of nodes may differ a little");
    node.connect(0, "ann", &[]);
    node.wait(60 * 60);
    node.cut();
    node.hear(&disconnect("ann"), 11 * 60);
    node.turn();
    assert_eq!(node.hub.stats().connections, 1, "too old");
    node.hear(&disconnect("ann"), 9 * 60);
    node.turn();
    assert_eq!(node.hub.stats().connections, 0);
}

#[test]
fn without_a_cut_the_clocks_of_other_nodes_do_not_matter() {
    const HOUR: u64 = 3600;
    let mut node = Node::with(|_| {});
    for is_ready in [false, true] {
        node.hub.handle_readiness(node.now, is_ready);
        node.turn();
        node.connect(0, "ann", &["a"]);
        node.hear(&disconnect("ann"), HOUR);
        node.turn();
        assert_eq!(node.hub.stats().connections, 0);
    }
    node.cut();
    node.wait(61);
    node.connect(0, "ann", &["a"]);
    node.hub.handle_readiness(node.now, true);
    node.hear(&disconnect("ann"), HOUR);
    node.turn();
    assert_eq!(node.hub.stats().connections, 0, "the cut is long ago");
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let mut node = Node::new();
    node.connect(0, "ann", &["a"]);
    for body in [
        r#"{"type":"mute","room":"a","userId":"ann","ts":1,"minutes":5"#,
        r#"{"type":"kick","room":"no blanks","userId":"ann","ts":1"#,
        r#"{"type":"disconnect","userId":"ann","code":1000,"reason":"","ts":1700000001000"#,
        r#"{"type":"disconnect","userId":"ann""#,
        "",
    ] {
        node.pass_on(Bytes::from_static(body.as_bytes()));
    }
    let long = format!(r#"{{"type":"kick","room":"a","userId":"ann","ts":1{}"#, " ".repeat(2048));
    node.pass_on(Bytes::from(long));
    node.turn();
    assert_eq!((node.members("a"), node.hub.stats().connections), (1, 1));
    node.hear(&kick("a", "ann"), 0);
    node.turn();
    assert_eq!(node.members("a"), 0);
    node.connect(1, "ann", &["a"]);
    // A field that a later version adds is no hindrance.
    let body = format!(r#"{{"type":"kick","room":"a","userId":"ann","by":"bob","ts":{}"#, node.now.unix_ms);
    node.pass_on(Bytes::from(body));
    node.turn();
    assert_eq!(node.members("a"), 0);
}

#[test]
fn reasons_have_bounds_and_a_server_that_ends_takes_no_commands() {
    let mut node = Node::new();
    for (code, reason, expected) in [
        (1000, String::new(), "close code 1000; 4000 to 4999 are allowed"),
        (5000, String::new(), "close code 5000"),
        (4000, "r".repeat(124), "close reason of 124 bytes exceeds 123"),
    ] {
        let disconnect = |reason| Moderation::Disconnect { user: user("ann"), reason };
        let reason = CloseReason::new(code, reason);
        let error = reason.and_then(|reason| node.hub.moderate_for_host(node.now, &disconnect(reason)));
        let message = error.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    node.hub.start_draining();
    let error = node.hub.moderate_for_host(node.now, &kick("a", "ann")).unwrap_err();
    assert_eq!(error.to_string(), "the server is shutting down");
}

#[test]
fn commands_under_way_are_counted_with_publications() {
    let mut node = Node::with(|config| config.hub.publications_pending_max = 2);
    for _ in 0..2 {
        node.hub.moderate_for_host(node.now, &kick("a", "ann")).unwrap();
    }
    let error = node.hub.moderate_for_host(node.now, &kick("a", "ann")).unwrap_err();
    assert_eq!(error.to_string(), "2 messages wait already; try again later");
    node.turn();
    node.hub.moderate_for_host(node.now, &kick("a", "ann")).unwrap();
}

#[test]
fn a_turn_does_no_more_than_its_budget() {
    let mut node = Node::with(|config| config.hub.closes_per_turn = 3);
    for slot in 0..10 {
        node.connect(slot, "ann", &["a"]);
    }
    node.hear(&kick("a", "ann"), 0);
    node.hear(&disconnect("ann"), 0);
    let mut left = Vec::new();
    while node.hub.moderator.has_work() {
        assert!(node.hub.has_work());
        node.turn();
        left.push((node.members("a"), node.hub.stats().connections));
    }
    assert_eq!(left, [(7, 10), (4, 10), (1, 10), (0, 8), (0, 5), (0, 2), (0, 0)]);
    // More commands than may wait.
    for slot in 0..10 {
        node.connect(slot, "ann", &["a"]);
    }
    node.hear(&kick("a", "ann"), 0);
    for _ in 0..TASKS_MAX {
        node.hear(&kick("b", "bob"), 0);
    }
    assert_eq!((node.hub.moderator.tasks.len(), node.members("a")), (TASKS_MAX, 0));
    node.turn();
    assert!(!node.hub.moderator.has_work());
}
