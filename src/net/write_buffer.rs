//! A connection's write buffer: what is for this connection alone, and the rest of a frame that its socket took only in part.

use std::io;

use bytes::Bytes;

use crate::frame::{self, Payload};

/// Bytes for one connection, in order. It exists only while there is something in it.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` the socket has taken.
    taken: usize,
    /// What follows `bytes`, and is not ours alone.
    shared: Bytes,
}

/// Shared bytes up to this size are copied behind the others: that costs less than a write of their own.
const COPIED_BYTES_MAX: usize = 4 * 1024;

impl WriteBuffer {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
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

    /// Appends bytes that are whole frames, or the answer to a request.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.own();
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes that others hold as well, without copying them if they are many.
    pub(super) fn append_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            return self.append(bytes);
        }
        self.own();
        self.shared = bytes.clone();
    }

    /// Shared bytes become our own, because something follows them. The answer to a request is the last for a while, so
    /// this is rare.
    fn own(&mut self) {
        if !self.shared.is_empty() {
            let shared = std::mem::take(&mut self.shared);
            self.bytes.extend_from_slice(&shared);
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
        // Closing up when at least half is free moves every byte at most once, amortised.
        if self.taken * 2 >= self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Memory held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
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
