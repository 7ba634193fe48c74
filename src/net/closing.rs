//! How connections end: politely where the peer lets us, in bounded time always; and what silence means.

use std::time::Duration;

use http::StatusCode;

use crate::budget::{WorkBudget, WorkLimits};
use crate::frame::{FrameTracker, PING};
use crate::id::{ConnectionId, Slot};
use crate::protocol::CloseReason;
use crate::time::Now;
use crate::timer_wheel::Tick;

use super::connection::Flag;
use super::handler::Handler;
use super::http::Response;
use super::phase::Phase;
use super::{Drain, Net};

/// How many connections a turn frees. Closing a socket is a system call of many microseconds; a mass disconnect must
/// not stall everybody else.
const FREED_PER_TURN: u32 = 256;

/// How many slots a drain looks at in a turn.
const SLOTS_DRAINED_PER_TURN: usize = 4096;

impl<R> Net<R> {
    /// Closes an open connection: Close follows what waits in its write buffer, and no data frame follows Close.
    pub fn close(&mut self, id: ConnectionId, reason: CloseReason, handler: &mut impl Handler<Route = R>) {
        if !self.find(id).is_some_and(super::Connection::is_open) {
            return;
        }
        let tracker = match &mut self.connections[id.slot.index()].phase {
            Phase::Open { reader, .. } => {
                reader.take().map_or_else(FrameTracker::default, |reader| reader.into_tracker())
            }
            _ => FrameTracker::default(),
        };
        self.begin_close(id.slot, reason, Phase::AwaitingClose(Box::new(tracker)), handler);
    }

    pub(super) fn begin_close(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        phase: Phase<R>,
        handler: &mut impl Handler<Route = R>,
    ) {
        let id = self.connections[slot.index()].id(slot);
        let (code, reason) = reason.into_parts();
        log::debug!("connection {id}: closing with {code} {reason:?}");
        let mut buffer = self.connections[slot.index()].write_buffer.take().unwrap_or_default();
        buffer.append_close(code, &reason);
        self.connections[slot.index()].write_buffer = Some(buffer);
        let phase = match phase {
            // The peer's Close has come with what it is closed for.
            Phase::AwaitingClose(tracker) if tracker.closed() => Phase::Flushing,
            phase => phase,
        };
        self.begin_closing(slot, phase, handler);
    }

    pub(super) fn begin_closing(&mut self, slot: Slot, phase: Phase<R>, handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        // What the peer says from now on does not matter, but that it says something may (a Close, its end).
        let before = std::mem::replace(&mut connection.phase, phase);
        connection.since = self.timers.tick;
        self.schedule(slot, self.timers.tick.after(self.timing.close_timeout));
        self.queue_flush(slot);
        self.queue_if_readable(slot);
        self.account.note(slot);
        self.leave_phase(slot, before, handler);
    }

    /// Tells the handler that a connection has left a phase for good that it knows of.
    fn leave_phase(&mut self, slot: Slot, phase: Phase<R>, handler: &mut impl Handler<Route = R>) {
        match phase {
            Phase::Open { .. } => {
                self.stats.open -= 1;
                handler.on_closed(self.connections[slot.index()].id(slot));
            }
            Phase::AwaitingAdmission(parked) => self.abandon(&parked, handler),
            Phase::ProxyHeader(_) | Phase::TlsHandshake | Phase::Head(_) | Phase::Body(_) => {}
            Phase::AwaitingResponse(_) | Phase::KeepAlive(_) => {}
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining | Phase::Closed => {}
        }
    }

    /// More has come of a connection that is closing: it matters only if it contains a Close, and that it ends.
    pub(super) fn take_last_bytes(&mut self, slot: Slot, bytes: &[u8]) {
        let connection = &mut self.connections[slot.index()];
        connection.ignore(bytes.len());
        if let Phase::AwaitingClose(tracker) = &mut connection.phase {
            tracker.advance(bytes);
            if tracker.closed() {
                connection.phase = Phase::Flushing;
                self.queue_flush(slot);
            }
        }
    }

    /// A connection has ended; it is freed at the end of a turn.
    pub(super) fn end(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        let before = std::mem::replace(&mut connection.phase, Phase::Closed);
        if !matches!(before, Phase::Closed) {
            connection.write_buffer = None;
            self.tls.end(slot);
            self.release_held(slot);
            self.leave_phase(slot, before, handler);
            self.queues.gone.push_back(slot);
        }
    }

    /// Ends what is not a WebSocket, in batches of slots, so that a turn's work does not depend on how many there are. Nothing new is
    /// accepted meanwhile, so every slot is looked at once.
    pub(super) fn advance_drain(&mut self, handler: &mut impl Handler<Route = R>) {
        let Drain::Draining { next_slot } = self.drain else { return };
        let end = self.connections.capacity().min(next_slot + SLOTS_DRAINED_PER_TURN);
        for slot in next_slot..end {
            if self.connections.contains(slot) {
                self.drain_one(Slot(slot as u32), handler);
            }
        }
        let is_last = end == self.connections.capacity();
        self.drain = if is_last { Drain::Drained } else { Drain::Draining { next_slot: end } };
    }

    fn drain_one(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &self.connections[slot.index()];
        match connection.phase {
            // An answer is on its way, and would be lost if the connection were reset over what came behind its request.
            Phase::KeepAlive(_) if connection.write_buffer.is_some() || connection.has_input() => {
                self.begin_closing(slot, Phase::Draining, handler);
            }
            Phase::ProxyHeader(_) | Phase::TlsHandshake => self.end(slot, handler),
            Phase::Head(_) | Phase::Body(_) | Phase::KeepAlive(_) => self.end(slot, handler),
            Phase::AwaitingAdmission(_) => {
                self.answer(slot, &Response::unavailable("the server is shutting down"), handler);
            }
            Phase::AwaitingResponse(_) | Phase::Open { .. } | Phase::Closed => {}
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining => {}
        }
    }

    /// Frees connections that have ended, up to the turn's budget. `clock` tells the time while that takes it. Says how many
    /// were looked at.
    pub fn free(&mut self, clock: &mut dyn FnMut() -> Now) -> u32 {
        let limits = WorkLimits { units: FREED_PER_TURN, ..self.limits.phase() };
        let mut budget = WorkBudget::new(limits, clock).with_costly_units();
        for _ in 0..self.queues.gone.len() {
            if !budget.has_left() {
                break;
            }
            let Some(slot) = self.queues.gone.pop_front() else { break };
            budget.spend(1);
            let connection = &self.connections[slot.index()];
            if connection.is(Flag::Queued) || connection.is(Flag::Dirty) {
                // To look for it in these lists would take as long as they are; its turn in them comes by itself.
                self.queues.gone.push_back(slot);
                continue;
            }
            // Closing the socket takes it out of the poll.
            let connection = self.connections.remove(slot.index());
            debug_assert!(matches!(connection.phase, Phase::Closed));
            self.caps.release(slot);
        }
        let freed = budget.spent();
        self.queues.shrink();
        self.caps.addresses.sweep();
        freed
    }

    /// Looks at a connection because it may have been silent, or have taken nothing, for too long.
    pub(super) fn check_timers(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &self.connections[slot.index()];
        let next = match &connection.phase {
            Phase::Closed => return,
            Phase::Open { .. } => self.check_open_timers(slot, handler),
            phase => {
                let due = connection.since.after(self.phase_timeout(phase));
                if self.timers.tick >= due {
                    return self.end_overdue(slot, handler);
                }
                Some(due)
            }
        };
        if let Some(next) = next
            && self.connections[slot.index()].timer_at <= self.timers.tick
        {
            self.schedule(slot, next);
        }
    }

    /// How long a connection may stay in a phase, unless it is open or closed.
    fn phase_timeout(&self, phase: &Phase<R>) -> Duration {
        match phase {
            Phase::ProxyHeader(_) | Phase::TlsHandshake => self.timing.handshake_timeout,
            Phase::Head(_) | Phase::Body(_) | Phase::KeepAlive(_) => self.timing.handshake_timeout,
            Phase::AwaitingResponse(_) => self.timing.answer_timeout,
            Phase::AwaitingAdmission(_) => self.timing.admission_timeout,
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining => self.timing.close_timeout,
            Phase::Open { .. } | Phase::Closed => Duration::MAX,
        }
    }

    /// A connection has stayed in its phase for too long.
    fn end_overdue(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let phase = &self.connections[slot.index()].phase;
        let timeout = self.phase_timeout(phase);
        let response = match phase {
            Phase::Head(_) => {
                let reason = format!("no complete request head within {timeout:?}");
                Response::text(StatusCode::REQUEST_TIMEOUT, &reason)
            }
            Phase::Body(body) => {
                let reason = format!("no complete request body within {timeout:?}");
                (body.rules.refuse)(StatusCode::REQUEST_TIMEOUT, &reason)
            }
            Phase::AwaitingResponse(pending) => {
                let reason = format!("no answer within {timeout:?}");
                (pending.rules.refuse)(StatusCode::GATEWAY_TIMEOUT, &reason)
            }
            Phase::AwaitingAdmission(_) => {
                self.stats.admission_timeouts += 1;
                let reason = format!("no decision about this connection within {timeout:?}");
                Response::text(StatusCode::GATEWAY_TIMEOUT, &reason)
            }
            // A kept connection ends silently: a client that asks again just now would take anything for the answer.
            _ => return self.end(slot, handler),
        };
        self.answer(slot, &response, handler);
    }

    /// The heartbeat, and the end of a connection that takes nothing; says when to look again while it is open.
    fn check_open_timers(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) -> Option<Tick> {
        let connection = &self.connections[slot.index()];
        let Some(blocked) = connection.blocked else { return self.check_heartbeat(slot, handler) };
        let due = blocked.after(self.timing.stall_timeout);
        if self.timers.tick >= due {
            handler.on_stalled(connection.id(slot));
        }
        self.check_heartbeat(slot, handler).map(|next| next.min(due))
    }

    /// Pings a silent connection, and closes it if it stays silent; says when to look again while it is open.
    fn check_heartbeat(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) -> Option<Tick> {
        let connection = &mut self.connections[slot.index()];
        let Phase::Open { pinged, .. } = &mut connection.phase else { return None };
        // Any byte is an answer.
        if let Some(pinged) = pinged.filter(|pinged| connection.since < *pinged) {
            let due = pinged.after(self.timing.pong_timeout);
            if self.timers.tick < due {
                return Some(due);
            }
            if connection.is(Flag::Queued) {
                // Its answer may have come; the turn's reads did not get so far.
                return Some(self.timers.tick.after(Duration::ZERO));
            }
            self.stats.heartbeat_timeouts += 1;
            let id = connection.id(slot);
            // That schedules it anew.
            self.close(id, CloseReason::NO_PONG, handler);
            return None;
        }
        let due = connection.since.after(self.timing.ping_interval);
        if self.timers.tick < due {
            *pinged = None;
            return Some(due);
        }
        *pinged = Some(self.timers.tick);
        self.append_frames(slot, &PING);
        Some(self.timers.tick.after(self.timing.pong_timeout))
    }
}

#[cfg(all(test, feature = "in-memory"))]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::net::{BodyDecision, Capacity, HeadDecision, LISTENERS_MAX, Verdict, WriteBuffer};
    use crate::settings::Config;

    /// No request of these tests comes to its end.
    struct Unasked;

    impl Handler for Unasked {
        type Admission = ();
        type Route = ();

        fn on_request(&mut self, _: ConnectionId, _: &::http::Request<()>, _: Capacity) -> HeadDecision<(), ()> {
            HeadDecision::Respond(Response::unavailable("not expected"))
        }

        fn on_body(&mut self, _: ConnectionId, (): (), _: &[u8]) -> BodyDecision {
            BodyDecision::Respond(Response::unavailable("not expected"))
        }

        fn on_text(&mut self, _: ConnectionId, _: &str, _: &mut WriteBuffer) -> Verdict {
            Verdict::Continue
        }

        fn on_binary(&mut self, _: ConnectionId, _: &[u8], _: &mut WriteBuffer) -> Verdict {
            Verdict::Continue
        }

        fn on_open(&mut self, _: ConnectionId, (): ()) {}
        fn on_drained(&mut self, _: ConnectionId) {}
        fn on_stalled(&mut self, _: ConnectionId) {}
        fn on_closed(&mut self, _: ConnectionId) {}
    }

    #[test]
    fn a_drain_looks_at_a_bounded_number_of_connections_a_turn() {
        let connections = SLOTS_DRAINED_PER_TURN + 100;
        let poll = Poll::new().unwrap();
        let mut config = Config::default();
        config.net.connections_max = connections as u32;
        let tokens = 0..LISTENERS_MAX + connections + config.net.connections_reserved as usize;
        let mut net = Net::new(&config, poll.registry().try_clone().unwrap(), tokens, 7).unwrap();
        for _ in 0..connections {
            net.connect_in_memory(b"GET / HT").unwrap();
            net.read(&mut Now::default, &mut Unasked);
        }
        assert!(!net.has_work());
        net.stop_listening();
        assert!(net.has_work() && net.queues.gone.is_empty());
        net.handle_deadlines(&mut Now::default, &mut Unasked);
        assert_eq!(net.queues.gone.len(), SLOTS_DRAINED_PER_TURN);
        while net.has_work() {
            net.handle_deadlines(&mut Now::default, &mut Unasked);
            net.free(&mut Now::default);
        }
        assert_eq!(net.stats().sockets, 0);
    }
}
