//! Members that read nothing or too little: what happens to them, and how they affect the healthy ones.

use std::time::{Duration, Instant};

use crate::bench::{Bench, describe};
use crate::client::{ClientIndex, ReadMode};
use crate::conversation::{Conversation, Findings, Group, Pace, SlowReaders};
use crate::crowd::{Crowd, Opening};
use crate::delivery_check::check_delivery;
use crate::error::LoadError;
use crate::machine::{self, Memory};

const MEMBERS: usize = 500;
const SLOW: usize = 50;
const PUBLISHERS: usize = 10;
const MESSAGES_PER_SECOND: f64 = 200.0;
const TEXT_BYTES: usize = 1024;
const SLOW_BYTES_PER_SECOND: usize = 64 * 1024;

/// A short timeout, so that the step sees how members that read nothing end; and enough history for slow ones to catch up.
const FLAGS: &str = "--stall-timeout 3s --history-messages 20000";

/// Of slow members; healthy ones have the default of the system.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    silent(bench)?;
    slow(bench)
}

/// Opens a room with healthy members, which read markers, and others with small buffers.
fn room(crowd: &mut Crowd) -> Result<(Group, Vec<ClientIndex>), LoadError> {
    let healthy = crowd.open(MEMBERS - SLOW, ReadMode::Markers)?;
    let opening = Opening { receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES), ..ReadMode::Messages.into() };
    let others = crowd.open(SLOW, opening)?;
    let all = [&healthy[..], &others].concat();
    crowd.join(&all, |_| 0)?;
    let publishers: Vec<_> = healthy.iter().take(PUBLISHERS).map(|client| (*client, 0)).collect();
    check_delivery(crowd, &publishers, MEMBERS)?;
    Ok((Group { publishers, members: MEMBERS, pace: Pace::Open { per_second: MESSAGES_PER_SECOND } }, others))
}

/// As usual, but with longer texts, and following how many files the server has open.
fn conversation(bench: &Bench<'_>, group: &Group, pid: Option<u32>) -> Conversation {
    Conversation { text_bytes: TEXT_BYTES, counts_files: true, ..bench.conversation(vec![group.clone()], pid) }
}

/// Fifty members suddenly read nothing.
fn silent(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start(FLAGS)?;
    bench.announce("silent");
    let (group, others) = room(&mut crowd)?;
    let before = conversation(bench, &group, running.pid).run(&mut crowd)?;
    let memory_before = running.pid.and_then(Memory::of);
    if let Some(pid) = running.pid {
        machine::reset_peak(pid)?;
    }
    others.iter().for_each(|client| crowd.set_read_mode(*client, ReadMode::Nothing));
    // The sockets are full after about a second. Three seconds later the stall is noticed; five later they are closed.
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
        let files_max = during.files.iter().map(|(_, files)| *files).max().unwrap_or(0);
        let closed: Vec<_> = during.files.iter().filter(|(_, files)| *files < files_max).collect();
        record.set("slow_closed", closed.last().map_or(0.0, |(_, files)| (files_max - files) as f64));
        record.set("first_closed_after_s", closed.first().map_or(f64::NAN, |(at, _)| seconds(at)));
        record.set("last_closed_after_s", closed.last().map_or(f64::NAN, |(at, _)| seconds(at)));
        if let Some((before, after)) = memory_before.zip(memory) {
            record.set("peak_rise_mib", (after.peak.saturating_sub(before.resident)) as f64 / f64::from(1 << 20));
        }
    })
}

/// Fifty members read on, but less than is published.
fn slow(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start(FLAGS)?;
    bench.announce("slow");
    let (group, others) = room(&mut crowd)?;
    let before = conversation(bench, &group, running.pid).run(&mut crowd)?;
    others.iter().for_each(|client| crowd.set_read_mode(*client, ReadMode::OnDemand));
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
            .map(|(client, before)| during.totals.published.saturating_sub(crowd.markers_of(*client) - before));
        record.set("slow_closed", others.iter().filter(|client| crowd.is_closed(**client)).count() as f64);
        record.set("slow_missed", missed.sum::<u64>() as f64);
        record.set("holes_told", during.totals.gap_notices as f64);
    })
}

fn set_p99_before(record: &mut crate::record::Record, before: &Findings) {
    record.set("p99_before_ms", before.latency[0].value_at_percentile(99.0) as f64 / 1000.0);
}
