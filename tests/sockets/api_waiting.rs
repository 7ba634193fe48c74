//! Requests of the HTTP API that wait for the bus: the resources that they hold meanwhile, their answers,
//! and their end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use roomcast::bus::Bus;
use roomcast::bus::{
    BusEvent, BusRefusal, BusRequest, Outcome, Page, Publication, RefusalKind, RestrictionsPage, Ticket,
};
use roomcast::settings::ApiKey;
use roomcast::{Config, Notice, Now};
use serde_json::json;
use socket2::SockRef;

use crate::support::Raw;
use crate::support::api::{KEY, check_published, check_refused, json_of, publish, publish_request, whole_request};
use crate::support::host::{self, Host, LOOK, publication};

/// The requests to a [`SlowBus`], and its answers to come.
#[derive(Default)]
struct Desk {
    asked: VecDeque<(Ticket, Publication)>,
    events: VecDeque<BusEvent>,
}

impl Desk {
    /// Answers the oldest publication.
    fn answer(&mut self, outcome: Outcome) {
        let (ticket, _) = self.asked.pop_front().expect("a publication");
        self.events.push_back(BusEvent::Published { ticket, outcome });
    }
}

/// A bus that answers a publication when the test does.
struct SlowBus(Rc<RefCell<Desk>>);

impl Bus for SlowBus {
    fn begin_turn(&mut self, _now: Now) {}

    fn submit(&mut self, request: BusRequest) {
        let mut desk = self.0.borrow_mut();
        match request {
            BusRequest::Publish { ticket, publication } => desk.asked.push_back((ticket, publication)),
            BusRequest::Read { ticket, .. } => {
                let page: Result<Page, _> = Err(BusRefusal::unavailable("there is no history"));
                desk.events.push_back(BusEvent::Page { ticket, page });
            }
            _ => {}
        }
    }

    fn poll_event(&mut self) -> Option<BusEvent> {
        self.0.borrow_mut().events.pop_front()
    }
}

/// A host whose server has the key of the tests, and the desk of its bus.
fn slow_host(change: impl FnOnce(&mut Config)) -> (Host, Rc<RefCell<Desk>>, SocketAddr) {
    let mut config = host::config();
    config.api_keys = vec![ApiKey::new(KEY)];
    change(&mut config);
    let desk = Rc::new(RefCell::new(Desk::default()));
    desk.borrow_mut().events.push_back(BusEvent::Restrictions(RestrictionsPage::NONE));
    let mut host = Host::with_bus(config, SlowBus(Rc::clone(&desk)));
    let address = host.listen();
    (host, desk, address)
}

/// Sends a request on a connection of its own and turns until it is under way.
fn ask(host: &mut Host, desk: &Rc<RefCell<Desk>>, address: SocketAddr, text: &str) -> Raw {
    let mut raw = Raw::connect(address);
    raw.send(&publish_request(&json!({"room": "lobby", "text": text}).to_string()));
    let before = desk.borrow().asked.len();
    host.turn_until("the request is under way", |_| desk.borrow().asked.len() > before);
    raw
}

fn sockets(host: &Host) -> usize {
    host.server.stats().net.sockets
}

#[test]
fn the_host_is_told_of_its_own_publications_only() {
    for notices in [true, false] {
        let (mut host, desk, address) = slow_host(|config| config.notices = notices);
        let mut raw = ask(&mut host, &desk, address, "by request");
        let ticket = host.server.publish(&publication("by the host", None)).unwrap();
        host.turn_until("the host's is under way", |_| desk.borrow().asked.len() == 2);
        desk.borrow_mut().answer(Outcome::Accepted(7));
        desk.borrow_mut().answer(Outcome::Accepted(8));
        let response = host.serve(|| raw.response());
        check_published(&response, "lobby", 7, false);
        let expected = Notice::Published { ticket, outcome: Outcome::Accepted(8) };
        assert_eq!(host.notices, if notices { vec![expected] } else { vec![] });
    }
}

#[test]
fn a_request_whose_answer_does_not_come_is_told_so_and_the_late_answer_goes_nowhere() {
    let (mut host, desk, address) = slow_host(|config| config.timing.answer_timeout = Duration::from_millis(300));
    let mut raw = ask(&mut host, &desk, address, "a");
    // Requests pipelined behind it are neither looked at nor answered.
    raw.send(&publish_request("{}"));
    let (response, is_over) = host.serve(|| (raw.response(), raw.at_end()));
    check_refused(&response, 504, "unavailable", &["300ms"]);
    assert!(is_over);
    drop(raw);
    host.turn_until("the connection is gone", |host| sockets(host) == 0);
    // Its slot has somebody else by now, who waits for another answer.
    let mut other = ask(&mut host, &desk, address, "b");
    desk.borrow_mut().answer(Outcome::Accepted(1));
    host.turn(LOOK);
    desk.borrow_mut().answer(Outcome::Accepted(2));
    check_published(&host.serve(|| other.response()), "lobby", 2, false);
}

#[test]
fn a_peer_that_is_cut_off_while_it_waits_leaves_nothing() {
    let (mut host, desk, address) = slow_host(|_| {});
    let cut = ask(&mut host, &desk, address, "cut");
    SockRef::from(&cut.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(cut);
    host.turn_until("the connection is gone", |host| sockets(host) == 0);
    // A peer that says no more may still listen: that one is kept until its answer.
    let mut silent = ask(&mut host, &desk, address, "silent");
    silent.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let gone = ask(&mut host, &desk, address, "gone");
    drop(gone);
    for _ in 0..3 {
        desk.borrow_mut().answer(Outcome::Accepted(1));
    }
    check_published(&host.serve(|| silent.response()), "lobby", 1, false);
    drop(silent);
    host.turn_until("the connections are gone", |host| sockets(host) == 0);
    assert_eq!(host.server.stats().api.accepted, 3, "the publications were");
}

#[test]
fn a_waiting_server_sleeps() {
    let (mut host, desk, address) = slow_host(|_| {});
    let mut raw = ask(&mut host, &desk, address, "a");
    raw.send(b"POST ");
    for _ in 0..3 {
        host.turn(LOOK);
    }
    assert!(host.server.timeout().is_none_or(|timeout| timeout > Duration::ZERO));
    desk.borrow_mut().answer(Outcome::Refused(BusRefusal::unavailable("not now")));
    check_refused(&host.serve(|| raw.response()), 503, "unavailable", &["not now"]);
}

#[test]
fn no_more_are_under_way_than_publications_may_be() {
    let (mut host, desk, address) = slow_host(|config| config.hub.publications_pending_max = 2);
    let mut first = ask(&mut host, &desk, address, "1");
    let _second = ask(&mut host, &desk, address, "2");
    let busy = host.serve(|| publish(address, &json!({"room": "lobby", "text": "3"})));
    check_refused(&busy, 503, "server_busy", &["2 messages wait"]);
    desk.borrow_mut().answer(Outcome::Duplicate(4));
    check_published(&host.serve(|| first.response()), "lobby", 4, true);
    ask(&mut host, &desk, address, "3");
}

#[test]
fn a_shutdown_waits_for_answers_and_takes_no_more_requests() {
    let (mut host, desk, address) = slow_host(|_| {});
    let mut waiting = ask(&mut host, &desk, address, "waits");
    waiting.send(&publish_request(r#"{"room":"lobby","text":"too late"}"#));
    let request = publish_request(r#"{"room":"lobby","text":"begun"}"#);
    let mut begun = [20, request.len() - 1].map(|bytes| {
        let mut raw = Raw::connect(address);
        raw.send(&request[..bytes]);
        raw
    });
    let mut idle = Raw::connect(address);
    idle.send(&publish_request("{"));
    assert_eq!(host.serve(|| idle.response()).status, 400);
    host.turn_until("all are there", |host| sockets(host) == 4);
    host.turn(LOOK);
    host.server.shutdown();
    assert!(host.serve(|| begun.iter_mut().all(Raw::at_end) && idle.at_end()));
    assert!(!host.server.has_ended());
    desk.borrow_mut().answer(Outcome::Accepted(1));
    let (response, is_over) = host.serve(|| (waiting.response(), waiting.at_end()));
    check_published(&response, "lobby", 1, false);
    assert_eq!((response.header("connection"), is_over), (Some("close"), true));
    drop(waiting);
    host.turn_until("the end", |host| host.server.has_ended());
}

#[test]
fn a_connection_that_takes_no_answers_is_not_read() {
    let (mut host, desk, address) = slow_host(|_| {});
    let mut raw = Raw::connect(address);
    // More than fits into the buffers of a socket, with the answers that nobody reads.
    let requests = publish_request("{").repeat(40_000);
    let held = host.serve(|| {
        raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0;
        while let Ok(bytes) = std::io::Write::write(&mut raw.stream, &requests[sent..]) {
            sent += bytes;
            if sent == requests.len() {
                return None;
            }
        }
        Some(sent)
    });
    let sent = held.expect("the server stops reading");
    let whole = sent / publish_request("{").len();
    host.serve(|| {
        for n in 0..whole {
            assert_eq!(raw.response().status, 400, "{n} of {whole}");
        }
    });
    assert!(desk.borrow().asked.is_empty());
}

#[test]
fn an_answer_on_its_way_is_not_cut_off_by_a_shutdown() {
    let (mut host, _desk, address) = slow_host(|_| {});
    let mut raw = Raw::connect(address);
    SockRef::from(&raw.stream).set_recv_buffer_size(4096).unwrap();
    // Nobody reads the answers: the last one that was given waits.
    let requests = publish_request("{").repeat(40_000);
    let sent = host.serve(|| {
        raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        requests.chunks(1000).take_while(|chunk| raw.try_send(chunk).is_ok()).count()
    });
    assert!(sent < requests.len() / 1000, "the server stops reading");
    host.server.shutdown();
    let answers = host.serve(|| raw.rest());
    let answered = answers.windows(8).filter(|eight| *eight == b"HTTP/1.1").count();
    assert_eq!(answered as u64, host.server.stats().net.answered);
    assert!(answers.ends_with(b"}}\n"));
    drop(raw);
    host.turn_until("the end", |host| host.server.has_ended());
}

#[test]
fn a_broadcast_is_answered_when_the_bus_has_answered_for_every_room() {
    let (mut host, desk, address) = slow_host(|_| {});
    let busy = BusRefusal { kind: RefusalKind::Busy, message: "busy" };
    let send = |host: &mut Host, rooms: &[&str]| {
        let mut raw = Raw::connect(address);
        raw.send(whole_request("/api/broadcast", &json!({"rooms": rooms, "text": "a"})).as_bytes());
        host.turn_until("all rooms are asked for", |_| desk.borrow().asked.len() == rooms.len());
        raw
    };
    let mut raw = send(&mut host, &["a", "b", "c"]);
    for outcome in [Outcome::Accepted(7), Outcome::Refused(busy), Outcome::Duplicate(3)] {
        assert_eq!(host.server.stats().api.accepted, 0);
        desk.borrow_mut().answer(outcome);
        host.turn(LOOK);
    }
    let answer = json_of(&host.serve(|| raw.response()));
    let refused = json!({"code": "server_busy", "message": "busy", "temporary": true});
    let [said, repeated] = [("a", 7, false), ("c", 3, true)]
        .map(|(room, seq, duplicate)| json!({"room": room, "seq": seq, "duplicate": duplicate}));
    assert_eq!(answer, json!({"rooms": [said, {"room": "b", "error": refused}, repeated]}));
    // What all rooms have in common is the answer, which says whether to try again.
    let mut raw = send(&mut host, &["a", "b"]);
    (0..2).for_each(|_| desk.borrow_mut().answer(Outcome::Refused(busy)));
    check_refused(&host.serve(|| raw.response()), 503, "server_busy", &["busy"]);
    let mut raw = send(&mut host, &["a", "b"]);
    (0..2).for_each(|_| desk.borrow_mut().answer(Outcome::Duplicate(1)));
    assert_eq!(host.serve(|| raw.response()).status, 200);
    let stats = host.server.stats().api;
    assert_eq!((stats.accepted, stats.duplicates, stats.rejected_temporary, stats.rejected), (1, 1, 1, 0));
    // A peer that has gone leaves nothing.
    let raw = send(&mut host, &["a", "b"]);
    drop(raw);
    (0..2).for_each(|_| desk.borrow_mut().answer(Outcome::Accepted(1)));
    host.turn_until("the connection is gone", |host| sockets(host) == 0);
}
