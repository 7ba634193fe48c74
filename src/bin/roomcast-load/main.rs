//! The load test: many clients on one thread, what they see, and what the server spends on it.

mod bench;
mod chart;
mod client;
mod conversation;
mod crowd;
mod error;
mod flags;
mod floor;
mod machine;
mod marker;
mod plots;
mod record;
mod redis_server;
mod rehearsal;
mod report;
mod summary;
mod table;
mod target;
mod timer;
mod wire;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use self::bench::{Bench, Results};
use self::error::LoadError;
use self::flags::{Flags, Role};
use self::report::Report;
use self::target::{Cores, Target};
use self::workloads::Workload;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = match &flags.role {
        Some(Role::Floor { address, batch }) => {
            machine::raise_file_limit();
            floor::run(*address, *batch).map_err(LoadError::from)
        }
        None => run(&flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(flags: &Flags) -> Result<(), LoadError> {
    let targets = Target::of_flags(flags)?;
    machine::raise_file_limit();
    let cores = cores();
    let workloads = if flags.workload.is_empty() { Workload::by_default(flags.quick) } else { flags.workload.clone() };
    let runs = |workload: &Workload| targets.iter().filter(|target| workload.suits(target)).count() as u64;
    let steps = workloads.iter().map(|workload| runs(workload) * workload.steps(flags.quick)).sum::<u64>();
    let report = flags.report.as_deref().map(Report::create).transpose()?;
    let mut results = Results::new(flags, steps * u64::from(flags.rounds))?;
    for round in 1..=flags.rounds {
        for workload in &workloads {
            for target in targets.iter().filter(|target| workload.suits(target)) {
                let results = &mut results;
                let mut bench = Bench { flags, cores: &cores, target, workload: workload.name(), round, results };
                if let Err(error) = workload.run(&mut bench) {
                    // What one server cannot do says nothing of the others.
                    bench.results.note(&format!("{} of {}: {error}", workload.name(), target.name));
                    bench.record_failure(&error)?;
                }
            }
        }
    }
    results.finish();
    let medians = record::medians(&results.records);
    print!("{}", table::render(&medians));
    if let Some(report) = report {
        report.write(&cores, &results.records, &medians)?;
    }
    results.verdict()
}

/// The first core for the server and the second for the load, if there are two.
fn cores() -> Cores {
    let all = machine::cores();
    match all[..] {
        [server, load, ref rest @ ..] => {
            let rest = if rest.is_empty() { vec![load] } else { rest.to_vec() };
            let cores = Cores { server: vec![server], load: vec![load], rest };
            if let Err(error) = machine::pin_to(&cores.load) {
                eprintln!("cannot keep the load to a core ({error}); server and load may take turns on one");
            }
            cores
        }
        _ => {
            eprintln!(
                "there are no two cores to keep server and load apart; they take turns, and the figures say little"
            );
            Cores { server: all.clone(), load: all.clone(), rest: all }
        }
    }
}
