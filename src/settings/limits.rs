//! The bounds of everything, one declaration a setting. Each says what happens at the bound.

use std::time::Duration;

use super::declare::settings;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;
const MICROSECOND: Duration = Duration::from_micros(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

settings! {
    /// Bounds of sockets, of requests, and of bytes on their way in and out.
    struct NetLimits at net, "Connections" {
        /// Most WebSocket connections; beyond them `/ws` answers 503.
        connections_max: u32 = Count(10_000), 1 => 100_000_000, "max-connections";
        /// Sockets beyond `connections_max`, so that health checks are still answered, and others get 503; beyond them
        /// accepting pauses.
        connections_reserved: u32 = Count(64), 1 => 65_536, library;
        /// Sockets that one address may have open, all of an IPv6 network of 64 bits together. A further one is closed when it
        /// is accepted; behind a trusted proxy its handshake is answered 503. 0 turns the limit off.
        connections_per_address_max: u32 = Count(1000), 0 => 100_000_000, "connections-per-address";
        /// Connections a second that one address may open in the long run, and those of ten seconds at once; beyond them as
        /// with `connections-per-address`. 0 turns the limit off.
        connects_per_address: u32 = Count(100), 0 => 1_000_000, "connects-per-address";
        /// HTTP requests a second that one address may send in the long run, and those of ten seconds at once; beyond them
        /// 429. Requests with a right API key do not count. 0 turns the limit off.
        requests_per_address: u32 = Count(200), 0 => 1_000_000, "requests-per-address";
        /// Connections that one user may have at once on a node, by name where nobody verifies users; beyond them as
        /// `connections-per-user-policy` says. Guests without a name of their own do not count. 0 turns the limit off.
        connections_per_user_max: u32 = Count(0), 0 => 100_000_000, "connections-per-user";
        /// Largest inbound message, all fragments together; beyond it the connection ends (1009). So it does beyond 16,384
        /// fragments, or one for 32 of these bytes if that is more.
        message_bytes_max: usize = Bytes(16 * KIB), 128 => 64 * MIB, "message-bytes";
        /// Largest HTTP head; beyond it 431.
        head_bytes_max: usize = Bytes(8 * KIB), 512 => 64 * KIB, "head-bytes";
        /// Most bytes that wait for one connection alone: replies, pongs, pages of history. Above half of it the connection
        /// is not read; a connection that exceeds it all the same ends (4002).
        output_bytes_max: usize = Bytes(256 * KIB), 128 * KIB => GIB, "output-bytes";
        /// Handshakes that wait for the decision of an `Authenticator`; an address may have as many as are free beyond a quarter, and
        /// further ones are answered 503. The head of a handshake, and the bytes that came behind it in one read, are kept with it.
        admissions_pending_max: u32 = Count(2048), 1 => 1 << 20, library;
        /// Requests to the back-end of `auth-url` at once, each on a thread; an address may have as many as are free beyond a
        /// quarter, and further handshakes wait.
        // Alone an address has three eighths of them, so that a hundred people behind one address do not wait for each other.
        auth_requests_max: u32 = Count(270), 1 => 10_000, "auth-requests";
        /// Connections accepted in a turn; the rest wait in the backlog for the next turn.
        accepts_per_turn: u32 = Count(64), 1 => 1 << 20, library;
        /// Reads of sockets in a turn; the rest wait for the next turn.
        reads_per_turn: u32 = Count(64), 1 => 1 << 20, library;
        /// Messages taken from one connection in a turn; the rest waits for the next turn.
        messages_per_read: u32 = Count(64), 1 => 1 << 20, library;
        /// Frames taken from one connection in a turn, fragments among them; the rest waits for the next turn.
        frames_per_read: u32 = Count(256), 1 => 1 << 20, library;
        /// Units of work of each phase of a turn but the sends: what is read, what write buffers are written, what the bus
        /// tells, pages of history. A frame is a unit, and so are a read, a write, an event, and 1 KiB; a step of a TLS
        /// handshake is 256. The rest waits for the next turn.
        work_per_phase: u32 = Count(1024), 1 => 1 << 30, library;
        /// How long each of these phases may take in a turn, the bus twice as long; the rest waits for the next turn. The
        /// clock is read after every 16 units.
        work_time_per_phase: Duration = Time(150 * MICROSECOND), 50 * MICROSECOND => SECOND, library;
    }
}

settings! {
    /// Bounds of messages, rooms and their logs, and of the queues to the bus and the host.
    struct HubLimits at hub, "Messages and rooms" {
        /// Messages a second that a connection may send in the long run; beyond them `rate_limited`. 0 turns the limit off.
        message_rate: u32 = Count(50), 0 => 1_000_000, "message-rate";
        /// Messages that a connection may send at once after a pause. Ten times as many refused ones end it (4501); each message that
        /// passes makes up for a refused one.
        message_burst: u32 = Count(100), 1 => 1_000_000, "message-burst";
        /// Messages a second that all connections of a user or address together may send; beyond them `rate_limited`. A second's worth
        /// may come at once. 0 is no limit.
        messages_per_owner: u32 = Count(0), 0 => 1_000_000_000, "messages-per-owner";
        /// Deliveries a second that all connections of a user or address together may cause; beyond them `rate_limited`. A chat
        /// message causes one for each member that its room has here, and a page of older messages one for each message. A second's
        /// worth may come at once, and a message that begins within it passes whatever it costs. 0 is no limit.
        // Behind a proxy all people have one address, and so has a crowd behind a NAT: any other default would refuse some of them.
        deliveries_per_owner: u32 = Count(0), 0 => 1_000_000_000, "deliveries-per-owner";
        /// Largest `data` of a chat message; beyond it `too_large`. At most `message-bytes`.
        data_bytes_max: usize = Bytes(4 * KIB), 0 => 64 * MIB, "data-bytes";
        /// Most rooms at once; beyond them the join of a new one is answered `server_busy`.
        rooms_max: u32 = Count(1_000_000), 1 => 1 << 31, "max-rooms";
        /// Most rooms of a connection; beyond them `too_many_rooms`. A connection leaves all of them in one turn when it ends,
        /// which takes two microseconds each.
        rooms_per_connection_max: u32 = Count(64), 1 => 4096, "rooms-per-connection";
        /// Users of a room up to which it announces each user who comes and goes; above it the room counts them. It lists
        /// users again below three quarters.
        users_listed_max: u32 = Count(200), 1 => 200, "big-room";
        /// Largest log of a room. At the bound, members that lag fall back to history; if that does not help, publications
        /// are answered `room_busy`.
        // Offsets into a log are compared modulo 2^32. A gibibyte stays far away from the wrap.
        log_bytes_max: usize = Bytes(MIB), 16 * KIB => GIB, "log-bytes";
        /// Most memory of all rooms' logs together, with the same effect at the bound. At least `log-bytes`.
        log_bytes_total_max: usize = Bytes(256 * MIB), 16 * KIB => usize::MAX, "log-bytes-total";
        /// Publications that wait for the bus, and as many reads of history; beyond them publications and joins are
        /// answered `server_busy`.
        publications_pending_max: usize = Count(16 * 1024), 1 => 1 << 30, library;
        /// Bans and mutes together, on all nodes; beyond them new ones are answered `storage_full`.
        restrictions_max: u32 = Count(100_000), 1 => 10_000_000, library;
        /// Commands that wait in the inbox of a `Remote`; beyond them the sender gets an error.
        inbox_messages_max: usize = Count(4096), 1 => 1 << 30, library;
        /// Notices that wait for the host; beyond them the newest are dropped and counted (`Notice::Missed`).
        notices_max: usize = Count(1024), 1 => 1 << 30, library;
        /// Sends of room logs in a turn; the rest wait for the next turn. One room gets at most 64 in a row.
        // At least 4: connections that take bytes again, rooms in the middle of a round, and other
        // rooms share it by halves.
        sends_per_turn: u32 = Count(64), 4 => 1 << 20, library;
        /// How long sends of room logs may take in a turn; the rest wait for the next turn. The clock is read after every 8
        /// sends; the first 8 are always made.
        send_time_per_turn: Duration = Time(300 * MICROSECOND), 50 * MICROSECOND => SECOND, library;
        /// Connections told to go away in a turn of a shutdown.
        closes_per_turn: u32 = Count(256), 1 => 1 << 20, library;
    }
}

settings! {
    /// How many messages are kept, and for how long.
    struct HistoryLimits at history, "History" {
        /// Messages of history that a room keeps; the oldest go first. 0 keeps none.
        messages_max: u32 = Count(1000), 0 => 10_000_000, "history-messages";
        /// Age at which a message leaves the history.
        age_max: Duration = Time(60 * MINUTE), Duration::ZERO => 31 * DAY, "history-age";
        /// Largest history of all rooms together, in the memory of one node, with what keeping it costs. Beyond it the oldest
        /// messages of the user or address go that has the most.
        bytes_max: usize = Bytes(256 * MIB), 0 => usize::MAX, "history-bytes";
        /// Least time for which the id of a message is remembered, so that sending it again doubles nothing.
        dedupe_window: Duration = Time(2 * MINUTE), Duration::ZERO => DAY, "dedupe-window";
        /// Message ids remembered for all rooms together, in the memory of one node. A user or address may have as many as
        /// are free beyond a quarter; beyond them a publication with an id is answered `server_busy`.
        dedupe_ids_max: usize = Count(1_000_000), 0 => usize::MAX, library;
    }
}
