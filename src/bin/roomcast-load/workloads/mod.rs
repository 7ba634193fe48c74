//! Runs the workloads; each is in a file of its own.

mod batching;
mod churn;
mod cluster;
mod fan_out;
mod giant;
mod growth;
mod hostile;
mod idle;
mod one_room;
mod resume;
mod slow;
mod tls;

use crate::bench::Bench;
use crate::error::LoadError;
use crate::flags::Flags;
use crate::target::Target;
use crate::workload::Workload;

/// Whether a workload makes sense with a target.
pub(crate) fn suits(workload: Workload, target: &Target) -> bool {
    match workload {
        Workload::FanOut | Workload::Rooms | Workload::Growth | Workload::Giant => true,
        Workload::Floor => target.is_floor(),
        Workload::Batching | Workload::Cluster | Workload::Tls => target.takes_flags(),
        Workload::Idle | Workload::Churn | Workload::Slow | Workload::Resume => !target.is_floor(),
        // Its attackers speak no TLS.
        Workload::Hostile => !target.is_floor() && !target.speaks_tls(),
    }
}

/// How many records a workload makes, for the progress bar.
pub(crate) fn steps(workload: Workload, flags: &Flags) -> u64 {
    let quick = flags.quick;
    match workload {
        Workload::FanOut => fan_out::steps(quick).len() as u64,
        Workload::Rooms | Workload::Churn | Workload::Resume | Workload::Idle => 1,
        Workload::Growth => growth::sizes(quick).len() as u64,
        Workload::Floor => fan_out::FLOOR_BATCHES.len() as u64,
        Workload::Giant | Workload::Slow => 2,
        Workload::Batching => batching::steps(quick).len() as u64,
        Workload::Cluster => cluster::STEPS,
        Workload::Tls => tls::steps(quick),
        Workload::Hostile => flags.hostile.steps().len() as u64,
    }
}

pub(crate) fn run(workload: Workload, bench: &mut Bench<'_>) -> Result<(), LoadError> {
    match workload {
        Workload::FanOut => fan_out::run(bench),
        Workload::Rooms => fan_out::run_rooms(bench),
        Workload::Growth => growth::run(bench),
        Workload::Floor => fan_out::run_floor(bench),
        Workload::Giant => giant::run(bench),
        Workload::Batching => batching::run(bench),
        Workload::Idle => idle::run(bench),
        Workload::Churn => churn::run(bench),
        Workload::Slow => slow::run(bench),
        Workload::Resume => resume::run(bench),
        Workload::Cluster => cluster::run(bench),
        Workload::Tls => tls::run(bench),
        Workload::Hostile => hostile::run(bench),
    }
}
