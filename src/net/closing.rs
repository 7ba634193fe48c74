//! How connections end: politely where the peer lets us, in bounded time always; and what silence means.

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;

use crate::deadline::Tick;
use crate::frame::{FrameWalk, PING};
use crate::id::ConnectionId;
use crate::protocol::CloseReason;

use super::connection::{Flag, Phase};
use super::http::Response;
use super::{Handler, Net};

/// How many connections a turn frees. Closing a socket is a system call of many microseconds; a mass disconnect must
/// not stall everybody else.
const FREED_PER_TURN: usize = 256;

/// So many slots a list may have room for while it is empty.
const QUEUED_KEPT_MAX: usize = 4096;

impl Net {
    /// Closes an open connection: Close is queued behind its own output, and no data frame follows it.
    pub fn close(&mut self, id: ConnectionId, reason: CloseReason, handler: &mut impl Handler) {
        if !self.find(id).is_some_and(super::Connection::is_open) {
            return;
        }
        let walk = match &mut self.connections[id.slot.index()].phase {
            Phase::Open { reader, .. } => reader.take().map_or_else(FrameWalk::default, |reader| reader.into_walk()),
            _ => FrameWalk::default(),
        };
        self.begin_close(id.slot.0, reason, Phase::AwaitingClose(Box::new(walk)), handler);
    }

    pub(super) fn begin_close(&mut self, slot: u32, reason: CloseReason, phase: Phase, handler: &mut impl Handler) {
        let id = self.connections[slot as usize].id(slot);
        let CloseReason { code, reason } = reason;
        log::debug!("connection {id}: closing with {code} {reason}");
        let mut output = self.connections[slot as usize].output.take().unwrap_or_default();
        output.append_close(code, &reason);
        self.connections[slot as usize].output = Some(output);
        self.begin_closing(slot, phase, handler);
    }

    pub(super) fn begin_closing(&mut self, slot: u32, phase: Phase, handler: &mut impl Handler) {
        let connection = &self.connections[slot as usize];
        let was_open = connection.is_open();
        let id = connection.id(slot);
        self.enter_closing(slot, phase);
        if was_open {
            self.open -= 1;
            handler.on_closed(id);
        }
    }

    /// As [`Net::begin_closing`], for who is not open.
    pub(super) fn enter_closing(&mut self, slot: u32, phase: Phase) {
        let connection = &mut self.connections[slot as usize];
        // What the peer says from now on does not matter, but that it says something may (a Close, its end).
        connection.phase = phase;
        connection.since = self.tick;
        self.schedule(slot, self.tick.after(self.timing.close_timeout));
        self.queue_flush(slot);
        self.queue_if_readable(slot);
    }

    /// A connection has ended; it is freed at the end of a turn.
    pub(super) fn end(&mut self, slot: u32, handler: &mut impl Handler) {
        let connection = &mut self.connections[slot as usize];
        let id = connection.id(slot);
        match std::mem::replace(&mut connection.phase, Phase::Gone) {
            Phase::Gone => return,
            Phase::Open { .. } => {
                self.open -= 1;
                handler.on_closed(id);
            }
            Phase::Head(_) | Phase::Body(_) | Phase::Waiting(_) | Phase::Between(_) => {}
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining => {}
        }
        self.gone.push(slot);
    }

    /// Frees connections that have ended.
    pub fn free(&mut self) {
        let kept = self.gone.len().saturating_sub(FREED_PER_TURN);
        for slot in self.gone.drain(kept..) {
            // Closing the socket takes it out of the poll.
            let connection = self.connections.remove(slot as usize);
            debug_assert!(matches!(connection.phase, Phase::Gone));
            if connection.is(Flag::Queued) {
                self.ready.retain(|ready| *ready != slot);
            }
            if connection.is(Flag::Dirty) {
                self.dirty.retain(|dirty| *dirty != slot);
            }
        }
        // A crowd that came or went at once has made them long.
        if self.ready.is_empty() && self.ready.capacity() > QUEUED_KEPT_MAX {
            self.ready = VecDeque::new();
        }
        for list in [&mut self.dirty, &mut self.gone] {
            if list.is_empty() && list.capacity() > QUEUED_KEPT_MAX {
                *list = Vec::new();
            }
        }
    }

    /// Looks at a connection because it may have been silent, or have taken nothing, for too long.
    pub(super) fn look_at(&mut self, slot: u32, handler: &mut impl Handler) {
        let connection = &self.connections[slot as usize];
        let next = match &connection.phase {
            Phase::Gone => return,
            Phase::Open { .. } => self.look_at_open(slot, handler),
            Phase::Head(_) => {
                let due = connection.since.after(self.timing.handshake_timeout);
                if self.tick >= due {
                    let words = format!("no complete request head within {:?}", self.timing.handshake_timeout);
                    return self.answer(slot, &Response::text(StatusCode::REQUEST_TIMEOUT, &words), false, handler);
                }
                due
            }
            Phase::Body(body) => {
                let due = connection.since.after(self.timing.handshake_timeout);
                if self.tick >= due {
                    let words = format!("no complete request body within {:?}", self.timing.handshake_timeout);
                    let response = (body.rules().refuse)(StatusCode::REQUEST_TIMEOUT, &words);
                    return self.answer(slot, &response, false, handler);
                }
                due
            }
            Phase::Waiting(unanswered) => {
                let due = connection.since.after(self.timing.answer_timeout);
                if self.tick >= due {
                    let words = format!("no answer within {:?}", self.timing.answer_timeout);
                    let response = (unanswered.rules.refuse)(StatusCode::GATEWAY_TIMEOUT, &words);
                    return self.answer(slot, &response, false, handler);
                }
                due
            }
            Phase::Between(_) => {
                let due = connection.since.after(self.timing.handshake_timeout);
                if self.tick >= due {
                    // Without a word: a client that asks just now would take it for the answer.
                    return self.end(slot, handler);
                }
                due
            }
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining => {
                let due = connection.since.after(self.timing.close_timeout);
                if self.tick >= due {
                    return self.end(slot, handler);
                }
                due
            }
        };
        // It may have begun to close, which has scheduled it anew.
        if self.connections[slot as usize].looked_at <= self.tick {
            self.schedule(slot, next);
        }
    }

    /// The heartbeat, and the end of who takes nothing; says when to look again.
    fn look_at_open(&mut self, slot: u32, handler: &mut impl Handler) -> Tick {
        let connection = &self.connections[slot as usize];
        if connection.blocked == Tick::default() {
            return self.check_heartbeat(slot, handler);
        }
        let due = connection.blocked.after(self.timing.stall_timeout);
        if self.tick >= due {
            handler.on_stalled(connection.id(slot));
        }
        self.check_heartbeat(slot, handler).min(due)
    }

    /// Pings a silent connection, and closes it if it stays silent; says when to look again.
    fn check_heartbeat(&mut self, slot: u32, handler: &mut impl Handler) -> Tick {
        let connection = &mut self.connections[slot as usize];
        let Phase::Open { pinged, .. } = &mut connection.phase else { return Tick::default() };
        // Any byte is an answer.
        if *pinged != Tick::default() && connection.since < *pinged {
            let due = pinged.after(self.timing.pong_timeout);
            if self.tick >= due && connection.is(Flag::Queued) {
                // Its answer may have come; the turn's reads did not get so far.
                return self.tick.after(Duration::ZERO);
            }
            if self.tick >= due {
                self.stats.heartbeat_timeouts += 1;
                let id = connection.id(slot);
                self.close(id, CloseReason::NO_PONG, handler);
            }
            return due;
        }
        let due = connection.since.after(self.timing.ping_interval);
        if self.tick < due {
            *pinged = Tick::default();
            return due;
        }
        *pinged = self.tick;
        self.append_output(slot, &PING);
        self.tick.after(self.timing.pong_timeout)
    }
}
