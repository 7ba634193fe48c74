//! Purges, with a bus that the test plays.

use bytes::Bytes;

use super::*;
use crate::bus::message::{BusEvent, BusRequest, Numbered};
use crate::hub::OpenPolicy;
use crate::id::Epoch;
use crate::settings::Config;

const MALLORY: &str = "mallory";

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// Something that a purge asks of the bus.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Read { room: String, after: u64 },
    Delete { room: String, epoch: String, seqs: Vec<u64> },
    Announce { body: Bytes },
}

struct Node {
    hub: Hub,
    now: Now,
    /// The last request to the bus.
    ticket: Option<Ticket>,
}

impl Node {
    fn new() -> Self {
        let now = Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        Self { hub: Hub::new(&Config::default(), Box::new(OpenPolicy)), now, ticket: None }
    }

    fn purge(&mut self, user: &str, scope: Option<&str>) -> Result<Ticket, Refused> {
        let (user, scope) = (UserId::new(user).unwrap(), scope.map(room));
        self.hub.purge_for_api(self.now, Owner::HOST, (&user, scope.as_ref()))
    }

    /// The next request to the bus.
    fn asked(&mut self) -> Option<Asked> {
        match self.hub.poll_bus_request()? {
            BusRequest::Read { ticket, room, from: ReadFrom::After(after), .. } => {
                self.ticket = Some(ticket);
                Some(Asked::Read { room: room.to_string(), after })
            }
            BusRequest::Delete { ticket, deletion } => {
                self.ticket = Some(ticket);
                let DeletionTargets { epoch, seqs } = deletion.targets;
                let epoch = epoch.map_or_else(String::new, |epoch| epoch.as_str().to_owned());
                Some(Asked::Delete { room: deletion.announcement.room.to_string(), epoch, seqs: seqs.to_vec() })
            }
            BusRequest::Control { ticket, body } => {
                self.ticket = Some(ticket);
                Some(Asked::Announce { body })
            }
            request => panic!("{request:?}"),
        }
    }

    /// The bus answers the last request with messages by their numbers and users.
    fn page(&mut self, epoch: &str, messages: &[(u64, &str)], top: u64) {
        let said = |(seq, user): &(u64, &str)| Numbered {
            seq: *seq,
            body: Bytes::from(format!(r#"{{"type":"chat","room":"lobby","userId":"{user}","text":"hello""#)),
        };
        let complete = messages.last().is_none_or(|(seq, _)| *seq >= top);
        let page = Page { epoch: Epoch::new(epoch), top, messages: messages.iter().map(said).collect(), complete };
        self.answer_page(Ok(page));
    }

    fn answer_page(&mut self, page: Result<Page, BusRefusal>) {
        let ticket = self.ticket.take().unwrap();
        self.hub.handle_bus_event(self.now, BusEvent::Page { ticket, page });
    }

    fn outcome(&mut self, outcome: Outcome) {
        let ticket = self.ticket.take().unwrap();
        self.hub.handle_bus_event(self.now, BusEvent::Published { ticket, outcome });
    }

    fn answers(&mut self) -> Vec<(Ticket, u64, bool)> {
        let answers = std::iter::from_fn(|| self.hub.poll_purged());
        answers.map(|(ticket, Purged { deleted, is_complete })| (ticket, deleted, is_complete)).collect()
    }
}

fn read(room: &str, after: u64) -> Option<Asked> {
    Some(Asked::Read { room: room.to_owned(), after })
}

fn delete(room: &str, seqs: &[u64]) -> Option<Asked> {
    Some(Asked::Delete { room: room.to_owned(), epoch: "e".to_owned(), seqs: seqs.to_vec() })
}

#[test]
fn history_is_read_to_where_it_ended_and_what_is_said_meanwhile_stays() {
    let mut node = Node::new();
    let ticket = node.purge(MALLORY, Some("lobby")).unwrap();
    assert_eq!(node.asked(), read("lobby", 0));
    node.page("e", &[(3, MALLORY), (4, "ann"), (5, MALLORY)], 8);
    assert_eq!(node.asked(), delete("lobby", &[3, 5]));
    node.outcome(Outcome::Accepted(9));
    assert_eq!(node.asked(), read("lobby", 5));
    // Behind the eighth everything was said since: the announcement, and what mallory says on.
    node.page("e", &[(6, "mallory2"), (7, MALLORY), (8, MALLORY), (10, MALLORY)], 10);
    assert_eq!(node.asked(), delete("lobby", &[7, 8]));
    assert_eq!(node.answers(), []);
    node.outcome(Outcome::AcceptedUnseen(11));
    assert_eq!((node.asked(), node.answers()), (None, vec![(ticket, 4, true)]));
}

#[test]
fn deletions_are_asked_for_in_portions_one_after_the_other() {
    let mut node = Node::new();
    let ticket = node.purge(MALLORY, Some("lobby")).unwrap();
    node.asked();
    let most = protocol::DELETIONS_MAX as u64;
    let all: Vec<_> = (1..=most + 1).map(|seq| (seq, MALLORY)).collect();
    node.page("e", &all, most + 1);
    assert_eq!(node.asked(), delete("lobby", &(1..=most).collect::<Vec<_>>()));
    assert_eq!(node.asked(), None, "one request at a time");
    node.outcome(Outcome::Accepted(most + 2));
    assert_eq!(node.asked(), delete("lobby", &[most + 1]));
    // They had been deleted before.
    node.outcome(Outcome::Duplicate(most + 1));
    assert_eq!(node.answers(), [(ticket, most + 1, true)]);
}

#[test]
fn a_purge_that_could_not_read_or_delete_everything_says_so() {
    let unavailable = BusRefusal { kind: RefusalKind::Unavailable, message: "away" };
    let not_found = BusRefusal { kind: RefusalKind::NotFound, message: "no such message" };
    let mut node = Node::new();
    let ends: [&dyn Fn(&mut Node); 5] = [
        &|node| node.answer_page(Err(unavailable)),
        &|node| {
            node.page("e", &[(1, MALLORY)], 1);
            node.asked();
            node.outcome(Outcome::Refused(unavailable));
        },
        // Its history has begun a new life.
        &|node| {
            node.page("e", &[(1, MALLORY)], 1);
            node.asked();
            node.outcome(Outcome::Refused(not_found));
        },
        &|node| {
            node.page("e", &[(1, "ann")], 2);
            assert_eq!(node.asked(), read("lobby", 1));
            node.page("f", &[(2, MALLORY)], 2);
        },
        // The bus gives nothing, and says that there is more.
        &|node| {
            let page = Page { epoch: Epoch::new("e"), top: 5, messages: Vec::new(), complete: false };
            node.answer_page(Ok(page));
        },
    ];
    for (index, end) in ends.iter().enumerate() {
        let ticket = node.purge(MALLORY, Some("lobby")).unwrap();
        assert_eq!(node.asked(), read("lobby", 0));
        end(&mut node);
        assert_eq!((node.answers(), node.asked()), (vec![(ticket, 0, false)], None), "{index}");
    }
    // A room without history is complete.
    let ticket = node.purge(MALLORY, Some("lobby")).unwrap();
    node.asked();
    node.page("e", &[], 0);
    assert_eq!(node.answers(), [(ticket, 0, true)]);
}

#[test]
fn a_request_for_a_purge_that_is_under_way_waits_for_that_one() {
    let mut node = Node::new();
    let first = node.purge(MALLORY, Some("lobby")).unwrap();
    assert_eq!(node.asked(), read("lobby", 0));
    let mut waiting = vec![first];
    for _ in 1..WAITING_MAX {
        waiting.push(node.purge(MALLORY, Some("lobby")).unwrap());
    }
    assert_eq!(node.asked(), None);
    let (code, message) = node.purge(MALLORY, Some("lobby")).unwrap_err();
    assert_eq!(code, ErrorCode::ServerBusy);
    assert!(message.contains("wait for this purge"), "{message}");
    node.page("e", &[], 0);
    let expected: Vec<_> = waiting.into_iter().map(|ticket| (ticket, 0, true)).collect();
    assert_eq!(node.answers(), expected);
    // Another user, room or reach is another purge.
    for (user, scope) in [(MALLORY, Some("lobby")), ("eve", Some("lobby")), (MALLORY, Some("cellar"))] {
        node.purge(user, scope).unwrap();
        assert_eq!(node.asked(), read(scope.unwrap(), 0), "{user}");
    }
}

#[test]
fn a_purge_of_all_rooms_is_announced_first() {
    let mut node = Node::new();
    for (outcome, is_complete) in
        [(Outcome::Accepted(1), true), (Outcome::Refused(BusRefusal::unavailable("gone")), false)]
    {
        let ticket = node.purge(MALLORY, None).unwrap();
        let Some(Asked::Announce { body }) = node.asked() else { panic!("it is not announced") };
        // The command comes back to the node that has asked, and begins nothing.
        node.hub.handle_bus_event(node.now, BusEvent::Control(Numbered { seq: 1, body }));
        assert_eq!((node.asked(), node.answers()), (None, Vec::new()));
        // There are no rooms here.
        node.outcome(outcome);
        assert_eq!((node.asked(), node.answers()), (None, vec![(ticket, 0, is_complete)]));
    }
    assert!(node.hub.purges.running.is_empty());
}

#[test]
fn so_many_purges_are_under_way_and_no_more() {
    let mut node = Node::new();
    for number in 0..PURGES_MAX {
        node.purge(&format!("user-{number}"), Some("lobby")).unwrap();
    }
    let (code, message) = node.purge(MALLORY, Some("lobby")).unwrap_err();
    assert_eq!(code, ErrorCode::ServerBusy);
    assert!(message.contains("purges as are allowed"), "{message}");
    assert_eq!(node.asked(), read("lobby", 0));
    node.page("e", &[], 0);
    node.purge(MALLORY, Some("lobby")).unwrap();
}

#[test]
fn a_request_is_answered_in_time_and_the_purge_goes_on() {
    let mut node = Node::new();
    let ticket = node.purge(MALLORY, Some("lobby")).unwrap();
    node.asked();
    node.now.uptime += ANSWER_AFTER - Duration::from_millis(1);
    node.page("e", &[(1, MALLORY)], 9);
    assert_eq!((node.asked(), node.answers()), (delete("lobby", &[1]), vec![]));
    node.now.uptime += Duration::from_millis(1);
    node.outcome(Outcome::Accepted(10));
    assert_eq!((node.asked(), node.answers()), (read("lobby", 1), vec![(ticket, 1, false)]));
    // A request that comes later waits as long for its end.
    let again = node.purge(MALLORY, Some("lobby")).unwrap();
    node.page("e", &[(9, MALLORY)], 9);
    assert_eq!((node.asked(), node.answers()), (delete("lobby", &[9]), vec![]));
    node.now.uptime += ANSWER_AFTER;
    node.outcome(Outcome::Accepted(11));
    assert_eq!((node.asked(), node.answers()), (None, vec![(again, 2, true)]), "it is at its end, if late");
}
