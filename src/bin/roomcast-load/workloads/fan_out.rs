//! One room of many, many rooms of few, and the bare sender: closed loops and open ones.

use crate::bench::{Bench, describe};
use crate::client::{ClientIndex, Ear};
use crate::conversation::{Group, Pace};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::rehearsal::rehearse;

pub(super) const PUBLISHERS: usize = 10;

const ROOMS: u32 = 200;
const MEMBERS_OF_A_ROOM: usize = 10;
const WINDOW_OF_ROOMS: u32 = 4;

/// Of a core: at least so much of it must be used by whoever limits the rate of a closed loop.
const BUSY: f64 = 0.8;

/// One step: its name, who talks, and what was set for it that is worth a figure.
pub(super) struct Step<'a> {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) settings: &'a [(&'a str, f64)],
}

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
        let name = match pace {
            Pace::Closed { window } => format!("window {window}"),
            Pace::Open { per_second } => format!("{per_second} messages/s"),
        };
        let group = Group { publishers: publishers.clone(), members, pace };
        converse(bench, &mut crowd, running.pid, &Step { name, group, settings: &[] })?;
    }
    Ok(())
}

pub(super) fn run_rooms(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start("")?;
    let clients = crowd.open(ROOMS as usize * MEMBERS_OF_A_ROOM, Ear::Counts)?;
    crowd.join(&clients, |nth| nth as u32 % ROOMS)?;
    let publishers: Vec<_> = (0..ROOMS).map(|room| (clients[room as usize], room)).collect();
    rehearse(&mut crowd, &publishers, MEMBERS_OF_A_ROOM)?;
    let pace = Pace::Closed { window: WINDOW_OF_ROOMS };
    let group = Group { publishers, members: MEMBERS_OF_A_ROOM, pace };
    let step = Step { name: format!("window {WINDOW_OF_ROOMS}"), group, settings: &[] };
    converse(bench, &mut crowd, running.pid, &step)
}

/// The bare sender with a fixed number of messages in every write.
pub(super) fn run_floor(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    for batch in [1, 8, 64] {
        let (running, mut crowd) = bench.start(&format!("--batch {batch}"))?;
        let publishers = one_room(&mut crowd, members)?;
        // Enough for a batch to fill while the last one is being sent.
        let pace = Pace::Closed { window: (2 * batch as u32).div_ceil(PUBLISHERS as u32) + 1 };
        let group = Group { publishers, members, pace };
        converse(bench, &mut crowd, running.pid, &Step { name: format!("{batch} a write"), group, settings: &[] })?;
    }
    Ok(())
}

/// Opens a room and says who of it publishes: as many as usual, or as there are, spread over it.
pub(super) fn one_room(crowd: &mut Crowd, members: usize) -> Result<Vec<(ClientIndex, u32)>, LoadError> {
    let clients = crowd.open(members, Ear::Counts)?;
    crowd.join(&clients, |_| 0)?;
    let count = PUBLISHERS.min(members);
    let publishers: Vec<_> = (0..count).map(|nth| (clients[nth * members / count], 0)).collect();
    rehearse(crowd, &publishers, members)?;
    Ok(publishers)
}

/// Has one group talk, and keeps what is found.
pub(super) fn converse(
    bench: &mut Bench<'_>,
    crowd: &mut Crowd,
    pid: Option<u32>,
    step: &Step<'_>,
) -> Result<(), LoadError> {
    let Step { name, group, settings } = step;
    bench.announce(name);
    // By schedule few enough come that everybody's can be looked at.
    let ear = if matches!(group.pace, Pace::Open { .. }) { Ear::Markers } else { Ear::Counts };
    (0..crowd.len() as ClientIndex).for_each(|client| crowd.set_ear(client, ear));
    group.publishers.iter().for_each(|(publisher, _)| crowd.set_ear(*publisher, Ear::Markers));
    let findings = bench.conversation(vec![group.clone()], pid).run(crowd)?;
    if let Some(complaint) = crowd.take_complaint() {
        bench.results.note(&format!("{} complained: {complaint}", bench.target.name));
    }
    bench.record(name, |record| {
        record.set("members", group.members as f64);
        if let Pace::Open { per_second } = group.pace {
            record.set("offered_per_s", per_second);
        }
        for (name, value) in *settings {
            record.set(name, *value);
        }
        describe(record, &findings);
        let is_idle = |name| record.get(name).is_some_and(|busy| busy < BUSY);
        if !record.is_open_loop() && is_idle("server_busy") && is_idle("load_busy") {
            record.remark(
                "neither server nor load was busy all the time: the loop is short of messages, or others had the cores",
            );
        }
    })
}
