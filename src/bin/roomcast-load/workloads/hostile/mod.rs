//! Attacks by peers that keep within all limits, one after the other, beside a healthy pair that chats.

mod attack;
mod attacks;
mod intruder;
mod pair;
mod swarm;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{getpriority_process, setpriority_process};

use self::pair::{Pair, PairFindings};
use self::swarm::{Origin, Swarm, Tally};
use crate::bench::Bench;
use crate::error::LoadError;
use crate::hostile_flags::{AttackKind, UserNames};
use crate::machine::{self, Cpu, Memory};
use crate::record::Record;
use crate::target::Running;
use crate::turn_times::TurnTimes;

const FLAGS: &str = "--metrics";

/// The niceness of the thread that attacks: the pair, which is measured, runs at once when it has something to do.
const ATTACKER_NICENESS: i32 = 19;

/// The niceness of the pair while it chats, where the system allows it: else the kernel's own thread for packets, which is busy with
/// the attack, has as much of the core.
const PAIR_NICENESS: i32 = -20;

/// How long after a phase the pair's last deliveries may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the phases are.
#[derive(Clone, Copy, Debug)]
struct Durations {
    before: Duration,
    during: Duration,
    after: Duration,
}

/// What the three phases have shown.
struct Phases {
    before: PairFindings,
    during: PairFindings,
    after: PairFindings,
}

/// What the system and the server tell about the server between the phases.
struct Reading {
    memory: Option<Memory>,
    cpu: Option<Cpu>,
    load_cpu: Cpu,
    turns: Option<TurnTimes>,
    at: Instant,
}

impl Reading {
    fn take(running: &Running) -> Self {
        let turns = TurnTimes::read(running.address);
        let load_cpu = Cpu::of(std::process::id()).unwrap_or_default();
        let (memory, cpu) = (running.pid.and_then(Memory::of), running.pid.and_then(Cpu::of));
        Self { memory, cpu, load_cpu, turns, at: Instant::now() }
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    for (kind, names) in bench.flags.hostile.steps() {
        let step = if kind.has_users() { format!("{}, {}", kind.name(), names.name()) } else { kind.name() };
        bench.announce(&step);
        let mut record = Record::default();
        measure(bench, kind, names, &mut record)?;
        bench.record(&step, |kept| (kept.values, kept.remarks) = (record.values, record.remarks))?;
    }
    Ok(())
}

fn durations(bench: &Bench<'_>) -> Durations {
    let quick = bench.flags.quick;
    let during =
        bench.flags.duration.unwrap_or(if quick { Duration::from_millis(800) } else { Duration::from_secs(8) });
    // The server has ten seconds to give back what the crowd made it take.
    let after = Duration::from_millis(if quick { 300 } else { 10_000 });
    Durations { before: during / 4, during, after }
}

/// One attack on a server of its own.
fn measure(bench: &Bench<'_>, kind: AttackKind, names: UserNames, record: &mut Record) -> Result<(), LoadError> {
    let durations = durations(bench);
    let running = bench.start_limited(FLAGS)?;
    let mut pair = Pair::open(running.address, running.wire.clone())?;
    let count = bench.flags.hostile.hostile_conns.unwrap_or(if bench.flags.quick { 40 } else { 2000 });
    let origin = Origin {
        address: running.address,
        wire: running.wire.clone(),
        addresses: bench.flags.hostile.hostile_addresses,
        names,
    };
    let mut swarm = Swarm::new(origin, attacks::of_kind(kind), count)?;
    let before = chat_for(&mut pair, &mut swarm, durations.before)?;
    let start = Reading::take(&running);
    if let Some(pid) = running.pid {
        machine::reset_peak(pid)?;
    }
    swarm.begin();
    let during = chat_for(&mut pair, &mut swarm, durations.during)?;
    describe_swarm(record, &swarm, durations.during);
    let end = Reading::take(&running);
    describe_forgotten(record, &mut pair);
    swarm.leave();
    let after = chat_for(&mut pair, &mut swarm, durations.after)?;
    let last = Reading::take(&running);
    describe_pair(record, &Phases { before, during, after });
    describe_server(record, &start, &end, &last);
    Ok(())
}

/// The pair chats for some time while the swarm does what it does on a thread of its own; then the deliveries under way are
/// awaited.
fn chat_for(pair: &mut Pair, swarm: &mut Swarm, duration: Duration) -> Result<PairFindings, LoadError> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let _ = setpriority_process(None, ATTACKER_NICENESS);
            swarm.run(&is_over)
        });
        let niceness = getpriority_process(None).unwrap_or(0);
        let _ = setpriority_process(None, PAIR_NICENESS);
        let findings = pair.chat_for(duration, PATIENCE);
        let _ = setpriority_process(None, niceness);
        is_over.store(true, Ordering::Relaxed);
        let attacked = attack.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        attacked.and(findings)
    })
}

fn describe_swarm(record: &mut Record, swarm: &Swarm, during: Duration) {
    let Tally { open_max, sent_bytes, turned_away, closed_by_server, .. } = *swarm.tally();
    record.set("hostile_open", f64::from(open_max));
    record.set("hostile_mb_per_s", sent_bytes as f64 / 1e6 / during.as_secs_f64());
    record.set("hostile_turned_away", f64::from(turned_away));
    record.set("hostile_closed", f64::from(closed_by_server));
    if turned_away + closed_by_server > 0 {
        record.remark(format!(
            "the server turned {turned_away} hostile connections away, and ended {closed_by_server} others"
        ));
    }
}

fn describe_pair(record: &mut Record, phases: &Phases) {
    let Phases { before, during, after } = phases;
    let all = [before, during, after];
    record.set_latency("before_", &before.latency);
    record.set_latency("during_", &during.latency);
    record.set_latency("during_late_", &during.lateness);
    let late = during.lateness.value_at_percentile(99.0) as f64 / 1000.0;
    record.remark(format!("during the attack the pair said one of a hundred messages {late:.1} ms too late, or later"));
    record.set_latency("after_", &after.latency);
    let sum = |of: fn(&PairFindings) -> u64| all.iter().map(|findings| of(findings)).sum::<u64>() as f64;
    record.set("published", sum(|findings| findings.published));
    record.set("lost", sum(|findings| findings.lost));
    record.set("refused", sum(|findings| findings.refused));
    for why in all.iter().flat_map(|findings| &findings.troubles) {
        record.remark(format!("the pair: {why}"));
    }
}

/// What the server has forgotten of the pair's messages by the end of the attack.
fn describe_forgotten(record: &mut Record, pair: &mut Pair) {
    match pair.check_memory() {
        Ok(forgotten) => {
            record.set("history_lost", forgotten.history_lost as f64);
            record.set("ids_forgotten", forgotten.ids_forgotten as f64);
        }
        Err(error) => drop(record.remark(format!("the pair: cannot look at its history: {error}"))),
    }
}

fn describe_server(record: &mut Record, start: &Reading, end: &Reading, last: &Reading) {
    const MIB: f64 = (1 << 20) as f64;
    let seconds = (end.at - start.at).as_secs_f64();
    if let (Some(before), Some(peak), Some(after)) = (start.memory, last.memory, last.memory) {
        record.set("memory_before_mib", before.resident as f64 / MIB);
        record.set("memory_peak_mib", peak.peak as f64 / MIB);
        record.set("memory_after_mib", after.resident as f64 / MIB);
    }
    if let (Some(before), Some(now)) = (start.cpu, end.cpu) {
        record.set("server_busy", now.since(before).total().as_secs_f64() / seconds);
    }
    let load_busy = end.load_cpu.since(start.load_cpu).total().as_secs_f64() / seconds;
    record.set("load_busy", load_busy);
    if load_busy > 0.9 {
        record.remark("the load was busy all the time, and could have attacked harder from more cores");
    }
    let (Some(begin), Some(now), Some(left)) = (&start.turns, &end.turns, &last.turns) else { return };
    let Some((bound, beyond)) = left.beyond_since(begin) else { return };
    if let Some(milliseconds) = now.quantile_since(begin, 0.999) {
        record.set("turn_cpu_p99.9_ms", milliseconds.min(bound));
    }
    // The worst may come when all hostile connections end at once.
    if let Some(milliseconds) = left.quantile_since(begin, 1.0) {
        record.set("turn_cpu_max_ms", milliseconds.min(bound));
    }
    if beyond > 0.0 {
        record.remark(format!("{beyond} turns took more than {bound} ms of CPU time"));
    }
}
