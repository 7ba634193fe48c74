//! The flags of the program, each of which is also an environment variable. Flags with a number
//! for a value are made from the declarations of the library.

mod api_keys;
mod numbers;
mod reference;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tokens")]
mod tokens;
#[cfg(feature = "webhook")]
mod webhook;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
#[cfg(feature = "tokens")]
use roomcast::TokenConfig;
#[cfg(feature = "redis")]
use roomcast::bus::RedisConfig;
use roomcast::settings::{ApiKey, RoomRule, TrustedProxy, UserLimitPolicy};
use roomcast::{Config, Grants, Opening, Preamble, Security};

pub(crate) use self::api_keys::{ApiKeyReader, ApiKeySource};
#[cfg(feature = "tokens")]
pub(crate) use self::tokens::Action;

/// A real-time WebSocket chat server.
///
/// Open the address that it prints in two browser tabs to try it. Clients connect to /ws and speak JSON; the protocol
/// is described in docs/protocol.md. /healthz and /readyz are for load balancers.
#[derive(Debug, Parser)]
#[command(
    name = "roomcast",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Durations are written 30s, 500ms, 1h 30m; sizes 64KiB, 1MiB, 4096. Every flag can be set by the \
                  environment variable named beside it. SIGTERM and SIGINT shut down gracefully, a second one at once; \
                  SIGHUP has the keys of tokens, the file with keys of the API and the certificate \
                  read again. The log goes to standard error; RUST_LOG=debug shows more of it."
)]
struct TextFlags {
    /// An address to listen on; repeat the flag for more: `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:80`,
    /// `unix:/run/roomcast.sock`, or `systemd` for the sockets that socket activation hands over. Port 0 lets the system choose.
    /// With `proxy:` in front, as in `proxy:0.0.0.0:8081`, connections begin with a PROXY header (version 1 or 2) of a
    /// trusted proxy; all others are closed. With `tls:` in front, as in `tls:0.0.0.0:443`, they speak TLS with the certificate
    /// of `--tls-cert`; `proxy:tls:` is the header first, then TLS. All other addresses speak no TLS.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        env = "ROOMCAST_LISTEN",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<Listen>,

    /// An address on which the API, `/metrics` and the paths for health checks are answered, and nothing else; repeat the flag for
    /// more. The addresses of `--listen` then answer neither the API nor `/metrics`. It is written as for `--listen`,
    /// except that `systemd` is not allowed. No cap by address applies there, so let only operators and back-ends reach it.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "ROOMCAST_ADMIN_LISTEN",
        value_delimiter = ',',
        value_parser = admin_address
    )]
    admin_listen: Vec<Listen>,

    /// An origin whose pages may connect; repeat the flag for more: `https://chat.example`, `https://*.example`, or `*` for all. Name
    /// the server's own origin, too, if people open its page by a name. Pages of its IP addresses and of localhost, and programs
    /// that send no Origin, may always connect.
    #[arg(long, value_name = "ORIGIN", env = "ROOMCAST_ALLOW_ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,

    /// A proxy whose word on where requests come from is believed (`Forwarded`, `X-Forwarded-For`, PROXY headers); repeat the
    /// flag for more: `10.0.0.0/8`, `2001:db8::/32`, a single address, or `unix` for all peers of Unix sockets. Nobody else may
    /// be able to connect from there: they could give themselves any address.
    #[arg(long, value_name = "CIDR", env = "ROOMCAST_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<TrustedProxy>,

    /// A key of at least 16 bytes with which back-ends may publish, kick and disconnect over HTTP (`POST /api/publish` …);
    /// repeat the flag to replace keys one by one. Lists of processes show flags to everybody on the machine: use
    /// `--api-key-file` or the environment. Without a key there is no such API.
    #[arg(long, value_name = "KEY", env = "ROOMCAST_API_KEY", hide_env_values = true, value_delimiter = ',', value_parser = key)]
    api_key: Vec<ApiKey>,

    /// A file with such keys, one a line, which only the server's user should be able to read. Behind a key may stand
    /// `name=LABEL` for the log, and limits: `commands=publish,kick` and `rooms=news-*,lobby`. Lines that begin with `#` are
    /// comments. It is read again on SIGHUP.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,

    /// Which connection gives way when a user has more than `--connections-per-user`: `close-oldest` closes the oldest one with 4504,
    /// and `refuse-newest` answers the handshake of the newest one by 429.
    #[arg(long, value_name = "POLICY", default_value = "close-oldest", env = "ROOMCAST_CONNECTIONS_PER_USER_POLICY")]
    connections_per_user_policy: UserLimitPolicy,

    /// Answers `/metrics` with counts and the time that turns take, for Prometheus. Anybody who reaches the port can read
    /// them, so have a proxy block the path.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "ROOMCAST_METRICS")]
    metrics: bool,

    /// The Redis that joins several nodes into one server: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for
    /// TLS, `unix:///path`; `redis+sentinel://[[user]:password@]host:port[,host:port…]/master-name[/db]` for a master that
    /// sentinels watch; `redis+cluster://[[user]:password@]host:port[,host:port…]` for a cluster. Set it in the
    /// environment, which lists of processes do not show. Without it everything is kept in memory.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL", env = "ROOMCAST_REDIS", hide_env_values = true, help_heading = "Several nodes")]
    redis: Option<String>,

    /// The prefix of all keys and channels in Redis; nodes with different prefixes do not see each other.
    #[cfg(feature = "redis")]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "roomcast",
        env = "ROOMCAST_REDIS_PREFIX",
        help_heading = "Several nodes"
    )]
    redis_prefix: String,

    /// A PEM file of certificates to trust with `rediss://` instead of the system's.
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "FILE", env = "ROOMCAST_REDIS_CA", help_heading = "Several nodes")]
    redis_ca: Option<PathBuf>,

    #[cfg(feature = "tls")]
    #[command(flatten)]
    tls: tls::TlsFlags,

    #[cfg(feature = "tokens")]
    #[command(flatten)]
    tokens: tokens::TokenFlags,

    #[cfg(feature = "webhook")]
    #[command(flatten)]
    webhook: webhook::WebhookFlags,

    #[cfg(feature = "tokens")]
    #[command(subcommand)]
    action: Option<Action>,

    /// What users may do in which rooms if their token does not say (`rooms`), as JSON: a list of patterns (`lobby`, `team-*`,
    /// `*`) and rights (`join`, `say`, `typing`, `history`). An empty list allows nothing.
    #[arg(
        long,
        value_name = "JSON",
        default_value = r#"[{"match": "*", "allow": ["join", "say", "typing", "history"]}]"#,
        env = "ROOMCAST_DEFAULT_ROOMS"
    )]
    default_rooms: Grants,

    /// Settings for the rooms of a pattern (`lobby`, `team-*`, `*`), as in `news-*:say=api,history=500`; repeat the flag for more
    /// patterns, or put `;` between them. In a room that several match, the longest counts alone. The settings are
    /// `history`, `history-age`, `big-room`, `slow` and `say`. All nodes need the same.
    #[arg(
        long,
        value_name = "PATTERN:SETTINGS",
        env = "ROOMCAST_ROOM",
        value_delimiter = ';',
        help_heading = "Messages and rooms"
    )]
    room: Vec<RoomRule>,

    /// Prints the tables of the reference page.
    #[arg(long, hide = true)]
    help_markdown: bool,
}

impl TextFlags {
    /// All flags but the hidden ones.
    fn args() -> Vec<Arg> {
        Self::command().get_arguments().filter(|arg| !arg.is_hide_set()).cloned().collect()
    }
}

/// All flags and their values.
#[derive(Debug)]
pub(crate) struct Flags {
    text: TextFlags,
    numbers: ArgMatches,
}

/// A value of `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) opening: Opening,
    pub(crate) place: Place,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Systemd,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (preamble, rest) = match text.strip_prefix("proxy:") {
            Some(rest) => (Preamble::ProxyHeader, rest),
            None => (Preamble::None, text),
        };
        let (security, place) = match rest.strip_prefix("tls:") {
            Some(place) => (Security::Tls, place),
            None => (Security::Plain, rest),
        };
        place.parse().map(|place| Self { opening: Opening { preamble, security }, place })
    }
}

impl FromStr for Place {
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
            "an IP address and a port (127.0.0.1:8080, [::1]:8080), unix:/path or systemd are allowed, with proxy:, tls: or proxy:tls: in front or without".to_owned()
        })
    }
}

/// An address that is bound here: systemd does not tell which of its sockets are for operators.
fn admin_address(text: &str) -> Result<Listen, String> {
    match text.parse()? {
        Listen { place: Place::Systemd, .. } => Err("systemd is for --listen alone".to_owned()),
        listen => Ok(listen),
    }
}

/// Accepts every text, because clap prints a value that it refuses. [`Config::check`] checks keys.
fn key(text: &str) -> Result<ApiKey, std::convert::Infallible> {
    Ok(ApiKey::new(text))
}

/// The flags with a text for a value, and those made from the declarations of the library.
fn command() -> Command {
    let plain = |arg: Arg| match arg.get_help().map(|help| help.to_string().replace('`', "")) {
        Some(help) => arg.help(help),
        None => arg,
    };
    let command = TextFlags::command().mut_args(plain).args(numbers::args(&Config::settings()));
    #[cfg(feature = "redis")]
    let command = command.args(numbers::args(&RedisConfig::settings()));
    command
}

/// An empty environment variable is as good as none: Compose and unit files make it of a variable that is not set.
fn without_empty_variable(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

impl Flags {
    /// Reads the command line and the environment. Ends the program after `--help` and after errors.
    pub(crate) fn parse() -> Self {
        let flags = Self::parse_from(std::env::args_os());
        if flags.text.help_markdown {
            print!("{}", reference::markdown(&TextFlags::args()));
            std::process::exit(0);
        }
        flags
    }

    fn parse_from(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Self {
        let numbers = command().mut_args(without_empty_variable).get_matches_from(words);
        let text = TextFlags::from_arg_matches(&numbers).unwrap_or_else(|error| error.exit());
        Self { text, numbers }
    }

    pub(crate) fn listen(&self) -> &[Listen] {
        &self.text.listen
    }

    pub(crate) fn admin_listen(&self) -> &[Listen] {
        &self.text.admin_listen
    }

    /// The value of `--max-connections`, if it was given.
    pub(crate) fn max_connections(&self) -> Option<u32> {
        numbers::given(&self.numbers, "max-connections")?.try_into().ok()
    }

    /// Where the keys of the HTTP API come from.
    pub(crate) fn api_keys(&self) -> ApiKeySource {
        ApiKeySource { given: self.text.api_key.clone(), file: self.text.api_key_file.clone() }
    }

    /// The settings of the server. `connections_max` takes the place of `--max-connections`, whose
    /// default depends on the limit of open files.
    ///
    /// # Errors
    /// The file with keys of the API cannot be read, or a certificate has no key.
    pub(crate) fn config(&self, connections_max: u32) -> Result<Config, String> {
        let mut config = Config::default();
        config.allow_origins.clone_from(&self.text.allow_origin);
        config.api_keys = self.api_keys().read()?;
        config.trusted_proxies.clone_from(&self.text.trusted_proxy);
        config.connections_per_user_policy = self.text.connections_per_user_policy;
        config.metrics = self.text.metrics;
        #[cfg(feature = "tls")]
        {
            config.tls = self.text.tls.files()?;
        }
        config.default_grants.clone_from(&self.text.default_rooms);
        config.room_rules.clone_from(&self.text.room);
        numbers::apply(&Config::settings(), &self.numbers, &mut config);
        config.net.connections_max = connections_max;
        if numbers::given(&self.numbers, "data-bytes").is_none() {
            config.hub.data_bytes_max = config.hub.data_bytes_max.min(config.net.message_bytes_max);
        }
        Ok(config)
    }

    /// The settings of the part that verifies tokens, if there are any keys.
    #[cfg(feature = "tokens")]
    pub(crate) fn tokens(&self) -> Option<TokenConfig> {
        self.text.tokens.config()
    }

    /// The URL of the back-end that decides about connections, if there is one.
    #[cfg(feature = "webhook")]
    pub(crate) fn auth_url(&self) -> Option<&str> {
        self.text.webhook.auth_url.as_deref()
    }

    /// How many requests to a back-end may be under way, each with a descriptor.
    pub(crate) fn back_end_requests_max(&self) -> u64 {
        #[cfg(feature = "webhook")]
        if self.auth_url().is_some() {
            let default = Config::default().net.auth_requests_max.into();
            return numbers::given(&self.numbers, "auth-requests").unwrap_or(default);
        }
        0
    }

    /// What is to be done in place of serving.
    #[cfg(feature = "tokens")]
    pub(crate) fn take_action(&mut self) -> Option<Action> {
        self.text.action.take()
    }

    /// The settings of the Redis bus, if `--redis` was given.
    #[cfg(feature = "redis")]
    pub(crate) fn redis(&self) -> Option<RedisConfig> {
        let mut config = RedisConfig::new(self.text.redis.as_deref()?);
        config.prefix.clone_from(&self.text.redis_prefix);
        config.ca.clone_from(&self.text.redis_ca);
        numbers::apply(&RedisConfig::settings(), &self.numbers, &mut config);
        Some(config)
    }
}

/// An environment variable that looks like a setting and is none.
pub(crate) struct UnknownVariable {
    pub(crate) name: String,
    /// The setting that was probably meant.
    pub(crate) nearest: Option<String>,
}

/// The environment variables that look like settings and are none, misspelt ones among them.
pub(crate) fn unknown_variables() -> Vec<UnknownVariable> {
    let known: Vec<_> =
        command().get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned)).collect();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = names.filter(|name| name.starts_with(VARIABLE_PREFIX) && !known.contains(name));
    unknown.map(|name| UnknownVariable { nearest: nearest(&name, &known), name }).collect()
}

/// What all environment variables of settings begin with.
const VARIABLE_PREFIX: &str = "ROOMCAST_";

/// So alike, out of 1, is what is offered in place of a name.
const LIKENESS_MIN: f64 = 0.7;

fn nearest(name: &str, known: &[String]) -> Option<String> {
    let likeness = |other: &str| {
        let [name, other] = [name, other].map(|name| name.trim_start_matches(VARIABLE_PREFIX));
        strsim::normalized_damerau_levenshtein(name, other)
    };
    let nearest = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(nearest) >= LIKENESS_MIN).then(|| nearest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent_and_their_defaults_are_the_library_s() {
        command().debug_assert();
        let defaults = Config::default();
        let config = Flags::parse_from(["roomcast"]).config(defaults.net.connections_max).unwrap();
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn a_misspelt_variable_is_near_the_one_that_was_meant() {
        let known =
            ["ROOMCAST_LISTEN", "ROOMCAST_API_KEY", "ROOMCAST_LOG_BYTES", "ROOMCAST_LOG_BYTES_TOTAL"].map(String::from);
        for (name, expected) in [
            ("ROOMCAST_API_KEYS", Some("ROOMCAST_API_KEY")),
            ("ROOMCAST_APIKEY", Some("ROOMCAST_API_KEY")),
            ("ROOMCAST_LOGBYTES_TOTAL", Some("ROOMCAST_LOG_BYTES_TOTAL")),
            ("ROOMCAST_LISTNE", Some("ROOMCAST_LISTEN")),
            ("ROOMCAST_COLOUR", None),
            ("ROOMCAST_", None),
        ] {
            assert_eq!(nearest(name, &known).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn addresses_are_told_apart() {
        let check = |text: &str, preamble, place| {
            for (prefix, security) in [("", Security::Plain), ("tls:", Security::Tls)] {
                let (proxy, rest) = text.split_at(if preamble == Preamble::ProxyHeader { "proxy:".len() } else { 0 });
                let listen = Listen { opening: Opening { preamble, security }, place: Place::clone(&place) };
                assert_eq!(format!("{proxy}{prefix}{rest}").parse(), Ok(listen), "{prefix} in {text}");
            }
        };
        check("localhost:80", Preamble::None, Place::Tcp("127.0.0.1:80".parse().unwrap()));
        check("[::1]:80", Preamble::None, Place::Tcp("[::1]:80".parse().unwrap()));
        check("unix:/a", Preamble::None, Place::Unix("/a".into()));
        check("proxy:[::]:80", Preamble::ProxyHeader, Place::Tcp("[::]:80".parse().unwrap()));
        check("proxy:unix:/a", Preamble::ProxyHeader, Place::Unix("/a".into()));
        for bad in [
            "",
            "unix:",
            "80",
            "chat.example:80",
            "127.0.0.1",
            "proxy:",
            "proxy:proxy:127.0.0.1:80",
            "tls:",
            "tls:proxy:127.0.0.1:80",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
