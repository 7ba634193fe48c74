//! A giant room beside small ones: how a busy giant affects the small ones.

use super::one_room::PUBLISHERS;
use crate::bench::{Bench, describe};
use crate::client::ReadMode;
use crate::conversation::{Group, Pace};
use crate::delivery_check::check_delivery;
use crate::error::LoadError;
use crate::turn_times::TurnTimes;

const SMALL_ROOMS: u32 = 100;
const MEMBERS_OF_A_SMALL_ROOM: usize = 2;
const SMALL_PER_SECOND: f64 = 500.0;

/// The giant room alone takes about half a core.
const GIANT_DELIVERIES_PER_SECOND: f64 = 75_000.0;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let giant_members = if bench.flags.quick { 3000 } else { 15_000 };
    let is_floor = bench.target.is_floor();
    let (running, mut crowd) = bench.start(if is_floor { "" } else { "--metrics" })?;
    let small = crowd.open(SMALL_ROOMS as usize * MEMBERS_OF_A_SMALL_ROOM, ReadMode::Markers)?;
    crowd.join(&small, |nth| 1 + nth as u32 % SMALL_ROOMS)?;
    let giant = crowd.open(giant_members, ReadMode::Count)?;
    crowd.join(&giant, |_| 0)?;
    let mut small_group = Group {
        publishers: small.iter().take(SMALL_ROOMS as usize).zip(1..).map(|(client, room)| (*client, room)).collect(),
        members: MEMBERS_OF_A_SMALL_ROOM,
        pace: Pace::Open { per_second: SMALL_PER_SECOND },
    };
    small_group.publishers.sort_unstable();
    let publishers: Vec<_> = giant.iter().step_by(giant_members / PUBLISHERS).map(|client| (*client, 0)).collect();
    check_delivery(&mut crowd, &small_group.publishers, MEMBERS_OF_A_SMALL_ROOM)?;
    check_delivery(&mut crowd, &publishers, giant_members)?;
    let per_second = GIANT_DELIVERIES_PER_SECOND / giant_members as f64;
    let giant_group = Group { publishers, members: giant_members, pace: Pace::Open { per_second } };
    for (step, groups) in [("giant silent", vec![small_group.clone()]), ("giant busy", vec![small_group, giant_group])]
    {
        bench.announce(step);
        let turns = || if is_floor { None } else { TurnTimes::read(running.address) };
        let turns_before = turns();
        let findings = bench.conversation(groups, running.pid).run(&mut crowd)?;
        let turns = turns();
        bench.record(step, |record| {
            record.set("giant_members", giant_members as f64);
            describe(record, &findings);
            if let Some(latency) = findings.latency.get(1) {
                record.set_latency("giant_", latency);
            }
            if let Some(milliseconds) =
                turns_before.zip(turns).and_then(|(before, now)| now.quantile_since(&before, 0.999))
            {
                record.set("turn_cpu_p99.9_ms", milliseconds);
            }
        })?;
    }
    Ok(())
}
