//! Everything that the hub wants of others, until it is polled: output of connections, requests to the bus, notices.

use std::collections::VecDeque;

use crate::bus::message::BusRequest;
use crate::id::ConnectionId;
use crate::protocol::ServerMessage;

use super::connection::Connections;
use super::error_reply::ErrorReply;
use super::notice::Notices;
use super::outbox::Outbox;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) outbox: Outbox,
    pub(super) requests: VecDeque<BusRequest>,
    pub(super) notices: Notices,
    /// Whether the bus is told which users come and go here.
    pub(super) shares_presence: bool,
    /// Error messages to connections.
    pub(super) errors: u64,
}

impl Outgoing {
    pub(super) fn new(notices: Notices) -> Self {
        Self { outbox: Outbox::default(), requests: VecDeque::new(), notices, shares_presence: false, errors: 0 }
    }

    /// Says something to a connection, if it is still there.
    pub(super) fn say(&mut self, connections: &mut Connections, id: ConnectionId, message: &ServerMessage<'_>) {
        if let Some(connection) = connections.get_mut(id) {
            self.outbox.message(id, connection, message);
        }
    }

    /// Tells a connection that something was not done.
    pub(super) fn error(&mut self, connections: &mut Connections, id: ConnectionId, reply: ErrorReply<'_>) {
        self.errors += 1;
        log::debug!("connection {id}: {} {}", reply.code.as_str(), reply.message);
        self.say(connections, id, &reply.server_message());
    }

    pub(super) fn request(&mut self, request: BusRequest) {
        self.requests.push_back(request);
    }

    /// Tells the bus, if it shares presence.
    pub(super) fn share(&mut self, make: impl FnOnce() -> BusRequest) {
        if self.shares_presence {
            self.requests.push_back(make());
        }
    }
}
