//! Why a link is given up, how that is said (once, not with every attempt), and when the next attempt is.

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::resolver::Place;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A link that stood for so long was not a failure.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// How often the same reason is logged again.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Why a link is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    words: String,
    /// What somebody has to mend, if it is the settings.
    advice: Option<&'static str>,
}

const LOGIN: &str = "check user, password and database of --redis, and the user's ACL";
const PROTECTED: &str = "give that Redis a password (requirepass), or set its protected-mode to no";

impl Fault {
    pub(super) fn lost(words: impl Into<String>) -> Self {
        Self { words: words.into(), advice: None }
    }

    /// What no further attempt mends.
    pub(super) fn refusal(words: String, advice: &'static str) -> Self {
        Self { words, advice: Some(advice) }
    }

    /// From an error reply.
    pub(super) fn reply(text: &[u8]) -> Self {
        let words = String::from_utf8_lossy(text);
        // A server that does not know a command repeats its arguments, and those of AUTH are not for the log.
        let words = words.split(", with args").next().unwrap_or_default().to_owned();
        if words.starts_with("DENIED") {
            // Protected mode explains itself at length; the first sentence says it.
            let words = words.split(". ").next().unwrap_or_default().to_owned();
            return Self::refusal(words, PROTECTED);
        }
        let is_login = ["NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index"]
            .iter()
            .any(|prefix| words.starts_with(prefix));
        Self { words, advice: is_login.then_some(LOGIN) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::lost(error.to_string())
    }
}

/// What was lost by a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Standing,
    Attempt,
}

/// What was said already.
#[derive(Default)]
pub(super) struct Complaints {
    last: Option<(Fault, Instant)>,
}

impl Complaints {
    pub(super) fn tell(&mut self, now: Instant, (place, purpose): (&dyn Place, &str), fault: Fault, loss: Loss) {
        let is_known = self.last.as_ref().is_some_and(|(known, at)| *known == fault && now < *at + LOG_AGAIN_AFTER);
        if is_known {
            return;
        }
        let words = &fault.words;
        if let Some(advice) = fault.advice {
            log::error!("redis at {place} cannot be used for {purpose}: {words}; {advice}");
        } else if loss == Loss::Standing {
            log::warn!("redis at {place}: the link for {purpose} is lost: {words}; connecting again");
        } else {
            log::warn!("redis at {place}: no link for {purpose}: {words}; trying again");
        }
        self.last = Some((fault, now));
    }
}

/// How long to wait before the next attempt, with full jitter: nodes that lost the same Redis do not come back in step.
pub(super) struct Backoff {
    failures: u32,
    random: Rng,
}

impl Backoff {
    pub(super) fn new(random: Rng) -> Self {
        Self { failures: 0, random }
    }

    /// After an attempt that failed, or a link that stood for so long.
    pub(super) fn next(&mut self, stood: Option<Duration>) -> Duration {
        if stood.is_some_and(|stood| stood >= STABLE_AFTER) {
            self.failures = 0;
        }
        let most = (BACKOFF_MIN * (1 << self.failures.min(10))).min(BACKOFF_MAX);
        self.failures += 1;
        most.mul_f64(self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_mend_the_settings_is_told_which() {
        let denied = Fault::reply(
            b"DENIED Redis is running in protected mode because no password is set. In this mode connections are only \
              accepted from the loopback interface. If you want to connect from external computers, read on.",
        );
        assert_eq!(denied.to_string(), "DENIED Redis is running in protected mode because no password is set");
        assert_eq!(denied.advice, Some(PROTECTED));
        let wrong = Fault::reply(b"WRONGPASS invalid username-password pair or user is disabled.");
        assert_eq!(wrong.advice, Some(LOGIN));
        assert_eq!(Fault::reply(b"LOADING Redis is loading the dataset in memory").advice, None);
    }
}
