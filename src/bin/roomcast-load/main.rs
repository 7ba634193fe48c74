//! The load test: many clients on one thread, what they receive, and what the server spends on it.

#[cfg(not(target_os = "linux"))]
compile_error!("the load test reads CPU time and memory from /proc and waits on a timerfd: it needs Linux");

mod bench;
mod chart;
mod client;
mod columns;
mod conversation;
mod crowd;
mod delivery_check;
mod destination;
mod error;
mod figure;
mod flags;
mod floor;
mod hostile_flags;
mod machine;
mod marker;
mod metrics;
mod plots;
mod poller;
mod record;
mod redis_server;
mod report;
mod summary;
mod table;
mod target;
mod tls;
mod turn_times;
mod wire;
mod workload;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use self::bench::{Bench, Results};
use self::error::LoadError;
use self::flags::{Flags, Role};
use self::machine::Cores;
use self::report::Report;
use self::target::Target;
use self::workload::Workload;

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
    let chosen = if flags.workload.is_empty() { Workload::by_default(flags.quick) } else { flags.workload.clone() };
    let runs = |workload| targets.iter().filter(|target| workloads::suits(workload, target)).count() as u64;
    let steps = chosen.iter().map(|workload| runs(*workload) * workloads::steps(*workload, flags)).sum::<u64>();
    let report = flags.report.as_deref().map(Report::create).transpose()?;
    let mut results = Results::new(flags, steps * u64::from(flags.rounds))?;
    for round in 1..=flags.rounds {
        for workload in &chosen {
            for target in targets.iter().filter(|target| workloads::suits(*workload, target)) {
                let results = &mut results;
                let mut bench = Bench { flags, cores: &cores, target, workload: workload.name(), round, results };
                if let Err(error) = workloads::run(*workload, &mut bench) {
                    // The other servers may still be measured.
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

/// Gives the first core to the server and the second to the load, if there are two.
fn cores() -> Cores {
    let all = machine::cores();
    match all[..] {
        [server, load, ref rest @ ..] => {
            let rest = if rest.is_empty() { vec![load] } else { rest.to_vec() };
            let cores = Cores { server: vec![server], load: vec![load], rest };
            if let Err(error) = machine::pin_to(&cores.load) {
                eprintln!("warning: cannot pin the load to a core ({error}); it may share the server's");
            }
            cores
        }
        _ => {
            eprintln!("warning: server and load share the only core; compare the figures with nothing else");
            Cores { server: all.clone(), load: all.clone(), rest: all }
        }
    }
}
