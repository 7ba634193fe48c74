//! Questions about rooms, with a bus that the test plays.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::bus::message::{BusEvent, Numbered, PresenceChange};
use crate::hub::room_questions::{PresentUser, QUESTIONS_MAX};
use crate::hub::{NewConnection, OpenPolicy};
use crate::id::{ConnectionId, Epoch, UserId};
use crate::protocol::{ErrorCode, PresenceStatus};
use crate::settings::Config;

struct Node {
    hub: Hub,
    now: Now,
    serial: u32,
    /// Reads that the bus has not answered.
    reads: Vec<Ticket>,
    /// The rest of what it was asked.
    asked: Vec<String>,
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn users(after: Option<&str>, limit: usize) -> RoomQuestion {
    RoomQuestion::Users { after: after.map(|after| UserId::new(after).unwrap()), limit }
}

impl Node {
    /// `units` is the work of a phase of a turn.
    fn new(units: u32) -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        config.net.work_per_phase = units;
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let hub = Hub::new(&config, Box::new(OpenPolicy));
        Self { hub, now, serial: 0, reads: Vec::new(), asked: Vec::new() }
    }

    fn turn(&mut self) {
        self.hub.handle_deadlines(self.now, &mut Now::default);
        while let Some(request) = self.hub.poll_bus_request() {
            match request {
                BusRequest::Read { ticket, .. } => self.reads.push(ticket),
                BusRequest::Open(room) => self.asked.push(format!("open {room}")),
                BusRequest::Close(room) => self.asked.push(format!("close {room}")),
                _ => {}
            }
        }
        self.hub.poll_output(|_| {});
        self.hub.poll_sends(self.now, 100, &mut Now::default, &mut |_, frames| frames.len());
    }

    fn answer_reads(&mut self, seq: u64) {
        for ticket in std::mem::take(&mut self.reads) {
            let page = Page { epoch: Epoch::new("e"), top: seq, messages: Vec::new(), complete: true };
            self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
        }
        self.turn();
    }

    fn join(&mut self, user: &str, room: &str) -> ConnectionId {
        self.join_with(user, &format!(r#""room":"{room}""#))
    }

    fn join_with(&mut self, user: &str, fields: &str) -> ConnectionId {
        self.serial += 1;
        let id = ConnectionId::new(self.serial, self.serial);
        let user = UserId::new(user).unwrap();
        self.hub.connect(self.now, id, NewConnection::new(&user, Owner::HOST));
        self.hub.handle_text(self.now, id, &format!(r#"{{"type":"join",{fields}}}"#));
        self.turn();
        id
    }

    fn move_elsewhere(&mut self, room_name: &str, user: &str, status: PresenceStatus) {
        let change = PresenceChange { user: UserId::new(user).unwrap(), name: Some(format!("{user}!").into()), status };
        self.hub.handle_bus_event(self.now, BusEvent::Presence { room: room(room_name), change });
    }

    fn ask(&mut self, name: &str, question: RoomQuestion) -> Ticket {
        self.hub.ask_about_room(Owner::HOST, (room(name), question), true).unwrap()
    }

    fn answer(&mut self, ticket: Ticket) -> Option<RoomAnswer> {
        let (answered, answer) = self.hub.poll_room_answer()?;
        assert_eq!(answered, ticket);
        Some(answer)
    }

    fn detail(&mut self, name: &str) -> RoomDetail {
        let ticket = self.ask(name, RoomQuestion::Detail);
        self.turn();
        let Some(RoomAnswer { content: RoomContent::Detail(detail), .. }) = self.answer(ticket) else {
            panic!("no detail of {name}");
        };
        detail
    }
}

fn page(answer: RoomAnswer) -> UserPage {
    let RoomContent::Users(page) = answer.content else { panic!("{answer:?}") };
    page
}

#[test]
fn a_room_that_is_not_open_is_opened_for_the_question_and_closed_behind_it() {
    let mut node = Node::new(1024);
    let tickets = [node.ask("quiet", users(None, 10)), node.ask("quiet", RoomQuestion::Detail)];
    node.turn();
    assert!(node.hub.poll_room_answer().is_none());
    assert_eq!(node.asked, ["open quiet"]);
    // A member that comes and goes meanwhile does not end it.
    let ann = node.join("ann", "quiet");
    node.hub.disconnect(node.now, ann);
    node.turn();
    node.move_elsewhere("quiet", "bob", PresenceStatus::Online);
    node.answer_reads(7);
    let found = page(node.answer(tickets[0]).unwrap());
    let bob = PresentUser {
        id: UserId::new("bob").unwrap(),
        name: Some("bob!".into()),
        connections: None,
        is_elsewhere: true,
    };
    assert_eq!((found.count, found.users, found.has_more), (1, vec![bob], false));
    let answer = node.answer(tickets[1]).unwrap();
    let RoomContent::Detail(RoomDetail { users, connections, position, .. }) = answer.content else { panic!() };
    let position = position.map(|(epoch, seq)| (epoch.as_str().to_owned(), seq));
    assert_eq!((users, connections, position), (1, 0, Some(("e".to_owned(), 7))));
    assert!(answer.is_current && answer.room == room("quiet"));
    assert_eq!(node.asked, ["open quiet", "close quiet"]);
    assert_eq!((node.hub.stats().rooms, node.hub.stats().rooms_bytes, node.hub.stats().users), (0, 0, 0));
}

#[test]
fn a_room_that_members_have_opened_is_asked_for_nothing_and_stays() {
    let mut node = Node::new(1024);
    node.join("ann", "lobby");
    node.answer_reads(3);
    let detail = node.detail("lobby");
    assert_eq!((detail.connections, detail.users, detail.catching_up, detail.blocked), (1, 1, 0, 0));
    assert_eq!((node.asked.as_slice(), node.reads.len()), (&["open lobby".to_owned()][..], 0));
    // One more has yet to read history, and the first takes nothing any more.
    node.join_with("bob", r#""room":"lobby","history":10"#);
    let body = Bytes::from_static(br#"{"type":"chat","room":"lobby","text":"hello""#);
    let message = Numbered { seq: 4, body };
    node.hub.handle_bus_event(node.now, BusEvent::Delivered { room: room("lobby"), message, owner: None });
    node.hub.poll_sends(node.now, 100, &mut Now::default, &mut |_, _| 0);
    let ticket = node.ask("lobby", RoomQuestion::Detail);
    node.hub.handle_deadlines(node.now, &mut Now::default);
    let Some(RoomAnswer { content: RoomContent::Detail(detail), .. }) = node.answer(ticket) else { panic!() };
    assert_eq!((detail.connections, detail.users, detail.catching_up, detail.blocked), (2, 1, 1, 1));
    assert_eq!(detail.position.map(|(_, seq)| seq), Some(4));
    assert_eq!(node.hub.stats().rooms, 1);
}

#[test]
fn without_a_bus_the_answer_is_what_this_node_knows() {
    let mut node = Node::new(1024);
    node.join("ann", "lobby");
    for (name, known) in [("lobby", 1), ("quiet", 0)] {
        let (question, is_bus_ready) = (RoomQuestion::Detail, false);
        let ticket = node.hub.ask_about_room(Owner::HOST, (room(name), question), is_bus_ready).unwrap();
        node.turn();
        let answer = node.answer(ticket).unwrap();
        let RoomContent::Detail(detail) = answer.content else { panic!() };
        assert_eq!((answer.is_current, detail.connections, detail.position.is_none()), (false, known, true));
    }
    assert_eq!((node.asked.len(), node.hub.stats().rooms), (1, 1));
    // It could be asked, but gives no answer.
    let ticket = node.ask("quiet", users(None, 1));
    node.turn();
    let refusal = BusRefusal::unavailable("away");
    let read = node.reads.pop().unwrap();
    node.hub.handle_bus_event(node.now, BusEvent::Page { ticket: read, page: Err(refusal) });
    node.turn();
    assert!(!node.answer(ticket).unwrap().is_current);
    assert_eq!(node.asked, ["open lobby", "open quiet", "close quiet"]);
    // Just after a cut, what the other nodes did meanwhile is not known yet.
    node.hub.handle_readiness(node.now, false);
    node.hub.handle_readiness(node.now, true);
    node.answer_reads(1);
    for (seconds, is_current) in [(1, false), (2, true)] {
        node.now.uptime += Duration::from_secs(seconds);
        let ticket = node.ask("lobby", RoomQuestion::Detail);
        node.turn();
        assert_eq!(node.answer(ticket).unwrap().is_current, is_current);
    }
}

#[test]
fn all_users_are_listed_in_parts_while_others_come_and_go() {
    const USERS: usize = 3000;
    let mut node = Node::new(32);
    node.join("a-host", "crowd");
    node.answer_reads(0);
    let mut chance = fastrand::Rng::with_seed(5);
    let mut names: Vec<_> = (0..USERS).map(|user| format!("user-{user:04}")).collect();
    chance.shuffle(&mut names);
    // Every third stays.
    let mut guests: Vec<_> = (0..USERS).filter(|user| user % 3 != 0).map(|user| format!("user-{user:04}")).collect();
    names.iter().for_each(|name| node.move_elsewhere("crowd", name, PresenceStatus::Online));
    let (mut listed, mut turns) = (Vec::<String>::new(), 0);
    loop {
        let ticket = node.ask("crowd", users(listed.last().map(String::as_str), 700));
        let found = loop {
            for _ in 0..40 {
                let guest = chance.choice(&mut guests).unwrap();
                let status = if chance.bool() { PresenceStatus::Online } else { PresenceStatus::Offline };
                let guest = guest.clone();
                node.move_elsewhere("crowd", &guest, status);
            }
            node.turn();
            turns += 1;
            if let Some(answer) = node.answer(ticket) {
                break page(answer);
            }
            assert!(node.hub.has_work());
        };
        assert!(found.users.len() <= 700);
        listed.extend(found.users.into_iter().map(|user| user.id.as_str().to_owned()));
        if !found.has_more {
            break;
        }
    }
    assert!(listed.is_sorted() && listed.windows(2).all(|pair| pair[0] != pair[1]));
    let missing = (0..USERS).step_by(3).map(|user| format!("user-{user:04}")).find(|name| !listed.contains(name));
    assert_eq!((missing, listed[0].as_str()), (None, "a-host"));
    // 32 units are 512 users.
    assert!(turns >= USERS / 2 / 512 * 3, "{turns} turns");
}

#[test]
fn so_many_questions_wait_and_no_more() {
    let mut node = Node::new(1024);
    for _ in 0..QUESTIONS_MAX {
        node.ask("quiet", RoomQuestion::Detail);
    }
    let (code, message) =
        node.hub.ask_about_room(Owner::HOST, (room("lobby"), RoomQuestion::Detail), true).unwrap_err();
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::ServerBusy, "64 questions about rooms wait already; try again later")
    );
    node.turn();
    node.answer_reads(0);
    while node.hub.poll_room_answer().is_some() {}
    node.ask("lobby", RoomQuestion::Detail);
    assert_eq!(node.asked, ["open quiet", "close quiet"]);
}
