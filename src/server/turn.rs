//! One turn: its steps, in their order.

use super::http::api::{ApiRoute, ListScope};
use super::remote::Command;
#[cfg(feature = "tls")]
use super::tls_identity::TlsReloader;
use super::turn_watch::TurnPhase;
use super::{Server, clock};
use crate::budget::{WorkBudget, WorkLimits, units};
use crate::bus::message::{BusEvent, Page};
use crate::hub::{Hub, Output};
use crate::id::ConnectionId;
use crate::net::Net;
use crate::protocol::CloseReason;
use crate::time::Now;
use crate::unicode::Escaped;

/// Events that a request comes back as, at most.
const EVENTS_A_REQUEST: u32 = 2;

/// Events that are heard before the first turn, at most.
const FIRST_EVENTS: usize = 16;

/// Decisions of the authenticator in a turn: each may verify a signature, which takes some 50 µs.
const DECISIONS_PER_TURN: u32 = 32;

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
        let commands = self.take_commands(now) + self.take_decisions(now);
        if let Some(left) = self.authenticator.poll_keys_left() {
            self.hub.keep_keys(left);
        }
        #[cfg(feature = "tls")]
        if let Some(identity) = self.tls.as_mut().and_then(TlsReloader::poll) {
            self.net.set_tls_identity(&identity);
        }
        self.watch.end_phase(TurnPhase::Commands, commands);
        let net_deadlines = self.run_net(now);
        let clock = &mut self.clock;
        let hub_deadlines = self.hub.handle_deadlines(now, &mut || clock.resume());
        self.watch.end_phase(TurnPhase::Deadlines, net_deadlines + hub_deadlines);
        self.bus.begin_turn(now);
        self.hub.handle_readiness(now, self.bus.status().is_ready);
        let bus = self.run_bus(now);
        self.bus.end_turn();
        self.watch.end_phase(TurnPhase::Bus, bus);
        let answers = self.answer_requests(now);
        self.watch.end_phase(TurnPhase::Answers, answers);
        let written = self.deliver_to_connections(now);
        self.watch.end_phase(TurnPhase::WriteBuffers, written);
        let (net, clock) = (&mut self.net, &mut self.clock);
        let sends_max = self.config.hub.sends_per_turn;
        let send = &mut |slot, frames: &[u8]| net.send(slot, frames);
        let sends = self.hub.poll_sends(now, sends_max, &mut || clock.resume(), send);
        self.watch.end_phase(TurnPhase::Sends, sends);
        let clock = &mut self.clock;
        let freed = self.net.free(&mut || clock.resume());
        self.watch.end_phase(TurnPhase::Freeing, freed);
        // The last step: no event would wake the loop to see that all connections have gone.
        self.advance_shutdown(now);
        let timeout = self.timeout();
        self.clock.end_turn(timeout);
        self.watch.end_phase(TurnPhase::Shutdown, 0);
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

    /// Accepts and reads, and does what is due of connections. Says how many units of work the last was.
    fn run_net(&mut self, now: Now) -> u32 {
        let (net, clock, mut dispatch) = self.dispatch(now);
        dispatch.end_overdue_refreshes();
        let accepted = net.accept(&mut || clock.resume(), &mut dispatch);
        dispatch.watch.end_phase(TurnPhase::Accepts, accepted);
        let read = net.read(&mut || clock.resume(), &mut dispatch);
        dispatch.watch.end_phase(TurnPhase::Reads, read);
        net.handle_deadlines(&mut || clock.resume(), &mut dispatch)
    }

    /// Carries out commands of other threads. Says how many.
    fn take_commands(&mut self, now: Now) -> u32 {
        self.inbox.begin_drain();
        let mut taken = 0;
        // No more than the queue holds, so that a producer that never pauses does not hold up the loop.
        for _ in 0..self.config.hub.inbox_messages_max {
            let Some(command) = self.inbox.pop() else { break };
            taken += 1;
            match command {
                Command::Publish(publication) => {
                    if let Err(error) = self.hub.publish_for_host(now, &publication) {
                        log::warn!("dropped a publication of another thread: {}", Escaped(error));
                    }
                }
                Command::Moderate(moderation) => {
                    if let Err(error) = self.hub.moderate_for_host(now, &moderation) {
                        log::warn!("dropped a command of another thread: {}", Escaped(error));
                    }
                }
                Command::Delete(message) => {
                    if let Err(error) = self.hub.delete_for_host(now, &message) {
                        log::warn!("dropped a deletion of another thread: {}", Escaped(error));
                    }
                }
                Command::Close(connection, reason) => self.hub.close(now, connection, reason),
                Command::Admit(ticket, decision) => {
                    self.admit_at(now, ticket, decision);
                }
                // They were checked before they were sent.
                Command::ApiKeys(keys) => self.routes.api.set_keys(&keys),
                Command::Stats(tell) => tell(self.stats()),
                Command::Shutdown => self.shutdown(),
            }
        }
        taken
    }

    /// Decides about handshakes and new tokens as the authenticator has come to know. Says about how many.
    fn take_decisions(&mut self, now: Now) -> u32 {
        for taken in 0..DECISIONS_PER_TURN {
            let Some((ticket, decision)) = self.authenticator.poll_decision(now) else {
                self.are_decisions_unfinished = false;
                return taken;
            };
            self.admit_at(now, ticket, decision);
        }
        self.are_decisions_unfinished = true;
        DECISIONS_PER_TURN
    }

    /// Carries requests to the bus and events to the hub, by turns, until neither has any or the turn's budget is used up.
    ///
    /// A message that was read is a request and comes back as two events, so this phase may have three times the units, and
    /// twice the time. Where that is not enough, [reading waits](Hub::has_backlog). Says how many units of work it was.
    fn run_bus(&mut self, now: Now) -> u32 {
        let (WorkLimits { units, time }, clock) = (self.config.net.phase(), &mut self.clock);
        let limits = WorkLimits { units: units.saturating_mul(3), time: time.saturating_mul(2) };
        let mut read_clock = || clock.resume();
        let mut budget = WorkBudget::new(limits, &mut read_clock);
        let mut closes = Vec::new();
        self.is_bus_unfinished = true;
        while budget.has_left() && self.is_bus_unfinished {
            let mut is_idle = true;
            if let Some(request) = self.hub.poll_bus_request() {
                is_idle = false;
                budget.spend(1);
                self.bus.submit(request);
            }
            for _ in 0..EVENTS_A_REQUEST {
                let Some(event) = self.bus.poll_event() else { break };
                is_idle = false;
                let units = event_units(&event);
                self.hub.handle_bus_event(now, event);
                budget.spend(units + self.hub.take_work());
            }
            budget.spend(self.bus.take_work());
            if self.hub.has_much_output() {
                queue_output(now, &mut self.hub, &mut self.net, &mut closes);
                budget.look();
            }
            self.is_bus_unfinished = !is_idle;
        }
        let spent = budget.spent();
        self.close_connections(now, closes);
        spent
    }

    /// Answers the HTTP requests for which the bus has an answer. Says how many units of work that was.
    fn answer_requests(&mut self, now: Now) -> u32 {
        let mut answers = Vec::new();
        while let Some((ticket, outcome)) = self.hub.poll_answer() {
            answers.extend(self.routes.api.finish(ticket, &outcome));
        }
        let nodes = ListScope::of(self.bus.status());
        while let Some((ticket, answer)) = self.hub.poll_room_answer() {
            answers.extend(self.routes.api.finish_question((ticket, &answer), nodes));
        }
        while let Some((ticket, purged)) = self.hub.poll_purged() {
            answers.extend(self.routes.api.finish_purge(ticket, purged));
        }
        let mut spent = answers.len() as u32;
        // The budget of the bus bounds how many there are.
        while let Some((ticket, page)) = self.hub.poll_page() {
            spent += page.as_ref().map_or(1, page_units);
            answers.extend(self.routes.api.finish_page(ticket, &page));
        }
        if answers.is_empty() {
            return spent;
        }
        let (net, _, mut dispatch) = self.dispatch(now);
        for (connection, response) in answers {
            net.respond(connection, &response, &mut dispatch);
        }
        spent
    }

    /// Moves the hub's output for single connections into their write buffers, and writes those. Says how many units of work the
    /// writing was.
    fn deliver_to_connections(&mut self, now: Now) -> u32 {
        let mut closes = Vec::new();
        queue_output(now, &mut self.hub, &mut self.net, &mut closes);
        self.close_connections(now, closes);
        let (net, clock, mut dispatch) = self.dispatch(now);
        net.flush(&mut || clock.resume(), &mut dispatch)
    }

    fn close_connections(&mut self, now: Now, closes: Vec<(ConnectionId, CloseReason)>) {
        if closes.is_empty() {
            return;
        }
        let (net, _, mut dispatch) = self.dispatch(now);
        for (id, reason) in closes {
            net.close(id, reason, &mut dispatch);
        }
    }
}

/// Moves the hub's output for single connections into their write buffers, and collects those that are to be closed.
fn queue_output(now: Now, hub: &mut Hub, net: &mut Net<ApiRoute>, closes: &mut Vec<(ConnectionId, CloseReason)>) {
    let mut overflown = Vec::new();
    hub.poll_output(|output| match output {
        Output::Frames(id, frames) => {
            if !net.queue(id, frames) {
                overflown.push(id);
            }
        }
        Output::Close(id, reason) => closes.push((id, reason)),
    });
    for id in overflown {
        hub.disconnect(now, id);
        closes.push((id, CloseReason::STALLED));
    }
}

/// What an event counts: a page of history is copied to one connection, message by message.
fn event_units(event: &BusEvent) -> u32 {
    match event {
        BusEvent::Restrictions(page) => units(page.bodies.len() as u32, 0).max(1),
        BusEvent::Page { page: Ok(page), .. } => page_units(page),
        _ => 1,
    }
}

fn page_units(page: &Page) -> u32 {
    units(1, page.messages.iter().map(|message| message.body.len()).sum())
}
