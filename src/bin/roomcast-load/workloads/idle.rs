//! Silent connections: what they cost to open, to keep, and after a message each.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::{ClientIndex, ReadMode};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::{self, Cpu, Memory};
use crate::marker::Marker;
use crate::record::Record;

const ROOMS: usize = 1000;
const MESSAGE_BYTES: usize = 4096;

/// Connections that are opened, or publish, at the same time.
const AT_A_TIME: usize = 16;

/// How often all are opened.
const ROUNDS: usize = 4;

/// Otherwise the server would keep each message for an hour, and each user who has left for five seconds.
const FLAGS: &str = "--history-messages 0 --presence-grace 250ms";

/// How many connections there are to be, and the server's process, if it is known.
#[derive(Clone, Copy)]
pub(super) struct Idle {
    pub(super) count: usize,
    pub(super) pid: Option<u32>,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let default = if bench.flags.quick { 2000 } else { 10_000 };
    let count = bench.flags.conns.unwrap_or(default) as usize;
    // By default long enough for the server to ping every connection once.
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
    // The very first connection brings code into memory, which is not the cost of a connection.
    Idle { count: 1, ..idle }.open(&mut crowd)?;
    Idle { count: 1, ..idle }.publish_one_each(&mut crowd)?;
    crowd.clear()?;
    let files = idle.pid.and_then(machine::open_files);
    let (before, kernel_before) = (idle.resident(), machine::kernel_memory());
    let keep_bytes_each = |record: &mut Record, name: &str| {
        if let Some((before, now)) = before.zip(idle.resident()) {
            record.set(name, (now - before) / count as f64);
        }
    };
    idle.open(&mut crowd)?;
    keep_bytes_each(&mut record, "bytes_per_connection");
    if let Some((before, now)) = kernel_before.zip(machine::kernel_memory()) {
        record.set("kernel_bytes_both_ends", (now as f64 - before as f64) / count as f64);
    }
    idle.rest(&mut crowd, &mut record, resting)?;
    idle.publish_one_each(&mut crowd)?;
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

    /// Opens all and has them join; says how much memory each has cost the server.
    pub(super) fn bytes_each(self, crowd: &mut Crowd) -> Result<Option<f64>, LoadError> {
        // The very first connection brings code into memory.
        Self { count: 1, ..self }.open(crowd)?;
        let before = self.resident();
        self.open(crowd)?;
        Ok(before.zip(self.resident()).map(|(before, now)| (now - before) / self.count as f64))
    }

    /// Opens all, then has them join, and records the cost of both.
    fn time_opening(&self, crowd: &mut Crowd, record: &mut Record) -> Result<(), LoadError> {
        let cpu = || self.pid.and_then(Cpu::of);
        let each = |before: Option<Cpu>| {
            let used = cpu()?.since(before?);
            Some(used.total().as_secs_f64() * 1e6 / self.count as f64)
        };
        let (began, before) = (Instant::now(), cpu());
        let clients = crowd.open(self.count, ReadMode::Count)?;
        record.set("handshakes_per_s", self.count as f64 / began.elapsed().as_secs_f64());
        record.set("cpu_per_handshake_us", each(before).unwrap_or(f64::NAN));
        crowd.wait_until_quiet(Duration::from_millis(200))?;
        let before = cpu();
        crowd.join(&clients, |nth| (nth % ROOMS) as u32)?;
        record.set("cpu_per_join_us", each(before).unwrap_or(f64::NAN));
        Ok(())
    }

    /// Opens all and has them join, few at a time, so that no backlog is measured.
    fn open(&self, crowd: &mut Crowd) -> Result<(), LoadError> {
        for first in (0..self.count).step_by(AT_A_TIME) {
            let clients = crowd.open(AT_A_TIME.min(self.count - first), ReadMode::Count)?;
            for (client, nth) in clients.into_iter().zip(first..) {
                let join = crowd.join_bytes((nth % ROOMS) as u32);
                crowd.send(client, &join)?;
            }
            crowd.wait_until_quiet(Duration::from_millis(4))?;
        }
        // Until the grace of earlier users has ended.
        crowd.wait_until_quiet(Duration::from_secs(1))
    }

    /// Only answers pings for some time.
    fn rest(&self, crowd: &mut Crowd, record: &mut Record, time: Duration) -> Result<(), LoadError> {
        let (began, before) = (Instant::now(), self.pid.and_then(Cpu::of));
        while began.elapsed() < time {
            crowd.turn(Some(began + time))?;
        }
        crowd.check_all_connected()?;
        if let Some((before, after)) = before.zip(self.pid.and_then(Cpu::of)) {
            record.set("idle_cpu", after.since(before).total().as_secs_f64() / began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Each publishes a message, few at a time: the memory is measured that this leaves behind, not the traffic.
    fn publish_one_each(&self, crowd: &mut Crowd) -> Result<(), LoadError> {
        for first in (0..self.count).step_by(AT_A_TIME) {
            let mut expected = crowd.counts().markers;
            for client in first..self.count.min(first + AT_A_TIME) {
                expected += (self.count - client % ROOMS).div_ceil(ROOMS) as u64;
                let marker = Marker { publisher: client as u32, ..Marker::default() };
                let message = crowd.chat_bytes((client % ROOMS) as u32, &marker.text(MESSAGE_BYTES));
                crowd.send(client as ClientIndex, &message)?;
            }
            let deadline = Instant::now() + Duration::from_secs(1);
            while crowd.counts().markers < expected && Instant::now() < deadline {
                crowd.turn(Some(deadline))?;
            }
        }
        crowd.wait_until_quiet(Duration::from_millis(500))
    }

    /// Resets all connections and waits until the server has closed them.
    fn close(&self, crowd: &mut Crowd, files: Option<usize>) -> Result<(), LoadError> {
        crowd.clear()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while files.is_some() && self.pid.and_then(machine::open_files) > files && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
