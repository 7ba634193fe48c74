//! Handshakes that are decided later: admitted, refused, or given up, within bounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use roomcast::{
    AdmissionTicket, Authentication, Authenticator, Config, Identity, Now, Refusal, Stats, UserId, open_identity,
};
use serde_json::json;

use crate::support::host::{Host, LOOK, config};
use crate::support::{self, Raw, TEXT, frame, request, upgrade_request};

/// The tickets of an authenticator: those that wait for a decision, and abandoned ones.
#[derive(Default)]
struct Desk {
    asked: Vec<AdmissionTicket>,
    abandoned: Vec<AdmissionTicket>,
}

/// Decides nothing by itself; its tickets are 1, 2, 3 …, or always the same one.
struct Undecided {
    desk: Rc<RefCell<Desk>>,
    always: Option<AdmissionTicket>,
}

impl Authenticator for Undecided {
    fn authenticate(&mut self, _now: Now, _request: &http::Request<()>) -> Authentication {
        let mut desk = self.desk.borrow_mut();
        let ticket = self.always.unwrap_or(AdmissionTicket(desk.asked.len() as u64 + 1));
        desk.asked.push(ticket);
        Authentication::Later(ticket)
    }

    fn abandon(&mut self, ticket: AdmissionTicket) {
        self.desk.borrow_mut().abandoned.push(ticket);
    }
}

/// A host whose authenticator is undecided.
struct Setup {
    host: Host,
    desk: Rc<RefCell<Desk>>,
    address: std::net::SocketAddr,
}

const FIRST: AdmissionTicket = AdmissionTicket(1);
const SECOND: AdmissionTicket = AdmissionTicket(2);

impl Setup {
    fn new(config: Config) -> Self {
        Self::with_tickets(config, None)
    }

    fn with_tickets(config: Config, always: Option<AdmissionTicket>) -> Self {
        let desk = Rc::new(RefCell::new(Desk::default()));
        let authenticator = Undecided { desk: Rc::clone(&desk), always };
        let mut host = Host::build(config, |builder| builder.authenticator(authenticator));
        let address = host.listen();
        Self { host, desk, address }
    }

    /// Sends a handshake, and turns until the authenticator was asked.
    fn knock(&mut self, behind: &[u8]) -> Raw {
        self.knock_from("127.0.0.1", behind)
    }

    fn knock_from(&mut self, source: &str, behind: &[u8]) -> Raw {
        let asked = self.desk.borrow().asked.len();
        let mut raw = Raw::connect_from(source, self.address);
        raw.send(&[upgrade_request("/ws", &[]).as_bytes(), behind].concat());
        let desk = Rc::clone(&self.desk);
        self.host.turn_until("the authenticator is asked", |_| desk.borrow().asked.len() > asked);
        raw
    }

    fn admit(&mut self, ticket: AdmissionTicket, user: &str) -> bool {
        let identity = Identity::verified(UserId::new(user).unwrap());
        self.host.server.admit(ticket, Ok(identity))
    }

    fn abandoned(&self) -> Vec<AdmissionTicket> {
        self.desk.borrow().abandoned.clone()
    }

    fn stats(&self) -> Stats {
        self.host.server.stats()
    }

    /// Reads an answer and the end of the connection behind it.
    fn refused(&mut self, raw: &mut Raw) -> support::Response {
        self.host.serve(|| {
            let response = raw.response();
            assert!(raw.at_end(), "{response:?}");
            response
        })
    }
}

fn text_frame(message: &serde_json::Value) -> Vec<u8> {
    frame(TEXT, true, message.to_string().as_bytes())
}

#[test]
fn a_connection_is_admitted_later_with_what_its_peer_has_sent_meanwhile() {
    let mut setup = Setup::new(config());
    // A whole frame and half of another come in one segment with the head, the rest while the decision is awaited.
    let join = text_frame(&json!({"type": "join", "room": "lobby"}));
    let chat = text_frame(&json!({"type": "chat", "room": "lobby", "text": "here I am"}));
    let mut raw = setup.knock(&[&join, &chat[..3]].concat());
    raw.send(&chat[3..]);
    for _ in 0..3 {
        setup.host.turn(LOOK);
    }
    let stats = setup.stats();
    assert_eq!((stats.net.admissions_pending, stats.net.upgraded, stats.hub.connections), (1, 0, 0));
    assert!(setup.admit(FIRST, "ann"));
    let chat = setup.host.serve(|| {
        raw.upgraded();
        assert_eq!(raw.json_of("welcome")["userId"], "ann");
        raw.json_of("joined");
        raw.json_of("chat")
    });
    assert_eq!((&chat["userId"], &chat["text"]), (&json!("ann"), &json!("here I am")));
    assert_eq!((setup.stats().net.admissions_pending, setup.abandoned()), (0, vec![]));
}

#[test]
fn a_connection_is_refused_later() {
    let mut setup = Setup::new(config());
    let mut raw = setup.knock(b"");
    let refusal = Refusal::new(http::StatusCode::UNAUTHORIZED, "the token has expired");
    assert!(setup.host.server.admit(FIRST, Err(refusal)));
    let response = setup.refused(&mut raw);
    assert_eq!((response.status, response.text()), (401, "the token has expired\n"));
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    assert_eq!((setup.stats().net.upgraded, setup.abandoned()), (0, vec![]));
}

#[test]
fn another_thread_may_decide() {
    let mut setup = Setup::new(config());
    let mut raw = setup.knock(b"");
    let remote = setup.host.server.remote();
    let welcome = setup.host.serve(move || {
        remote.admit(FIRST, Ok(Identity::default())).unwrap();
        raw.upgraded();
        raw.json_of("welcome")
    });
    assert!(welcome["userId"].as_str().unwrap().starts_with("guest-"), "{welcome}");
}

#[test]
fn a_ticket_is_good_for_one_decision_about_its_own_connection() {
    let mut setup = Setup::new(config());
    let raw = setup.knock(b"");
    drop(raw);
    let desk = Rc::clone(&setup.desk);
    setup.host.turn_until("the first is abandoned", |_| desk.borrow().abandoned == [FIRST]);
    // It has the slot of the first.
    let mut raw = setup.knock(b"");
    assert!(!setup.admit(FIRST, "ann"), "its peer has gone");
    assert_eq!(setup.stats().net.upgraded, 0);
    assert!(setup.admit(SECOND, "bob"));
    assert!(!setup.admit(SECOND, "eve"), "it is admitted already");
    let welcome = setup.host.serve(|| {
        raw.upgraded();
        raw.json_of("welcome")
    });
    assert_eq!(welcome["userId"], "bob");
    assert!(!setup.admit(AdmissionTicket(77), "eve"), "nobody has such a ticket");
}

#[test]
fn an_address_leaves_places_to_wait_for_others() {
    let mut config = config();
    config.net.admissions_pending_max = 5;
    let mut setup = Setup::new(config);
    let _waiting = [setup.knock(b""), setup.knock(b"")];
    let mut third = setup.knock(b"");
    let response = setup.refused(&mut third);
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(setup.abandoned(), [AdmissionTicket(3)]);
    let net = setup.stats().net;
    assert_eq!((net.admissions_pending, net.admissions_rejected), (2, 1));
    // Another address has its part of what is left, and one more has none.
    let _other = setup.knock_from("127.0.0.2", b"");
    let mut late = setup.knock_from("127.0.0.2", b"");
    assert_eq!(setup.refused(&mut late).status, 503);
    assert!(setup.admit(FIRST, "ann"));
    let mut fifth = setup.knock(b"");
    assert!(setup.admit(AdmissionTicket(6), "bob"));
    setup.host.serve(|| fifth.upgraded());
}

#[test]
fn a_guest_who_is_admitted_later_is_charged_to_the_address() {
    let mut config = config();
    config.hub.messages_per_owner = 1;
    let mut setup = Setup::new(config);
    let (mut ann, mut bob) = (setup.knock_from("127.0.0.2", b""), setup.knock_from("127.0.0.3", b""));
    for (ticket, user) in [(FIRST, "ann"), (SECOND, "bob")] {
        let identity = Identity { user: Some(UserId::new(user).unwrap()), ..Identity::default() };
        assert!(setup.host.server.admit(ticket, Ok(identity)));
    }
    let ping = text_frame(&json!({"type": "ping"}));
    setup.host.serve(|| {
        for raw in [&mut ann, &mut bob] {
            raw.upgraded();
            raw.json_of("welcome");
        }
        ann.send(&ping.repeat(100));
        assert_eq!(ann.json_of("error")["code"], "rate_limited");
        bob.send(&ping);
        assert_eq!(bob.json()["type"], "pong");
    });
}

#[test]
fn a_waiting_handshake_is_charged_with_its_head_until_it_is_decided() {
    let mut setup = Setup::new(config());
    let mut raw = Raw::connect(setup.address);
    raw.send(upgrade_request("/ws", &[("Cookie", &"x".repeat(6000))]).as_bytes());
    setup.host.turn_until("it waits and is charged", |host| {
        let net = host.server.stats().net;
        net.admissions_pending == 1 && net.buffer_bytes > 7000
    });
    assert!(setup.admit(FIRST, "ann"));
    setup.host.serve(|| {
        raw.upgraded();
        raw.json_of("welcome");
    });
    setup.host.turn_until("it is charged nothing", |host| host.server.stats().net.buffer_bytes == 0);
}

#[test]
fn a_waiting_handshake_counts_as_a_connection() {
    let mut config = config();
    config.net.connections_max = 1;
    let mut setup = Setup::new(config);
    let mut first = setup.knock(b"");
    let mut second = Raw::connect(setup.address);
    second.send(upgrade_request("/ws", &[]).as_bytes());
    assert_eq!(setup.refused(&mut second).status, 503);
    assert_eq!(setup.desk.borrow().asked, [FIRST], "the second is not even asked about");
    assert!(setup.admit(FIRST, "ann"));
    setup.host.serve(|| first.upgraded());
}

#[test]
fn a_decision_that_does_not_come_in_time_is_a_refusal() {
    let mut config = config();
    config.timing.admission_timeout = Duration::from_millis(300);
    let mut setup = Setup::new(config);
    let mut raw = setup.knock(b"");
    let response = setup.refused(&mut raw);
    assert_eq!(response.status, 504);
    assert!(response.text().contains("300ms"), "{response:?}");
    assert_eq!((setup.abandoned(), setup.stats().net.admission_timeouts), (vec![FIRST], 1));
    assert!(!setup.admit(FIRST, "ann"), "it is too late");
}

#[test]
fn a_peer_that_leaves_drops_its_ticket() {
    let mut setup = Setup::new(config());
    let closed = setup.knock(b"");
    let half_closed = setup.knock(b"");
    let mut with_unread_bytes = setup.knock(b"");
    with_unread_bytes.send(&text_frame(&json!({"type": "ping"})));
    half_closed.stream.shutdown(std::net::Shutdown::Write).unwrap();
    drop((closed, with_unread_bytes));
    let desk = Rc::clone(&setup.desk);
    setup.host.turn_until("all are abandoned", |_| desk.borrow().abandoned.len() == 3);
    setup.host.turn_until("their sockets are freed", |host| host.server.stats().net.sockets == 0);
    assert_eq!(setup.stats().net.admissions_pending, 0);
    assert!(!setup.admit(FIRST, "ann") && !setup.admit(SECOND, "bob"));
}

#[test]
fn a_peer_that_has_left_before_it_is_asked_about_drops_its_ticket() {
    let mut setup = Setup::new(config());
    let mut raw = Raw::connect(setup.address);
    raw.send(upgrade_request("/ws", &[]).as_bytes());
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let desk = Rc::clone(&setup.desk);
    setup.host.turn_until("it is abandoned", |_| desk.borrow().abandoned == [FIRST]);
    assert!(!setup.admit(FIRST, "ann"));
}

#[test]
fn a_shutdown_answers_those_that_wait() {
    let mut setup = Setup::new(config());
    let (mut ann, mut bob) = (setup.knock(b""), setup.knock(b""));
    setup.host.server.shutdown();
    for raw in [&mut ann, &mut bob] {
        let response = setup.refused(raw);
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
        assert!(response.text().contains("shutting down"), "{response:?}");
    }
    assert_eq!(setup.abandoned(), [FIRST, SECOND]);
    assert!(!setup.admit(FIRST, "ann"));
    drop((ann, bob));
    setup.host.turn_until("the server has ended", |host| host.server.has_ended());
}

#[test]
fn a_ticket_that_was_given_twice_is_the_firsts() {
    let mut setup = Setup::with_tickets(config(), Some(FIRST));
    let mut first = setup.knock(b"");
    let mut second = setup.knock(b"");
    assert_eq!(setup.refused(&mut second).status, 503);
    assert_eq!(setup.abandoned(), []);
    assert!(setup.admit(FIRST, "ann"));
    let welcome = setup.host.serve(|| {
        first.upgraded();
        first.json_of("welcome")
    });
    assert_eq!(welcome["userId"], "ann");
}

#[test]
fn only_handshakes_and_plain_gets_of_ws_are_asked_about() {
    let mut setup = Setup::new(config());
    for head in [request("GET", "/healthz", &[]), request("PUT", "/ws", &[]), request("POST", "/ws", &[])] {
        let mut raw = Raw::connect(setup.address);
        raw.send(head.as_bytes());
        setup.refused(&mut raw);
    }
    let mut raw = Raw::connect(setup.address);
    raw.send(upgrade_request("/ws", &[("Origin", "https://elsewhere.example")]).as_bytes());
    assert_eq!(setup.refused(&mut raw).status, 403);
    assert_eq!(setup.desk.borrow().asked, []);
    // A page asks so why its handshake was refused.
    let mut raw = Raw::connect(setup.address);
    raw.send(request("GET", "/ws", &[]).as_bytes());
    let desk = Rc::clone(&setup.desk);
    setup.host.turn_until("the authenticator is asked", |_| !desk.borrow().asked.is_empty());
    let ticket = desk.borrow().asked[0];
    assert!(setup.admit(ticket, "ann"));
    assert_eq!((setup.refused(&mut raw).status, setup.stats().net.upgraded), (426, 0));
}

/// Knows ann, has to ask about bob, and knows nobody else.
struct AnnAtOnce;

impl Authenticator for AnnAtOnce {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        match open_identity(request) {
            Ok(identity) if identity.user.as_ref().is_some_and(|user| user.as_str() == "ann") => {
                Authentication::Admit(identity)
            }
            Ok(Identity { user: Some(_), .. }) => Authentication::Later(FIRST),
            _ => Authentication::Refuse(Refusal::new(http::StatusCode::FORBIDDEN, "guests are not admitted")),
        }
    }
}

#[test]
fn decisions_at_once_do_not_wait_for_those_that_come_later() {
    let mut config = config();
    config.net.admissions_pending_max = 1;
    let mut host = Host::build(config, |builder| builder.authenticator(AnnAtOnce));
    let address = host.listen();
    let mut bob = Raw::connect(address);
    bob.send(upgrade_request("/ws?userId=bob", &[]).as_bytes());
    host.turn_until("bob waits", |host| host.server.stats().net.admissions_pending == 1);
    host.serve(|| {
        let mut ann = Raw::open(address, "/ws?userId=ann");
        assert_eq!(ann.json_of("welcome")["userId"], "ann");
        let mut guest = Raw::connect(address);
        guest.send(upgrade_request("/ws", &[]).as_bytes());
        assert_eq!(guest.response().status, 403);
    });
    assert_eq!(host.server.stats().net.admissions_pending, 1);
}
