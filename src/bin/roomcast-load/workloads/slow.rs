//! Members that read nothing, and members that read too little: what becomes of them, and what the healthy ones feel.

use std::time::{Duration, Instant};

use crate::bench::{Bench, describe};
use crate::client::{ClientIndex, Ear};
use crate::conversation::{Conversation, Findings, Group, Pace, SlowReaders};
use crate::crowd::{Crowd, Opening};
use crate::error::LoadError;
use crate::machine::{self, Memory};
use crate::rehearsal::rehearse;

const MEMBERS: usize = 500;
const SLOW: usize = 50;
const PUBLISHERS: usize = 10;
const MESSAGES_PER_SECOND: f64 = 200.0;
const TEXT_BYTES: usize = 1024;
const SLOW_BYTES_PER_SECOND: usize = 64 * 1024;

/// Short, so that the end of the silent is seen; and enough history for the slow to read on.
const FLAGS: &str = "--stall-timeout 3s --history-messages 20000";

/// What the system keeps for a slow reader; healthy ones have its defaults.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    silent(bench)?;
    slow(bench)
}

/// A room of healthy members, which hear markers, and of others with small buffers.
fn room(crowd: &mut Crowd) -> Result<(Group, Vec<ClientIndex>), LoadError> {
    let healthy = crowd.open(MEMBERS - SLOW, Ear::Markers)?;
    let opening = Opening { ear: Ear::Messages, receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES) };
    let others = crowd.open(SLOW, opening)?;
    let all = [&healthy[..], &others].concat();
    crowd.join(&all, |_| 0)?;
    let publishers: Vec<_> = healthy.iter().take(PUBLISHERS).map(|client| (*client, 0)).collect();
    rehearse(crowd, &publishers, MEMBERS)?;
    Ok((Group { publishers, members: MEMBERS, pace: Pace::Open { per_second: MESSAGES_PER_SECOND } }, others))
}

/// As usual, but about more, and watching whom the server closes.
fn conversation(bench: &Bench<'_>, group: &Group, pid: Option<u32>) -> Conversation {
    Conversation { text_bytes: TEXT_BYTES, watches_files: true, ..bench.conversation(vec![group.clone()], pid) }
}

/// Fifty that suddenly read nothing.
fn silent(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start(FLAGS)?;
    bench.announce("silent");
    let (group, others) = room(&mut crowd)?;
    let before = conversation(bench, &group, running.pid).run(&mut crowd)?;
    let memory_before = running.pid.and_then(Memory::of);
    if let Some(pid) = running.pid {
        machine::forget_peak(pid)?;
    }
    others.iter().for_each(|client| crowd.set_ear(*client, Ear::Deaf));
    // The sockets are full after about a second; the stall is noticed three later, and they are cut five after that.
    let group = Group { members: MEMBERS - SLOW, ..group };
    let duration = Duration::from_secs(if bench.flags.quick { 11 } else { 16 });
    let conversation = conversation(bench, &group, running.pid);
    let during = Conversation { warm_up: Duration::ZERO, duration, ..conversation }.run(&mut crowd)?;
    let memory = running.pid.and_then(Memory::of);
    bench.record("50 of 500 read nothing", |record| {
        describe(record, &during);
        record.remarks.clear();
        set_p99_before(record, &before);
        let seconds = |at: &Instant| (*at - during.began).as_secs_f64();
        let most = during.files.iter().map(|(_, files)| *files).max().unwrap_or(0);
        let closed: Vec<_> = during.files.iter().filter(|(_, files)| *files < most).collect();
        record.set("slow_closed", closed.last().map_or(0.0, |(_, files)| (most - files) as f64));
        record.set("first_closed_after_s", closed.first().map_or(f64::NAN, |(at, _)| seconds(at)));
        record.set("last_closed_after_s", closed.last().map_or(f64::NAN, |(at, _)| seconds(at)));
        if let Some((before, after)) = memory_before.zip(memory) {
            record.set("peak_rise_mib", (after.peak.saturating_sub(before.resident)) as f64 / f64::from(1 << 20));
        }
    })
}

/// Fifty that read on, but less than is said.
fn slow(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start(FLAGS)?;
    bench.announce("slow");
    let (group, others) = room(&mut crowd)?;
    let before = conversation(bench, &group, running.pid).run(&mut crowd)?;
    others.iter().for_each(|client| crowd.set_ear(*client, Ear::Slow));
    let markers_before: Vec<u64> = others.iter().map(|client| crowd.markers_of(*client)).collect();
    let slow = SlowReaders { clients: others.clone(), bytes_per_second: SLOW_BYTES_PER_SECOND };
    let duration = Duration::from_secs(if bench.flags.quick { 2 } else { 10 });
    let conversation = conversation(bench, &group, running.pid);
    let during = Conversation { slow, warm_up: Duration::ZERO, duration, ..conversation }.run(&mut crowd)?;
    bench.record("50 of 500 read 64 KiB/s", |record| {
        describe(record, &during);
        set_p99_before(record, &before);
        let missed = others
            .iter()
            .zip(&markers_before)
            .map(|(client, before)| during.said.saturating_sub(crowd.markers_of(*client) - before));
        record.set("slow_closed", others.iter().filter(|client| crowd.is_gone(**client)).count() as f64);
        record.set("slow_missed", missed.sum::<u64>() as f64);
        record.set("holes_told", during.holes_told as f64);
    })
}

fn set_p99_before(record: &mut crate::record::Record, before: &Findings) {
    record.set("p99_before_ms", before.latency[0].value_at_percentile(99.0) as f64 / 1000.0);
}
