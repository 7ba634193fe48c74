//! Fetches a set of keys by HTTP, on a thread that may wait, and decides when to do so.

use std::time::Duration;

use super::config::SOURCE_BYTES_MAX;
use super::jwks;
use super::keys::NamedKey;
use crate::server::http_client;

/// How long an issuer may take to answer.
const FETCH_MAX: Duration = Duration::from_secs(10);

const REDIRECTS_MAX: u32 = 3;

/// The least time between two fetches because of a `kid` that nobody knows: anybody can invent one.
const UNKNOWN_KID_PAUSE: Duration = Duration::from_secs(60);

/// The least time between two fetches while the last one has failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A set that is older is fetched again, so that a key that the issuer has taken out does not count for ever.
const AGE_MAX: Duration = Duration::from_secs(600);

/// Checks the URL of a set of keys.
///
/// # Errors
/// It is none of HTTP or HTTPS.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let parsed = http_client::read_url(url).map_err(|problem| format!("jwks-url: {problem}"))?;
    if http_client::is_plain(&parsed) {
        log::warn!("jwks-url: by http, everybody on the way can put keys of their own in; use https");
    }
    Ok(())
}

/// Fetches the keys.
///
/// # Errors
/// Why there are none, without the URL.
pub(super) fn fetch_keys(url: &str) -> Result<Vec<NamedKey>, String> {
    let settings = http_client::settings()
        .timeout_global(Some(FETCH_MAX))
        // A redirection must not lead to keys that anybody on the way can change.
        .https_only(url.starts_with("https:"))
        .max_redirects(REDIRECTS_MAX);
    let mut response = http_client::agent(settings)
        .get(url)
        .header("Accept", "application/json")
        .call()
        .map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(SOURCE_BYTES_MAX).read_to_vec();
    jwks::read_keys(&body.map_err(|error| error.to_string())?)
}

/// When the keys are fetched. Times are uptimes.
#[derive(Debug)]
pub(super) struct FetchSchedule {
    state: FetchState,
    /// Whether the keys have ever been fetched.
    pub(super) has_keys: bool,
}

#[derive(Debug)]
enum FetchState {
    UnderWay,
    Done { at: Duration, is_good: bool },
}

impl FetchSchedule {
    /// The first fetch begins.
    pub(super) fn begun() -> Self {
        Self { state: FetchState::UnderWay, has_keys: false }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, FetchState::UnderWay)
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self) {
        self.state = FetchState::UnderWay;
    }

    /// A fetch has ended.
    pub(super) fn end(&mut self, now: Duration, is_good: bool) {
        self.state = FetchState::Done { at: now, is_good };
        self.has_keys |= is_good;
    }

    /// Whether a `kid` that nobody knows may cause a fetch.
    pub(super) fn may_begin(&self, now: Duration) -> bool {
        match self.state {
            FetchState::UnderWay => false,
            FetchState::Done { at, is_good } => now >= at + if is_good { UNKNOWN_KID_PAUSE } else { FAILURE_PAUSE },
        }
    }

    /// Whether the keys should be fetched without any such cause.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        match self.state {
            FetchState::UnderWay => false,
            FetchState::Done { at, is_good } => now >= at + if is_good { AGE_MAX } else { FAILURE_PAUSE },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_causes_a_fetch_a_minute_at_most() {
        let at = Duration::from_secs;
        let mut schedule = FetchSchedule::begun();
        assert!(schedule.is_under_way() && !schedule.may_begin(at(1000)) && !schedule.is_due(at(1000)));
        schedule.end(at(1000), false);
        assert_eq!([1000, 1004, 1005].map(|now| schedule.may_begin(at(now))), [false, false, true]);
        assert!(!schedule.has_keys && schedule.is_due(at(1005)));
        schedule.begin();
        assert!(schedule.is_under_way());
        schedule.end(at(1010), true);
        assert_eq!([1010, 1069, 1070].map(|now| schedule.may_begin(at(now))), [false, false, true]);
        assert_eq!([1010, 1609, 1610].map(|now| schedule.is_due(at(now))), [false, false, true]);
        schedule.end(at(1700), false);
        assert!(schedule.has_keys, "the old keys stay");
    }
}
