//! Loads the restrictions part by part: when the delivery of control messages begins, and whenever their order was lost.
//! Sans-IO.

use std::time::Duration;

use super::commands::{RestrictionsRead, RestrictionsSlice};
use super::connection::RunId;
use crate::bus::message::{BusRefusal, RestrictionsPage};

/// How long until a load that was refused begins anew.
const RETRY: Duration = Duration::from_secs(1);

/// How often what has expired is removed, if nothing else does it.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// How soon it goes on if there is more of it.
const PURGE_AGAIN: Duration = Duration::from_millis(100);

/// The loop contract in one sentence: *send what [`RestrictionLoader::poll`] returns, and hand in each answer.*
///
/// The store may change between two parts. It tells of all that is there from the first part to the last, and control messages tell
/// of the rest. A cursor is good in one run of Redis, so a load that finds another one begins anew.
///
/// **Bound:** one request at a time.
#[derive(Debug)]
pub(crate) struct RestrictionLoader {
    /// When a load is to begin.
    load_at: Option<Duration>,
    reading: Option<Reading>,
    purge_at: Duration,
    is_asking: bool,
}

/// A load whose first part has come.
#[derive(Debug)]
struct Reading {
    run_id: RunId,
    cursor: u64,
}

impl Default for RestrictionLoader {
    fn default() -> Self {
        Self { load_at: None, reading: None, purge_at: PURGE_INTERVAL, is_asking: false }
    }
}

impl RestrictionLoader {
    /// Control messages are delivered from now on, and earlier ones are not. The hub is told now that a load begins: a message that is
    /// delivered before the first answer comes may be newer than that answer. A load that is under way is void.
    pub(crate) fn begin(&mut self) {
        self.load_at = Some(Duration::ZERO);
    }

    /// The next request, if it is time for one.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<RestrictionsRead> {
        if self.is_asking {
            return None;
        }
        let cursor = if self.load_at.is_some_and(|at| at <= now) {
            (self.load_at, self.reading) = (None, None);
            Some(0)
        } else if let Some(reading) = &self.reading {
            Some(reading.cursor)
        } else if self.load_at.is_none() && self.purge_at <= now {
            None
        } else {
            return None;
        };
        self.is_asking = true;
        Some(RestrictionsRead { cursor })
    }

    /// Takes the answer to a request. Returns what the hub is told.
    pub(crate) fn answer(
        &mut self,
        now: Duration,
        read: RestrictionsRead,
        result: Result<RestrictionsSlice, BusRefusal>,
    ) -> Option<RestrictionsPage> {
        self.is_asking = false;
        self.purge_at = now + PURGE_INTERVAL;
        let Ok(RestrictionsSlice { run_id, has_more_expired, cursor, bodies }) = result else {
            self.reading = None;
            if read.cursor.is_some() {
                self.load_at.get_or_insert(now + RETRY);
            }
            return None;
        };
        if has_more_expired {
            self.purge_at = now + PURGE_AGAIN;
        }
        if read.cursor.is_none() || self.load_at.is_some() {
            // Nothing was read, or it is to be read again.
            return None;
        }
        if self.reading.take().is_some_and(|before| before.run_id != run_id) {
            self.load_at = Some(now);
            return None;
        }
        self.reading = (cursor != 0).then_some(Reading { run_id, cursor });
        Some(RestrictionsPage { is_first: false, is_last: cursor == 0, bodies })
    }

    /// How long until [`RestrictionLoader::poll`] has something.
    pub(crate) fn timeout(&self, now: Duration) -> Option<Duration> {
        if self.is_asking {
            return None;
        }
        if self.reading.is_some() && self.load_at.is_none() {
            return Some(Duration::ZERO);
        }
        Some(self.load_at.unwrap_or(self.purge_at).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn slice(run: u32, cursor: u64) -> RestrictionsSlice {
        let bodies = vec![Bytes::from_static(b"{")];
        RestrictionsSlice { run_id: RunId::new(run), has_more_expired: false, cursor, bodies }
    }

    struct Fixture(RestrictionLoader);

    impl Fixture {
        fn new() -> Self {
            let mut loader = RestrictionLoader::default();
            assert_eq!(loader.poll(Duration::ZERO), None, "what is delivered is not known yet");
            loader.begin();
            Self(loader)
        }

        /// The cursor of the request, and whether the page that its answer becomes is the last, if it becomes one.
        fn step(&mut self, slice: RestrictionsSlice) -> (u64, Option<bool>) {
            let read = self.0.poll(NOW).expect("a request");
            assert_eq!((self.0.poll(NOW), self.0.timeout(NOW)), (None, None), "one at a time");
            let page = self.0.answer(NOW, read, Ok(slice));
            (read.cursor.expect("a part"), page.map(|page| page.is_last))
        }
    }

    #[test]
    fn parts_follow_each_other_and_what_has_expired_is_removed_later() {
        let mut loader = Fixture::new();
        assert_eq!(loader.step(slice(1, 5)), (0, Some(false)));
        assert_eq!(loader.0.timeout(NOW), Some(Duration::ZERO));
        assert_eq!(loader.step(slice(1, 6)), (5, Some(false)));
        assert_eq!(loader.step(slice(1, 0)), (6, Some(true)));
        assert_eq!((loader.0.poll(NOW), loader.0.timeout(NOW)), (None, Some(PURGE_INTERVAL)));
        let purge = loader.0.poll(NOW + PURGE_INTERVAL).expect("a request");
        assert_eq!(purge.cursor, None);
        let found = RestrictionsSlice { has_more_expired: true, ..slice(1, 0) };
        assert_eq!(loader.0.answer(NOW, purge, Ok(found)), None);
        assert_eq!(loader.0.timeout(NOW), Some(PURGE_AGAIN));
    }

    #[test]
    fn a_load_that_finds_another_run_begins_anew() {
        let mut loader = Fixture::new();
        loader.step(slice(1, 5));
        assert_eq!(loader.step(slice(2, 0)), (5, None));
        assert_eq!(loader.step(slice(2, 0)), (0, Some(true)));
    }

    #[test]
    fn lost_messages_void_the_part_that_is_under_way_and_a_refusal_is_tried_again() {
        let mut loader = Fixture::new();
        loader.step(slice(1, 5));
        let read = loader.0.poll(NOW).expect("a request");
        loader.0.begin();
        assert_eq!(loader.0.answer(NOW, read, Ok(slice(1, 6))), None);
        let read = loader.0.poll(NOW).expect("a request");
        assert_eq!(read.cursor, Some(0));
        assert_eq!(loader.0.answer(NOW, read, Err(BusRefusal::unavailable("no"))), None);
        assert_eq!((loader.0.poll(NOW), loader.0.timeout(NOW)), (None, Some(RETRY)));
        assert_eq!(loader.0.poll(NOW + RETRY), Some(RestrictionsRead { cursor: Some(0) }));
    }
}
