//! What a net finds, and what is decided about it.

use http::{Request, StatusCode};

use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::protocol::CloseReason;

use super::http::{Handshake, Response};
use super::write_buffer::WriteBuffer;

/// What a [`Net`](super::Net) finds, for the program that decides about it.
pub trait Handler {
    /// What [`Handler::on_request`] finds out about a handshake and [`Handler::on_open`] is told: whose connection it is.
    type Admission;

    /// What is remembered of a request while its body is read: which one it is.
    type Route;

    /// Whether a request is charged to somebody else than the address that it comes from, so that the rate of requests of that
    /// address does not matter: to the owner of a key, for example.
    fn is_charged_elsewhere(&mut self, request: &Request<()>) -> bool {
        let _ = request;
        false
    }

    /// The owner of an open connection, to which the memory is charged that it holds; its address if there is none.
    fn owner(&self, id: ConnectionId) -> Option<Owner> {
        let _ = id;
        None
    }

    /// A request has come.
    ///
    /// The address that it comes from is among its extensions, as `std::net::SocketAddr`, if it has one: that of the peer, or the
    /// one that a [trusted proxy](crate::Config::trusted_proxies) names. Its port is 0 where the proxy names none. So is the
    /// [`Owner`] of what the peer costs as long as nobody vouches for its user.
    fn on_request(
        &mut self,
        id: ConnectionId,
        request: &Request<()>,
        capacity: Capacity,
    ) -> HeadDecision<Self::Admission, Self::Route>;

    /// A request is complete whose body was [wanted](HeadDecision::ReadBody).
    fn on_body(&mut self, id: ConnectionId, route: Self::Route, body: &[u8]) -> BodyDecision;

    /// A handshake that was [put off](HeadDecision::Later) needs no decision any more: its peer has gone, it has waited for too
    /// long, too many wait, or the net is draining.
    fn on_abandoned(&mut self, ticket: AdmissionTicket) {
        let _ = ticket;
    }

    /// The request was upgraded.
    fn on_open(&mut self, id: ConnectionId, admission: Self::Admission);

    /// A text message has come; an answer may be put into the connection's write buffer.
    fn on_text(&mut self, id: ConnectionId, text: &str, answers: &mut WriteBuffer) -> Verdict;

    /// A binary message has come; an answer may be put into the connection's write buffer.
    fn on_binary(&mut self, id: ConnectionId, bytes: &[u8], answers: &mut WriteBuffer) -> Verdict;

    /// The answers to the last messages of a connection, as whole frames that are given up here. It is asked when the connection
    /// is about to be closed because of what it has sent: these answers go first.
    fn take_answers(&mut self, id: ConnectionId) -> &[u8] {
        let _ = id;
        &[]
    }

    /// The connection has taken all that waited, and would take more.
    fn on_drained(&mut self, id: ConnectionId);

    /// It is owed bytes and took none for `--stall-timeout`, or hardly any of its write buffer.
    fn on_stalled(&mut self, id: ConnectionId);

    /// An open connection is closed or closing; nothing more can be sent to it.
    fn on_closed(&mut self, id: ConnectionId);

    /// Whether more connections are to be read in this turn. Where too much of what was read waits, the rest waits in its sockets.
    fn may_read(&self) -> bool {
        true
    }

    /// Units of work that the calls since the last such question took, beyond one each. The end of a connection in many rooms,
    /// for example, is one for each room. They count in the budget of the phase.
    fn take_work(&mut self) -> u32 {
        0
    }
}

/// Whether another WebSocket is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// There are fewer than [`connections_max`](crate::settings::NetLimits::connections_max).
    Available,
    /// There are as many, those counted that wait for a decision.
    Full,
}

/// What is to become of a connection after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It is closed for this reason.
    Close(CloseReason),
}

/// Names a handshake that waits for a decision.
///
/// The handler chooses it. It must be another one for every handshake, for example the next number of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdmissionTicket(pub u64);

/// What is done about a request when its head has come. `A` says whose connection it is, `R` which request.
#[derive(Debug)]
pub enum HeadDecision<A, R> {
    /// It becomes a WebSocket, and [`Handler::on_open`](super::Handler::on_open) is given the admission.
    Upgrade(Handshake, A),
    /// It becomes a WebSocket or is refused when [`Net::admit`](super::Net::admit) is given this ticket. Until then the connection
    /// is parked: 503 if there are [too many](crate::settings::NetLimits::admissions_pending_max) already, 504 if it takes [too
    /// long](crate::settings::Timing::admission_timeout).
    Later(Handshake, AdmissionTicket),
    /// It is answered with this, and the connection ends.
    Respond(Response),
    /// Its body is read, and goes to [`Handler::on_body`](super::Handler::on_body) with the route.
    ReadBody(BodyRules, R),
}

/// How the body of a request is read, and what is said if that fails.
#[derive(Clone, Copy, Debug)]
pub struct BodyRules {
    /// How many bytes it may have; beyond them 413.
    pub bytes_max: usize,
    /// Puts a refusal into the form of what was asked for: 400, 411 and 413 for a length, 408 for a body that does not come, 504 for an
    /// answer that does not.
    pub refuse: fn(StatusCode, &str) -> Response,
    /// The owner to which the memory is charged that the request takes.
    pub owner: Owner,
}

/// What is done about a request when its body has come.
#[derive(Debug)]
pub enum BodyDecision {
    /// It is answered with this; another request may follow on the connection.
    Respond(Response),
    /// It is answered with what [`Net::respond`](super::Net::respond) is given later; 504 if that takes longer than
    /// [`Timing::answer_timeout`](crate::settings::Timing::answer_timeout).
    Later,
}
