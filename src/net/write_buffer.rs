//! A connection's write buffer: what is for this connection alone, and the rest of a frame that its socket took only in part.

use std::io;

use crate::frame::{self, Payload};

/// Bytes for one connection, in order. It exists only while there is something in it.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` the socket has taken.
    taken: usize,
}

impl WriteBuffer {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
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
        frame::append_header(&mut self.bytes, payload, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes that are whole frames, or the answer to a request.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn append_close(&mut self, code: u16, reason: &str) {
        frame::append_close(&mut self.bytes, code, reason);
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(super) fn take(&mut self, bytes: usize) {
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
