//! Members that fill what the server keeps: remembered ids, history, rooms.

use std::time::Duration;

use crate::workloads::hostile::attack::{Attack, LARGE_TEXT_BYTES, Move, Seat, chat, chat_with_id, join, leave};

const ROOMS: u32 = 4;

/// Publishes with ids that were never used.
#[derive(Debug, Default)]
pub(super) struct IdFlood {
    ids: u64,
}

impl Attack for IdFlood {
    fn interval(&self) -> Duration {
        Duration::from_millis(110)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        // The burst that the rate limit allows, then as much as it allows in the long run.
        const FIRST: u32 = 90;
        const LATER: u32 = 5;
        let mut bytes = Vec::new();
        if moves == 0 {
            bytes.extend((0..ROOMS).flat_map(|room| join(&format!("ids-{nth}-{room}"))));
        }
        for message in 0..if moves == 0 { FIRST } else { LATER } {
            self.ids += 1;
            let room = format!("ids-{nth}-{}", (moves + message) % ROOMS);
            bytes.extend(chat_with_id(&room, "again", &format!("{:016x}", self.ids)));
        }
        Move::Send(bytes.into())
    }
}

/// Publishes messages as large as they may be.
#[derive(Debug)]
pub(super) struct HistoryFlood {
    text: String,
}

impl Default for HistoryFlood {
    fn default() -> Self {
        Self { text: "x".repeat(LARGE_TEXT_BYTES) }
    }
}

impl Attack for HistoryFlood {
    fn interval(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        let room = |nth_room: u32| format!("history-{nth}-{}", nth_room % ROOMS);
        let joins = (0..ROOMS).filter(|_| moves == 0).flat_map(|nth_room| join(&room(nth_room)));
        Move::Send(joins.chain(chat(&room(moves), &self.text)).collect())
    }
}

/// Goes from one fresh room to the next, and leaves a message in each.
#[derive(Debug, Default)]
pub(super) struct RoomFlood {
    rooms: u64,
}

impl Attack for RoomFlood {
    fn interval(&self) -> Duration {
        Duration::from_millis(340)
    }

    fn next(&mut self, _: Seat) -> Move {
        const ROOMS_AT_A_TIME: u32 = 5;
        let mut bytes = Vec::new();
        for _ in 0..ROOMS_AT_A_TIME {
            self.rooms += 1;
            // As long as a name may be.
            let room = format!("{:x<128}", format!("rooms-{}-", self.rooms));
            bytes.extend([join(&room), chat(&room, "x"), leave(&room)].concat());
        }
        Move::Send(bytes.into())
    }
}
