//! One turn: its steps, in their order.

use super::remote::Command;
use super::turn_watch::TurnPhase;
use super::{Server, clock};
use crate::budget::{WorkBudget, WorkLimits, units};
use crate::bus::message::BusEvent;
use crate::hub::Output;
use crate::protocol::CloseReason;
use crate::time::Now;

/// Events that a request comes back as, at most.
const EVENTS_A_REQUEST: u32 = 2;

/// Events that are heard before the first turn, at most.
const FIRST_EVENTS: usize = 16;

/// Decisions of the authenticator in a turn: each may verify a signature, which takes some 50 µs.
const DECISIONS_PER_TURN: usize = 32;

impl Server {
    /// Does a turn's work: inbox, reads, deadlines, bus, write buffers, rooms, and freeing closed connections.
    ///
    /// A turn that takes more than 50 ms of CPU time is told to the log as a warning, with the phase that took most.
    pub fn turn(&mut self) {
        if let Some(times) = &mut self.turn_times {
            let used = clock::processor_time();
            times.begin_turn(used);
            self.watch.note_used(used);
        }
        self.watch.begin_turn();
        let now = self.clock.begin_turn();
        self.turns += 1;
        self.net.begin_turn(now);
        self.take_commands(now);
        self.take_decisions(now);
        self.watch.end_phase(TurnPhase::Commands);
        self.run_net(now);
        self.hub.handle_deadlines(now);
        self.watch.end_phase(TurnPhase::Deadlines);
        self.bus.begin_turn(now);
        self.hub.handle_readiness(now, self.bus.status().is_ready);
        self.run_bus(now);
        self.bus.end_turn();
        self.watch.end_phase(TurnPhase::Bus);
        self.answer_requests(now);
        self.watch.end_phase(TurnPhase::Answers);
        self.deliver_to_connections(now);
        self.watch.end_phase(TurnPhase::WriteBuffers);
        let (net, clock) = (&mut self.net, &mut self.clock);
        let sends_max = self.config.hub.sends_per_turn;
        self.hub.poll_sends(now, sends_max, &mut || clock.resume(), &mut |slot, frames| net.send(slot, frames));
        self.watch.end_phase(TurnPhase::Sends);
        self.net.free();
        self.watch.end_phase(TurnPhase::Freeing);
        // The last step: no event would wake the loop to see that all connections have gone.
        self.advance_shutdown(now);
        let timeout = self.timeout();
        self.clock.end_turn(timeout);
        self.watch.end_phase(TurnPhase::Shutdown);
        self.watch.end_turn();
        if let Some(times) = &mut self.turn_times {
            times.end_turn(clock::processor_time());
        }
    }

    /// Hears of the bans from a bus that knows them at once, so that even the first turn admits peers.
    pub(super) fn ask_for_bans(&mut self) {
        let now = self.clock.resume();
        self.bus.begin_turn(now);
        for _ in 0..FIRST_EVENTS {
            let Some(event) = self.bus.poll_event() else { break };
            self.hub.handle_bus_event(now, event);
        }
        self.bus.end_turn();
    }

    /// Accepts and reads, and does what is due of connections.
    fn run_net(&mut self, now: Now) {
        let (net, clock, mut dispatch) = self.dispatch(now);
        dispatch.end_overdue_refreshes();
        net.accept(&mut dispatch);
        dispatch.watch.end_phase(TurnPhase::Accepts);
        if !dispatch.hub.has_backlog() {
            net.read(&mut || clock.resume(), &mut dispatch);
        }
        dispatch.watch.end_phase(TurnPhase::Reads);
        net.handle_deadlines(&mut dispatch);
    }

    fn take_commands(&mut self, now: Now) {
        self.inbox.begin_drain();
        // No more than the queue holds, so that a producer that never pauses does not hold up the loop.
        for _ in 0..self.config.hub.inbox_messages_max {
            let Some(command) = self.inbox.pop() else { break };
            match command {
                Command::Publish(publication) => {
                    if let Err(error) = self.hub.publish_for_host(now, &publication) {
                        log::warn!("dropped a publication of another thread: {error}");
                    }
                }
                Command::Moderate(moderation) => {
                    if let Err(error) = self.hub.moderate_for_host(now, &moderation) {
                        log::warn!("dropped a command of another thread: {error}");
                    }
                }
                Command::Close(connection, reason) => self.hub.close(now, connection, reason),
                Command::Admit(ticket, decision) => {
                    self.admit_at(now, ticket, decision);
                }
                Command::Stats(tell) => tell(self.stats()),
                Command::Shutdown => self.shutdown(),
            }
        }
    }

    /// Decides about handshakes and new tokens as the authenticator has come to know.
    fn take_decisions(&mut self, now: Now) {
        for _ in 0..DECISIONS_PER_TURN {
            let Some((ticket, decision)) = self.authenticator.poll_decision(now) else {
                self.are_decisions_unfinished = false;
                return;
            };
            self.admit_at(now, ticket, decision);
        }
        self.are_decisions_unfinished = true;
    }

    /// Carries requests to the bus and events to the hub, by turns, until neither has any or the turn's budget is used up.
    ///
    /// A message that was read is a request and comes back as two events, so this phase may have three times the units, and
    /// twice the time. Where that is not enough, [reading waits](Hub::has_backlog).
    fn run_bus(&mut self, now: Now) {
        let (WorkLimits { units, time }, clock) = (self.config.net.phase(), &mut self.clock);
        let limits = WorkLimits { units: units.saturating_mul(3), time: time.saturating_mul(2) };
        let mut read_clock = || clock.resume();
        let mut budget = WorkBudget::new(limits, &mut read_clock);
        self.is_bus_unfinished = true;
        while budget.has_left() {
            let mut is_idle = true;
            if let Some(request) = self.hub.poll_bus_request() {
                is_idle = false;
                budget.spend(1);
                self.bus.submit(request);
            }
            for _ in 0..EVENTS_A_REQUEST {
                let Some(event) = self.bus.poll_event() else { break };
                is_idle = false;
                budget.spend(event_units(&event));
                self.hub.handle_bus_event(now, event);
            }
            if is_idle {
                self.is_bus_unfinished = false;
                return;
            }
        }
    }

    /// Answers the HTTP requests for which the bus has an answer.
    fn answer_requests(&mut self, now: Now) {
        let mut answers = Vec::new();
        while let Some((ticket, outcome)) = self.hub.poll_answer() {
            answers.extend(self.routes.api.finish(ticket, &outcome));
        }
        if answers.is_empty() {
            return;
        }
        let (net, _, mut dispatch) = self.dispatch(now);
        for (connection, response) in answers {
            net.respond(connection, &response, &mut dispatch);
        }
    }

    /// Moves the hub's output for single connections into their write buffers, and writes those.
    fn deliver_to_connections(&mut self, now: Now) {
        let mut closes = Vec::new();
        let mut overflown = Vec::new();
        let net = &mut self.net;
        self.hub.poll_output(|output| match output {
            Output::Frames(id, frames) => {
                if !net.queue(id, frames) {
                    overflown.push(id);
                }
            }
            Output::Close(id, reason) => closes.push((id, reason)),
        });
        for id in overflown {
            self.hub.disconnect(now, id);
            closes.push((id, CloseReason::STALLED));
        }
        let (net, clock, mut dispatch) = self.dispatch(now);
        for (id, reason) in closes {
            net.close(id, reason, &mut dispatch);
        }
        net.flush(&mut || clock.resume(), &mut dispatch);
    }
}

/// What an event counts: a page of history is copied to one connection, message by message.
fn event_units(event: &BusEvent) -> u32 {
    match event {
        BusEvent::Restrictions(page) => units(page.bodies.len() as u32, 0).max(1),
        BusEvent::Page { page: Ok(page), .. } => units(1, page.messages.iter().map(|message| message.body.len()).sum()),
        _ => 1,
    }
}
