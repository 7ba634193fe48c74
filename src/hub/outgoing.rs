//! What the hub says to connections and to the host, until it is polled.

use crate::id::ConnectionId;
use crate::protocol::ServerMessage;
use crate::unicode::Escaped;

use super::connection::Connections;
use super::error_reply::ErrorReply;
use super::notice::Notices;
use super::outbox::Outbox;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) outbox: Outbox,
    pub(super) notices: Notices,
    /// Error messages to connections.
    pub(super) errors: u64,
}

impl Outgoing {
    pub(super) fn new(notices: Notices) -> Self {
        Self { outbox: Outbox::default(), notices, errors: 0 }
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
        // Quoted and cut: it may repeat what the client has sent.
        let message = Escaped(format_args!("{:?}", reply.message));
        log::debug!("connection {id}: {} {message}", reply.code.as_str());
        self.say(connections, id, &reply.server_message());
    }
}
