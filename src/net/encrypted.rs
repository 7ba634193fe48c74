//! Bytes of connections that speak TLS, between their sockets and everything else.

use http::StatusCode;
use rustls::HandshakeKind;

use crate::budget::units;
use crate::frame::boundary_after;
use crate::id::Slot;

use super::connection::Flag;
use super::handler::Handler;
use super::http::Response;
use super::phase::Phase;
pub(super) use super::tls::READ_BYTES_MAX as ENCRYPTED_READ_BYTES_MAX;
pub(super) use super::tls::Tls;
use super::tls::{RECORD_BYTES, SessionEnd, TlsIdentity};
use super::write_buffer::WriteBuffer;
use super::{Net, Trouble, trouble};

/// What a step of a handshake counts that rustls answers: keys are agreed on, and signed for. Two of them make a connection, and
/// take some 200 µs.
const HANDSHAKE_UNITS: u32 = 256;

/// How much of a room's log one send takes, to the end of a frame. What is more waits for the next turn.
const SEND_BYTES_MAX: usize = 64 * 1024;

impl<R> Net<R> {
    /// TLS sessions that begin from now on show this certificate. Those that are there go on.
    pub fn set_tls_identity(&mut self, identity: &TlsIdentity) {
        self.tls.set_identity(identity);
    }

    /// Takes what a socket has brought, or what came behind the header of a proxy.
    pub(super) fn take_received(&mut self, slot: Slot, bytes: &mut [u8], handler: &mut impl Handler<Route = R>) {
        let connection = &self.connections[slot.index()];
        match connection.phase {
            _ if !connection.is_encrypted() => self.take_bytes(slot, bytes, handler),
            // The header stands before everything that is encrypted.
            Phase::ProxyHeader(_) => self.take_bytes(slot, bytes, handler),
            // What it says does not matter any more, but how much it is.
            Phase::Flushing | Phase::Draining | Phase::Closed => self.take_bytes(slot, bytes, handler),
            Phase::TlsHandshake if !self.tls.has_session(slot) => self.begin_session(slot, bytes, handler),
            _ => self.decrypt(slot, bytes, handler),
        }
    }

    fn begin_session(&mut self, slot: Slot, bytes: &mut [u8], handler: &mut impl Handler<Route = R>) {
        // No record begins with a letter, and every request does: somebody has left the `s` out of `https`.
        if bytes.first().is_some_and(u8::is_ascii_alphabetic) {
            self.connections[slot.index()].clear(Flag::Encrypted);
            let reason = "this port speaks TLS; ask it with https:// or wss://";
            return self.answer(slot, &Response::text(StatusCode::BAD_REQUEST, reason), handler);
        }
        match self.tls.begin(slot) {
            Ok(()) => self.decrypt(slot, bytes, handler),
            Err(error) => {
                log::error!("cannot begin a TLS session: {error}");
                self.end(slot, handler);
            }
        }
    }

    fn decrypt(&mut self, slot: Slot, bytes: &mut [u8], handler: &mut impl Handler<Route = R>) {
        let mut plaintext = std::mem::take(&mut self.tls.plaintext);
        let Some(session) = self.tls.session(slot) else { return };
        let was_handshaking = session.is_handshaking();
        let received = session.receive(bytes, &mut plaintext);
        self.work += units(received.units, bytes.len());
        let connection = &mut self.connections[slot.index()];
        if connection.is_closing() {
            // What records carry is counted where it is looked at; they may carry next to nothing.
            connection.ignore(bytes.len().saturating_sub(plaintext.len()));
        }
        if !received.answer.is_empty() {
            self.work += if was_handshaking { HANDSHAKE_UNITS } else { 0 };
            self.write_buffer(slot).append_sealed(&received.answer);
        }
        if let Some(kind) = received.handshake {
            self.stats.tls_handshakes += 1;
            self.stats.tls_resumptions += u64::from(kind == HandshakeKind::Resumed);
            self.connections[slot.index()].phase = Phase::Head(None);
        }
        if !plaintext.is_empty() {
            self.take_bytes(slot, &plaintext, handler);
            plaintext.clear();
        }
        self.tls.plaintext = plaintext;
        match received.end {
            None => {}
            // It is read again when it has its answer, and then the socket tells of its end.
            Some(SessionEnd::Told) if self.connections[slot.index()].is_waiting() => {}
            Some(SessionEnd::Told) => self.handle_end(slot, handler),
            Some(SessionEnd::Failed(error)) => {
                log::debug!("connection {}: {error}", self.connections[slot.index()].id(slot));
                self.stats.tls_failures += 1;
                self.end_session(slot, handler);
            }
        }
    }

    /// Nothing more can be said to the peer but what is sealed.
    fn end_session(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        self.tls.end(slot);
        if !matches!(self.connections[slot.index()].phase, Phase::Closed) {
            self.begin_closing(slot, Phase::Flushing, handler);
        }
    }

    /// As [`Net::send`], of which it is the part for connections that speak TLS.
    pub(super) fn send_encrypted(&mut self, slot: Slot, frames: &[u8]) -> usize {
        let end = if frames.len() > SEND_BYTES_MAX { boundary_after(frames, SEND_BYTES_MAX) } else { frames.len() };
        let mut record = std::mem::take(&mut self.tls.record);
        let (taken, is_full) = self.send_records(slot, &frames[..end], &mut record);
        self.tls.record = record;
        let connection = &mut self.connections[slot.index()];
        if taken > 0 {
            connection.blocked = None;
        }
        if taken == frames.len() && !is_full {
            return taken;
        }
        connection.set(Flag::Refused);
        if !is_full {
            self.queue_flush(slot);
            return taken;
        }
        if connection.is(Flag::Writable) {
            self.note_full(slot);
        }
        let boundary = boundary_after(frames, taken);
        if taken < boundary {
            self.stats.partial_frame_bytes += (boundary - taken) as u64;
            self.append_indivisible(slot, &frames[taken..boundary]);
        }
        boundary
    }

    /// Encrypts and writes record by record. Says how much of `frames` is encrypted, and whether the socket has refused some of it,
    /// which is kept then.
    fn send_records(&mut self, slot: Slot, frames: &[u8], record: &mut [u8]) -> (usize, bool) {
        let mut taken = 0;
        for piece in frames.chunks(RECORD_BYTES) {
            let Some(Ok(bytes)) = self.tls.session(slot).map(|session| session.encrypt(piece, record)) else {
                self.say_goodbye_at_once(slot, record);
                self.note_broken(slot);
                return (taken, true);
            };
            let sealed = &record[..bytes];
            taken += piece.len();
            let written = match self.connections[slot.index()].transport.write(sealed) {
                Ok(bytes) => bytes,
                Err(error) => match trouble(&error) {
                    Trouble::WouldBlock | Trouble::Interrupted => 0,
                    Trouble::Broken => {
                        self.note_broken(slot);
                        return (taken, true);
                    }
                },
            };
            if written < sealed.len() {
                self.write_buffer(slot).append_sealed(&sealed[written..]);
                return (taken, true);
            }
        }
        (taken, false)
    }

    /// The keys of a session may encrypt nothing more, as after 2^24 records of TLS 1.2: its peer learns that nothing was cut off, if
    /// its socket takes that now.
    #[cold]
    fn say_goodbye_at_once(&mut self, slot: Slot, record: &mut [u8]) {
        if let Some(Ok(bytes)) = self.tls.session(slot).map(|session| session.say_goodbye(record)) {
            log::debug!("connection {}: its keys are used up", self.connections[slot.index()].id(slot));
            let _ = self.connections[slot.index()].transport.write(&record[..bytes]);
        }
    }

    /// A connection whose last bytes are written says so to its peer.
    pub(super) fn begin_goodbye(&mut self, slot: Slot) {
        if self.is_to_say_goodbye(slot) {
            let connection = &mut self.connections[slot.index()];
            connection.write_buffer.get_or_insert_with(|| self.buffers.lend_write_buffer());
        }
    }

    fn is_to_say_goodbye(&self, slot: Slot) -> bool {
        matches!(self.connections[slot.index()].phase, Phase::Flushing | Phase::Draining) && self.tls.has_session(slot)
    }

    /// Encrypts and writes a write buffer until all is taken or the socket takes no more; says how many bytes it
    /// took.
    pub(super) fn write_encrypted(&mut self, slot: Slot, buffer: &mut WriteBuffer) -> Result<usize, ()> {
        let mut taken = 0;
        loop {
            while !buffer.sealed().is_empty() {
                match self.connections[slot.index()].transport.write(buffer.sealed()) {
                    Ok(0) => return Err(()),
                    Ok(bytes) => {
                        taken += bytes;
                        buffer.take_sealed(bytes);
                    }
                    Err(error) => match trouble(&error) {
                        Trouble::WouldBlock => return Ok(taken),
                        Trouble::Interrupted => {}
                        Trouble::Broken => return Err(()),
                    },
                }
            }
            self.seal_next(slot, buffer)?;
            if buffer.sealed().is_empty() {
                return Ok(taken);
            }
        }
    }

    /// Encrypts the next record of a write buffer from which all sealed bytes are taken.
    fn seal_next(&mut self, slot: Slot, buffer: &mut WriteBuffer) -> Result<(), ()> {
        let mut record = std::mem::take(&mut self.tls.record);
        let sealed = if buffer.has_plain() {
            match self.tls.session(slot) {
                Some(session) => {
                    let waiting = buffer.waiting();
                    let piece = &waiting[..waiting.len().min(RECORD_BYTES)];
                    let (bytes, sealed) = (piece.len(), session.encrypt(piece, &mut record));
                    buffer.take(bytes);
                    sealed.map_err(|_| ())
                }
                None => {
                    buffer.drop_plain();
                    Ok(0)
                }
            }
        } else if self.is_to_say_goodbye(slot) {
            // Its peer may have been refused before there were keys to say goodbye with.
            Ok(self.tls.end(slot).and_then(|mut session| session.say_goodbye(&mut record).ok()).unwrap_or(0))
        } else {
            Ok(0)
        };
        match sealed {
            Ok(bytes) => buffer.append_sealed(&record[..bytes]),
            Err(()) => self.say_goodbye_at_once(slot, &mut record),
        }
        self.tls.record = record;
        sealed.map(drop)
    }
}

#[cfg(test)]
mod tests;
