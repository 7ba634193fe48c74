//! Messages that do not end, or come in very many fragments.

use std::time::Duration;

use bytes::Bytes;

use crate::wire;
use crate::workloads::hostile::attack::{Attack, LARGE_TEXT_BYTES, Move, Seat};

/// Sends a message without its last byte.
#[derive(Debug)]
pub(super) struct UnfinishedMessage {
    bytes: Bytes,
}

impl Default for UnfinishedMessage {
    fn default() -> Self {
        let mut bytes = wire::text(&" ".repeat(LARGE_TEXT_BYTES));
        bytes.pop();
        Self { bytes: bytes.into() }
    }
}

impl Attack for UnfinishedMessage {
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn next(&mut self, Seat { moves, .. }: Seat) -> Move {
        if moves == 0 { Move::Send(self.bytes.clone()) } else { Move::Wait }
    }
}

/// Sends pings of Roomcast's in fragments of one byte.
#[derive(Debug)]
pub(super) struct TinyFragments {
    message: Bytes,
}

impl Default for TinyFragments {
    fn default() -> Self {
        let message = format!(r#"{{"type":"ping"{}}}"#, " ".repeat(LARGE_TEXT_BYTES));
        Self { message: wire::fragments(message.as_bytes()).into() }
    }
}

impl Attack for TinyFragments {
    fn interval(&self) -> Duration {
        Duration::from_millis(22)
    }

    fn next(&mut self, _: Seat) -> Move {
        Move::Send(self.message.clone())
    }
}
