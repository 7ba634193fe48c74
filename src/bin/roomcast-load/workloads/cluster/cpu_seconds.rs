//! Who used how much CPU time during a step of the cluster workload.

use super::nodes::Cluster;
use crate::machine::{MAIN_THREAD, ThreadTimes};
use crate::record::Record;
use crate::target::Running;

/// The threads of Roomcast's Redis bus.
const COMMAND_THREAD: &str = "redis-commands";
const SUBSCRIBER_THREAD: &str = "redis-subscribe";

/// CPU seconds that the threads of a node, this process and Redis have used: up to a moment, or between two.
#[derive(Clone, Copy)]
pub(super) struct CpuSeconds {
    /// On the clock.
    pub(super) seconds: f64,
    main: f64,
    commander: f64,
    listener: f64,
    load: f64,
    pub(super) redis: f64,
}

impl CpuSeconds {
    pub(super) const ZERO: Self =
        Self { seconds: 0.0, main: 0.0, commander: 0.0, listener: 0.0, load: 0.0, redis: 0.0 };

    pub(super) fn until_now(cluster: &Cluster<'_, '_>, node: &Running) -> Self {
        // A record leaves NaN out.
        let seconds_of = |times: &ThreadTimes, name| times.seconds_of(name).unwrap_or(f64::NAN);
        let node = node.pid.map(ThreadTimes::of).unwrap_or_default();
        Self {
            seconds: cluster.began.elapsed().as_secs_f64(),
            main: seconds_of(&node, MAIN_THREAD),
            commander: seconds_of(&node, COMMAND_THREAD),
            listener: seconds_of(&node, SUBSCRIBER_THREAD),
            load: seconds_of(&ThreadTimes::of(std::process::id()), MAIN_THREAD),
            redis: seconds_of(&ThreadTimes::of(cluster.redis.pid()), MAIN_THREAD),
        }
    }

    fn combine(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            seconds: with(self.seconds, other.seconds),
            main: with(self.main, other.main),
            commander: with(self.commander, other.commander),
            listener: with(self.listener, other.listener),
            load: with(self.load, other.load),
            redis: with(self.redis, other.redis),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        self.combine(earlier, |now, then| now - then)
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.combine(other, |one, two| one + two)
    }

    /// Records how busy each was, as a part of a core.
    pub(super) fn set_busy(&self, record: &mut Record) {
        let Self { seconds, main, commander, listener, load, redis } = *self;
        for (name, used) in
            [("loop", main), ("commander", commander), ("listener", listener), ("load", load), ("redis", redis)]
        {
            record.set(&format!("{name}_busy"), used / seconds);
        }
    }

    pub(super) fn set_per_message(&self, record: &mut Record, messages: f64) {
        let threads = [("loop", self.main), ("commander", self.commander), ("listener", self.listener)];
        for (name, used) in threads.into_iter().chain([("redis", self.redis)]) {
            record.set(&format!("{name}_us_per_message"), used * 1e6 / messages);
        }
    }
}
