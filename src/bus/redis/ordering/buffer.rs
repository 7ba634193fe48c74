//! Messages of a room's epoch that wait for one before them, and those that are waited for.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Messages put aside; beyond it they are dropped and read again later.
pub(crate) const HELD_MAX: usize = 1024;
pub(crate) const HELD_BYTES_MAX: usize = 1024 * 1024;

/// A copy: the body as it came is a part of all that was read with it, up to 64 KiB, and would keep that for as long as it waits.
/// What is delivered at once needs none.
pub(crate) fn put_aside(body: &Bytes) -> Bytes {
    Bytes::copy_from_slice(body)
}

/// See the [module](self).
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

    /// Puts a message aside; says whether there was space.
    pub(crate) fn insert(&mut self, seq: u64, body: &Bytes) -> bool {
        if self.messages.len() >= HELD_MAX || self.bytes + body.len() > HELD_BYTES_MAX {
            return false;
        }
        self.bytes += body.len();
        if let Some(doubled) = self.messages.insert(seq, put_aside(body)) {
            self.bytes -= doubled.len();
        }
        true
    }

    /// The message of this number, if it is there; those before it are dropped.
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

/// How often is looked whether what is awaited has come: twice, so that however soon the first look is, a whole interval passes.
const LOOKS: u32 = 2;

/// Messages that Redis has numbered and history does not have, because it keeps little or nothing. They are on their way on the
/// subscription, or lost.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    top: u64,
    looks_left: u32,
}

impl Awaited {
    /// Whether some have yet to come, all up to `delivered` being there.
    pub(crate) fn are_ahead_of(&self, delivered: u64) -> bool {
        self.top > delivered
    }

    /// All up to `top` exist. Those that are awaited already are not awaited any longer for it.
    pub(crate) fn add(&mut self, delivered: u64, top: u64) {
        if !self.are_ahead_of(delivered) {
            *self = Self { top, looks_left: LOOKS };
        }
    }

    /// Some time has passed; says whether it was enough.
    pub(crate) fn are_given_up(&mut self, delivered: u64) -> bool {
        self.looks_left = self.looks_left.saturating_sub(1);
        self.are_ahead_of(delivered) && self.looks_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_whatever_comes_and_goes() {
        let mut held = ReorderBuffer::default();
        for seq in [9, 3, 3, 4, 7] {
            assert!(held.insert(seq, &Bytes::from(vec![0; seq as usize])));
        }
        assert_eq!((held.bytes, held.take(2), held.take(3).map(|body| body.len())), (23, None, Some(3)));
        assert_eq!((held.take(8), held.bytes), (None, 9));
        assert!(!held.insert(10, &Bytes::from(vec![0; HELD_BYTES_MAX - 8])) && held.bytes == 9);
        held.clear();
        assert_eq!((held.is_empty(), held.bytes), (true, 0));
    }
}
