//! CPU time per delivery as the room grows.

use super::one_room::{self, Step};
use crate::bench::Bench;
use crate::conversation::{Group, Pace};
use crate::error::LoadError;

pub(super) fn sizes(quick: bool) -> &'static [usize] {
    if quick { &[10, 100, 1000] } else { &[10, 100, 1000, 10_000] }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    for members in sizes(bench.flags.quick) {
        let (running, mut crowd) = bench.start("")?;
        let publishers = one_room::open(&mut crowd, *members)?;
        let group = Group { publishers, members: *members, pace: Pace::Closed { window: 1 } };
        let step = Step { name: format!("{members} members"), group, settings: &[] };
        one_room::run_step(bench, &mut crowd, running.pid, &step)?;
    }
    Ok(())
}
