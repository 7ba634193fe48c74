//! Bytes out: a room's frames straight from its log, and the write buffers of connections.

use crate::budget::{WorkBudget, units};
use crate::frame::boundary_after;
use crate::id::{ConnectionId, Slot};
use crate::time::Now;

use super::connection::Flag;
use super::handler::Handler;
use super::phase::Phase;
use super::transport::Transport;
use super::write_buffer::WriteBuffer;
use super::{Net, Trouble, trouble};

/// So many bytes are not copied into a write buffer first: the memory would be new each time.
const WRITTEN_AT_ONCE_BYTES_MIN: usize = 16 * 1024;

/// A connection whose write buffer is not taken to its end has to take this part of the bound of the buffer in each
/// [`stall_timeout`](crate::settings::Timing::stall_timeout). One that takes less keeps the buffer for too long.
const PROGRESS_PART: usize = 16;

impl<R> Net<R> {
    /// Offers whole frames to an open connection; says how many bytes of whole frames it has taken.
    ///
    /// Nothing is taken while its write buffer waits. After a short write the rest of the partial frame, and only that, is
    /// copied to the write buffer, so the answer always is a frame boundary. [`Handler::on_drained`] tells when a connection that took
    /// less than all would take more.
    #[inline]
    pub fn send(&mut self, slot: Slot, frames: &[u8]) -> usize {
        let Some(connection) = self.connections.get_mut(slot.index()) else { return 0 };
        if !connection.is(Flag::Writable) || connection.write_buffer.is_some() || !connection.is_open() {
            connection.set(Flag::Refused);
            self.note_blocked(slot);
            return 0;
        }
        if connection.is_encrypted() {
            return self.send_encrypted(slot, frames);
        }
        match connection.transport.write(frames) {
            Ok(bytes) if bytes == frames.len() => {
                connection.blocked = None;
                bytes
            }
            Ok(bytes) => self.keep_partial_frame(slot, frames, bytes),
            Err(error) => {
                connection.set(Flag::Refused);
                match trouble(&error) {
                    Trouble::WouldBlock => self.note_full(slot),
                    Trouble::Interrupted => self.queue_flush(slot),
                    Trouble::Broken => self.note_broken(slot),
                }
                0
            }
        }
    }

    #[cold]
    fn keep_partial_frame(&mut self, slot: Slot, frames: &[u8], bytes: usize) -> usize {
        let boundary = boundary_after(frames, bytes);
        let connection = &mut self.connections[slot.index()];
        connection.set(Flag::Refused);
        connection.blocked = None;
        self.note_full(slot);
        if bytes < boundary {
            let rest = &frames[bytes..boundary];
            self.stats.partial_frame_bytes += rest.len() as u64;
            self.append_indivisible(slot, rest);
        }
        boundary
    }

    /// The socket takes no more for now; an event will tell when it does.
    pub(super) fn note_full(&mut self, slot: Slot) {
        let token = self.polling.token(slot);
        let connection = &mut self.connections[slot.index()];
        connection.clear(Flag::Writable);
        if let Err(error) = connection.transport.watch_writable(&self.polling.registry, token) {
            log::warn!("cannot poll a connection that takes no bytes: {error}");
            return self.note_broken(slot);
        }
        self.note_blocked(slot);
    }

    /// A connection is owed bytes and takes none: from now on the stall timeout runs.
    fn note_blocked(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if connection.blocked.is_none() {
            connection.blocked = Some(self.timers.tick);
            let due = self.timers.tick.after(self.timing.stall_timeout);
            if connection.is_open() && due < connection.timer_at {
                self.schedule(slot, due);
            }
        }
    }

    /// A write has failed: what has come is still read, then the connection ends. Reading alone need not notice: a peer behind a
    /// Unix socket that has shut down its reading breaks our writes and goes on as before in the other direction.
    pub(super) fn note_broken(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        connection.clear(Flag::Writable);
        connection.set(Flag::Broken);
        connection.set(Flag::Readable);
        connection.set(Flag::ReadClosed);
        self.queue_read(slot);
    }

    /// Puts whole frames into a connection's write buffer. Many bytes are written at once, and only what the socket does not take
    /// is buffered. False if that would exceed the bound of the buffer: such a connection does not take what it asked for, and is to
    /// be dropped.
    pub fn queue(&mut self, id: ConnectionId, frames: &[u8]) -> bool {
        let Some(connection) = self.find(id).filter(|connection| connection.is_open()) else { return true };
        if connection.unsent_bytes() + frames.len() > self.limits.output_bytes_max {
            return false;
        }
        let is_plain_and_writable = connection.is(Flag::Writable) && !connection.is_encrypted();
        if frames.len() >= WRITTEN_AT_ONCE_BYTES_MIN && is_plain_and_writable && connection.write_buffer.is_none() {
            self.write_at_once(id.slot, frames);
        } else {
            self.append_frames(id.slot, frames);
        }
        true
    }

    /// Writes whole frames to a connection without a write buffer, and buffers the rest. The handler is told in [`Net::flush`] that
    /// they are taken.
    fn write_at_once(&mut self, slot: Slot, frames: &[u8]) {
        let connection = &mut self.connections[slot.index()];
        let taken = match connection.transport.write(frames) {
            Ok(taken) => {
                connection.blocked = None;
                taken
            }
            Err(error) => {
                if let Trouble::Broken = trouble(&error) {
                    self.note_broken(slot);
                }
                0
            }
        };
        let boundary = boundary_after(frames, taken);
        if taken < boundary {
            self.append_indivisible(slot, &frames[taken..boundary]);
        }
        if boundary < frames.len() {
            self.append_frames(slot, &frames[boundary..]);
        }
        self.queue_flush(slot);
    }

    pub(super) fn append_frames(&mut self, slot: Slot, frames: &[u8]) {
        self.write_buffer(slot).append(frames);
    }

    pub(super) fn append_indivisible(&mut self, slot: Slot, bytes: &[u8]) {
        self.write_buffer(slot).append_indivisible(bytes);
    }

    /// A connection's write buffer, into which something is going to be put.
    pub(super) fn write_buffer(&mut self, slot: Slot) -> &mut WriteBuffer {
        self.queue_flush(slot);
        self.account.note(slot);
        let connection = &mut self.connections[slot.index()];
        connection.write_buffer.get_or_insert_with(|| self.buffers.lend_write_buffer())
    }

    /// An event said that the socket takes bytes.
    pub(super) fn note_writable(&mut self, slot: Slot) {
        let token = self.polling.token(slot);
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Writable)
            && let Err(error) = connection.transport.unwatch_writable(&self.polling.registry, token)
        {
            // Harmless: the loop is woken more often than it needs to be.
            log::debug!("connection {}: {error}", connection.id(slot));
        }
        connection.set(Flag::Writable);
        if connection.is(Flag::Refused) || connection.write_buffer.is_some() {
            self.queue_flush(slot);
        }
    }

    /// Writes the write buffers, each once, as far as the sockets take them and the turn's budget goes, and tells which
    /// connections would take more. `clock` tells the time while that takes it, after every few units. Says how many units
    /// of work it was.
    ///
    /// Then what connections hold is charged to their owners, and the heaviest give way while that is too much.
    pub fn flush(&mut self, clock: &mut dyn FnMut() -> Now, handler: &mut impl Handler<Route = R>) -> u32 {
        let mut budget = WorkBudget::new(self.limits.phase(), clock);
        for _ in 0..self.begin_work(|queues| &mut queues.dirty) {
            if !budget.has_left() {
                break;
            }
            let Some(slot) = self.queues.dirty.pop() else { break };
            let Some(connection) = self.connections.get_mut(slot.index()) else { continue };
            connection.clear(Flag::Dirty);
            let before = connection.unsent_bytes();
            self.flush_one(slot, handler);
            self.note_held(slot);
            let after = self.connections[slot.index()].unsent_bytes();
            let work = units(1, before.saturating_sub(after)) + handler.take_work();
            self.queues.dirty.charge(work);
            budget.spend(work);
        }
        self.settle_account(&mut budget, handler);
        budget.spent()
    }

    fn flush_one(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Writable) || matches!(connection.phase, Phase::Closed) {
            return;
        }
        let is_encrypted = connection.is_encrypted();
        if is_encrypted {
            self.begin_goodbye(slot);
        }
        let connection = &mut self.connections[slot.index()];
        if let Some(mut buffer) = connection.write_buffer.take() {
            let written = match is_encrypted {
                false => write_all(&mut connection.transport, &mut buffer),
                true => self.write_encrypted(slot, &mut buffer),
            };
            let connection = &mut self.connections[slot.index()];
            match written {
                Ok(taken) => {
                    if !buffer.is_empty() {
                        if buffer.note_progress(taken) >= self.limits.output_bytes_max / PROGRESS_PART {
                            buffer.forget_progress();
                            connection.blocked = None;
                        }
                        connection.write_buffer = Some(buffer);
                        self.note_full(slot);
                        return self.read_on_if_allowed(slot);
                    }
                }
                Err(()) => return self.end(slot, handler),
            }
            buffer.forget_progress();
            self.buffers.keep_write_buffer(buffer);
        }
        let connection = &mut self.connections[slot.index()];
        connection.blocked = None;
        connection.clear(Flag::Refused);
        match &connection.phase {
            Phase::Open { .. } => {
                handler.on_drained(connection.id(slot));
                self.read_on_if_allowed(slot);
            }
            Phase::Flushing => self.end(slot, handler),
            Phase::Draining => connection.transport.shutdown_write(),
            Phase::KeepAlive(_) => self.queue_if_readable(slot),
            Phase::ProxyHeader(_) | Phase::TlsHandshake | Phase::Head(_) | Phase::Body(_) => {}
            Phase::AwaitingResponse(_) | Phase::AwaitingAdmission(_) => {}
            Phase::AwaitingClose(_) | Phase::Closed => {}
        }
    }

    /// Goes on reading a connection that was not read because it took too little.
    fn read_on_if_allowed(&mut self, slot: Slot) {
        let connection = &self.connections[slot.index()];
        if connection.unsent_bytes() <= self.limits.output_bytes_max / 2 {
            self.queue_if_readable(slot);
        }
    }
}

/// Writes until all is taken or the socket takes no more; says how many bytes it took.
fn write_all(transport: &mut Transport, buffer: &mut WriteBuffer) -> Result<usize, ()> {
    let mut taken = 0;
    while !buffer.is_empty() {
        match transport.write(buffer.waiting()) {
            Ok(0) => return Err(()),
            Ok(bytes) => {
                taken += bytes;
                buffer.take(bytes);
            }
            Err(error) => match trouble(&error) {
                Trouble::WouldBlock => break,
                Trouble::Interrupted => {}
                Trouble::Broken => return Err(()),
            },
        }
    }
    Ok(taken)
}
