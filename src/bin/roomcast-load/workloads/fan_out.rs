//! One room of many, many rooms of few, and the bare sender: closed loops and open ones.

use super::one_room::{self, PUBLISHERS, Step};
use crate::bench::Bench;
use crate::client::ReadMode;
use crate::conversation::{Group, Pace};
use crate::delivery_check::check_delivery;
use crate::error::LoadError;

const ROOMS: u32 = 200;
const MEMBERS_OF_A_ROOM: usize = 10;
const WINDOW_OF_ROOMS: u32 = 4;

/// Messages per write of the bare sender.
pub(super) const FLOOR_BATCHES: [usize; 3] = [1, 8, 64];

/// The paces of the steps, in order.
pub(super) fn steps(quick: bool) -> Vec<Pace> {
    let closed = |window| Pace::Closed { window };
    let open = |per_second| Pace::Open { per_second };
    if quick {
        vec![closed(1), closed(8), open(100.0)]
    } else {
        // Window 64 comes last: some servers lose members under it.
        vec![closed(1), closed(3), closed(8), open(50.0), open(100.0), open(200.0), closed(64)]
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    let (running, mut crowd) = bench.start("")?;
    let publishers = one_room::open(&mut crowd, members)?;
    for pace in steps(bench.flags.quick) {
        let name = match pace {
            Pace::Closed { window } => format!("window {window}"),
            Pace::Open { per_second } => format!("{per_second} messages/s"),
        };
        let group = Group { publishers: publishers.clone(), members, pace };
        one_room::run_step(bench, &mut crowd, running.pid, &Step { name, group, settings: &[] })?;
    }
    Ok(())
}

pub(super) fn run_rooms(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start("")?;
    let clients = crowd.open(ROOMS as usize * MEMBERS_OF_A_ROOM, ReadMode::Count)?;
    crowd.join(&clients, |nth| nth as u32 % ROOMS)?;
    let publishers: Vec<_> = (0..ROOMS).map(|room| (clients[room as usize], room)).collect();
    check_delivery(&mut crowd, &publishers, MEMBERS_OF_A_ROOM)?;
    let pace = Pace::Closed { window: WINDOW_OF_ROOMS };
    let group = Group { publishers, members: MEMBERS_OF_A_ROOM, pace };
    let step = Step { name: format!("window {WINDOW_OF_ROOMS}"), group, settings: &[] };
    one_room::run_step(bench, &mut crowd, running.pid, &step)
}

pub(super) fn run_floor(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    for batch in FLOOR_BATCHES {
        let (running, mut crowd) = bench.start(&format!("--batch {batch}"))?;
        let publishers = one_room::open(&mut crowd, members)?;
        // A batch can fill while the last one is being sent.
        let pace = Pace::Closed { window: (2 * batch as u32).div_ceil(PUBLISHERS as u32) + 1 };
        let group = Group { publishers, members, pace };
        one_room::run_step(
            bench,
            &mut crowd,
            running.pid,
            &Step { name: format!("{batch} per write"), group, settings: &[] },
        )?;
    }
    Ok(())
}
