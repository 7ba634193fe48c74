//! A giant room beside small ones: how a busy giant affects the small ones.

use std::net::SocketAddr;

use super::one_room::PUBLISHERS;
use crate::bench::{Bench, describe};
use crate::client::ReadMode;
use crate::conversation::{Group, Pace};
use crate::delivery_check::check_delivery;
use crate::error::LoadError;
use crate::metrics;

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
        let turns = || if is_floor { None } else { turn_cpu(running.address) };
        let turns_before = turns();
        let findings = bench.conversation(groups, running.pid).run(&mut crowd)?;
        let turns = turns();
        bench.record(step, |record| {
            record.set("giant_members", giant_members as f64);
            describe(record, &findings);
            if let Some(latency) = findings.latency.get(1) {
                record.set_latency("giant_", latency);
            }
            if let Some(milliseconds) = turns_before.zip(turns).and_then(|(before, now)| percentile(&before, &now)) {
                record.set("turn_cpu_p99.9_ms", milliseconds);
            }
        })?;
    }
    Ok(())
}

/// The buckets of the server's histogram of turns: bounds in seconds, and how many turns were within them.
fn turn_cpu(address: SocketAddr) -> Option<Vec<(f64, f64)>> {
    let answer = metrics::read(address).ok()?;
    let buckets = answer.lines().filter_map(|line| {
        let (bound, count) = line.strip_prefix(r#"roomcast_turn_cpu_seconds_bucket{le=""#)?.split_once(r#""} "#)?;
        Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
    });
    Some(buckets.collect()).filter(|buckets: &Vec<_>| !buckets.is_empty())
}

/// The bound in milliseconds that 99.9 % of the turns between two readings did not exceed.
fn percentile(before: &[(f64, f64)], now: &[(f64, f64)]) -> Option<f64> {
    let made = |index: usize| now[index].1 - before[index].1;
    let all = made(now.len().checked_sub(1)?);
    let index = (0..now.len()).find(|index| made(*index) >= all * 0.999)?;
    Some(now[index].0 * 1000.0)
}
