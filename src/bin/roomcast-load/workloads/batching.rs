//! What `--batch-delay` trades: a busy room's CPU time against its latency.

use super::one_room::{self, Step};
use crate::bench::Bench;
use crate::conversation::{Group, Pace};
use crate::error::LoadError;

/// Delays in milliseconds, each with messages a second.
pub(super) fn steps(quick: bool) -> Vec<(u32, f64)> {
    let (delays, rates): (&[u32], &[f64]) =
        if quick { (&[0, 20], &[200.0]) } else { (&[0, 5, 20, 50], &[200.0, 400.0]) };
    rates.iter().flat_map(|rate| delays.iter().map(move |delay| (*delay, *rate))).collect()
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let members = bench.flags.members as usize;
    for (delay, per_second) in steps(bench.flags.quick) {
        let (running, mut crowd) = bench.start(&format!("--batch-delay {delay}ms"))?;
        let publishers = one_room::open(&mut crowd, members)?;
        let group = Group { publishers, members, pace: Pace::Open { per_second } };
        let settings: &[(&str, f64)] = &[("batch_delay_ms", f64::from(delay))];
        let step = Step { name: format!("{delay} ms, {per_second} messages/s"), group, settings };
        one_room::run_step(bench, &mut crowd, running.pid, &step)?;
    }
    Ok(())
}
