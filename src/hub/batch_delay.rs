//! How rooms trade latency for fewer sends: a room begins at most one round in a batch delay.
//!
//! A send costs much the same whatever it carries, so the cost of a busy room is the number of its rounds. Messages that
//! arrive before the delay is over go out together in the next round, in one send a member. The first message after a
//! quiet time goes out at once. Cursors, floor and blocked members stand as after any round, so no reader needs to know.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::time::Now;

use super::Hub;
use super::room::Waiting;

/// A moment of [`Now::uptime`] in microseconds; the option of one takes eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(NonZeroU64);

impl Deadline {
    fn after(now: Now, delay: Duration) -> Self {
        let micros = (now.uptime + delay).as_micros() as u64;
        Self(NonZeroU64::new(micros).unwrap_or(NonZeroU64::MIN))
    }

    /// How long until then.
    fn wait(self, now: Now) -> Duration {
        Duration::from_micros(self.0.get()).saturating_sub(now.uptime)
    }

    fn is_over(self, now: Now) -> bool {
        self.wait(now).is_zero()
    }
}

/// The rooms that have something to send and whose batch delay is not over.
#[derive(Debug)]
pub(super) struct BatchDelays {
    delay: Duration,
    /// When each may go on, and its index.
    due: BinaryHeap<Reverse<(Deadline, u32)>>,
}

impl BatchDelays {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, due: BinaryHeap::new() }
    }

    /// When the next round may begin of a room whose round begins now.
    pub(super) fn after_round(&self, now: Now) -> Option<Deadline> {
        (!self.delay.is_zero()).then(|| Deadline::after(now, self.delay))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Forgets a room.
    pub(super) fn remove(&mut self, index: u32) {
        self.due.retain(|Reverse((_, delayed))| *delayed != index);
    }

    pub(super) fn timeout(&self, now: Now) -> Option<Duration> {
        self.due.peek().map(|Reverse((due, _))| due.wait(now))
    }
}

impl Hub {
    /// Delays the round of a room that has something to send, if its last one began too recently. Says whether it does.
    pub(super) fn delay_round(&mut self, now: Now, index: u32) -> bool {
        let due = self.rooms[index as usize].next_round_at.filter(|due| !due.is_over(now));
        let Some(due) = due.filter(|_| !self.is_draining) else { return false };
        self.stats.rounds_delayed += 1;
        if self.has_much_waiting(index) {
            self.stats.rounds_hastened += 1;
            return false;
        }
        self.rooms[index as usize].waiting = Waiting::Delayed;
        self.delays.due.push(Reverse((due, index)));
        true
    }

    /// Rooms whose delay is over go on.
    pub(super) fn end_batch_delays(&mut self, now: Now) {
        while let Some(Reverse((due, index))) = self.delays.due.peek().copied() {
            if !due.is_over(now) {
                return;
            }
            self.delays.due.pop();
            self.end_batch_delay(index);
        }
    }

    /// Ends delays where too much waits: a full log would refuse messages.
    pub(super) fn limit_batch_delays(&mut self, index: u32) {
        if self.delays.is_empty() {
            return;
        }
        if self.log_bytes > self.limits.log_bytes_total_max / 2 {
            self.end_all_batch_delays();
        } else if self.rooms[index as usize].waiting == Waiting::Delayed && self.has_much_waiting(index) {
            self.delays.remove(index);
            self.stats.rounds_hastened += 1;
            self.end_batch_delay(index);
        }
    }

    /// Ends all delays, due or not.
    pub(super) fn end_all_batch_delays(&mut self) {
        while let Some(Reverse((_, index))) = self.delays.due.pop() {
            self.stats.rounds_hastened += 1;
            self.end_batch_delay(index);
        }
    }

    /// Whether a log is half full. The other half is left for messages that arrive before the room's turn comes.
    ///
    /// Of the room's log only the bytes since its last round count: blocked members give up the older ones when the
    /// space is needed.
    fn has_much_waiting(&self, index: u32) -> bool {
        let room = &self.rooms[index as usize];
        let waiting = room.floor.behind(room.log.tail());
        waiting + room.reserved_bytes > self.limits.log_bytes_max / 2
            || self.log_bytes > self.limits.log_bytes_total_max / 2
    }

    fn end_batch_delay(&mut self, index: u32) {
        self.rooms[index as usize].waiting = Waiting::Dirty;
        self.dirty.push_back(index);
    }
}
