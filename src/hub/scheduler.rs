//! Whose turn it is: rooms with something to send, rooms in the middle of a round, rooms whose batch delay is not over, and
//! connections whose sockets take bytes again.
//!
//! A room has its turn as one of the rooms of an owner: of the owner of its oldest message that is not sent. A round serves
//! the members with everything that the log holds when it begins, so it is that owner's until it ends. What is appended
//! meanwhile is for the next round, which belongs to the owner of the first such message.
//!
//! A send costs much the same whatever it carries, so the cost of a busy room is the number of its rounds. With a *batch
//! delay* a room begins at most one round in that time. Messages that arrive before it is over go out together in the next
//! round, in one send a member; the first message after a quiet time goes out at once. Cursors, floor and blocked members
//! stand as after any round, so no reader needs to know.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::fair_queue::FairQueue;
use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::steps;
use crate::time::Now;

use super::budget::Budget;
use super::index::{RoomIndex, RoomRef};
use super::room::Room;
use super::rooms::Rooms;
use super::schedule::{Deadline, Queue, Schedule};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scheduler {
    /// Rooms with something to send, each once.
    dirty: FairQueue<RoomIndex>,
    /// Rooms in the middle of a round, likewise.
    rounds: FairQueue<RoomIndex>,
    batch_delay: Duration,
    /// Rooms with something to send whose batch delay is not over, and when it is. A room whose delay has ended otherwise, or
    /// that has ended itself, stays here until then: to search for it would take as long as the list is.
    delays: BinaryHeap<Reverse<Delay>>,
    /// How many rooms are delayed.
    delayed: usize,
    /// Connections whose sockets take bytes again.
    drained: VecDeque<ConnectionId>,
    /// Those of them that catch up somewhere, for the next turn.
    resumed: VecDeque<ConnectionId>,
    /// Rounds that waited for the batch delay, and those of them that began before it was over.
    pub(super) rounds_delayed: u64,
    pub(super) rounds_hastened: u64,
}

/// When the batch delay of a room is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delay {
    due: Deadline,
    index: RoomIndex,
    generation: u32,
}

/// A room that has its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) room: RoomIndex,
    /// What it has to leave of what the call may send.
    pub(super) kept: Budget,
    /// What its sends are charged to.
    owner: Owner,
    /// Whether it was in the middle of a round.
    was_in_round: bool,
}

impl Scheduler {
    pub(super) fn new(batch_delay: Duration) -> Self {
        Self {
            dirty: FairQueue::default(),
            rounds: FairQueue::default(),
            batch_delay,
            delays: BinaryHeap::new(),
            delayed: 0,
            drained: VecDeque::new(),
            resumed: VecDeque::new(),
            rounds_delayed: 0,
            rounds_hastened: 0,
        }
    }

    /// Whether a room may be sent something in this turn.
    pub(super) fn has_rooms(&self) -> bool {
        !(self.dirty.is_empty() && self.rounds.is_empty())
    }

    /// Whether there is something to do right now.
    pub(super) fn has_work(&self) -> bool {
        self.has_rooms() || !self.drained.is_empty() || !self.resumed.is_empty()
    }

    /// Whether no room has something to send.
    pub(super) fn is_level(&self) -> bool {
        !self.has_rooms() && self.delayed == 0
    }

    /// How long until a batch delay is over.
    pub(super) fn timeout(&self, now: Now) -> Option<Duration> {
        self.delays.peek().map(|Reverse(delay)| delay.due.wait(now))
    }

    /// A room has something to send, which an owner has caused: it gets its turn, once its batch delay is over.
    pub(super) fn enqueue(&mut self, now: Now, rooms: &mut Rooms, (index, owner): (RoomIndex, Owner)) {
        let schedule = &mut rooms[index].schedule;
        schedule.unsent_owner.get_or_insert(owner);
        if schedule.queue != Queue::None {
            return;
        }
        let due = schedule.next_round_at.filter(|due| !self.batch_delay.is_zero() && !due.is_over(now));
        let Some(due) = due else { return self.give_turn(rooms, index) };
        self.rounds_delayed += 1;
        if rooms.has_much_waiting(index) {
            return self.hasten(rooms, index);
        }
        rooms[index].schedule.queue = Queue::Delayed;
        self.delayed += 1;
        self.delays.push(Reverse(Delay { due, index, generation: rooms[index].generation }));
    }

    fn give_turn(&mut self, rooms: &mut Rooms, index: RoomIndex) {
        let schedule = &mut rooms[index].schedule;
        let place = self.dirty.push(schedule.unsent_owner.unwrap_or(Owner::OTHERS), index);
        schedule.queue = Queue::Turn(place);
    }

    fn hasten(&mut self, rooms: &mut Rooms, index: RoomIndex) {
        self.rounds_hastened += 1;
        self.give_turn(rooms, index);
    }

    /// A room has its turn: its round begins, unless it is in the middle of one.
    pub(super) fn begin_slice(&self, now: Now, rooms: &mut Rooms, index: RoomIndex) {
        let Room { fanout, members, schedule, .. } = &mut rooms[index];
        schedule.queue = Queue::None;
        if !fanout.begin_round(members) {
            return;
        }
        schedule.unsent_owner = None;
        if !self.batch_delay.is_zero() {
            schedule.next_round_at = Some(Deadline::after(now, self.batch_delay));
        }
    }

    /// A slice with so many sends is over: the room's turn comes again if its round is not, or if more has been appended since
    /// it began.
    pub(super) fn end_slice(&mut self, now: Now, rooms: &mut Rooms, turn: Turn, sends: u32) {
        let queue = if turn.was_in_round { &mut self.rounds } else { &mut self.dirty };
        queue.charge(sends);
        let (index, owner) = (turn.room, turn.owner);
        let Room { fanout, schedule, .. } = &mut rooms[index];
        if fanout.is_in_round() {
            schedule.queue = Queue::Round(self.rounds.push(owner, index));
            return;
        }
        let next_owner = schedule.unsent_owner.take();
        let has_more = fanout.end_round();
        rooms.trim_log(index);
        if has_more {
            self.enqueue(now, rooms, (index, next_owner.unwrap_or(owner)));
        }
    }

    /// Rooms whose batch delay is over get their turn.
    pub(super) fn end_due_delays(&mut self, now: Now, rooms: &mut Rooms) {
        while let Some(Reverse(delay)) = self.delays.peek().copied() {
            if !delay.due.is_over(now) {
                return;
            }
            self.delays.pop();
            if self.stop_waiting(rooms, delay) {
                self.give_turn(rooms, delay.index);
            }
        }
    }

    /// A delay is taken from the list. Says whether its room has waited for that until now.
    fn stop_waiting(&mut self, rooms: &Rooms, Delay { due, index, generation }: Delay) -> bool {
        steps::note(1);
        let Some(index) = rooms.find(RoomRef { index, generation }) else { return false };
        let Schedule { queue, next_round_at, .. } = rooms[index].schedule;
        let has_waited = queue == Queue::Delayed && next_round_at == Some(due);
        self.delayed -= usize::from(has_waited);
        has_waited
    }

    /// A room's log has grown: delays end where too much waits, because a full log would refuse messages.
    pub(super) fn limit_delays(&mut self, rooms: &mut Rooms, index: RoomIndex) {
        if self.delayed == 0 {
            return;
        }
        if rooms.are_half_full() {
            self.end_delays(rooms);
        } else if rooms[index].schedule.queue == Queue::Delayed && rooms.has_much_waiting(index) {
            self.delayed -= 1;
            self.hasten(rooms, index);
        }
    }

    fn end_delays(&mut self, rooms: &mut Rooms) {
        while let Some(Reverse(delay)) = self.delays.pop() {
            if self.stop_waiting(rooms, delay) {
                self.hasten(rooms, delay.index);
            }
        }
    }

    /// From now on no round is delayed.
    pub(super) fn start_draining(&mut self, rooms: &mut Rooms) {
        self.batch_delay = Duration::ZERO;
        self.end_delays(rooms);
    }

    /// A room is gone, which was in `queue`.
    pub(super) fn forget(&mut self, queue: Queue) {
        match queue {
            Queue::None => {}
            Queue::Turn(place) => drop(self.dirty.remove(place)),
            Queue::Round(place) => drop(self.rounds.remove(place)),
            Queue::Delayed => self.delayed -= 1,
        }
    }

    /// The room whose turn it is, where so much is `left` in this call.
    ///
    /// Rooms that have just been given something come before those in the middle of a round, so that small rooms need not
    /// wait for a slice of a giant one. The latter keep `kept` for themselves, so that they get on, too.
    pub(super) fn next_turn(&mut self, left: Budget, kept: Budget) -> Option<Turn> {
        let kept = if self.rounds.is_empty() { Budget::default() } else { kept };
        if left.exceeds(kept)
            && let Some((room, owner)) = self.dirty.pop()
        {
            return Some(Turn { room, kept, owner, was_in_round: false });
        }
        let (room, owner) = self.rounds.pop()?;
        Some(Turn { room, kept: Budget::default(), owner, was_in_round: true })
    }

    /// A connection's socket takes bytes again, or may.
    pub(super) fn note_drained(&mut self, id: ConnectionId) {
        self.drained.push_back(id);
    }

    pub(super) fn drained_count(&self) -> usize {
        self.drained.len()
    }

    pub(super) fn next_drained(&mut self) -> Option<ConnectionId> {
        self.drained.pop_front()
    }

    /// A connection goes on catching up in the next turn.
    pub(super) fn note_resumed(&mut self, id: ConnectionId) {
        if self.resumed.back() != Some(&id) {
            self.resumed.push_back(id);
        }
    }

    pub(super) fn resumed_count(&self) -> usize {
        self.resumed.len()
    }

    pub(super) fn next_resumed(&mut self) -> Option<ConnectionId> {
        self.resumed.pop_front()
    }
}
