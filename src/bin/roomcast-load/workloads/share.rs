//! What `--room-share` trades: a busy room's CPU time against its latency.

use super::fan_out::{self, Step};
use crate::bench::Bench;
use crate::conversation::{Group, Pace};
use crate::error::LoadError;

/// Shares in percent, each with messages a second.
pub(super) fn steps(quick: bool) -> Vec<(u32, f64)> {
    let (shares, rates): (&[u32], &[f64]) =
        if quick { (&[100, 50], &[200.0]) } else { (&[100, 67, 50, 25], &[200.0, 400.0]) };
    rates.iter().flat_map(|rate| shares.iter().map(move |share| (*share, *rate))).collect()
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    for (share, per_second) in steps(bench.flags.quick) {
        let (running, mut crowd) = bench.start(&format!("--room-share {share}"))?;
        let publishers = fan_out::one_room(&mut crowd, members)?;
        let group = Group { publishers, members, pace: Pace::Open { per_second } };
        let settings: &[(&str, f64)] = &[("room_share_percent", f64::from(share))];
        let step = Step { name: format!("{share} %, {per_second} messages/s"), group, settings };
        fan_out::converse(bench, &mut crowd, running.pid, &step)?;
    }
    Ok(())
}
