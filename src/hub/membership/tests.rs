//! Members that leave, on one node with a bus that the test plays.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::bus::message::{BusEvent, Numbered, Page, PresenceChange};
use crate::hub::presence::LOOK_AGAIN_MAX;
use crate::hub::{NewConnection, OpenPolicy, Output};
use crate::id::UserId;
use crate::owner::Owner;
use crate::protocol::PresenceStatus;
use crate::settings::Config;
use crate::timer_wheel::TICK;

fn room() -> RoomName {
    RoomName::new("a").unwrap()
}

struct Node {
    hub: Hub,
    now: Now,
}

impl Node {
    fn new(config: &Config) -> Self {
        config.check().unwrap();
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        Self { hub: Hub::new(config, Box::new(OpenPolicy)), now }
    }

    /// A member of the room, which has no history.
    fn join(&mut self, slot: u32, user: &str) -> ConnectionId {
        let id = ConnectionId::new(slot, slot + 1);
        self.hub.connect(self.now, id, NewConnection::new(&UserId::new(user).unwrap(), Owner::HOST));
        self.hub.handle_text(self.now, id, r#"{"type":"join","room":"a"}"#);
        while let Some(request) = self.hub.poll_bus_request() {
            if let BusRequest::Read { ticket, .. } = request {
                let page = Page { epoch: Epoch::new("e"), top: 0, messages: Vec::new(), complete: true };
                self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
            }
        }
        self.output();
        id
    }

    /// What came since the last time, of all connections.
    fn output(&mut self) -> String {
        let (mut said, now) = (String::new(), self.now);
        self.hub.poll_sends(now, 1000, &mut || now, &mut |_, frames| {
            said += &String::from_utf8_lossy(frames);
            frames.len()
        });
        self.hub.poll_output(|output| {
            if let Output::Frames(_, frames) = output {
                said += &String::from_utf8_lossy(frames);
            }
        });
        said
    }

    /// A user with a long name comes or goes on another node.
    fn elsewhere(&mut self, number: usize, status: PresenceStatus) {
        let user = UserId::new(&format!("{number:0>128}")).unwrap();
        let change = PresenceChange { user, name: None, status };
        self.hub.handle_bus_event(self.now, BusEvent::Presence { room: room(), change });
    }
}

#[test]
fn the_last_members_leave_together_while_a_list_of_users_does_not_fit() {
    let mut config = Config::default();
    config.net.message_bytes_max = 1024;
    (config.hub.data_bytes_max, config.hub.log_bytes_max) = (1024, 16 * 1024);
    let mut node = Node::new(&config);
    let members = [node.join(0, "ann"), node.join(1, "bob")];
    // So many that they are counted, then as few as may be before they are listed again.
    (0..200).for_each(|number| node.elsewhere(number, PresenceStatus::Online));
    (148..200).for_each(|number| node.elsewhere(number, PresenceStatus::Offline));
    node.output();
    let message = Numbered { seq: 1, body: Bytes::from_static(b"{\"type\":\"chat\",\"text\":\"x\"") };
    node.hub.handle_bus_event(node.now, BusEvent::Delivered { room: room(), message, owner: None });
    for id in members {
        node.hub.handle_text(node.now, id, r#"{"type":"leave","room":"a"}"#);
    }
    assert_eq!(node.output().matches(r#""type":"left""#).count(), 2);
    assert_eq!(node.hub.stats().rooms, 0);
}

#[test]
fn a_user_that_comes_and_goes_has_one_grace_timer_in_a_room() {
    let mut node = Node::new(&Config::default());
    node.join(0, "ann");
    for round in 0..1001 {
        let id = node.join(1, "bob");
        if round % 3 == 0 {
            // No grace: bob is offline at once, and a timer of before may be under way.
            node.hub.handle_text(node.now, id, r#"{"type":"leave","room":"a"}"#);
        }
        node.hub.disconnect(node.now, id);
        node.now.uptime += Duration::from_millis(37);
        node.hub.handle_deadlines(node.now, &mut Now::default);
        node.output();
        assert!(node.hub.timers.len() <= 1, "{} timers after {round} rounds", node.hub.timers.len());
    }
    // The last grace ends all the same.
    node.now.uptime += node.hub.settings.timing.presence_grace + Duration::from_secs(1);
    node.hub.handle_deadlines(node.now, &mut Now::default);
    assert!(node.output().contains("offline"));
    assert_eq!((node.hub.timers.len(), node.hub.users.len()), (0, 1));
}

#[test]
fn members_that_wait_for_the_same_message_leave_over_several_turns() {
    let mut node = Node::new(&Config::default());
    let members: Vec<_> = (0..200).map(|slot| node.join(slot, &format!("user-{slot}"))).collect();
    node.hub.handle_text(node.now, members[0], r#"{"type":"chat","room":"a","text":"x"}"#);
    let Some(BusRequest::Publish { ticket, .. }) = node.hub.poll_bus_request() else { panic!("nothing is published") };
    for id in &members {
        node.hub.handle_text(node.now, *id, r#"{"type":"leave","room":"a"}"#);
    }
    let left = |node: &mut Node| node.output().matches(r#""type":"left""#).count();
    assert_eq!(left(&mut node), 0, "the message is awaited");
    let outcome = crate::bus::message::Outcome::Accepted(1);
    node.hub.handle_bus_event(node.now, BusEvent::Published { ticket, outcome });
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < members.len() {
        turns.push(left(&mut node));
        assert!(turns.len() < 10, "{turns:?}");
        assert!(node.hub.has_work() || turns.iter().sum::<usize>() == members.len(), "{turns:?}");
        node.hub.handle_deadlines(node.now, &mut Now::default);
    }
    assert!(turns.iter().all(|left| *left <= 64), "{turns:?}");
    assert_eq!(node.hub.stats().rooms, 0);
}

impl Node {
    /// Time passes in small steps. Says of how many rooms the bus was asked who is on other nodes.
    fn pass(&mut self, time: Duration) -> usize {
        let end = self.now.uptime + time;
        let mut checks = 0;
        while self.now.uptime < end {
            self.now.uptime += TICK;
            self.hub.handle_deadlines(self.now, &mut Now::default);
            let requests = std::iter::from_fn(|| self.hub.poll_bus_request());
            checks += requests.filter(|request| matches!(request, BusRequest::CheckPresence(_))).count();
        }
        checks
    }

    fn answer_check(&mut self) {
        self.hub.handle_bus_event(self.now, BusEvent::PresenceChecked(room()));
    }
}

#[test]
fn nobody_is_gone_before_it_is_known_who_is_on_other_nodes() {
    let mut node = Node::new(&Config::default());
    node.hub.share_presence();
    let grace = node.hub.settings.timing.presence_grace;
    node.join(0, "ann");
    let (bob, carl, dora) = (node.join(1, "bob"), node.join(2, "carl"), node.join(3, "dora"));
    for id in [bob, carl] {
        node.hub.disconnect(node.now, id);
    }
    node.output();
    // However long nothing is heard: the bus is asked once, and seldom looked for.
    assert_eq!(node.pass(grace + Duration::from_secs(3600)), 1);
    assert!(!node.output().contains("offline") && node.hub.timers.len() == 2);
    // One who is lost later is over after that question.
    node.hub.disconnect(node.now, dora);
    node.pass(grace + Duration::from_secs(1));
    let change = PresenceChange { user: UserId::new("carl").unwrap(), name: None, status: PresenceStatus::Online };
    node.hub.handle_bus_event(node.now, BusEvent::Presence { room: room(), change });
    node.answer_check();
    assert_eq!(node.pass(LOOK_AGAIN_MAX + 2 * TICK), 1);
    let said = node.output();
    assert!(said.contains(r#""userId":"bob","status":"offline""#), "{said}");
    assert_eq!(said.matches("offline").count(), 1, "{said}");
    node.answer_check();
    node.pass(LOOK_AGAIN_MAX + 2 * TICK);
    let said = node.output();
    assert!(said.contains(r#""userId":"dora","status":"offline""#), "{said}");
    assert_eq!((said.matches("offline").count(), node.hub.timers.len()), (1, 0), "{said}");
    // An answer that nobody waits for says nothing.
    let carl = node.join(2, "carl");
    node.answer_check();
    node.hub.disconnect(node.now, carl);
    assert_eq!(node.pass(grace + Duration::from_secs(1)), 1);
}
