//! The settings of the Redis bus.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::id::check_name;
use crate::settings::Config;
use crate::settings::declare::{Setting, check_all, groups, refused, settings};

/// The settings of a [`RedisBus`](super::RedisBus).
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://[[user]:password@]host[:port][/db]`, `rediss://…` for TLS, `unix:///path`. A master behind sentinels:
    /// `redis+sentinel://[[user]:password@]host:port[,host:port…]/master-name[/db][?sentinel_password=…]`, `rediss+sentinel://…`
    /// for TLS with the sentinels and the master. A cluster: `redis+cluster://[[user]:password@]host:port[,host:port…]`,
    /// `rediss+cluster://…`.
    pub url: String,
    /// The beginning of all keys and channels. Servers with different prefixes do not know of
    /// each other.
    pub prefix: String,
    /// How long a node waits for Redis, and for other nodes.
    pub timing: RedisTiming,
    /// A PEM file of certificates to trust with `rediss://` instead of the system's.
    pub ca: Option<PathBuf>,
}

groups! { RedisConfig { timing: RedisTiming } }

impl RedisConfig {
    /// The Redis at a URL, with the usual settings.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), prefix: "roomcast".to_owned(), timing: RedisTiming::default(), ca: None }
    }

    /// The declarations of all settings with a number for a value.
    #[doc(hidden)]
    pub fn settings() -> Vec<Setting<Self>> {
        RedisTiming::settings()
    }

    /// Checks all bounds, also against other settings.
    pub(crate) fn check(&self, config: &Config) -> Result<(), Error> {
        check_name(&self.prefix).map_err(|error| refused("redis-prefix", &self.prefix, &error.to_string()))?;
        check_all(&Self::settings(), self)?;
        let (answer_timeout, hold) = (config.timing.answer_timeout, self.timing.hold);
        if !config.api_keys.is_empty() && answer_timeout <= hold {
            // A back-end would be told that it failed before the message is given up.
            let allowed = format!("with redis-hold {hold:?} more than that is allowed");
            return Err(refused("answer-timeout", &format!("{answer_timeout:?}"), &allowed));
        }
        Ok(())
    }
}

settings! {
    /// How long a node waits for Redis, and for other nodes.
    struct RedisTiming at timing, "Several nodes" {
        /// How long a publication or a read waits for a Redis that does not answer before it is refused (`unavailable`). With
        /// API keys less than `answer-timeout`.
        hold: Duration = Time(Duration::from_secs(10)), Duration::from_millis(100) => Duration::from_secs(60), "redis-hold";
        /// How long a node may be silent, as when it was killed, before its users count as gone on the other nodes.
        lease: Duration = Time(Duration::from_secs(30)), Duration::from_secs(3) => Duration::from_secs(300), "presence-lease";
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, timing, .. } = self;
        // The URL may contain a password.
        f.debug_struct("RedisConfig").field("prefix", prefix).field("timing", timing).finish_non_exhaustive()
    }
}
