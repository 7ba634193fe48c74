//! Members that come and go, or that all are in the same rooms.

use std::time::Duration;

use crate::workloads::hostile::attack::{Attack, Move, Seat, chat, join, leave};

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

/// A connection is in as many rooms as the default allows, less a few, with very many others.
const ROOMS: u32 = 60;
const MEMBERS: u32 = 400;

fn big_room(nth: u32, nth_room: u32) -> String {
    format!("big-{}-{}", nth / MEMBERS, nth_room % ROOMS)
}

fn join_all(nth: u32) -> Move {
    Move::Send((0..ROOMS).flat_map(|nth_room| join(&big_room(nth, nth_room))).collect())
}

/// Talks in all of its rooms.
#[derive(Debug)]
pub(super) struct BigRooms {
    text: String,
}

impl BigRooms {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }
}

impl Attack for BigRooms {
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        if moves == 0 { join_all(nth) } else { Move::Send(chat(&big_room(nth, nth + moves), &self.text).into()) }
    }
}

/// Leaves its rooms and joins them again, one after the other.
#[derive(Debug)]
pub(super) struct Moves;

impl Attack for Moves {
    fn interval(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn next(&mut self, Seat { nth, moves }: Seat) -> Move {
        let room = big_room(nth, nth + moves);
        if moves == 0 { join_all(nth) } else { Move::Send([leave(&room), join(&room)].concat().into()) }
    }
}
