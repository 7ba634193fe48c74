//! The broadcast path: frames go from the rooms' logs to the sockets, in slices and rounds.

use crate::budget::WorkBudget;
use crate::id::{ConnectionId, Slot};
use crate::time::Now;

use super::Hub;
use super::budget::{Budget, SliceBudget, Stopwatch};
use super::fanout::Sent;
use super::index::Place;
use super::reader::CatchUpStep;
use super::room::Room;

impl Hub {
    /// All of a connection's own output has been taken by its socket, which takes more.
    pub fn handle_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.clear_queued();
        let waits = connection.rooms().any(|(room, place)| match place {
            Place::CatchingUp(_) => true,
            Place::Live(_) => self.rooms[room].members.blocked_at(place).is_some(),
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
    /// `clock` tells the time while sends take it, after every few. Says how many sends it was; memberships that ended count as one
    /// each.
    pub fn poll_sends(
        &mut self,
        now: Now,
        sends_max: u32,
        clock: &mut impl FnMut() -> Now,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) -> u32 {
        let mut total = 0;
        let mut watch = Stopwatch::new(clock);
        let mut left = Budget { sends: sends_max, time: self.settings.hub.send_time_per_turn };
        let kept_for_rooms = if self.scheduler.has_rooms() { left.half() } else { Budget::default() };
        // Each drained connection is looked at once a call, so that one that drains all the time cannot hold this up.
        for _ in 0..self.scheduler.drained_count() {
            if !left.exceeds(kept_for_rooms) {
                break;
            }
            let Some(id) = self.scheduler.next_drained() else { break };
            let sent = self.serve_drained(now, id, send);
            let work = self.take_work();
            total += sent.sends + work;
            // One that is owed nothing takes time, too.
            left.spend(sent.sends + work, watch.count((sent.small_sends() + work).max(1)));
        }
        left = left.at_least(kept_for_rooms);
        let kept_for_rounds = left.half();
        while left.exceeds(Budget::default()) {
            let Some(turn) = self.scheduler.next_turn(left, kept_for_rounds) else { break };
            let index = turn.room;
            self.scheduler.begin_slice(now, &mut self.rooms, index);
            let Room { fanout, members, .. } = &self.rooms[index];
            let places_end = fanout.round_place().min(members.live_count());
            let left_before = left.sends;
            self.rooms.serve_slice(index, &mut SliceBudget::new(&mut left, turn.kept, &mut watch), send);
            let places = self.rooms[index].fanout.round_place()..places_end;
            let sends = left_before - left.sends;
            self.scheduler.end_slice(now, &mut self.rooms, turn, sends);
            self.finish_served_leavers(now, index, places);
            let work = self.take_work();
            left.spend(work, watch.count(work));
            total += sends + work;
        }
        total
    }

    /// A connection that had refused bytes takes them again: its rooms go on where they stopped.
    fn serve_drained(&mut self, now: Now, id: ConnectionId, send: &mut impl FnMut(Slot, &[u8]) -> usize) -> Sent {
        let mut total = Sent::default();
        for index in self.connections.rooms_of(id) {
            // Serving one room may have taken the connection out of it, never out of another.
            let Some(place) = self.connections.place(id.slot, index) else { continue };
            if let Some(at) = self.rooms[index].members.blocked_at(place) {
                let sent = self.rooms.serve_blocked(index, at, send);
                total.add(sent);
                self.finish_leaving(now, index, id.slot);
                if !sent.is_over {
                    // The socket is full again: its other rooms wait, too.
                    break;
                }
            } else if self.rooms[index].members.step(place) == Some(CatchUpStep::Output) {
                // Not here: if it went live, its `joined` would wait in the outbox while this call already sends it
                // what the room's log has.
                self.scheduler.note_resumed(id);
            }
        }
        total
    }

    /// Members that catch up go on, as far as their own output has drained, and as far as the turn's budget goes. Pages come
    /// later, and are counted where they do.
    pub(super) fn resume_catch_ups(&mut self, now: Now, budget: &mut WorkBudget<'_>) {
        for _ in 0..self.scheduler.resumed_count() {
            if !budget.has_left() {
                return;
            }
            let Some(id) = self.scheduler.next_resumed() else { return };
            budget.spend(1);
            for index in self.connections.rooms_of(id) {
                let place = self.connections.place(id.slot, index);
                if place.and_then(|place| self.rooms[index].members.step(place)) != Some(CatchUpStep::Output) {
                    continue;
                }
                if !budget.has_left() {
                    self.scheduler.note_resumed(id);
                    return;
                }
                self.continue_catch_up(now, index, id);
                budget.spend(self.take_work());
            }
        }
    }
}
