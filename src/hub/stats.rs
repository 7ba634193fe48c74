//! What a hub counts.

/// Counts of what a hub holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubStats {
    /// Connections that were welcomed and have not gone.
    pub connections: usize,
    /// Distinct users: connected, in their grace, or present on another node in a room that is open here.
    pub users: usize,
    /// Rooms that something holds.
    pub rooms: usize,
    /// Bytes in all rooms' logs.
    pub log_bytes: usize,
    /// Messages of clients, of any type.
    pub messages_received: u64,
    /// Chat messages delivered to the rooms here.
    pub messages_delivered: u64,
    /// Sends of a room's log to a member.
    pub sends: u64,
    /// Bytes taken by these sends.
    pub sent_bytes: u64,
    /// Bytes appended to rooms' logs: what a broadcast copies, whatever the number of members.
    pub appended_bytes: u64,
    /// Rounds of rooms that waited for the batch delay.
    pub rounds_delayed: u64,
    /// Of these, rounds that began before the delay was over, because too much waited or the server shuts down.
    pub rounds_hastened: u64,
    /// Live members that fell back to history.
    pub fallbacks: u64,
    /// Connections closed because they took no bytes for too long.
    pub stalled: u64,
    /// Connections closed, or taken out of a room, by commands of the host for all nodes.
    pub moderated: u64,
    /// Messages refused by the rate limit.
    pub rate_limited: u64,
    /// `error` messages, for any reason.
    pub errors: u64,
}
