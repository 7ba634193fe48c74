//! What is answered to messages that a rate refuses.

use crate::id::ConnectionId;
use crate::protocol::{ClientMessage, ErrorCode};
use crate::time::Now;

use super::Hub;
use super::error_reply::ErrorReply;

impl Hub {
    /// A message exceeds the rate of its connection, which is to be told so.
    pub(super) fn refuse_by_rate(&mut self, id: ConnectionId, text: &str, retry_after_ms: u64) {
        let limits = &self.settings.hub;
        let (rate, burst) = (limits.message_rate, limits.message_burst);
        let reason = format!("more than {rate} messages a second after a burst of {burst}");
        self.tell_of_rate(id, text, &reason, retry_after_ms);
    }

    /// Refuses a message if its owner has sent more than it may, which the connection is told once a second. Says whether it did.
    pub(super) fn refuse_by_owner(&mut self, now: Now, id: ConnectionId, text: &str) -> bool {
        let Some(owner) = self.owner(id) else { return true };
        let Err(wait_millis) = self.message_rates.check(now, owner) else {
            self.message_rates.charge(now, owner, 1);
            return false;
        };
        if self.connections.may_tell(now, id) {
            let rate = self.settings.hub.messages_per_owner;
            let reason = format!("more than {rate} messages a second, over all connections of the user or address");
            self.tell_of_rate(id, text, &reason, wait_millis);
        }
        true
    }

    fn tell_of_rate(&mut self, id: ConnectionId, text: &str, reason: &str, retry_after_ms: u64) {
        let parsed = ClientMessage::parse(text);
        let (room, message_id) = match &parsed {
            Ok(message) => message.about(),
            Err(invalid) => invalid.about(),
        };
        let reply = ErrorReply::new(ErrorCode::RateLimited, reason).about(room, message_id);
        self.out.error(&mut self.connections, id, ErrorReply { retry_after_ms: Some(retry_after_ms), ..reply });
    }

    /// Refuses a message if its owner has caused more deliveries than it may. Says whether it did.
    pub(super) fn refuse_by_deliveries(&mut self, now: Now, id: ConnectionId, message: &ClientMessage<'_>) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        // A join of a room that it is in, and a chat or a look back in another one, have answers of their own and cause no deliveries.
        let wants_in = matches!(message, ClientMessage::Join(_));
        let room = message.about().0.and_then(|name| self.rooms.named(name));
        if room.is_some_and(|room| connection.place_in(room).is_some()) == wants_in {
            return false;
        }
        let Err(wait_millis) = self.delivery_rates.check(now, connection.owner) else { return false };
        let rate = self.settings.hub.deliveries_per_owner;
        let reason = format!("more than {rate} deliveries a second, over all connections of the user or address");
        let (room, message_id) = message.about();
        let reply = ErrorReply::new(ErrorCode::RateLimited, &reason).about(room, message_id);
        self.out.error(&mut self.connections, id, ErrorReply { retry_after_ms: Some(wait_millis), ..reply });
        true
    }
}
