//! The program's flags, each of them also an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use clap::builder::BoolishValueParser;
use roomcast::Config;
use roomcast::config::{ApiKey, Limits, Timing};

/// A real-time WebSocket chat server.
///
/// Open the address that it prints in two browser tabs to try it. Clients connect to /ws and speak JSON; the protocol
/// is described in README.md. /healthz and /readyz are for load balancers.
#[derive(Debug, Parser)]
#[command(
    name = "roomcast",
    version,
    max_term_width = 100,
    after_help = "Durations are written 30s, 500ms, 1h 30m; sizes 64KiB, 1MiB, 4096. Every flag can be set by the \
                  environment variable named beside it. SIGTERM and SIGINT shut down gracefully, a second one at \
                  once. The log goes to standard error; RUST_LOG=debug shows more of it."
)]
pub(crate) struct Flags {
    /// Where to listen; repeat it for more: 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80, unix:/run/roomcast.sock, or systemd for
    /// what socket activation hands over. Port 0 lets the system choose.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        env = "ROOMCAST_LISTEN",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<Listen>,

    /// An origin whose pages may connect besides the server's own host; repeat it for more: https://chat.example,
    /// https://*.example, or * for all. Programs that send no Origin may always connect.
    #[arg(long, value_name = "ORIGIN", env = "ROOMCAST_ALLOW_ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,

    /// A key, of 16 bytes at least, with which back-ends may publish, kick and disconnect over HTTP (POST /api/publish …); repeat it to change keys one by
    /// one. Better set by the environment, which no list of processes shows. Without it there is no such API.
    #[arg(long, value_name = "KEY", env = "ROOMCAST_API_KEY", hide_env_values = true, value_delimiter = ',', value_parser = key)]
    api_key: Vec<ApiKey>,

    /// Answers /metrics with counts and the time that turns take, for Prometheus. Whoever reaches the port can read them: let a
    /// proxy keep the path to itself.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "ROOMCAST_METRICS")]
    metrics: bool,

    /// Most WebSocket connections; beyond them /ws answers 503. [default: what the file limit allows]
    #[arg(long, value_name = "N", env = "ROOMCAST_MAX_CONNECTIONS", help_heading = "Limits")]
    pub(crate) max_connections: Option<u32>,

    /// Messages a second that a connection may send in the long run; 0 turns the limit off.
    #[arg(long, value_name = "N", default_value_t = Limits::default().message_rate, env = "ROOMCAST_MESSAGE_RATE", help_heading = "Limits")]
    message_rate: u32,

    /// Messages that a connection may send at once after a pause; ten times as many refused ones end it (4501).
    #[arg(long, value_name = "N", default_value_t = Limits::default().message_burst, env = "ROOMCAST_MESSAGE_BURST", help_heading = "Limits")]
    message_burst: u32,

    /// Largest inbound message; beyond it the connection ends (1009).
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = size, env = "ROOMCAST_MESSAGE_BYTES", help_heading = "Limits")]
    message_bytes: usize,

    /// Largest data of a chat message. [default: 4KiB, or --message-bytes if that is less]
    #[arg(long, value_name = "SIZE", value_parser = size, env = "ROOMCAST_DATA_BYTES", help_heading = "Limits")]
    data_bytes: Option<usize>,

    /// Largest HTTP head; beyond it 431.
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = size, env = "ROOMCAST_HEAD_BYTES", help_heading = "Limits")]
    head_bytes: usize,

    /// Most bytes that wait for one connection alone (answers, pages of history); above half of it it is not read.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size, env = "ROOMCAST_OUTPUT_BYTES", help_heading = "Limits")]
    output_bytes: usize,

    /// Largest log of a room: how far its members may be apart before the slower ones fall back to history.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size, env = "ROOMCAST_LOG_BYTES", help_heading = "Limits")]
    log_bytes: usize,

    /// Largest size of all rooms' logs together.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size, env = "ROOMCAST_LOG_BYTES_TOTAL", help_heading = "Limits")]
    log_bytes_total: usize,

    /// Most rooms at once; beyond them new ones are refused (server_busy).
    #[arg(long, value_name = "N", default_value_t = Limits::default().rooms_max, env = "ROOMCAST_MAX_ROOMS", help_heading = "Limits")]
    max_rooms: u32,

    /// Most rooms of a connection.
    #[arg(long, value_name = "N", default_value_t = Limits::default().rooms_per_connection_max, env = "ROOMCAST_ROOMS_PER_CONNECTION", help_heading = "Limits")]
    rooms_per_connection: u32,

    /// Users of a room up to which it announces who comes and goes; above it counts. 1 to 200.
    #[arg(long, value_name = "N", default_value_t = Limits::default().users_listed_max, env = "ROOMCAST_BIG_ROOM", help_heading = "Limits")]
    big_room: u32,

    /// Messages of history a room; 0 keeps none.
    #[arg(long, value_name = "N", default_value_t = Limits::default().history_messages_max, env = "ROOMCAST_HISTORY_MESSAGES", help_heading = "History")]
    history_messages: u32,

    /// Age at which a message leaves the history.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, env = "ROOMCAST_HISTORY_AGE", help_heading = "History")]
    history_age: Duration,

    /// Largest history of all rooms together; the oldest messages of all go first.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size, env = "ROOMCAST_HISTORY_BYTES", help_heading = "History")]
    history_bytes: usize,

    /// Least time for which the id of a message is remembered, so that sending it again doubles nothing.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration, env = "ROOMCAST_DEDUPE_WINDOW", help_heading = "History")]
    dedupe_window: Duration,

    /// The Redis that makes all nodes that name it one server: redis://[[user]:password@]host[:port][/db], rediss:// for
    /// TLS, unix:///path; redis+sentinel://[[user]:password@]host:port[,host:port…]/master-name[/db] for what sentinels watch
    /// over; redis+cluster://[[user]:password@]host:port[,host:port…] for a cluster. Better set by the environment, which no
    /// list of processes shows. Without it everything is kept in memory.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL", env = "ROOMCAST_REDIS", hide_env_values = true, help_heading = "Several nodes")]
    redis: Option<String>,

    /// What all keys and channels in Redis begin with; nodes with different prefixes do not know of each other.
    #[cfg(feature = "redis")]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "roomcast",
        env = "ROOMCAST_REDIS_PREFIX",
        help_heading = "Several nodes"
    )]
    redis_prefix: String,

    /// How long messages wait for a Redis that does not answer; then they are refused (unavailable). 100ms to 60s.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "ROOMCAST_REDIS_HOLD", help_heading = "Several nodes")]
    redis_hold: Duration,

    /// How long a node may be silent, as when it was killed, before its users count as gone on the other nodes. 3s to 5m.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ROOMCAST_PRESENCE_LEASE", help_heading = "Several nodes")]
    presence_lease: Duration,

    /// A PEM file of certificates to trust with rediss:// instead of the system's.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "FILE", env = "ROOMCAST_REDIS_CA", help_heading = "Several nodes")]
    redis_ca: Option<PathBuf>,

    /// Silence of a client after which it is pinged.
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration, env = "ROOMCAST_PING_INTERVAL", help_heading = "Timing")]
    ping_interval: Duration,

    /// Silence after a ping at which the connection ends (4001).
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "ROOMCAST_PONG_TIMEOUT", help_heading = "Timing")]
    pong_timeout: Duration,

    /// How long a client that is owed bytes may take none before its connection ends (4002).
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ROOMCAST_STALL_TIMEOUT", help_heading = "Timing")]
    stall_timeout: Duration,

    /// How long a request head may take, its body, and the next head after an answer (408).
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "ROOMCAST_HANDSHAKE_TIMEOUT", help_heading = "Timing")]
    handshake_timeout: Duration,

    /// How long a request over HTTP may wait for what it has published (504). More than --redis-hold.
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = duration, env = "ROOMCAST_ANSWER_TIMEOUT", help_heading = "Timing")]
    answer_timeout: Duration,

    /// How long a shutdown waits for clients to take what they are owed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "ROOMCAST_DRAIN_TIMEOUT", help_heading = "Timing")]
    drain_timeout: Duration,

    /// How long a user who lost the connection still counts as present.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, env = "ROOMCAST_PRESENCE_GRACE", help_heading = "Timing")]
    presence_grace: Duration,

    /// Least time between two rounds of sends of one room, 1s at most. The first message after a quiet time goes out at once;
    /// messages that follow within this time go out together, in fewer and larger sends.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, env = "ROOMCAST_BATCH_DELAY", help_heading = "Timing")]
    batch_delay: Duration,
}

/// What `--listen` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Systemd,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        // Names other than localhost would need a resolver, which may block and may answer differently tomorrow.
        let numeric =
            text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        numeric.parse().map(Self::Tcp).map_err(|_| {
            "an IP address and a port (127.0.0.1:8080, [::1]:8080), unix:/path or systemd are allowed".to_owned()
        })
    }
}

/// Takes everything: what is refused here would be printed. Whether it can be used is checked with the rest.
fn key(text: &str) -> Result<ApiKey, std::convert::Infallible> {
    Ok(ApiKey::new(text))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; durations are written 30s, 500ms, 1h 30m"))
}

fn size(text: &str) -> Result<usize, String> {
    let bytes =
        parse_size::parse_size(text).map_err(|error| format!("{error}; sizes are written 64KiB, 1MiB, 4096"))?;
    usize::try_from(bytes).map_err(|_| format!("{bytes} bytes are more than this machine can address"))
}

impl Flags {
    /// The settings of the server, with as many connections as are allowed when nothing was said.
    pub(crate) fn config(&self, connections_max: u32) -> Config {
        let mut config = Config::default();
        config.allow_origins.clone_from(&self.allow_origin);
        config.api_keys.clone_from(&self.api_key);
        config.metrics = self.metrics;
        let limits = &mut config.limits;
        limits.connections_max = connections_max;
        limits.message_rate = self.message_rate;
        limits.message_burst = self.message_burst;
        limits.message_bytes_max = self.message_bytes;
        limits.data_bytes_max = self.data_bytes.unwrap_or(limits.data_bytes_max.min(self.message_bytes));
        limits.head_bytes_max = self.head_bytes;
        limits.output_bytes_max = self.output_bytes;
        limits.log_bytes_max = self.log_bytes;
        limits.log_bytes_total_max = self.log_bytes_total;
        limits.rooms_max = self.max_rooms;
        limits.rooms_per_connection_max = self.rooms_per_connection;
        limits.users_listed_max = self.big_room;
        limits.history_messages_max = self.history_messages;
        limits.history_bytes_max = self.history_bytes;
        self.set_timing(&mut config.timing);
        config
    }

    /// Which Redis, if any.
    #[cfg(feature = "redis")]
    pub(crate) fn redis(&self) -> Option<roomcast::bus::RedisConfig> {
        let mut config = roomcast::bus::RedisConfig::new(self.redis.as_deref()?);
        config.prefix.clone_from(&self.redis_prefix);
        config.hold = self.redis_hold;
        config.lease = self.presence_lease;
        config.ca.clone_from(&self.redis_ca);
        Some(config)
    }

    fn set_timing(&self, timing: &mut Timing) {
        timing.history_age = self.history_age;
        timing.dedupe_window = self.dedupe_window;
        timing.ping_interval = self.ping_interval;
        timing.pong_timeout = self.pong_timeout;
        timing.stall_timeout = self.stall_timeout;
        timing.handshake_timeout = self.handshake_timeout;
        timing.answer_timeout = self.answer_timeout;
        timing.drain_timeout = self.drain_timeout;
        timing.presence_grace = self.presence_grace;
        timing.batch_delay = self.batch_delay;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent_and_their_defaults_are_the_library_s() {
        Flags::command().debug_assert();
        let defaults = Config::default();
        let config = Flags::parse_from(["roomcast"]).config(defaults.limits.connections_max);
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!("localhost:80".parse(), Ok(Listen::Tcp("127.0.0.1:80".parse().unwrap())));
        assert_eq!("[::1]:80".parse(), Ok(Listen::Tcp("[::1]:80".parse().unwrap())));
        assert_eq!("unix:/a".parse(), Ok(Listen::Unix("/a".into())));
        for bad in ["", "unix:", "80", "chat.example:80", "127.0.0.1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
