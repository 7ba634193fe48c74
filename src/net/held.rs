//! What connections hold in memory is charged to their owners, and what exceeds the share is given back at the cost of the
//! owner that holds the most.

use http::StatusCode;

use crate::budget::WorkBudget;
use crate::id::{ConnectionId, Slot};
use crate::owner::Owner;
use crate::protocol::CloseReason;

use super::Net;
use super::account::ENTRY_BYTES;
use super::connection::{Connection, Flag};
use super::handler::Handler;
use super::http::Response;
use super::phase::{After, ParkedHandshake, PartialRequest, PendingResponse, Phase};
use super::write_buffer::WriteBuffer;

/// How many connections give way in a turn.
const SHED_PER_TURN: usize = 64;

/// What it counts that one gives way: it is told, and what it holds is freed.
const SHED_UNITS: u32 = 4;

/// What the headers of an answer to a handshake take, which are the same for all.
const HANDSHAKE_BYTES: usize = 768;

const SHORT_OF_MEMORY: &str = "the server is short of memory, and this address or key holds the most";

impl<R> Phase<R> {
    /// Memory beside the connection itself. What a closing connection follows frames with has a fixed size and does not count.
    fn held_bytes(&self) -> usize {
        match self {
            Self::ProxyHeader(Some(kept)) | Self::Head(Some(kept)) | Self::KeepAlive(Some(kept)) => {
                size_of::<Vec<u8>>() + kept.capacity()
            }
            Self::Body(body) => size_of::<PartialRequest<R>>() + body.bytes.capacity(),
            Self::AwaitingResponse(pending) => size_of::<PendingResponse>() + pending.rest.capacity(),
            Self::AwaitingAdmission(parked) => {
                // A handler that does not say what it holds may have kept the head.
                let head = parked.head_bytes.max(parked.handshake.handler_bytes);
                size_of::<ParkedHandshake>() + HANDSHAKE_BYTES + head + parked.rest.capacity()
            }
            Self::Open { reader: Some(reader), .. } => reader.bytes(),
            Self::ProxyHeader(None) | Self::Head(None) | Self::KeepAlive(None) => 0,
            // Its session has it.
            Self::TlsHandshake => 0,
            Self::Open { reader: None, .. } => 0,
            Self::Flushing | Self::AwaitingClose(_) | Self::Draining | Self::Closed => 0,
        }
    }
}

impl<R> Connection<R> {
    /// Memory beside the connection itself, and beside what TLS needs.
    fn held_bytes(&self) -> usize {
        let buffer = self.write_buffer.as_ref().map_or(0, |buffer| size_of::<WriteBuffer>() + buffer.capacity());
        buffer + self.phase.held_bytes()
    }
}

impl<R> Net<R> {
    /// Memory that a connection holds beside itself, with what it costs to account for it.
    fn held_bytes(&self, slot: Slot) -> usize {
        let connection = &self.connections[slot.index()];
        let tls = if connection.is_encrypted() { self.tls.held_bytes(slot) } else { 0 };
        match connection.held_bytes() + tls {
            0 => 0,
            bytes => bytes + ENTRY_BYTES,
        }
    }

    /// A connection may hold more or less memory than before.
    pub(super) fn note_held(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot.index()) else { return };
        if connection.is(Flag::Charged) || self.held_bytes(slot) > 0 {
            self.account.note(slot);
        }
    }

    /// Charges what has changed, and has the heaviest give way while too much is held. At least one does, whatever the budget
    /// says, so that a turn that writes much does not put it off.
    pub(super) fn settle_account(&mut self, budget: &mut WorkBudget<'_>, handler: &mut impl Handler<Route = R>) {
        self.charge_changed(handler);
        for _ in 0..SHED_PER_TURN {
            let Some((owner, slot)) = self.account.next_surplus() else { return };
            self.warn_of_surplus(owner, slot);
            self.shed(slot, handler);
            self.charge_changed(handler);
            budget.spend(SHED_UNITS + handler.take_work());
            if !budget.has_left() {
                return;
            }
        }
    }

    fn charge_changed(&mut self, handler: &mut impl Handler<Route = R>) {
        let changed = self.account.take_changed();
        for slot in &changed {
            self.charge_held(*slot, handler);
        }
        self.account.keep_list(changed);
    }

    fn charge_held(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        if !self.connections.contains(slot.index()) {
            return;
        }
        let bytes = self.held_bytes(slot);
        let owner = match self.account.owner(slot) {
            Some(owner) => owner,
            None if bytes == 0 => return,
            None => self.owner(slot, handler),
        };
        self.account.charge(slot, owner, bytes);
        let connection = &mut self.connections[slot.index()];
        if bytes > 0 { connection.set(Flag::Charged) } else { connection.clear(Flag::Charged) }
    }

    /// A connection is somebody else's from now on, or nobody's.
    pub(super) fn release_held(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if connection.is(Flag::Charged) {
            connection.clear(Flag::Charged);
            self.account.release(slot);
        }
    }

    /// The owner of what a connection holds.
    fn owner(&self, slot: Slot, handler: &impl Handler<Route = R>) -> Owner {
        let connection = &self.connections[slot.index()];
        let known = match &connection.phase {
            Phase::Body(body) => Some(body.rules.owner),
            Phase::AwaitingResponse(pending) => Some(pending.rules.owner),
            Phase::AwaitingAdmission(parked) => Some(parked.source.owner),
            Phase::Open { .. } => handler.owner(connection.id(slot)),
            _ => None,
        };
        known.or_else(|| self.caps.owner(slot)).unwrap_or_else(|| {
            let told = self.caps.told_addresses.get(&slot).copied();
            let peer = told.or_else(|| connection.transport.peer_address());
            self.peer_owner(slot, peer.map(|peer| peer.ip()))
        })
    }

    /// Has a connection give back what it holds. One that goes on holding most of it is cut.
    fn shed(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let before = self.held_bytes(slot);
        let connection = &mut self.connections[slot.index()];
        let id = connection.id(slot);
        log::debug!("connection {id}: holds {before} bytes, and memory is short");
        // One that is closing already may give way again.
        self.stats.connections_shed += u64::from(!connection.is_closing());
        match &mut connection.phase {
            Phase::Open { .. } => self.close_at_once(id, CloseReason::SHORT_OF_MEMORY, handler),
            Phase::Head(_) | Phase::AwaitingAdmission(_) => {
                self.refuse_at_once(slot, &Response::unavailable(SHORT_OF_MEMORY), handler);
            }
            Phase::Body(body) => {
                let response = (body.rules.refuse)(StatusCode::SERVICE_UNAVAILABLE, SHORT_OF_MEMORY);
                self.refuse_at_once(slot, &response, handler);
            }
            // What it asked is done already; the requests behind that are not read.
            Phase::AwaitingResponse(pending) => (pending.rest, pending.after) = (Vec::new(), After::TheEnd),
            _ => {}
        }
        if self.held_bytes(slot) > before / 2 {
            self.end(slot, handler);
        }
        self.note_held(slot);
    }

    /// Closes an open connection, and drops what it has not been sent; only a frame that it has in part is sent to its end.
    fn close_at_once(&mut self, id: ConnectionId, reason: CloseReason, handler: &mut impl Handler<Route = R>) {
        if let Some(buffer) = &mut self.connections[id.slot.index()].write_buffer {
            buffer.drop_whole_frames();
        }
        self.close(id, reason, handler);
    }

    /// Answers a request that is not complete, in a write buffer that has no space to spare.
    fn refuse_at_once(&mut self, slot: Slot, response: &Response, handler: &mut impl Handler<Route = R>) {
        self.connections[slot.index()].write_buffer.get_or_insert_default();
        self.answer(slot, response, handler);
    }

    fn warn_of_surplus(&mut self, owner: Owner, slot: Slot) {
        let peer = self.connections[slot.index()].transport.peer_address().map(|peer| peer.ip().to_canonical());
        let is_owner = self.peer_owner(slot, peer) == owner;
        let (bytes, max) = (self.account.bytes(), self.account.bytes_max());
        self.caps.warnings.warn_short_of_memory(self.timers.now, (peer, is_owner), bytes, max);
    }
}
