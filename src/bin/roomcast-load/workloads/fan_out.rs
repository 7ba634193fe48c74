//! One room of many, many rooms of few, and the bare sender: closed loops and open ones.

use crate::bench::{Bench, describe};
use crate::client::ClientIndex;
use crate::client::Ear;
use crate::conversation::{Conversation, Group, Pace, SlowReaders};
use crate::crowd::Crowd;
use crate::error::LoadError;

pub(super) const PUBLISHERS: usize = 10;

const ROOMS: u32 = 200;
const MEMBERS_OF_A_ROOM: usize = 10;
const WINDOW_OF_ROOMS: u32 = 4;

/// How the room is talked to, step by step.
pub(super) fn steps(quick: bool) -> Vec<Pace> {
    let closed = |window| Pace::Closed { window };
    let open = |per_second| Pace::Open { per_second };
    if quick {
        vec![closed(1), closed(8), open(100.0)]
    } else {
        // What is too much for some servers comes last: it may cost them members.
        vec![closed(1), closed(3), closed(8), open(50.0), open(100.0), open(200.0), closed(64)]
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    let (running, mut crowd) = bench.start("")?;
    let publishers = one_room(&mut crowd, members)?;
    for pace in steps(bench.flags.quick) {
        let step = match pace {
            Pace::Closed { window } => format!("window {window}"),
            Pace::Open { per_second } => format!("{per_second} messages/s"),
        };
        converse(bench, &mut crowd, &step, running.pid, &Group { publishers: publishers.clone(), members, pace })?;
    }
    Ok(())
}

pub(super) fn run_rooms(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start("")?;
    let clients = crowd.open(ROOMS as usize * MEMBERS_OF_A_ROOM, Ear::Counts)?;
    crowd.join(&clients, |nth| nth as u32 % ROOMS)?;
    let publishers: Vec<_> = (0..ROOMS).map(|room| (clients[room as usize], room)).collect();
    let pace = Pace::Closed { window: WINDOW_OF_ROOMS };
    let group = Group { publishers, members: MEMBERS_OF_A_ROOM, pace };
    converse(bench, &mut crowd, &format!("window {WINDOW_OF_ROOMS}"), running.pid, &group)
}

/// The bare sender with a fixed number of messages in every write.
pub(super) fn run_floor(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    for batch in [1, 8, 64] {
        let (running, mut crowd) = bench.start(&format!("--batch {batch}"))?;
        let publishers = one_room(&mut crowd, members)?;
        // Enough for a batch to fill while the last one is being sent.
        let pace = Pace::Closed { window: (2 * batch as u32).div_ceil(PUBLISHERS as u32) + 1 };
        converse(bench, &mut crowd, &format!("{batch} a write"), running.pid, &Group { publishers, members, pace })?;
    }
    Ok(())
}

/// Opens a room and says who of it publishes: as many as usual, or as there are, spread over it.
pub(super) fn one_room(crowd: &mut Crowd, members: usize) -> Result<Vec<(ClientIndex, u32)>, LoadError> {
    let clients = crowd.open(members, Ear::Counts)?;
    crowd.join(&clients, |_| 0)?;
    let count = PUBLISHERS.min(members);
    Ok((0..count).map(|nth| (clients[nth * members / count], 0)).collect())
}

/// Has one group talk, and keeps what is found.
pub(super) fn converse(
    bench: &mut Bench<'_>,
    crowd: &mut Crowd,
    step: &str,
    pid: Option<u32>,
    group: &Group,
) -> Result<(), LoadError> {
    bench.announce(step);
    // By schedule few enough come that everybody's can be looked at.
    let ear = if matches!(group.pace, Pace::Open { .. }) { Ear::Markers } else { Ear::Counts };
    (0..crowd.len() as ClientIndex).for_each(|client| crowd.set_ear(client, ear));
    group.publishers.iter().for_each(|(publisher, _)| crowd.set_ear(*publisher, Ear::Markers));
    let conversation = Conversation {
        groups: vec![group.clone()],
        slow: SlowReaders::default(),
        text_bytes: bench.text_bytes(),
        warm_up: bench.warm_up(),
        duration: bench.duration(),
        pid,
        watches_files: false,
    };
    let findings = conversation.run(crowd)?;
    if let Some(complaint) = crowd.take_complaint() {
        bench.results.note(&format!("{} complained: {complaint}", bench.target.name));
    }
    bench.record(step, |record| {
        record.set("members", group.members as f64);
        describe(record, &findings);
    })
}
