//! Members that make the server hold bytes for them, or read history for them.

use std::time::Duration;

use crate::workloads::hostile::attack::{
    Attack, LARGE_TEXT_BYTES, Move, Reads, Seat, chat, join, join_with_history, leave, resume,
};

/// Asks for pages of history again and again, and reads them or does not.
#[derive(Debug)]
pub(super) struct PageReader {
    reads: Reads,
    text: String,
}

impl PageReader {
    pub(super) fn new(reads: Reads) -> Self {
        Self { reads, text: "x".repeat(LARGE_TEXT_BYTES) }
    }
}

impl Attack for PageReader {
    fn reads(&self) -> Reads {
        self.reads
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        const READERS_OF_A_ROOM: u32 = 50;
        let room = format!("pages-{}", nth / READERS_OF_A_ROOM);
        // Each leaves one message, so that the room soon has a page of them.
        Move::Send(match moves {
            0 => [join(&room), chat(&room, &self.text)].concat().into(),
            _ => [leave(&room), join_with_history(&room)].concat().into(),
        })
    }
}

/// Resumes rooms from an epoch with a very long name.
#[derive(Debug)]
pub(super) struct LongEpochs {
    epoch: String,
}

impl Default for LongEpochs {
    fn default() -> Self {
        Self { epoch: "e".repeat(LARGE_TEXT_BYTES) }
    }
}

impl Attack for LongEpochs {
    fn interval(&self) -> Duration {
        Duration::from_millis(22)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        const ROOMS_OF_A_CONNECTION: u32 = 64;
        if moves >= ROOMS_OF_A_CONNECTION {
            return Move::Wait;
        }
        Move::Send(resume(&format!("epochs-{nth}-{moves}"), &self.epoch, 1).into())
    }
}
