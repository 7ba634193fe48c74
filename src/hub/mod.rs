//! What is said to whom: rooms, members, presence, policy.
//!
//! Sans-IO: no sockets, no clock, no randomness. What happens comes in through methods that take the time; what is to be
//! done is pulled: [`Hub::poll_bus_request`] for the bus, [`Hub::drain_output`] for single connections,
//! [`Hub::flush_rooms`] for what rooms owe their members, [`Hub::poll_notice`] for the host. The loop contract in one
//! sentence: *hand in what happened, then pull until nothing is left.*

mod arrivals;
mod attendance;
mod batch_delay;
mod budget;
mod catch_up;
mod connection;
mod delivery;
mod flush;
mod membership;
mod moderation;
mod notice;
mod outbox;
mod policy;
mod presence;
mod publish;
mod room;
mod stats;
mod users;

use std::collections::{HashMap, VecDeque};

use slab::Slab;

pub use self::moderation::Moderation;
pub use self::notice::{ChatFields, Notice};
pub use self::outbox::Output;
pub use self::policy::{Caller, OpenPolicy, Policy};
pub use self::publish::HostPublication;
pub use self::stats::HubStats;

use self::batch_delay::BatchDelays;
use self::connection::{Connection, Connections, Verdict};
use self::moderation::Moderator;
use self::notice::Notices;
use self::outbox::Outbox;
use self::presence::Due;
use self::publish::{Apart, Pending};
use self::room::{Room, RoomRef};
use self::users::Users;
use crate::bus::message::{BusRequest, Ticket};
use crate::config::{Config, Limits, Timing, long_list};
use crate::deadline::{LOOKS_PER_TURN, Tick, Wheel};
use crate::id::{ConnectionId, UserId};
use crate::names::NameIndex;
use crate::protocol::{ClientMessage, CloseReason, ErrorCode, ID_BYTES_MAX, ServerMessage, WelcomeLimits};
use crate::room_log::LogBuffer;
use crate::time::Now;

/// See the [module](self).
pub struct Hub {
    limits: Limits,
    timing: Timing,
    policy: Box<dyn Policy>,
    connections: Connections,
    users: Users,
    rooms: Slab<Room>,
    room_keys: NameIndex,
    generations: u32,
    pending: HashMap<Ticket, Pending>,
    tickets: u64,
    publications_pending: usize,
    apart: Apart,
    requests: VecDeque<BusRequest>,
    outbox: Outbox,
    /// Rooms with something to send, each once, in the order in which their turn comes.
    dirty: VecDeque<u32>,
    /// Rooms in the middle of a round, likewise.
    rounds: VecDeque<u32>,
    /// Rooms with something to send whose batch delay is not over.
    delays: BatchDelays,
    /// Connections whose sockets take bytes again.
    drained: VecDeque<ConnectionId>,
    /// Those of them that catch up somewhere, for the next turn.
    resumed: VecDeque<ConnectionId>,
    wheel: Wheel<Due>,
    /// Who was closed for stalling, and when, within the last five minutes.
    stalls: VecDeque<(u64, UserId)>,
    /// Empty buffers that logs are lent.
    #[allow(clippy::vec_box, reason = "logs hold boxes, which go back and forth")]
    buffers: Vec<Box<LogBuffer>>,
    log_bytes: usize,
    moderator: Moderator,
    notices: Notices,
    shares_presence: bool,
    is_draining: bool,
    stats: HubStats,
}

impl Hub {
    /// A hub without connections. `config` has been checked.
    pub fn new(config: &Config, policy: Box<dyn Policy>) -> Self {
        let mut hub = Self {
            limits: config.limits.clone(),
            timing: config.timing.clone(),
            policy,
            connections: Connections::default(),
            users: Users::default(),
            rooms: Slab::with_capacity(long_list::<Room>()),
            room_keys: NameIndex::default(),
            generations: 0,
            pending: HashMap::new(),
            tickets: 0,
            publications_pending: 0,
            apart: Apart::default(),
            requests: VecDeque::new(),
            outbox: Outbox::default(),
            dirty: VecDeque::new(),
            rounds: VecDeque::new(),
            delays: BatchDelays::new(config.timing.batch_delay),
            drained: VecDeque::new(),
            resumed: VecDeque::new(),
            wheel: Wheel::new(),
            stalls: VecDeque::new(),
            buffers: Vec::new(),
            log_bytes: 0,
            moderator: Moderator::default(),
            notices: Notices::new(config.notices, config.limits.notices_max),
            shares_presence: false,
            is_draining: false,
            stats: HubStats::default(),
        };
        hub.open_moderation();
        hub
    }

    /// Whether a user has a connection here or is in grace.
    pub fn knows_user(&self, user: &UserId) -> bool {
        self.users.find(user.as_str()).is_some()
    }

    /// A connection was upgraded; it gets its `welcome`.
    pub fn connect(&mut self, id: ConnectionId, user: &UserId, name: Option<&str>) {
        let name = name.map(|name| truncate_chars(name, 64));
        let key = self.users.hold_named(user, name);
        let mut connection = Connection::new(id.serial, key);
        let welcome = ServerMessage::Welcome {
            user: self.users.view(key),
            ping_interval: self.timing.ping_interval.as_millis() as u64,
            limits: WelcomeLimits {
                message_bytes: self.limits.message_bytes_max,
                data_bytes: self.limits.data_bytes_max,
                rooms_per_connection: self.limits.rooms_per_connection_max,
                message_rate: self.limits.message_rate,
                message_burst: self.limits.message_burst,
                history_messages: self.limits.history_messages_max,
                history_age_ms: self.timing.history_age.as_millis() as u64,
                dedupe_window_ms: self.timing.dedupe_window.as_millis() as u64,
            },
        };
        self.outbox.message(id, &mut connection, &welcome);
        self.connections.insert(id, connection);
        self.moderator.arrivals.note(id.serial);
        self.notices.push(|| Notice::Connected { connection: id, user: user.clone() });
    }

    /// A connection is gone, or going; nothing more is said to it. Says whether it was known.
    pub fn disconnect(&mut self, now: Now, id: ConnectionId) -> bool {
        while let Some((room, _)) = self.connections.get(id).and_then(|connection| connection.rooms().next_back()) {
            self.part(now, id.slot, room, presence::Parting::Lost);
        }
        let Some(connection) = self.connections.remove(id) else { return false };
        let user = self.users.id(connection.user).clone();
        self.users.release(connection.user);
        self.notices.push(|| Notice::Disconnected { connection: id, user });
        true
    }

    /// A connection has sent a text message.
    pub fn handle_text(&mut self, now: Now, id: ConnectionId, text: &str) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.stats.messages_received += 1;
        match connection.take_token(now, self.limits.message_rate, self.limits.message_burst) {
            Verdict::Pass => {}
            Verdict::Flood => return self.close(now, id, CloseReason::FLOODING),
            Verdict::Drop => return self.stats.rate_limited += 1,
            Verdict::Tell { retry_after_ms } => {
                self.stats.rate_limited += 1;
                return self.refuse_by_rate(id, text, retry_after_ms);
            }
        }
        let message = match ClientMessage::parse(text) {
            Ok(message) => message,
            Err((code, words)) => return self.error(id, &Complaint::new(code, &words)),
        };
        let result = self.handle_message(now, id, &message);
        if let Err((code, words)) = result {
            let room = message.room.as_deref().filter(|room| room.len() <= crate::id::NAME_BYTES_MAX);
            let message_id = message.id.as_deref().filter(|id| id.len() <= ID_BYTES_MAX);
            self.error(id, &Complaint::new(code, &words).about(room, message_id));
        }
    }

    fn handle_message(&mut self, now: Now, id: ConnectionId, message: &ClientMessage<'_>) -> Result<(), Refused> {
        if let Some(message_id) = message.id.as_deref()
            && !(1..=ID_BYTES_MAX).contains(&message_id.len())
        {
            let words = format!("id of {} bytes; 1 to {ID_BYTES_MAX} are allowed", message_id.len());
            return Err((ErrorCode::BadMessage, words));
        }
        match &*message.kind {
            "chat" => self.handle_chat(now, id, message),
            "join" => self.handle_join(now, id, message),
            "leave" => self.handle_leave(now, id, message),
            "typing" => self.handle_typing(now, id, message),
            "ping" => {
                self.say(id, &ServerMessage::Pong { id: message.id.as_deref() });
                Ok(())
            }
            other => {
                let found: String = other.chars().take(32).collect();
                let words = format!("type {found:?}; chat, join, leave, typing and ping are allowed");
                Err((ErrorCode::UnknownType, words))
            }
        }
    }

    fn refuse_by_rate(&mut self, id: ConnectionId, text: &str, retry_after_ms: u64) {
        let words = format!(
            "more than {} messages a second after a burst of {}",
            self.limits.message_rate, self.limits.message_burst
        );
        let message = ClientMessage::parse(text).ok();
        let room = message.as_ref().and_then(|message| message.room.as_deref());
        let message_id = message.as_ref().and_then(|message| message.id.as_deref());
        let mut complaint = Complaint::new(ErrorCode::RateLimited, &words).about(
            room.filter(|room| room.len() <= crate::id::NAME_BYTES_MAX),
            message_id.filter(|id| id.len() <= ID_BYTES_MAX),
        );
        complaint.retry_after_ms = Some(retry_after_ms);
        self.error(id, &complaint);
    }

    /// Closes a connection: whatever it was owed and is not in its own output is dropped.
    pub fn close(&mut self, now: Now, id: ConnectionId, reason: CloseReason) {
        if self.disconnect(now, id) {
            self.outbox.close(id, reason);
        }
    }

    /// A connection took no bytes for longer than it may.
    pub fn handle_stalled(&mut self, now: Now, id: ConnectionId) {
        const MEMORY_MILLIS: u64 = 5 * 60 * 1000;
        const REMEMBERED_MAX: usize = 10_000;
        let Some(connection) = self.connections.get(id) else { return };
        let user = self.users.id(connection.user).clone();
        let oldest = now.millis().saturating_sub(MEMORY_MILLIS);
        while self.stalls.front().is_some_and(|(at, _)| *at < oldest) || self.stalls.len() >= REMEMBERED_MAX {
            self.stalls.pop_front();
        }
        let before = self.stalls.iter().filter(|(_, who)| *who == user).count();
        self.stalls.push_back((now.millis(), user));
        self.stats.stalled += 1;
        let reason = if before >= 2 { CloseReason::STALLED_OFTEN } else { CloseReason::STALLED };
        self.close(now, id, reason);
    }

    /// From now on publications and joins are refused, and no room waits for its batch delay.
    pub fn start_draining(&mut self) {
        self.is_draining = true;
        self.end_all_batch_delays();
    }

    /// Whether all that was said is answered by the bus and has been handed to the sockets, as far as they took it.
    pub fn is_flushed(&self) -> bool {
        let rooms_are_level = self.dirty.is_empty() && self.rounds.is_empty() && self.delays.is_empty();
        self.publications_pending == 0 && self.requests.is_empty() && rooms_are_level && self.outbox.is_empty()
    }

    /// Whether there is something to pull right now.
    pub fn has_work(&self) -> bool {
        let in_turn = [&self.dirty, &self.rounds].iter().any(|rooms| !rooms.is_empty());
        let in_turn = in_turn || !self.drained.is_empty() || !self.resumed.is_empty() || self.moderator.has_work();
        in_turn || !self.outbox.is_empty() || !self.requests.is_empty()
    }

    /// The next thing the bus is asked.
    pub fn poll_bus_request(&mut self) -> Option<BusRequest> {
        self.requests.pop_front()
    }

    /// The next thing the host is told.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }

    /// Hands what is for single connections to `each`, in order.
    pub fn drain_output(&mut self, each: impl FnMut(Output<'_>)) {
        self.outbox.drain(each);
    }

    /// Does what is due, and what the last flush left for this turn.
    pub fn handle_deadlines(&mut self, now: Now) {
        self.resume_catch_ups(now);
        self.end_batch_delays(now);
        self.moderate(now);
        for _ in 0..LOOKS_PER_TURN {
            let Some((_, due)) = self.wheel.pop(Tick::of(now)) else { break };
            self.handle_due(now, due);
        }
    }

    /// How long until [`Hub::handle_deadlines`] has something to do.
    pub fn timeout(&self, now: Now) -> Option<std::time::Duration> {
        [self.wheel.timeout(now), self.delays.timeout(now)].into_iter().flatten().min()
    }

    /// Up to `most` connections that are still there, for a shutdown to close.
    pub fn connections(&self, most: usize) -> Vec<ConnectionId> {
        self.connections.iter().map(|(id, _)| id).take(most).collect()
    }

    /// Counts, as of now.
    pub fn stats(&self) -> HubStats {
        HubStats {
            connections: self.connections.len(),
            users: self.users.len(),
            rooms: self.rooms.len(),
            log_bytes: self.log_bytes,
            ..self.stats
        }
    }

    fn say(&mut self, id: ConnectionId, message: &ServerMessage<'_>) {
        if let Some(connection) = self.connections.get_mut(id) {
            self.outbox.message(id, connection, message);
        }
    }

    fn error(&mut self, id: ConnectionId, complaint: &Complaint<'_>) {
        self.stats.errors += 1;
        log::debug!("connection {id}: {} {}", complaint.code.as_str(), complaint.words);
        self.say(
            id,
            &ServerMessage::Error {
                code: complaint.code.as_str(),
                message: complaint.words,
                temporary: complaint.code.is_temporary(),
                room: complaint.room,
                id: complaint.id,
                retry_after_ms: complaint.retry_after_ms.or(complaint.code.is_temporary().then_some(1000)),
            },
        );
    }

    fn room_named(&self, name: &str) -> Option<u32> {
        self.room_keys.find(name, |index| self.rooms[index as usize].name.as_str())
    }

    fn room_ref(&self, index: u32) -> RoomRef {
        let generation = self.rooms[index as usize].generation;
        RoomRef { index, generation }
    }

    fn find_room(&self, room: RoomRef) -> Option<&Room> {
        self.rooms.get(room.index as usize).filter(|found| found.generation == room.generation)
    }

    fn ticket(&mut self, pending: Pending) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, pending);
        ticket
    }
}

/// Why a message or a command was not done: the code, and what was found and what is allowed.
pub type Refused = (ErrorCode, String);

/// An `error` message to be.
struct Complaint<'a> {
    code: ErrorCode,
    words: &'a str,
    room: Option<&'a str>,
    id: Option<&'a str>,
    retry_after_ms: Option<u64>,
}

impl<'a> Complaint<'a> {
    fn new(code: ErrorCode, words: &'a str) -> Self {
        Self { code, words, room: None, id: None, retry_after_ms: None }
    }

    fn about(mut self, room: Option<&'a str>, id: Option<&'a str>) -> Self {
        (self.room, self.id) = (room, id);
        self
    }
}

fn truncate_chars(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
