//! The broadcast path: frames go from the rooms' logs to the sockets, in slices and rounds.

use smallvec::SmallVec;

use crate::id::{ConnectionId, Slot};
use crate::time::Now;

use super::Hub;
use super::budget::{Budget, STRIDE_SENDS, Stopwatch};
use super::fanout::Sent;
use super::index::{LiveIndex, Place, RoomIndex};
use super::members::LiveMember;
use super::reader::CatchUpStep;
use super::room::Room;
use super::schedule::Queue;

/// The most sends of one room in a row.
const SLICE_SENDS_MAX: u32 = 64;

impl Hub {
    /// All of a connection's own output has been taken by its socket, which takes more.
    pub fn handle_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.clear_queued();
        let waits = connection.rooms().any(|(room, place)| match place {
            Place::CatchingUp(_) => true,
            Place::Live(at) => self.rooms[room].members.live(at).is_some_and(LiveMember::is_blocked),
        });
        if waits {
            self.scheduler.note_drained(id);
        }
    }

    /// Sends what rooms owe, at most `sends_max` times, and no longer than
    /// [`HubLimits::send_time_per_turn`](crate::settings::HubLimits::send_time_per_turn).
    ///
    /// `send` is given a connection's slot and whole frames; it says how many bytes of whole frames the connection has
    /// taken. If it took less than all, [`Hub::handle_drained`] has to tell when it takes more.
    ///
    /// `clock` tells the time while sends take it, after every few.
    pub fn poll_sends(
        &mut self,
        now: Now,
        sends_max: u32,
        clock: &mut impl FnMut() -> Now,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) {
        let mut watch = Stopwatch::new(clock);
        let mut left = Budget { sends: sends_max, time: self.limits.send_time_per_turn };
        let kept_for_rooms = if self.scheduler.has_rooms() { left.half() } else { Budget::default() };
        // Each drained connection is looked at once a call, so that one that drains all the time cannot hold this up.
        for _ in 0..self.scheduler.drained_count() {
            if !left.exceeds(kept_for_rooms) {
                break;
            }
            let Some(id) = self.scheduler.next_drained() else { break };
            let sends = self.serve_drained(now, id, send);
            left.spend(sends, watch.count(sends));
        }
        left = left.at_least(kept_for_rooms);
        let kept_for_rounds = left.half();
        while left.exceeds(Budget::default()) {
            let Some((index, kept)) = self.scheduler.next_room(left, kept_for_rounds) else { break };
            self.begin_slice(now, index);
            self.serve_slice(index, &mut left, kept, &mut watch, send);
            self.end_slice(now, index);
            self.finish_leaving(now, index);
        }
    }

    /// Begins a room's round, unless it is in the middle of one.
    fn begin_slice(&mut self, now: Now, index: RoomIndex) {
        let room = &mut self.rooms[index];
        if room.fanout.begin_round(&room.members) {
            self.scheduler.note_round(now, &mut self.rooms, index);
        }
    }

    /// Serves the next members of a room's round.
    fn serve_slice(
        &mut self,
        index: RoomIndex,
        left: &mut Budget,
        kept: Budget,
        watch: &mut Stopwatch<'_, impl FnMut() -> Now>,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) {
        let (mut slice, mut total) = (SLICE_SENDS_MAX, Sent::default());
        let Room { fanout, members, .. } = &mut self.rooms[index];
        while !total.is_over && slice > 0 && left.exceeds(kept) {
            let sends_max = slice.min(left.sends - kept.sends).min(STRIDE_SENDS);
            let sent = fanout.serve(members, sends_max, send);
            total.add(sent);
            // A stride that found nobody to serve takes time, too.
            let sends = sent.sends.max(1);
            slice -= sends.min(slice);
            left.spend(sends, watch.count(sends));
        }
        self.note_sent(index, total);
    }

    fn note_sent(&mut self, index: RoomIndex, sent: Sent) {
        self.stats.sends += u64::from(sent.sends);
        self.stats.sent_bytes += sent.bytes as u64;
        if sent.has_blocked {
            self.rooms.note_holder(index);
        }
    }

    /// A slice is over: the room's turn comes again if its round is not, or if more has been appended since it began.
    fn end_slice(&mut self, now: Now, index: RoomIndex) {
        let room = &mut self.rooms[index];
        if room.fanout.is_in_round() {
            return self.scheduler.continue_later(index);
        }
        room.schedule.queue = Queue::None;
        let has_more = room.fanout.end_round();
        self.rooms.trim_log(index);
        if has_more {
            self.scheduler.enqueue(now, &mut self.rooms, index);
        }
    }

    /// A connection that had refused bytes takes them again: its rooms go on where they stopped.
    fn serve_drained(&mut self, now: Now, id: ConnectionId, send: &mut impl FnMut(Slot, &[u8]) -> usize) -> u32 {
        let mut sends = 0;
        for index in self.rooms_of(id) {
            // Serving one room may have taken the connection out of it, never out of another.
            match self.connections.place(id.slot, index) {
                // Not here: if it went live, its `joined` would wait in the outbox while this call already sends it
                // what the room's log has.
                Some(Place::CatchingUp(_)) if self.awaits(index, id, CatchUpStep::Output) => {
                    self.scheduler.note_resumed(id);
                }
                Some(Place::Live(at)) if self.rooms[index].members.live(at).is_some_and(LiveMember::is_blocked) => {
                    sends += 1;
                    if !self.serve_blocked(now, index, at, send) {
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
        for _ in 0..self.scheduler.resumed_count() {
            let Some(id) = self.scheduler.next_resumed() else { break };
            for index in self.rooms_of(id) {
                if self.awaits(index, id, CatchUpStep::Output) {
                    self.continue_catch_up(now, index, id);
                }
            }
        }
    }

    /// The rooms of a connection, kept apart because serving one may change its memberships. None if it is gone.
    fn rooms_of(&self, id: ConnectionId) -> SmallVec<[RoomIndex; 8]> {
        let connection = self.connections.get(id).into_iter();
        connection.flat_map(|connection| connection.rooms().map(|(room, _)| room)).collect()
    }

    /// Sends a blocked member what it is owed. Says whether it took all.
    fn serve_blocked(
        &mut self,
        now: Now,
        index: RoomIndex,
        at: LiveIndex,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) -> bool {
        let Room { fanout, members, .. } = &mut self.rooms[index];
        let sent = fanout.serve_blocked(members, at, send);
        self.note_sent(index, sent);
        self.rooms.trim_log(index);
        self.finish_leaving(now, index);
        sent.is_over
    }
}
