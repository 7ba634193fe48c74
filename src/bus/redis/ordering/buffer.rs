//! Messages that arrived before an earlier one, and messages that are known to exist but have not
//! arrived.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Messages in a buffer. Beyond it, they are dropped and read again later.
pub(crate) const MESSAGES_MAX: usize = 1024;
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// A copy of a body. The original is part of a read of up to 64 KiB, and would keep all of it
/// alive while it waits. Messages that are delivered at once need no copy.
pub(crate) fn copied(body: &Bytes) -> Bytes {
    Bytes::copy_from_slice(body)
}

/// Messages of the present epoch that wait for an earlier one.
#[derive(Debug, Default)]
pub(crate) struct ReorderBuffer {
    messages: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl ReorderBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds a message. Returns whether there was space.
    pub(crate) fn insert(&mut self, seq: u64, body: &Bytes) -> bool {
        if self.messages.len() >= MESSAGES_MAX || self.bytes + body.len() > BYTES_MAX {
            return false;
        }
        self.bytes += body.len();
        if let Some(doubled) = self.messages.insert(seq, copied(body)) {
            self.bytes -= doubled.len();
        }
        true
    }

    /// Removes the message with this number, if it is there, and drops those before it.
    pub(crate) fn take(&mut self, seq: u64) -> Option<Bytes> {
        while let Some(entry) = self.messages.first_entry().filter(|entry| *entry.key() <= seq) {
            let (found, body) = entry.remove_entry();
            self.bytes -= body.len();
            if found == seq {
                return Some(body);
            }
        }
        None
    }
}

/// How often awaited messages are checked. Two checks make sure that a whole interval passes,
/// however soon the first one is.
const CHECKS: u32 = 2;

/// Messages that Redis has numbered, but that history does not hold because it is short or off.
/// They are about to arrive on the subscription, or lost.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    top: u64,
    checks_left: u32,
}

impl Awaited {
    /// Whether some are missing, given that all up to `delivered` are there.
    pub(crate) fn are_ahead_of(&self, delivered: u64) -> bool {
        self.top > delivered
    }

    /// All numbers up to `top` exist. Messages that are awaited already keep their deadline.
    pub(crate) fn add(&mut self, delivered: u64, top: u64) {
        if !self.are_ahead_of(delivered) {
            *self = Self { top, checks_left: CHECKS };
        }
    }

    /// Some time has passed. Returns whether it was enough to give up.
    pub(crate) fn are_given_up(&mut self, delivered: u64) -> bool {
        self.checks_left = self.checks_left.saturating_sub(1);
        self.are_ahead_of(delivered) && self.checks_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_whatever_comes_and_goes() {
        let mut buffer = ReorderBuffer::default();
        for seq in [9, 3, 3, 4, 7] {
            assert!(buffer.insert(seq, &Bytes::from(vec![0; seq as usize])));
        }
        assert_eq!((buffer.bytes, buffer.take(2), buffer.take(3).map(|body| body.len())), (23, None, Some(3)));
        assert_eq!((buffer.take(8), buffer.bytes), (None, 9));
        assert!(!buffer.insert(10, &Bytes::from(vec![0; BYTES_MAX - 8])) && buffer.bytes == 9);
        buffer.clear();
        assert_eq!((buffer.is_empty(), buffer.bytes), (true, 0));
    }
}
