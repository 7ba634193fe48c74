//! The settings of a server. Each is declared once, and one function checks all bounds and how they
//! relate to each other.

mod api_key;
pub(crate) mod declare;
mod limits;
mod memory;
mod room_rules;
mod timing;
#[cfg(feature = "tls")]
mod tls_files;
mod trusted_proxy;
mod user_limit_policy;

pub(crate) use api_key::KeyLimits;
pub use api_key::{API_KEY_BYTES_MIN, ApiKey};
use declare::{Setting, Unit, check_all, groups, refused};
pub use limits::{HistoryLimits, HubLimits, NetLimits};
pub use memory::{MemoryLimits, MemoryShares};
pub(crate) use room_rules::{RoomLimits, RoomLimitsTable, RuleIndex};
pub use room_rules::{RoomRule, Speakers};
pub use timing::Timing;
#[cfg(feature = "tls")]
pub use tls_files::TlsFiles;
pub use trusted_proxy::TrustedProxy;
pub use user_limit_policy::UserLimitPolicy;

use crate::budget::WorkLimits;
use crate::error::Error;
use crate::rights::Grants;

/// The settings of a server. Start from [`Config::default`] and change what you need.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// Origins whose pages may connect: `https://chat.example`, `https://*.example`, or `*`; the server's own among them if its page
    /// is opened by a name. Pages that came from the host that they connect to are allowed if it is an IP address or `localhost`.
    pub allow_origins: Vec<String>,
    /// A back-end with one of these keys may use the HTTP API. Without keys there is no such API. There
    /// may be several, so that keys can be replaced one by one.
    pub api_keys: Vec<ApiKey>,
    /// Proxies whose word on where a request comes from is believed: `Forwarded`, `X-Forwarded-For`, PROXY headers.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The certificates for [`Security::Tls`](crate::Security::Tls), which [`Server::set_tls_identity`](crate::Server::set_tls_identity)
    /// may bring as well. Which of several is shown is told at [`TlsIdentity`](crate::TlsIdentity).
    #[cfg(feature = "tls")]
    pub tls: Vec<TlsFiles>,
    /// Which connection gives way when a user has more than [`NetLimits::connections_per_user_max`].
    pub connections_per_user_policy: UserLimitPolicy,
    /// What users may do in which rooms if their identity does not say.
    pub default_grants: Grants,
    /// Settings for the rooms of patterns, in place of those of all rooms. All nodes need the same.
    pub room_rules: Vec<RoomRule>,
    /// Bounds of sockets, of requests, and of bytes on their way in and out.
    pub net: NetLimits,
    /// Bounds of messages, rooms and their logs, and of the queues to the bus and the host.
    pub hub: HubLimits,
    /// How many messages are kept, and for how long.
    pub history: HistoryLimits,
    /// The bound of all that is held for peers in memory.
    pub memory: MemoryLimits,
    /// How long everything may take.
    pub timing: Timing,
    /// Whether the host wants [`crate::Notice`]s.
    pub notices: bool,
    /// Whether the processor time of turns is measured, and `/metrics` answers with it and with all
    /// counts. Anybody who reaches the port can read them.
    pub metrics: bool,
}

groups! { Config { net: NetLimits, hub: HubLimits, history: HistoryLimits, memory: MemoryLimits, timing: Timing } }

/// The most bytes that room, user, display name, time and number add to a message.
const STAMP_BYTES_MAX: usize = 2048;

/// How many fragments every message may have.
const FRAGMENTS_MAX: u32 = 16 * 1024;

/// Larger messages may have a fragment for so many of their bytes. A fragment costs a peer at least six bytes, and is worked
/// on as a frame of its own, so that more of them take more turns.
const MESSAGE_BYTES_PER_FRAGMENT: usize = 32;

impl NetLimits {
    /// Most fragments of an inbound message; beyond them the connection ends.
    pub(crate) fn fragments_max(&self) -> u32 {
        let proportional = self.message_bytes_max / MESSAGE_BYTES_PER_FRAGMENT;
        u32::try_from(proportional).unwrap_or(u32::MAX).max(FRAGMENTS_MAX)
    }

    /// Bytes of one page of history: a quarter of the write buffer. A page and the replies that were
    /// queued before it stay below half of the buffer.
    pub(crate) fn page_bytes_max(&self) -> usize {
        self.output_bytes_max / 4
    }

    /// What each phase of a turn may do but the sends.
    pub(crate) fn phase(&self) -> WorkLimits {
        WorkLimits { units: self.work_per_phase, time: self.work_time_per_phase }
    }
}

impl Config {
    /// How much memory each kind of thing may take that is held for peers.
    pub fn memory_shares(&self) -> MemoryShares {
        let shares = self.memory.shares();
        MemoryShares {
            history: shares.history.min(self.history.bytes_max),
            logs: shares.logs.min(self.hub.log_bytes_total_max),
            ..shares
        }
    }

    /// What holds for rooms, by their rules.
    pub(crate) fn room_limits(&self) -> RoomLimitsTable {
        RoomLimitsTable::new(&self.room_rules, &self.history, &self.hub)
    }

    /// The declarations of all settings with a number for a value.
    #[doc(hidden)]
    pub fn settings() -> Vec<Setting<Self>> {
        [
            NetLimits::settings(),
            HubLimits::settings(),
            HistoryLimits::settings(),
            MemoryLimits::settings(),
            Timing::settings(),
        ]
        .concat()
    }

    /// Checks every bound, and how the bounds relate to each other.
    ///
    /// # Errors
    /// [`Error::Config`] with the first value that does not fit, and with the allowed ones.
    pub fn check(&self) -> Result<(), Error> {
        ApiKey::check_all(&self.api_keys)?;
        check_all(&Self::settings(), self)?;
        room_rules::check(&self.room_rules)?;
        self.check_relations()
    }

    fn check_relations(&self) -> Result<(), Error> {
        let Self { net, hub, .. } = self;
        if hub.data_bytes_max > net.message_bytes_max {
            let (found, max) = (bytes(hub.data_bytes_max), bytes(net.message_bytes_max));
            return Err(refused("data-bytes", &found, &format!("with message-bytes {max} at most {max} is allowed")));
        }
        if hub.log_bytes_total_max < hub.log_bytes_max {
            let (found, min) = (bytes(hub.log_bytes_total_max), bytes(hub.log_bytes_max));
            let allowed = format!("with log-bytes {min} at least {min} is allowed");
            return Err(refused("log-bytes-total", &found, &allowed));
        }
        // A message grows by the stamp of the server, never by escaping: characters that must be escaped in an answer had
        // to be escaped on the way in. A message that fits inbound must fit into a page of history and into a log, or it
        // could never be delivered.
        let delivered_max = net.page_bytes_max().min(hub.log_bytes_max / 2);
        if net.message_bytes_max + STAMP_BYTES_MAX > delivered_max {
            let allowed = format!(
                "with output-bytes {} and log-bytes {} at most {} is allowed",
                bytes(net.output_bytes_max),
                bytes(hub.log_bytes_max),
                bytes(delivered_max - STAMP_BYTES_MAX)
            );
            return Err(refused("message-bytes", &bytes(net.message_bytes_max), &allowed));
        }
        // Of one room and one connection; the smallest share that these must fit into is of 20 %.
        let needed =
            memory::TOTAL_MIN.max(hub.log_bytes_max.saturating_mul(5)).max(net.output_bytes_max.saturating_mul(10));
        if self.memory.total != 0 && self.memory.total < needed {
            let (log, output) = (bytes(hub.log_bytes_max), bytes(net.output_bytes_max));
            let allowed =
                format!("with log-bytes {log} and output-bytes {output} at least {} is allowed", bytes(needed));
            return Err(refused("memory", &bytes(self.memory.total), &allowed));
        }
        Ok(())
    }
}

fn bytes(amount: usize) -> String {
    Unit::Bytes.write(amount as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(check(1001).is_err_and(|error| error.contains("batch-delay is 1001ms; 0s to 1s are allowed")));
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
        config.net.message_bytes_max = 64 * 1024;
        let error = config.check().unwrap_err().to_string();
        assert!(
            error.contains(
                "message-bytes is 64KiB; with output-bytes 256KiB and log-bytes 1MiB at most 62KiB is allowed"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_total_has_space_for_what_one_room_and_one_connection_may_hold() {
        let mut config = Config::default();
        config.memory.total = 16 << 20;
        config.check().unwrap();
        assert_eq!(config.memory_shares().logs, (16 << 20) / 100 * 25);
        (config.hub.log_bytes_max, config.net.output_bytes_max) = (16 << 20, 32 << 20);
        let error = config.check().unwrap_err().to_string();
        let expected = "memory is 16MiB; with log-bytes 16MiB and output-bytes 32MiB at least 320MiB is allowed";
        assert!(error.contains(expected), "{error}");
        config.memory.total = 4 << 30;
        assert_eq!((config.memory_shares().logs, config.memory_shares().history), (256 << 20, 256 << 20));
    }
}
