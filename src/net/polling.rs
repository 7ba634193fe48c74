//! What a poll watches, and what its tokens stand for: listeners first, then connections by slot.

use std::ops::Range;

use mio::{Registry, Token};

use crate::id::Slot;

/// How many listeners one server may have; their tokens come first in its range.
pub const LISTENERS_MAX: usize = 16;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Polling {
    pub(super) registry: Registry,
    tokens: Range<usize>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// The listener with this place in the list.
    Listener(usize),
    Connection(Slot),
}

impl Polling {
    pub(super) fn new(registry: Registry, tokens: Range<usize>) -> Self {
        Self { registry, tokens }
    }

    /// Whether a token is ours.
    pub(super) fn owns(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// What one of our tokens stands for.
    pub(super) fn polled(&self, token: Token) -> Polled {
        let index = token.0 - self.tokens.start;
        match index.checked_sub(LISTENERS_MAX) {
            None => Polled::Listener(index),
            Some(slot) => Polled::Connection(Slot(slot as u32)),
        }
    }

    pub(super) fn listener_token(&self, index: usize) -> Token {
        Token(self.tokens.start + index)
    }

    pub(super) fn token(&self, slot: Slot) -> Token {
        Token(self.tokens.start + LISTENERS_MAX + slot.index())
    }
}
