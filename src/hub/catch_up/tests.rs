//! Members that read history while its epoch ends, with a bus that the test plays.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::bus::message::{BusEvent, BusRequest, Numbered, PresenceChange};
use crate::frame::Head;
use crate::hub::{NewConnection, OpenPolicy, Output};
use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::PresenceStatus;
use crate::settings::Config;
use crate::timer_wheel::TICK;

struct Node {
    hub: Hub,
    now: Now,
    id: ConnectionId,
    /// Pages that the member waits for.
    reads: VecDeque<(Ticket, RoomName, ReadFrom)>,
    /// What the member was sent.
    said: Vec<Value>,
    /// Bytes of it that the member has not read, and whether it reads.
    queued: usize,
    reads_output: bool,
}

fn room(number: usize) -> RoomName {
    RoomName::new(&format!("room-{number}")).unwrap()
}

impl Node {
    /// A connection of somebody who is nowhere yet.
    fn new(config: &Config) -> Self {
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let (mut hub, id) = (Hub::new(config, Box::new(OpenPolicy)), ConnectionId::new(0, 1));
        hub.connect(now, id, NewConnection::new(&UserId::new("ann").unwrap(), Owner::HOST));
        Self { hub, now, id, reads: VecDeque::new(), said: Vec::new(), queued: 0, reads_output: true }
    }

    fn join(&mut self, room: &RoomName) {
        self.hub.handle_text(self.now, self.id, &format!(r#"{{"type":"join","room":"{room}","history":75}}"#));
        self.turn();
    }

    /// A turn, at the end of which the member has read all, if it reads.
    fn turn(&mut self) {
        let now = self.now;
        self.hub.handle_deadlines(now, &mut || now);
        while let Some(request) = self.hub.poll_bus_request() {
            if let BusRequest::Read { ticket, room, from, .. } = request {
                self.reads.push_back((ticket, room, from));
            }
        }
        let mut frames = Vec::new();
        self.hub.poll_sends(now, 1000, &mut || now, &mut |_, bytes| {
            frames.extend_from_slice(bytes);
            bytes.len()
        });
        let queued = &mut self.queued;
        self.hub.poll_output(|output| match output {
            Output::Frames(_, bytes) => {
                *queued += bytes.len();
                frames.extend_from_slice(bytes);
            }
            Output::Close(_, reason) => panic!("{reason:?}"),
        });
        if self.reads_output {
            self.queued = 0;
            self.hub.handle_drained(self.id);
        }
        let mut rest = &frames[..];
        while let Some(head) = Head::parse(rest) {
            let end = head.header_bytes + head.payload_bytes as usize;
            self.said.push(serde_json::from_slice(&rest[head.header_bytes..end]).unwrap());
            rest = &rest[end..];
        }
    }

    /// Answers the oldest read with these messages of an epoch whose newest message is `top`.
    fn answer(&mut self, epoch: &str, seqs: RangeInclusive<u64>, top: u64) -> ReadFrom {
        let (ticket, room, from) = self.reads.pop_front().expect("a read");
        let body =
            |seq| Bytes::from(format!(r#"{{"type":"chat","room":"{room}","userId":"bob","text":"{epoch} {seq}""#));
        let complete = *seqs.end() == top;
        let messages = seqs.map(|seq| Numbered { seq, body: body(seq) }).collect();
        let page = Page { epoch: Epoch::new(epoch), top, messages, complete };
        self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page: Ok(page) });
        self.turn();
        from
    }

    fn end_epoch(&mut self, room: RoomName, epoch: &str, top: u64) {
        self.hub.handle_bus_event(self.now, BusEvent::EpochChanged { room, epoch: Epoch::new(epoch), top });
        self.turn();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.uptime + time;
        while self.now.uptime < end {
            self.now.uptime += TICK;
            self.turn();
        }
    }

    /// What a client shows: messages are provisional until `joined` says whether they continue those before.
    fn shown(&self) -> Vec<&str> {
        let (mut shown, mut provisional) = (Vec::new(), Vec::new());
        for message in &self.said {
            match message["type"].as_str().unwrap() {
                "chat" => provisional.push(message["text"].as_str().unwrap()),
                "joined" => {
                    if message["recovered"] == false {
                        shown.clear();
                    }
                    shown.append(&mut provisional);
                }
                _ => {}
            }
        }
        assert!(provisional.is_empty(), "nothing says what they follow: {provisional:?}");
        shown
    }
}

#[test]
fn a_member_that_is_shown_the_newest_messages_in_pages_is_told_of_an_epoch_that_ends_between_two() {
    // What the page that is under way shows: the old epoch, or the new one.
    for late in [Some(("old", 51..=75, 100)), Some(("new", 1..=3, 3)), None] {
        let mut node = Node::new(&Config::default());
        node.join(&room(0));
        assert_eq!(node.answer("old", 26..=50, 100), ReadFrom::Newest(75));
        if let Some((epoch, seqs, top)) = late.clone() {
            node.end_epoch(room(0), "new", 3);
            assert_eq!(node.answer(epoch, seqs, top), ReadFrom::After(50));
        } else {
            // The page tells of it first.
            assert_eq!(node.answer("new", 1..=3, 3), ReadFrom::After(50));
            node.end_epoch(room(0), "new", 3);
        }
        node.pass(Duration::from_secs(2));
        while !node.reads.is_empty() {
            node.answer("new", 1..=3, 3);
        }
        let joined: Vec<_> = node.said.iter().filter(|message| message["type"] == "joined").collect();
        let positions: Vec<_> = joined.iter().map(|joined| (&joined["seq"], &joined["recovered"])).collect();
        assert_eq!(positions, [(&0.into(), &false.into()), (&3.into(), &false.into())], "{late:?}");
        assert!(joined.iter().all(|joined| joined["epoch"] == "new"));
        assert_eq!(node.shown(), ["new 1", "new 2", "new 3"], "{late:?}");
        assert!(node.reads.is_empty());
    }
}

#[test]
fn a_member_that_reads_nothing_while_epochs_end_in_many_rooms_is_owed_no_more_than_its_output_holds() {
    const ROOMS: usize = 64;
    const USERS: usize = 200;
    let config = Config::default();
    let mut node = Node::new(&config);
    for number in 0..ROOMS {
        node.join(&room(number));
        for user in 0..USERS {
            let user = UserId::new(&format!("{user:0>100}")).unwrap();
            let change = PresenceChange { user, name: None, status: PresenceStatus::Online };
            node.hub.handle_bus_event(node.now, BusEvent::Presence { room: room(number), change });
        }
    }
    // Each is shown a page of the old epoch, and waits because the next one tells of an epoch that is not announced yet.
    for number in 0..ROOMS {
        while node.reads.is_empty() {
            node.turn();
        }
        assert_eq!(node.reads[0].1, room(number));
        assert_eq!(node.answer("old", 26..=50, 100), ReadFrom::Newest(75));
        assert_eq!(node.answer("new", 1..=3, 3), ReadFrom::After(50));
    }
    node.reads_output = false;
    (0..ROOMS).for_each(|number| node.end_epoch(room(number), "new", 3));
    for is_read in [false, true] {
        node.reads_output = is_read;
        for _ in 0..200 {
            node.pass(TICK);
            if !node.reads.is_empty() {
                node.answer("new", 1..=3, 3);
            }
            assert!(node.queued <= config.net.output_bytes_max / 2, "{} bytes are unread", node.queued);
        }
        assert_eq!(node.queued > config.net.output_bytes_max / 4, !is_read, "{} bytes are unread", node.queued);
    }
    let level = node.said.iter().filter(|message| message["type"] == "joined" && message["seq"] == 3);
    assert_eq!((level.count(), node.reads.len()), (ROOMS, 0));
}
