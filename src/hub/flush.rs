//! The broadcast path: what rooms owe their members goes from the log to the sockets, in slices and rounds.

use smallvec::SmallVec;

use crate::id::{ConnectionId, Slot};
use crate::time::Now;

use super::Hub;
use super::budget::{Budget, STRIDE_SENDS, Stopwatch};
use super::connection::Place;
use super::room::{CatchUpStep, Round, Waiting};

/// The most sends of one room in a row.
const SLICE_SENDS_MAX: u32 = 64;

impl Hub {
    /// All of a connection's own output has been taken by its socket, which takes more.
    pub fn handle_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.clear_queued();
        let waits = connection.rooms().any(|(room, place)| match place {
            Place::CatchingUp(_) => true,
            Place::Live(place) => self.rooms[room as usize].live[place as usize].lags(),
        });
        if waits {
            self.drained.push_back(id);
        }
    }

    /// Sends what rooms owe, at most `sends_max` times, and no longer than
    /// [`Limits::send_time_per_turn`](crate::config::Limits::send_time_per_turn).
    ///
    /// `send` is given a connection's slot and whole frames; it says how many bytes of whole frames the connection has
    /// taken. If it took less than all, [`Hub::handle_drained`] has to tell when it takes more.
    ///
    /// `clock` tells the time while sends take it, after every few.
    pub fn flush_rooms(
        &mut self,
        now: Now,
        sends_max: u32,
        clock: &mut impl FnMut() -> Now,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) {
        let mut watch = Stopwatch::new(clock);
        let mut left = Budget { sends: sends_max, time: self.limits.send_time_per_turn };
        let rooms_wait = !(self.dirty.is_empty() && self.rounds.is_empty());
        let kept_for_rooms = if rooms_wait { left.half() } else { Budget::default() };
        // Each drained connection is looked at once a call, so that one that drains all the time cannot hold this up.
        for _ in 0..self.drained.len() {
            if !left.exceeds(kept_for_rooms) {
                break;
            }
            let Some(id) = self.drained.pop_front() else { break };
            let sends = self.serve_drained(now, id, send);
            left.spend(sends, watch.count(sends));
        }
        left = left.at_least(kept_for_rooms);
        let kept_for_rounds = left.half();
        while left.exceeds(Budget::default()) {
            let Some((index, kept)) = self.next_room(left, kept_for_rounds) else { break };
            self.begin_round(now, index);
            self.serve_slice(index, &mut left, kept, &mut watch, send);
            self.end_slice(now, index);
            self.finish_leaving(now, index);
        }
    }

    /// Whose turn it is, and what it has to leave of what is `left` in this call.
    ///
    /// Rooms that have just been given something come before those in the middle of a round, so that small rooms need not wait
    /// for a slice of a giant one. The latter keep `kept` for themselves, so that they get on, too.
    fn next_room(&mut self, left: Budget, kept: Budget) -> Option<(u32, Budget)> {
        let kept = if self.rounds.is_empty() { Budget::default() } else { kept };
        if left.exceeds(kept)
            && let Some(index) = self.dirty.pop_front()
        {
            return Some((index, kept));
        }
        Some((self.rounds.pop_front()?, Budget::default()))
    }

    /// Begins a room's round, unless it is in the middle of one.
    fn begin_round(&mut self, now: Now, index: u32) {
        let next_round_at = self.delays.after_round(now);
        let room = &mut self.rooms[index as usize];
        if room.round.is_none() {
            room.round = Some(Round { next: room.live.len() as u32, end: room.log.tail() });
            room.next_round_at = next_round_at;
        }
    }

    /// Serves the next members of a room's round.
    fn serve_slice(
        &mut self,
        index: u32,
        left: &mut Budget,
        kept: Budget,
        watch: &mut Stopwatch<'_, impl FnMut() -> Now>,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) {
        let (mut slice, mut is_over) = (SLICE_SENDS_MAX, false);
        while !is_over && slice > 0 && left.exceeds(kept) {
            let sends_max = slice.min(left.sends - kept.sends).min(STRIDE_SENDS);
            let sends;
            (sends, is_over) = self.serve_stride(index, sends_max, send);
            slice -= sends.min(slice);
            left.spend(sends, watch.count(sends));
        }
    }

    /// Serves the next few members of a room's round; says how many sends that took, at least one, and whether all are served.
    fn serve_stride(&mut self, index: u32, sends_max: u32, send: &mut impl FnMut(Slot, &[u8]) -> usize) -> (u32, bool) {
        let room = &mut self.rooms[index as usize];
        let tail = room.log.tail();
        let Some(round) = &mut room.round else { return (1, true) };
        let mut sends = 0;
        while round.next > 0 && sends < sends_max {
            round.next -= 1;
            let member = &mut room.live[round.next as usize];
            if member.lags() || member.cursor == tail {
                continue;
            }
            let owed = room.log.read(member.cursor);
            let taken = send(member.slot(), owed);
            sends += 1;
            self.stats.sent_bytes += taken as u64;
            if taken == owed.len() {
                member.cursor = tail;
            } else {
                member.cursor = member.cursor.forward(taken);
                member.start_lagging();
                room.laggards.push(member.slot());
            }
        }
        self.stats.sends += u64::from(sends);
        (sends.max(1), round.next == 0)
    }

    /// A slice is over: the room's turn comes again if its round is not, or if more has been appended since it began.
    fn end_slice(&mut self, now: Now, index: u32) {
        let room = &mut self.rooms[index as usize];
        if room.round.is_some_and(|round| round.next > 0) {
            self.rounds.push_back(index);
            return;
        }
        room.waiting = Waiting::Nowhere;
        let Some(round) = room.round.take() else { return };
        room.floor = round.end;
        let is_level = room.log.tail() == round.end;
        self.settle(index);
        if !is_level {
            self.enqueue(now, index);
        }
    }

    /// A connection that had refused bytes takes them again: its rooms go on where they stopped.
    fn serve_drained(&mut self, now: Now, id: ConnectionId, send: &mut impl FnMut(Slot, &[u8]) -> usize) -> u32 {
        let mut sends = 0;
        for index in self.rooms_of(id) {
            // Serving one room may have taken the connection out of it, never out of another.
            match self.connections.member(id.slot).place_in(index) {
                Some(Place::CatchingUp(place))
                    if self.rooms[index as usize].catching_up[place as usize].step == CatchUpStep::Output
                    // Not here: if it went live, its `joined` would wait in the outbox while this call already sends it
                    // what the room's log has.
                    && self.resumed.back() != Some(&id) =>
                {
                    self.resumed.push_back(id);
                }
                Some(Place::Live(place)) if self.rooms[index as usize].live[place as usize].lags() => {
                    sends += 1;
                    if !self.serve_laggard(now, index, place, send) {
                        // The socket is full again: its other rooms wait, too.
                        break;
                    }
                }
                _ => {}
            }
        }
        sends
    }

    /// Members that catch up go on, as far as their own output has drained.
    pub(super) fn resume_catch_ups(&mut self, now: Now) {
        for _ in 0..self.resumed.len() {
            let Some(id) = self.resumed.pop_front() else { break };
            for index in self.rooms_of(id) {
                if let Some(Place::CatchingUp(place)) = self.connections.member(id.slot).place_in(index)
                    && self.rooms[index as usize].catching_up[place as usize].step == CatchUpStep::Output
                {
                    self.continue_catch_up(now, index, id.slot);
                }
            }
        }
    }

    /// The rooms of a connection, kept apart because serving one may change its memberships. None if it is gone.
    fn rooms_of(&self, id: ConnectionId) -> SmallVec<[u32; 8]> {
        let connection = self.connections.get(id).into_iter();
        connection.flat_map(|connection| connection.rooms().map(|(room, _)| room)).collect()
    }

    /// Sends a laggard what it is owed; says whether it took all.
    fn serve_laggard(&mut self, now: Now, index: u32, place: u32, send: &mut impl FnMut(Slot, &[u8]) -> usize) -> bool {
        let room = &mut self.rooms[index as usize];
        let member = &mut room.live[place as usize];
        let owed = room.log.read(member.cursor);
        let owed_bytes = owed.len();
        let taken = send(member.slot(), owed);
        self.stats.sends += 1;
        self.stats.sent_bytes += taken as u64;
        member.cursor = member.cursor.forward(taken);
        let is_level = taken == owed_bytes;
        if is_level {
            room.stop_lagging(place);
        }
        self.settle(index);
        self.finish_leaving(now, index);
        is_level
    }
}
