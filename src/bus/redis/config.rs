//! The settings of the Redis bus.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::id::check_name;

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
    /// How long a publication or a read waits for Redis before it is refused (`unavailable`, temporary): 100 ms to 60 s, with API keys
    /// less than [`Timing::answer_timeout`](crate::config::Timing::answer_timeout).
    pub hold: Duration,
    /// How long a node may be silent before its users count as gone on the others: 3 s to 5 min.
    pub lease: Duration,
    /// A PEM file of certificates to trust with `rediss://` instead of the system's.
    pub ca: Option<PathBuf>,
}

impl RedisConfig {
    /// The Redis at a URL, with the usual settings.
    pub fn new(url: &str) -> Self {
        let (hold, lease) = (Duration::from_secs(10), Duration::from_secs(30));
        Self { url: url.to_owned(), prefix: "roomcast".to_owned(), hold, lease, ca: None }
    }

    /// Checks all bounds, also against other settings.
    pub(crate) fn check(&self, config: &Config) -> Result<(), Error> {
        check_name(&self.prefix).map_err(|error| Error::Config(format!("redis prefix: {error}")))?;
        within("redis hold", self.hold, Duration::from_millis(100)..=Duration::from_secs(60))?;
        within("presence lease", self.lease, Duration::from_secs(3)..=Duration::from_secs(300))?;
        let answer_timeout = config.timing.answer_timeout;
        if !config.api_keys.is_empty() && answer_timeout <= self.hold {
            // A back-end would be told that it failed before the message is given up.
            let words =
                format!("answer timeout is {answer_timeout:?}; more than redis hold, {:?}, is allowed", self.hold);
            return Err(Error::Config(words));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, hold, lease, .. } = self;
        // The URL may contain a password.
        f.debug_struct("RedisConfig")
            .field("prefix", prefix)
            .field("hold", hold)
            .field("lease", lease)
            .finish_non_exhaustive()
    }
}

fn within(what: &str, found: Duration, allowed: RangeInclusive<Duration>) -> Result<(), Error> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(Error::Config(format!("{what} is {found:?}; {least:?} to {most:?} are allowed")))
}
