//! A connection's write buffer: what is for this connection alone, and the rest of a frame that its socket took only in part.

use std::io;

use bytes::Bytes;

use crate::frame::{self, Head, Payload};

/// Bytes for one connection, in order. It exists only while there is something in it.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` the socket has taken.
    taken: usize,
    /// A place in `bytes` behind which whole frames lie, and nothing else.
    boundary: usize,
    /// What follows `bytes`, and is not ours alone.
    shared: Bytes,
    /// What goes out before all that: TLS records, which can neither be left out nor made again.
    sealed: Vec<u8>,
    /// How many bytes the socket has taken since [`WriteBuffer::forget_progress`].
    progress: usize,
}

/// Shared bytes up to this size are copied behind the others: that costs less than a write of their own.
const COPIED_BYTES_MAX: usize = 4 * 1024;

impl WriteBuffer {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.sealed.len() + self.plain_len()
    }

    /// How many bytes wait besides TLS records.
    fn plain_len(&self) -> usize {
        self.bytes.len() - self.taken + self.shared.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a text frame.
    pub fn text(&mut self, text: &str) {
        self.message(Payload::Text, text.as_bytes());
    }

    /// Appends a binary frame.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.message(Payload::Binary, bytes);
    }

    fn message(&mut self, payload: Payload, bytes: &[u8]) {
        self.own();
        frame::append_header(&mut self.bytes, payload, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends whole frames.
    pub(super) fn append(&mut self, frames: &[u8]) {
        self.own();
        self.bytes.extend_from_slice(frames);
    }

    /// Appends bytes that cannot be left out once those before them are sent: the rest of a frame, or HTTP.
    pub(super) fn append_indivisible(&mut self, bytes: &[u8]) {
        self.append(bytes);
        self.boundary = self.bytes.len();
    }

    /// Appends a body that others may hold as well, without copying it if it is large.
    pub(super) fn append_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            return self.append_indivisible(bytes);
        }
        self.own();
        self.shared = bytes.clone();
    }

    /// Drops the whole frames of which the socket has taken nothing, and gives back the memory.
    pub(super) fn drop_whole_frames(&mut self) {
        self.own();
        self.forget_taken();
        self.bytes.truncate(self.boundary);
        self.bytes.shrink_to_fit();
    }

    /// Shared bytes become our own, because something follows them. The answer to a request is the last for a while, so
    /// this is rare.
    fn own(&mut self) {
        if !self.shared.is_empty() {
            let shared = std::mem::take(&mut self.shared);
            self.bytes.extend_from_slice(&shared);
            self.boundary = self.bytes.len();
        }
    }

    pub(super) fn append_close(&mut self, code: u16, reason: &str) {
        self.own();
        frame::append_close(&mut self.bytes, code, reason);
    }

    /// What is to be written next.
    pub(super) fn waiting(&self) -> &[u8] {
        if self.taken < self.bytes.len() { &self.bytes[self.taken..] } else { &self.shared }
    }

    /// The socket has taken so many bytes of what was [waiting](WriteBuffer::waiting).
    pub(super) fn take(&mut self, bytes: usize) {
        if self.taken == self.bytes.len() {
            return bytes::Buf::advance(&mut self.shared, bytes);
        }
        self.taken += bytes;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            (self.taken, self.boundary) = (0, 0);
            return;
        }
        // Closing up when at least half is free moves every byte at most once, amortised.
        if self.taken * 2 >= self.bytes.len() {
            self.forget_taken();
            if self.bytes.capacity() > 4 * self.bytes.len() + COPIED_BYTES_MAX {
                self.bytes.shrink_to(2 * self.bytes.len());
            }
        }
    }

    /// Removes what the socket has taken.
    fn forget_taken(&mut self) {
        while self.boundary < self.taken {
            self.boundary += Head::parse(&self.bytes[self.boundary..])
                .map_or(usize::MAX, |head| head.header_bytes.saturating_add(head.payload_bytes as usize))
                .min(self.bytes.len() - self.boundary);
        }
        self.bytes.drain(..self.taken);
        self.boundary -= self.taken;
        self.taken = 0;
    }

    /// The socket has taken so many bytes more. Says how many since [`WriteBuffer::forget_progress`].
    pub(super) fn note_progress(&mut self, bytes: usize) -> usize {
        self.progress += bytes;
        self.progress
    }

    /// Counts what the socket takes from now on.
    pub(super) fn forget_progress(&mut self) {
        self.progress = 0;
    }

    /// Memory held. Bytes that others hold as well cost nothing here.
    pub(super) fn capacity(&self) -> usize {
        let shared = if self.shared.is_unique() { self.shared.len() } else { 0 };
        self.bytes.capacity() + shared + self.sealed.capacity()
    }
}

#[cfg(feature = "tls")]
impl WriteBuffer {
    /// TLS records that are to be written before anything else.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Appends TLS records, or a rest of them.
    pub(super) fn append_sealed(&mut self, records: &[u8]) {
        self.sealed.extend_from_slice(records);
    }

    /// The socket has taken so many bytes of the TLS records.
    pub(super) fn take_sealed(&mut self, bytes: usize) {
        self.sealed.drain(..bytes);
    }

    /// Whether something waits that is no TLS record yet.
    pub(super) fn has_plain(&self) -> bool {
        self.plain_len() > 0
    }

    /// Drops everything but TLS records.
    pub(super) fn drop_plain(&mut self) {
        *self = Self { sealed: std::mem::take(&mut self.sealed), ..Self::default() };
    }
}

impl io::Write for WriteBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_are_the_whole_frames_wherever_the_socket_has_stopped() {
        let payloads = ["a".repeat(3), "b".repeat(200), String::new(), "c".repeat(70)];
        let mut whole = WriteBuffer::default();
        whole.append_indivisible(b"the rest of a frame");
        let mut boundaries = vec![0, whole.len()];
        for payload in &payloads {
            whole.text(payload);
            boundaries.push(whole.len());
        }
        let all = whole.waiting().to_vec();
        for first in 0..=all.len() {
            for second in [0, 1, 20, 150] {
                let mut buffer = WriteBuffer::default();
                buffer.append_indivisible(&all[..boundaries[1]]);
                buffer.append(&all[boundaries[1]..]);
                buffer.take(first);
                let taken = all.len().min(first + second);
                buffer.take(taken - first);
                assert_eq!(buffer.waiting(), &all[taken..], "{taken} taken");
                // Nothing of the indivisible bytes may be left out, not even if none of them is sent.
                let kept_end = boundaries[1..].iter().copied().find(|boundary| *boundary >= taken).unwrap();
                buffer.drop_whole_frames();
                assert_eq!(buffer.waiting(), &all[taken..kept_end], "{taken} taken");
                assert!(buffer.capacity() < 300, "{}", buffer.capacity());
            }
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn records_go_first_and_are_never_dropped() {
        let mut buffer = WriteBuffer::default();
        buffer.text("one");
        buffer.append_sealed(b"a record");
        assert_eq!((buffer.len(), buffer.has_plain()), (5 + 8, true));
        buffer.take_sealed(2);
        // The first bytes of the frame are in the record.
        buffer.take(2);
        buffer.text("two");
        buffer.drop_whole_frames();
        assert_eq!((buffer.sealed(), buffer.waiting()), (&b"record"[..], &b"one"[..]));
        buffer.drop_plain();
        assert_eq!((buffer.sealed(), buffer.len(), buffer.has_plain()), (&b"record"[..], 6, false));
        assert!(!buffer.is_empty() && buffer.capacity() >= 6);
        buffer.take_sealed(6);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_buffer_that_drains_slowly_gives_back_memory() {
        let mut buffer = WriteBuffer::default();
        (0..100).for_each(|_| buffer.append(&[0; 2000]));
        while buffer.len() > 500 {
            buffer.take(500);
            // Up to half of the bytes are taken already.
            let (bytes, max) = (buffer.capacity(), 8 * buffer.len() + COPIED_BYTES_MAX);
            assert!(bytes <= max, "{bytes} of at most {max} for {}", buffer.len());
        }
    }

    #[test]
    fn a_shared_body_costs_only_its_last_holder() {
        let body = Bytes::from(vec![0; 50_000]);
        let mut buffer = WriteBuffer::default();
        buffer.append_shared(&body);
        assert_eq!(buffer.capacity(), 0);
        drop(body);
        assert_eq!(buffer.capacity(), 50_000);
    }
}
