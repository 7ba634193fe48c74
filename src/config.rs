//! Everything that can be set, with its default, and the one place where it is checked that the bounds go together.

use std::fmt;
use std::time::Duration;

/// How many bytes a list begins with that may become very long.
///
/// So large an allocation is a mapping of its own: what is not used of it is not resident, and it grows where it is. A
/// list that began small would leave a hole in the heap each time it doubles, as large as all its holes before.
pub(crate) const LONG_LIST_BYTES: usize = 256 * 1024;

/// The capacity to begin with of a list of `T` that may become very long.
pub(crate) const fn long_list<T>() -> usize {
    LONG_LIST_BYTES / size_of::<T>()
}

use crate::error::Error;

/// The settings of a server. Start from [`Config::default`] and change what you need.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// Origins that may connect besides the server's own host: `https://chat.example`, `https://*.example`, or `*`.
    pub allow_origins: Vec<String>,
    /// Who knows one of these may use the HTTP API; without any there is no such API. Several, so that keys can be changed one by one.
    pub api_keys: Vec<ApiKey>,
    /// How much of everything.
    pub limits: Limits,
    /// How long everything.
    pub timing: Timing,
    /// Whether the host wants [`crate::Notice`]s.
    pub notices: bool,
    /// Whether the processor time of turns is measured, and `/metrics` tells it and all counts to whoever reaches the port.
    pub metrics: bool,
}

/// The least length of an [`ApiKey`], in bytes.
pub const API_KEY_BYTES_MIN: usize = 16;

/// A secret that a back-end shares with the server, of at least [`API_KEY_BYTES_MIN`] bytes. It is never logged, nor part of any message.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; [`Config::check`] says whether it can be used.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// What stands in a header field, and among others in a variable of the environment, must stand for itself.
    fn check(&self, number: usize) -> Result<(), Error> {
        if self.0.len() < API_KEY_BYTES_MIN {
            let words = format!("api-key {number} has {} bytes; at least {API_KEY_BYTES_MIN} are needed", self.0.len());
            return Err(Error::Config(words));
        }
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            let words = format!(
                "api-key {number} has other characters than ASCII letters, digits and punctuation without commas"
            );
            return Err(Error::Config(words));
        }
        Ok(())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// How much of everything there may be. Each field names what happens at the bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// WebSocket connections; beyond them `/ws` answers 503.
    pub connections_max: u32,
    /// Sockets above `connections_max`, so that health checks and 503 still get an answer; beyond them accepting pauses.
    pub connections_reserved: u32,
    /// Bytes of a HTTP head; beyond them 431.
    pub head_bytes_max: usize,
    /// Bytes of an inbound message, all fragments together; beyond them close 1009.
    pub message_bytes_max: usize,
    /// Handshakes that wait for the decision of an [`Authenticator`](crate::Authenticator); beyond them `/ws` answers 503. What one read
    /// brought behind a handshake is kept with it.
    pub admissions_pending_max: u32,
    /// Fragments of an inbound message; beyond them close 1009.
    pub fragments_max: u32,
    /// Bytes of the `data` of a chat message; beyond them error `too_large`.
    pub data_bytes_max: usize,
    /// Bytes of a connection's own output (replies, pongs, pages of history). Above half of it the connection is not
    /// read; a connection that exceeds it all the same is closed with 4002.
    pub output_bytes_max: usize,
    /// Bytes of one room's log. At the bound members that lag fall back to history; if that does not help,
    /// publications are answered `room_busy`.
    pub log_bytes_max: usize,
    /// Bytes of all rooms' logs together; at the bound members that lag fall back, publications get `room_busy`.
    pub log_bytes_total_max: usize,
    /// Rooms that exist at once; beyond them a join of a new one is answered `server_busy`.
    pub rooms_max: u32,
    /// Rooms a connection may be in; beyond them `too_many_rooms`.
    pub rooms_per_connection_max: u32,
    /// Users of a room up to which it announces presence one by one; above it counts. At three quarters it lists again.
    pub users_listed_max: u32,
    /// Messages a second a connection may send in the long run; 0 turns the limit off. Beyond it: `rate_limited`.
    pub message_rate: u32,
    /// Messages a connection may send at once after a pause. Ten times as many refused: close 4501.
    pub message_burst: u32,
    /// Messages of history a room; the oldest go first. 0 keeps none.
    pub history_messages_max: u32,
    /// Bytes of history of all rooms together; the oldest of all go first.
    pub history_bytes_max: usize,
    /// Message ids remembered for all rooms together; beyond them a publication with an id is answered `server_busy`.
    pub dedupe_ids_max: usize,
    /// Publications that wait for the bus, and as many reads of history; beyond them publications and joins are
    /// answered `server_busy`.
    pub publications_pending_max: usize,
    /// Commands that wait in a [`crate::Remote`]'s inbox; beyond them the sender gets an error.
    pub inbox_messages_max: usize,
    /// Notices that wait for the host; beyond them the newest are dropped and counted ([`crate::Notice::Missed`]).
    pub notices_max: usize,
    /// Connections accepted in a turn; the rest wait in the backlog for the next.
    pub accepts_per_turn: u32,
    /// Reads of sockets in a turn; the rest wait for the next.
    pub reads_per_turn: u32,
    /// Messages taken from one connection at a time. It comes to its turn again behind the others that have something to be
    /// read, in this turn of the loop or, when all its reads are used up, in the next.
    pub messages_per_read: u32,
    /// Sends of room logs in a turn, 4 at least; the rest wait for the next. One room gets at most 64 in a row.
    pub sends_per_turn: u32,
    /// How long sends of room logs may take in a turn, 50 µs to 1 s; the rest wait for the next. It is looked at after every 8 sends,
    /// for the first time after the first 8, which are always made.
    pub send_time_per_turn: Duration,
    /// Connections told to go away in a turn while shutting down.
    pub closes_per_turn: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_reserved: 64,
            head_bytes_max: 8 * 1024,
            message_bytes_max: 16 * 1024,
            admissions_pending_max: 1024,
            fragments_max: 16 * 1024,
            data_bytes_max: 4 * 1024,
            output_bytes_max: 256 * 1024,
            log_bytes_max: 1024 * 1024,
            log_bytes_total_max: 256 * 1024 * 1024,
            rooms_max: 1_000_000,
            rooms_per_connection_max: 64,
            users_listed_max: 200,
            message_rate: 50,
            message_burst: 100,
            history_messages_max: 1000,
            history_bytes_max: 256 * 1024 * 1024,
            dedupe_ids_max: 1_000_000,
            publications_pending_max: 16 * 1024,
            inbox_messages_max: 4096,
            notices_max: 1024,
            accepts_per_turn: 64,
            reads_per_turn: 64,
            messages_per_read: 64,
            sends_per_turn: 64,
            send_time_per_turn: Duration::from_micros(300),
            closes_per_turn: 256,
        }
    }
}

/// The most that room, user, display name, time and number add to a message.
const STAMP_BYTES_MAX: usize = 2048;

impl Limits {
    /// Users at which a big room lists its users again.
    pub(crate) fn users_listed_again(&self) -> usize {
        self.users_listed_max as usize * 3 / 4
    }

    /// Bytes of one page of history: a quarter of a connection's own output, so that a page and the replies that
    /// were queued before it stay below its half.
    pub(crate) fn page_bytes_max(&self) -> usize {
        self.output_bytes_max / 4
    }
}

/// How long everything may take. The timer is coarse: a deadline is noticed up to 250 ms late.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// From accepting a connection to the end of its HTTP head, from there to the end of the body, if it has one, and from an answer to the
    /// next head; beyond it 408.
    pub handshake_timeout: Duration,
    /// From the end of a request to an answer that has to wait for the bus; beyond it 504. A bus should give up earlier.
    pub answer_timeout: Duration,
    /// From a handshake to the decision about it, if that has to wait; beyond it 504.
    pub admission_timeout: Duration,
    /// How long a closing connection may take to say goodbye before it is cut.
    pub close_timeout: Duration,
    /// Silence of a client after which the server pings it.
    pub ping_interval: Duration,
    /// Silence after such a ping until close 4001.
    pub pong_timeout: Duration,
    /// How long a connection that is owed bytes may take none before close 4002.
    pub stall_timeout: Duration,
    /// How long a shutdown waits for clients to take what they are owed.
    pub drain_timeout: Duration,
    /// How long a user whose last connection dropped still counts as present.
    pub presence_grace: Duration,
    /// Least time between two `members` messages of a big room.
    pub members_interval: Duration,
    /// Least time between the beginnings of two rounds in which a room is sent to its members, at most a second. What is
    /// said in between waits in the room's log and goes out together. 0 does without.
    pub batch_delay: Duration,
    /// Age at which a message leaves the history.
    pub history_age: Duration,
    /// Least time for which the id of a message is remembered.
    pub dedupe_window: Duration,
    /// How long accepting pauses when the system is out of descriptors or memory.
    pub accept_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(75),
            admission_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            presence_grace: Duration::from_secs(5),
            members_interval: Duration::from_secs(1),
            batch_delay: Duration::ZERO,
            history_age: Duration::from_secs(60 * 60),
            dedupe_window: Duration::from_secs(2 * 60),
            accept_pause: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// Checks every bound, and how the bounds relate to each other.
    ///
    /// # Errors
    /// [`Error::Config`] with the first value that does not fit, what it is and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        for (index, key) in self.api_keys.iter().enumerate() {
            key.check(index + 1)?;
        }
        self.limits.check()?;
        self.timing.check()
    }
}

fn within(name: &str, found: u64, least: u64, most: u64) -> Result<(), Error> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Config(format!("{name} is {found}; {least} to {most} are allowed")))
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        let kib = 1024;
        let gib = 1024 * 1024 * kib;
        within("max-connections", self.connections_max.into(), 1, 100_000_000)?;
        within("reserved connections", self.connections_reserved.into(), 1, 65_536)?;
        within("head-bytes", self.head_bytes_max as u64, 512, 64 * kib)?;
        within("message-bytes", self.message_bytes_max as u64, 128, 64 * 1024 * kib)?;
        within("pending admissions", self.admissions_pending_max.into(), 1, 1 << 20)?;
        within("fragments", self.fragments_max.into(), 1, u32::MAX.into())?;
        within("data-bytes", self.data_bytes_max as u64, 0, self.message_bytes_max as u64)?;
        within("output-bytes", self.output_bytes_max as u64, 128 * kib, gib)?;
        // Offsets into a log are compared modulo 2^32; a gibibyte keeps far away from the wrap.
        within("log-bytes", self.log_bytes_max as u64, 16 * kib, gib)?;
        within("log-bytes-total", self.log_bytes_total_max as u64, self.log_bytes_max as u64, u64::MAX)?;
        within("max-rooms", self.rooms_max.into(), 1, 1 << 31)?;
        within("rooms-per-connection", self.rooms_per_connection_max.into(), 1, 65_536)?;
        within("big-room", self.users_listed_max.into(), 1, 200)?;
        within("message-rate", self.message_rate.into(), 0, 1_000_000)?;
        within("message-burst", self.message_burst.into(), 1, 1_000_000)?;
        within("history-messages", self.history_messages_max.into(), 0, 10_000_000)?;
        within("pending publications", self.publications_pending_max as u64, 1, 1 << 30)?;
        within("inbox", self.inbox_messages_max as u64, 1, 1 << 30)?;
        within("notices", self.notices_max as u64, 1, 1 << 30)?;
        for (name, budget) in [
            ("accepts-per-turn", self.accepts_per_turn),
            ("reads-per-turn", self.reads_per_turn),
            ("messages-per-read", self.messages_per_read),
            ("closes-per-turn", self.closes_per_turn),
        ] {
            within(name, budget.into(), 1, 1 << 20)?;
        }
        // Shared out by halves between connections that take bytes again, rooms in the middle of a round, and the others.
        within("sends-per-turn", self.sends_per_turn.into(), 4, 1 << 20)?;
        let (least, most) = (Duration::from_micros(50), Duration::from_secs(1));
        if self.send_time_per_turn < least || self.send_time_per_turn > most {
            let found = self.send_time_per_turn;
            return Err(Error::Config(format!("send-time-per-turn is {found:?}; {least:?} to {most:?} are allowed")));
        }
        // A message grows by what the server stamps on it, never by escaping: what must be escaped in an answer had to
        // be escaped on the way in. One that fits inbound must fit into a page of history and into a log, or it could
        // never be delivered.
        let delivered = self.message_bytes_max + STAMP_BYTES_MAX;
        if delivered > self.page_bytes_max() || delivered > self.log_bytes_max / 2 {
            return Err(Error::Config(format!(
                "message-bytes is {}; with output-bytes {} and log-bytes {} at most {} are allowed",
                self.message_bytes_max,
                self.output_bytes_max,
                self.log_bytes_max,
                self.page_bytes_max().min(self.log_bytes_max / 2) - STAMP_BYTES_MAX
            )));
        }
        Ok(())
    }
}

impl Timing {
    fn check(&self) -> Result<(), Error> {
        let day = Duration::from_secs(24 * 60 * 60);
        let tick = Duration::from_millis(100);
        for (name, found, least) in [
            ("handshake-timeout", self.handshake_timeout, tick),
            ("answer-timeout", self.answer_timeout, tick),
            ("admission timeout", self.admission_timeout, tick),
            ("close-timeout", self.close_timeout, tick),
            ("ping-interval", self.ping_interval, tick),
            ("pong-timeout", self.pong_timeout, tick),
            ("stall-timeout", self.stall_timeout, tick),
            ("drain-timeout", self.drain_timeout, Duration::ZERO),
            ("presence-grace", self.presence_grace, Duration::ZERO),
            ("members-interval", self.members_interval, Duration::ZERO),
            ("dedupe-window", self.dedupe_window, Duration::ZERO),
            ("accept-pause", self.accept_pause, tick),
        ] {
            if found < least || found > day {
                return Err(Error::Config(format!("{name} is {found:?}; {least:?} to {day:?} are allowed")));
            }
        }
        let second = Duration::from_secs(1);
        if self.batch_delay > second {
            return Err(Error::Config(format!("batch-delay is {:?}; 0s to {second:?} are allowed", self.batch_delay)));
        }
        let month = day * 31;
        if self.history_age > month {
            return Err(Error::Config(format!("history-age is {:?}; 0s to {month:?} are allowed", self.history_age)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_go_together() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_batch_delay_is_a_second_at_most() {
        let check = |millis| {
            let mut config = Config::default();
            config.timing.batch_delay = Duration::from_millis(millis);
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!([0, 20, 1000].map(check), [Ok(()), Ok(()), Ok(())]);
        assert!(check(1001).is_err_and(|error| error.contains("batch-delay is 1.001s")));
    }

    #[test]
    fn a_key_is_long_enough_for_nobody_to_guess_and_is_never_shown() {
        let check = |key: &str| {
            let config =
                Config { api_keys: vec![ApiKey::new("0123456789abcdef"), ApiKey::new(key)], ..Config::default() };
            assert!(!format!("{config:?}").contains("0123456789abcdef"));
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("-._~+/=x%:?!{}abc"), Ok(()));
        for (bad, needle) in [
            ("", "api-key 2 has 0 bytes; at least 16 are needed"),
            ("fifteen-bytes-x", "api-key 2 has 15 bytes"),
            ("with a space in it", "other characters"),
            ("with,a,comma,in,it", "other characters"),
            ("mit-einem-Ümlaut-drin", "other characters"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(needle) && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
    }

    #[test]
    fn a_message_must_fit_into_a_page() {
        let mut config = Config::default();
        config.limits.message_bytes_max = 64 * 1024;
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("message-bytes is 65536"), "{error}");
    }
}
