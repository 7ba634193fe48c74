//! What a hub counts.

use crate::metric::counts;

counts! {
    /// Counts of what a hub holds and has done.
    struct HubStats {
        /// Connections that were welcomed and are still there.
        connections: usize = Gauge("connections");
        /// Distinct users: connected, within their grace period, or present on another node in a room that is open
        /// here.
        users: usize = Gauge("users");
        /// Rooms that are held in memory.
        rooms: usize = Gauge("rooms");
        /// Bytes held in the fan-out logs of all rooms.
        log_bytes: usize = Share("logs");
        /// Bytes that rooms, memberships and users in grace are charged.
        rooms_bytes: usize = Share("rooms");
        /// Bytes that publications, commands and reads are charged that wait for the bus.
        publications_bytes: usize = Share("publications");
        /// Messages received from clients, of any type.
        messages_received: u64 = Counter("messages_received");
        /// Chat messages delivered to rooms, each counted once.
        messages_delivered: u64 = Counter("messages_delivered");
        /// Writes of a room log to a member.
        sends: u64 = Counter("room_sends");
        /// Bytes that sockets took in these writes.
        sent_bytes: u64 = Counter("room_sent_bytes");
        /// Bytes appended to room logs, counted once however many members a room has.
        appended_bytes: u64 = Counter("room_appended_bytes");
        /// Rounds of rooms that waited for the batch delay.
        rounds_delayed: u64 = Counter("room_rounds_delayed");
        /// Of these, rounds that began before the delay was over.
        rounds_hastened: u64 = Counter("room_rounds_hastened");
        /// Times a slow member fell back from the room log to reading history.
        fallbacks: u64 = Counter("member_fallbacks");
        /// Connections closed because they took no bytes within `--stall-timeout`.
        stalled: u64 = Counter("stall_timeouts");
        /// Connections that a moderation command closed or removed from a room.
        moderated: u64 = Counter("connections_moderated");
        /// Connections closed because their user opened more than `--connections-per-user`.
        replaced: u64 = Counter("connections_replaced");
        /// Handshakes refused because their user had as many connections.
        user_limited: u64 = Counter("connections_user_limited");
        /// Bans and mutes that are in force.
        restrictions: usize = Gauge("restrictions");
        /// Handshakes refused because their user or address is banned.
        banned: u64 = Counter("connections_banned");
        /// Chat messages refused because their user is muted.
        muted: u64 = Counter("messages_muted");
        /// Messages refused by the rate limit.
        rate_limited: u64 = Counter("messages_rate_limited");
        /// Messages refused because their owner had sent more than it may.
        owner_limited: u64 = Counter("messages_owner_limited");
        /// Messages refused because their owner had caused more deliveries than it may.
        deliveries_limited: u64 = Counter("messages_delivery_limited");
        /// Messages refused because their user had to wait in a slow room.
        slow_limited: u64 = Counter("messages_slow_limited");
        /// Error messages sent to clients.
        errors: u64 = Counter("error_messages");
    }
}
