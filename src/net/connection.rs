//! One connection: its transport, where it is in its life, and what is known of its readiness.

use crate::id::{ConnectionId, ConnectionSerial, Slot};
use crate::timer_wheel::Tick;

use super::phase::Phase;
use super::reader::Reader;
use super::transport::Transport;
use super::write_buffer::WriteBuffer;

/// How many bytes of a closing connection are read. The rest stays in the socket, which holds up a peer that sends on.
const IGNORED_BYTES_MAX: u32 = 256 * 1024;

/// A connection. An idle one owns its transport and these few fields, no buffers and no parser.
#[derive(Debug)]
pub(super) struct Connection<R> {
    pub(super) transport: Transport,
    pub(super) serial: ConnectionSerial,
    pub(super) phase: Phase<R>,
    /// There is one only while something waits in it.
    pub(super) write_buffer: Option<Box<WriteBuffer>>,
    /// Of an open connection, when the last byte came; of any other, when its phase began.
    pub(super) since: Tick,
    /// Since when it is owed bytes and takes none.
    pub(super) blocked: Option<Tick>,
    /// Where its entry stands on the wheel; entries found elsewhere are out of date.
    pub(super) timer_at: Tick,
    /// [`Flag`]s, and above them the bytes that have come since it began to close, and are of no use to anybody.
    flags: u32,
}

/// The bits above the flags.
const IGNORED_SHIFT: u32 = 10;

/// What the system said of the socket, what was found by using it, and in which lists it waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flag {
    Readable = 1,
    /// The peer will send nothing more, so that a short read is not the end of what is there.
    ReadClosed = 2,
    Writable = 4,
    /// It refused something, and the handler waits to be told that it would take it now.
    Refused = 8,
    /// It waits in the list of connections to be read.
    Queued = 16,
    /// It waits in the list of connections whose write buffer is to be written.
    Dirty = 32,
    /// A write has failed: nothing is written any more, and it ends when all that has come is read.
    Broken = 64,
    /// Its owner is charged for memory that it holds.
    Charged = 128,
    /// It speaks TLS. Not a kind of transport, which would make every connection eight bytes larger.
    Encrypted = 256,
    /// It came by a listener for operators.
    Admin = 512,
}

impl<R> Connection<R> {
    pub(super) fn new(transport: Transport, serial: ConnectionSerial, now: Tick, timer_at: Tick) -> Self {
        Self {
            transport,
            serial,
            phase: Phase::Head(None),
            write_buffer: None,
            since: now,
            blocked: None,
            timer_at,
            // A new socket takes bytes; an event tells when it has some.
            flags: Flag::Writable as u32,
        }
    }

    pub(super) fn id(&self, slot: Slot) -> ConnectionId {
        ConnectionId { slot, serial: self.serial }
    }

    #[inline]
    pub(super) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u32 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u32;
    }

    #[inline]
    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u32);
    }

    /// Whether it speaks TLS, if only behind the header of a proxy.
    #[inline]
    pub(super) fn is_encrypted(&self) -> bool {
        cfg!(feature = "tls") && self.is(Flag::Encrypted)
    }

    /// Where a connection stands before its first request.
    pub(super) fn before_request(&self) -> Phase<R> {
        if self.is_encrypted() { Phase::TlsHandshake } else { Phase::Head(None) }
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.write_buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// It was upgraded; the heartbeat begins.
    pub(super) fn open(&mut self, now: Tick) {
        self.phase = Phase::Open { reader: None, pinged: None };
        self.since = now;
    }

    /// Leaves a parser with it that is in the middle of something.
    pub(super) fn keep_reader(&mut self, kept: Box<Reader>) {
        if let Phase::Open { reader, .. } = &mut self.phase {
            *reader = Some(kept);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether nothing is read from it because an answer or a decision is still to come.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::AwaitingResponse(_) | Phase::AwaitingAdmission(_))
    }

    fn ignored_bytes(&self) -> u32 {
        self.flags >> IGNORED_SHIFT
    }

    /// Bytes have come that are of no use to anybody. What is counted stays near the bound, beyond which nothing is read.
    pub(super) fn ignore(&mut self, bytes: usize) {
        let ignored = (self.ignored_bytes() as usize).saturating_add(bytes).min(IGNORED_BYTES_MAX as usize) as u32;
        self.flags = ignored << IGNORED_SHIFT | self.flags & ((1 << IGNORED_SHIFT) - 1);
    }

    /// Whether it takes nothing more, and ends when its peer has what it is owed.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining)
    }

    /// Whether it is closing, and so much has come since that no more is read: what a peer sends before it learns of the end is
    /// read, or a reset could overtake the answer.
    pub(super) fn has_ignored_enough(&self) -> bool {
        self.is_closing() && self.ignored_bytes() >= IGNORED_BYTES_MAX
    }

    /// Whether its peer cannot be answered any more.
    pub(super) fn is_lost(&self) -> bool {
        match self.phase {
            // A peer that sends no more cannot become a WebSocket, whatever is decided.
            Phase::AwaitingAdmission(_) => self.is(Flag::ReadClosed) || self.is(Flag::Broken),
            _ => self.is(Flag::Broken),
        }
    }

    /// Whether there is something to read, from the socket or kept.
    pub(super) fn has_input(&self) -> bool {
        self.is(Flag::Readable)
            || matches!(&self.phase, Phase::Open { reader: Some(reader), .. } if reader.is_stopped())
            || matches!(&self.phase, Phase::KeepAlive(Some(_)))
    }

    /// Whether it is not read before it has taken more of what it is owed: a peer that takes no answers is asked for no
    /// further questions.
    pub(super) fn must_take_first(&self, output_bytes_max: usize) -> bool {
        match self.phase {
            Phase::Open { .. } => self.unsent_bytes() > output_bytes_max / 2,
            Phase::KeepAlive(_) => self.write_buffer.is_some(),
            _ => self.has_ignored_enough(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::net::UnixStream;

    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // In debug builds mio remembers in every socket which poll it belongs to; otherwise it is four bytes. A second
        // variant, for vacant slots, needs no room of its own.
        let bytes = size_of::<Option<Connection<&'static str>>>() - size_of::<Transport>();
        assert!(bytes <= 48, "{bytes} bytes");
    }

    #[test]
    fn ignored_bytes_leave_the_flags_alone() {
        let (socket, _) = UnixStream::pair().unwrap();
        let transport = Transport::Plain(socket);
        let mut connection = Connection::<()>::new(transport, ConnectionSerial(1), Tick::FIRST, Tick::FIRST);
        connection.phase = Phase::Draining;
        connection.set(Flag::Broken);
        connection.ignore(IGNORED_BYTES_MAX as usize - 1);
        assert!(!connection.has_ignored_enough());
        connection.ignore(usize::MAX);
        assert!(connection.has_ignored_enough() && connection.is(Flag::Broken) && connection.is(Flag::Writable));
        connection.clear(Flag::Broken);
        assert!(connection.has_ignored_enough() && !connection.is(Flag::Broken) && !connection.is(Flag::Queued));
    }
}
