//! Members that come and go, or that all are in the same rooms.

use std::time::Duration;

use crate::workloads::hostile::attack::{Attack, Move, Seat, chat, join};

/// Joins, hangs up, and comes back at once.
#[derive(Debug)]
pub(super) struct HangUp;

impl Attack for HangUp {
    /// Long enough for the server to have read the join.
    fn interval(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn absence(&self) -> Duration {
        Duration::ZERO
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        if moves == 0 { Move::Send(join(&format!("hang-ups-{}", nth / 2)).into()) } else { Move::HangUp }
    }
}

/// Is in as many rooms as the default allows, less a few, with very many others, and talks in all of them.
#[derive(Debug)]
pub(super) struct BigRooms;

impl Attack for BigRooms {
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        const ROOMS: u32 = 60;
        const MEMBERS: u32 = 400;
        let room = |nth_room: u32| format!("big-{}-{}", nth / MEMBERS, nth_room % ROOMS);
        if moves == 0 {
            return Move::Send((0..ROOMS).flat_map(|nth_room| join(&room(nth_room))).collect());
        }
        Move::Send(chat(&room(nth + moves), "to all of you").into())
    }
}
