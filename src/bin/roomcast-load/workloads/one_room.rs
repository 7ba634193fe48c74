//! One busy room: opens it, runs a step in it, keeps the figures.

use crate::bench::{Bench, describe};
use crate::client::{ClientIndex, ReadMode};
use crate::conversation::{Group, Pace};
use crate::crowd::Crowd;
use crate::delivery_check::check_delivery;
use crate::error::LoadError;

pub(super) const PUBLISHERS: usize = 10;

/// The part of a core that the limiting side of a closed loop uses at least.
const BUSY: f64 = 0.8;

/// One step: its name, who publishes, and the settings that belong into its record.
pub(super) struct Step<'a> {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) settings: &'a [(&'a str, f64)],
}

/// Opens a room and returns its publishers, spread over the members.
pub(super) fn open(crowd: &mut Crowd, members: usize) -> Result<Vec<(ClientIndex, u32)>, LoadError> {
    let clients = crowd.open(members, ReadMode::Count)?;
    crowd.join(&clients, |_| 0)?;
    let count = PUBLISHERS.min(members);
    let publishers: Vec<_> = (0..count).map(|nth| (clients[nth * members / count], 0)).collect();
    check_delivery(crowd, &publishers, members)?;
    Ok(publishers)
}

/// Runs a step and keeps its figures.
pub(super) fn run_step(
    bench: &mut Bench<'_>,
    crowd: &mut Crowd,
    pid: Option<u32>,
    step: &Step<'_>,
) -> Result<(), LoadError> {
    let Step { name, group, settings } = step;
    bench.announce(name);
    // An open loop has few enough messages for the load to read every member's.
    let mode = if matches!(group.pace, Pace::Open { .. }) { ReadMode::Markers } else { ReadMode::Count };
    (0..crowd.len() as ClientIndex).for_each(|client| crowd.set_read_mode(client, mode));
    group.publishers.iter().for_each(|(publisher, _)| crowd.set_read_mode(*publisher, ReadMode::Markers));
    let findings = bench.conversation(vec![group.clone()], pid).run(crowd)?;
    if let Some(message) = crowd.take_error_message() {
        bench.results.note(&format!("{} answered: {message}", bench.target.name));
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
                "neither server nor load was busy all the time: too few messages were under way, or other processes had \
                 the cores",
            );
        }
    })
}
