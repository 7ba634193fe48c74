//! How much of the loop one room may take: when a round is over, the room rests until the round's time is paid back.
//!
//! A send costs much the same whatever it carries, so that what a hot room costs is the number of its rounds. What comes
//! while it rests goes out in the next one, in one send a member: the room takes no more than its share of the loop, and nothing
//! is lost or reordered. The first message after quiet goes out at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::time::Now;

use super::Hub;
use super::room::{Room, Waiting};

/// The least that a room owes before it rests. Poll cannot sleep less (mio rounds up to a millisecond): a shorter rest would
/// cost its room up to that, or the loop its sleep. So small rooms owe a little longer; quiet time pays, too.
const REST_LEAST: Duration = Duration::from_millis(1);

/// The most that a room owes. A round may have taken long for no reason of the room's (the process was stopped, the machine was
/// busy), and nobody in it should wait for ever so long for that; what it owes beyond is forgiven.
const DEBT_MOST: Duration = Duration::from_secs(1);

/// The rooms that have something to send and rest.
#[derive(Debug)]
pub(super) struct Rests {
    share_percent: u32,
    /// When each may go on, and its index.
    due: BinaryHeap<Reverse<(Duration, u32)>>,
}

impl Rests {
    pub(super) fn new(share_percent: u32) -> Self {
        Self { share_percent, due: BinaryHeap::new() }
    }

    /// Whether rooms ever rest; if not, nobody needs to know how long a round takes.
    pub(super) fn are_taken(&self) -> bool {
        self.share_percent < 100
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Forgets a room.
    pub(super) fn remove(&mut self, index: u32) {
        self.due.retain(|Reverse((_, resting))| *resting != index);
    }

    pub(super) fn timeout(&self, now: Now) -> Option<Duration> {
        self.due.peek().map(|Reverse((due, _))| due.saturating_sub(now.uptime))
    }
}

impl Room {
    /// A round that took so much of the loop is over at `now`. All time pays what is owed, but for that which the room itself
    /// takes.
    pub(super) fn owe(&mut self, now: Now, took: Duration, share_percent: u32) {
        let paid_by = Duration::from_micros(self.paid_by_micros) + took;
        let paid_by = now.uptime.max(paid_by) + took * (100 - share_percent) / share_percent;
        self.paid_by_micros = paid_by.min(now.uptime + DEBT_MOST).as_micros() as u64;
    }
}

impl Hub {
    /// Has a room that was given something to send rest, if it owes; says whether it does.
    pub(super) fn rest(&mut self, now: Now, index: u32) -> bool {
        let due = Duration::from_micros(self.rooms[index as usize].paid_by_micros);
        if !self.rests.are_taken() || self.is_draining || due < now.uptime + REST_LEAST {
            return false;
        }
        if self.has_much_waiting(index) {
            self.forgive(index);
            return false;
        }
        self.stats.rests += 1;
        self.rooms[index as usize].waiting = Waiting::Resting;
        self.rests.due.push(Reverse((due, index)));
        true
    }

    /// Rooms that have paid go on.
    pub(super) fn end_rests(&mut self, now: Now) {
        while let Some(Reverse((due, index))) = self.rests.due.peek().copied() {
            if due > now.uptime {
                return;
            }
            self.rests.due.pop();
            self.wake(index);
        }
    }

    /// Ends rests where too much waits: a full log would refuse what is said.
    pub(super) fn limit_rests(&mut self, index: u32) {
        if self.rests.is_empty() {
            return;
        }
        if self.log_bytes > self.limits.log_bytes_total_max / 2 {
            self.cut_rests();
        } else if self.rooms[index as usize].waiting == Waiting::Resting && self.has_much_waiting(index) {
            self.rests.remove(index);
            self.forgive(index);
            self.wake(index);
        }
    }

    /// Ends all rests.
    pub(super) fn cut_rests(&mut self) {
        while let Some(Reverse((_, index))) = self.rests.due.pop() {
            self.forgive(index);
            self.wake(index);
        }
    }

    /// Half of what a log may hold leaves the other half for what comes before the room's turn. So large a send costs by the
    /// byte anyhow, and resting saves nothing.
    ///
    /// Of the room's log only what came since its last round counts: what laggards hold, they give up when it is needed.
    fn has_much_waiting(&self, index: u32) -> bool {
        let room = &self.rooms[index as usize];
        let waiting = room.floor.behind(room.log.tail());
        waiting + room.reserved_bytes > self.limits.log_bytes_max / 2
            || self.log_bytes > self.limits.log_bytes_total_max / 2
    }

    /// A room that does not rest though it should owes nothing: otherwise one that never can would owe ever more, and be silent
    /// for long when it can.
    fn forgive(&mut self, index: u32) {
        self.rooms[index as usize].paid_by_micros = 0;
        self.stats.rests_cut += 1;
    }

    fn wake(&mut self, index: u32) {
        self.rooms[index as usize].waiting = Waiting::Dirty;
        self.dirty.push_back(index);
    }
}
