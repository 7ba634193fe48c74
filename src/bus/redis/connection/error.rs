//! Why a link failed, how the failure is logged, and how long to wait before the next attempt.

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::endpoint::Endpoint;
use crate::unicode::Escaped;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The longest wait is at most this part of the lease, a quarter of the time between heartbeats.
/// Otherwise a healthy node could be silent for long enough to be declared dead.
const BACKOFF_PER_LEASE: u32 = 24;

/// A link that was up for this long resets the backoff.
const STABLE_AFTER: Duration = Duration::from_millis(250);

/// The same message is not logged again within this time.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Why a link failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkError {
    message: String,
    /// How the operator can fix it, if the settings are wrong.
    advice: Option<&'static str>,
}

const LOGIN: &str = "check user, password and database of --redis, and the user's ACL";
const PROTECTED: &str = "give that Redis a password (requirepass), or set its protected-mode to no";

impl LinkError {
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { message: Escaped(message.into()).to_string(), advice: None }
    }

    /// An error that persists until the operator changes something.
    pub(crate) fn refusal(message: String, advice: &'static str) -> Self {
        Self { message, advice: Some(advice) }
    }

    /// An error reply of Redis.
    pub(crate) fn reply(text: &[u8]) -> Self {
        let message = Escaped(String::from_utf8_lossy(text)).to_string();
        // A server that does not know a command repeats its arguments. Those of AUTH must not be
        // logged.
        let message = message.split(", with args").next().unwrap_or_default().to_owned();
        if message.starts_with("DENIED") {
            // The message about protected mode is long; its first sentence is enough.
            let message = message.split(". ").next().unwrap_or_default().to_owned();
            return Self::refusal(message, PROTECTED);
        }
        let is_login = ["NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index"]
            .iter()
            .any(|prefix| message.starts_with(prefix));
        Self { message, advice: is_login.then_some(LOGIN) }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        Self::lost(error.to_string())
    }
}

/// How long a link waits before it connects again. Full jitter keeps nodes that lost the same
/// Redis from reconnecting in step.
pub(crate) struct Backoff {
    max: Duration,
    /// Failures in a row.
    count: u32,
    random: Rng,
}

impl Backoff {
    /// `lease` is how long a node may be silent before the others take it for dead.
    pub(crate) fn new(lease: Duration, random: Rng) -> Self {
        Self { max: (lease / BACKOFF_PER_LEASE).min(BACKOFF_MAX), count: 0, random }
    }

    /// One for another link.
    pub(super) fn fork(&mut self) -> Self {
        Self { max: self.max, count: 0, random: self.random.fork() }
    }

    fn next(&mut self) -> Duration {
        let wait_max = (BACKOFF_MIN * (1 << self.count.min(10))).min(self.max);
        self.count += 1;
        wait_max.mul_f64(self.random.f64())
    }
}

/// The failures of one link. They are logged, each message once a minute at most, and decide how
/// long the link waits.
pub(super) struct Failures {
    last: Option<(LinkError, Instant)>,
    backoff: Backoff,
}

impl Failures {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { last: None, backoff }
    }

    /// The link is up: the same message would be news.
    pub(crate) fn forget_message(&mut self) {
        self.last = None;
    }

    /// An attempt has failed, or a link that was up for some time. Returns how long to wait before
    /// the next attempt.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        (endpoint, purpose): (&dyn Endpoint, &str),
        error: LinkError,
        was_up_for: Option<Duration>,
    ) -> Duration {
        if self.last.as_ref().is_none_or(|(last, at)| *last != error || now >= *at + LOG_AGAIN_AFTER) {
            let message = &error.message;
            if let Some(advice) = error.advice {
                log::error!("redis at {endpoint} cannot be used for {purpose}: {message}; {advice}");
            } else if was_up_for.is_some() {
                log::warn!("redis at {endpoint}: the link for {purpose} is lost: {message}; connecting again");
            } else {
                log::warn!("redis at {endpoint}: no link for {purpose}: {message}; trying again");
            }
            self.last = Some((error, now));
        }
        if was_up_for.is_some_and(|was_up_for| was_up_for >= STABLE_AFTER) {
            self.backoff.count = 0;
        }
        self.backoff.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_mend_the_settings_is_told_which() {
        let denied = LinkError::reply(
            b"DENIED Redis is running in protected mode because no password is set. In this mode connections are only \
              accepted from the loopback interface. If you want to connect from external computers, read on.",
        );
        assert_eq!(denied.to_string(), "DENIED Redis is running in protected mode because no password is set");
        assert_eq!(denied.advice, Some(PROTECTED));
        let wrong = LinkError::reply(b"WRONGPASS invalid username-password pair or user is disabled.");
        assert_eq!(wrong.advice, Some(LOGIN));
        assert_eq!(LinkError::reply(b"LOADING Redis is loading the dataset in memory").advice, None);
    }

    #[test]
    fn the_first_attempts_come_soon_and_the_longest_wait_is_a_small_part_of_the_lease() {
        for (lease, max_ms) in [(3, 125), (12, 500), (300, 1000)] {
            let mut backoff = Backoff::new(Duration::from_secs(lease), Rng::with_seed(7));
            for expected_ms in [50, 100, 200, 400, 800, 1600, 3200] {
                let waits: Vec<_> =
                    (0..100).map(|_| Backoff { count: backoff.count, ..backoff.fork() }.next()).collect();
                let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
                let wait_max = Duration::from_millis(max_ms.min(expected_ms));
                assert!(*most <= wait_max && *most > wait_max * 9 / 10, "{most:?} of {wait_max:?}");
                assert!(*least < wait_max / 10, "{least:?}");
                backoff.next();
            }
        }
    }
}
