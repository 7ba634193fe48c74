//! Connections that say nothing: what they cost to open, to keep, and after a message each.

use std::fs;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::{ClientIndex, Ear};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::{self, Cpu, Memory};
use crate::marker::Marker;
use crate::record::Record;

const ROOMS: usize = 1000;
const MESSAGE_BYTES: usize = 4096;

/// Connections that are opened, or speak, at the same time.
const AT_A_TIME: usize = 16;

/// How often all are closed and opened again.
const ROUNDS: usize = 4;

/// What each connection has said would otherwise be kept for an hour, and who has gone, for five seconds.
const FLAGS: &str = "--history-messages 0 --presence-grace 250ms";

/// Connections to be, and the server's process, if it is known.
#[derive(Clone, Copy)]
struct Idle {
    count: usize,
    pid: Option<u32>,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let default = if bench.flags.quick { 2000 } else { 10_000 };
    let count = bench.flags.conns.unwrap_or(default) as usize;
    // Long enough for everybody to be pinged once, unless somebody is in a hurry.
    let resting = bench.flags.duration.unwrap_or(Duration::from_secs(if bench.flags.quick { 2 } else { 35 }));
    let step = format!("{count} connections");
    bench.announce(&step);
    let mut record = Record::default();
    record.set("connections", count as f64);
    {
        let (running, mut crowd) = bench.start(FLAGS)?;
        Idle { count, pid: running.pid }.time_opening(&mut crowd, &mut record)?;
    }
    let (running, mut crowd) = bench.start(FLAGS)?;
    let idle = Idle { count, pid: running.pid };
    // What the first connection ever brings into memory, code above all, is not what a connection costs.
    Idle { count: 1, ..idle }.open(&mut crowd)?;
    Idle { count: 1, ..idle }.say_one_each(&mut crowd)?;
    crowd.clear()?;
    let files = idle.pid.and_then(machine::open_files);
    let (before, kernel_before) = (idle.resident(), kernel_bytes());
    let keep_bytes_each = |record: &mut Record, name: &str| {
        if let Some((before, now)) = before.zip(idle.resident()) {
            record.set(name, (now - before) / count as f64);
        }
    };
    idle.open(&mut crowd)?;
    keep_bytes_each(&mut record, "bytes_per_connection");
    if let Some((before, now)) = kernel_before.zip(kernel_bytes()) {
        record.set("kernel_bytes_both_ends", (now - before) / count as f64);
    }
    idle.rest(&mut crowd, &mut record, resting)?;
    idle.say_one_each(&mut crowd)?;
    keep_bytes_each(&mut record, "bytes_after_4_kib_each");
    for round in 2..=if bench.flags.quick { 2 } else { ROUNDS } {
        idle.close(&mut crowd, files)?;
        idle.open(&mut crowd)?;
        keep_bytes_each(&mut record, &format!("bytes_in_round_{round}"));
    }
    bench.record(&step, |kept| kept.values = record.values)
}

impl Idle {
    fn resident(&self) -> Option<f64> {
        Some(Memory::of(self.pid?)?.resident as f64)
    }

    /// Opens all, then has them join, and keeps what either costs.
    fn time_opening(&self, crowd: &mut Crowd, record: &mut Record) -> Result<(), LoadError> {
        let cpu = || self.pid.and_then(Cpu::of);
        let each = |before: Option<Cpu>| {
            let used = cpu()?.since(before?);
            Some(used.total().as_secs_f64() * 1e6 / self.count as f64)
        };
        let (began, before) = (Instant::now(), cpu());
        let clients = crowd.open(self.count, Ear::Counts)?;
        record.set("handshakes_per_s", self.count as f64 / began.elapsed().as_secs_f64());
        record.set("cpu_per_handshake_us", each(before).unwrap_or(f64::NAN));
        crowd.settle(Duration::from_millis(200))?;
        let before = cpu();
        crowd.join(&clients, |nth| (nth % ROOMS) as u32)?;
        record.set("cpu_per_join_us", each(before).unwrap_or(f64::NAN));
        Ok(())
    }

    /// Opens all, few at a time, each of which joins when it is open: no backlog is measured.
    fn open(&self, crowd: &mut Crowd) -> Result<(), LoadError> {
        for first in (0..self.count).step_by(AT_A_TIME) {
            let clients = crowd.open(AT_A_TIME.min(self.count - first), Ear::Counts)?;
            for (client, nth) in clients.into_iter().zip(first..) {
                let join = crowd.join_bytes((nth % ROOMS) as u32);
                crowd.say(client, &join)?;
            }
            crowd.settle(Duration::from_millis(4))?;
        }
        // Until nobody who went before is waited for any more.
        crowd.settle(Duration::from_secs(1))
    }

    /// Does nothing for a while but answer pings.
    fn rest(&self, crowd: &mut Crowd, record: &mut Record, time: Duration) -> Result<(), LoadError> {
        let (began, before) = (Instant::now(), self.pid.and_then(Cpu::of));
        while began.elapsed() < time {
            crowd.turn(Some(began + time))?;
        }
        crowd.expect_nobody_gone()?;
        if let Some((before, after)) = before.zip(self.pid.and_then(Cpu::of)) {
            record.set("idle_cpu", after.since(before).total().as_secs_f64() / began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Has each say something, few at a time: it is not the traffic that is measured but what it leaves behind.
    fn say_one_each(&self, crowd: &mut Crowd) -> Result<(), LoadError> {
        for first in (0..self.count).step_by(AT_A_TIME) {
            let mut heard = crowd.counts().markers;
            for client in first..self.count.min(first + AT_A_TIME) {
                heard += (self.count - client % ROOMS).div_ceil(ROOMS) as u64;
                let marker = Marker { publisher: client as u32, ..Marker::default() };
                let message = crowd.chat_bytes((client % ROOMS) as u32, &marker.text(MESSAGE_BYTES));
                crowd.say(client as ClientIndex, &message)?;
            }
            let deadline = Instant::now() + Duration::from_secs(1);
            while crowd.counts().markers < heard && Instant::now() < deadline {
                crowd.turn(Some(deadline))?;
            }
        }
        crowd.settle(Duration::from_millis(500))
    }

    /// Ends all connections and waits until the server has noticed.
    fn close(&self, crowd: &mut Crowd, files: Option<usize>) -> Result<(), LoadError> {
        crowd.clear()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while files.is_some() && self.pid.and_then(machine::open_files) > files && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Memory of the kernel's own structures on the whole machine: sockets of both ends among them.
fn kernel_bytes() -> Option<f64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}
