//! The log of a room: a frame is appended, the frames that a member is owed are read, and the front is
//! dropped.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast::internals::RoomLog;

const FRAME: &[u8] = &[b'x'; 128];

/// Frames that a member lags behind.
const LAG: u64 = 64;

/// A log of `LAG` frames, and the number of the next.
fn log() -> (RoomLog, u64) {
    let mut log = RoomLog::default();
    for seq in 0..LAG {
        append(&mut log, seq);
    }
    (log, LAG)
}

fn append(log: &mut RoomLog, seq: u64) {
    log.reserve(FRAME.len(), usize::MAX);
    log.append_numbered(seq, |out| out.extend_from_slice(black_box(FRAME)));
}

fn room_log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room_log");
    group.throughput(Throughput::Elements(1));
    // All are level: the usual case, in which the log is emptied after every round.
    group.bench_function("append, read, drop all", |bencher| {
        let (mut log, mut seq) = log();
        bencher.iter(|| {
            let before = log.tail();
            append(&mut log, seq);
            seq += 1;
            black_box(log.read(before));
            log.drop_front(log.tail());
        });
    });
    group.bench_function("append, read, drop behind a laggard", |bencher| {
        let (mut log, mut seq) = log();
        bencher.iter(|| {
            append(&mut log, seq);
            seq += 1;
            let laggard = log.front().forward(FRAME.len());
            black_box(log.read(laggard));
            log.drop_front(laggard);
        });
    });
    group.bench_function("read", |bencher| {
        let (log, _) = log();
        let middle = log.front().forward(FRAME.len() * (LAG as usize / 2));
        bencher.iter(|| log.read(black_box(middle)).len());
    });
    group.bench_function("number at a position", |bencher| {
        let (log, _) = log();
        let middle = log.front().forward(FRAME.len() * (LAG as usize / 2));
        bencher.iter(|| log.next_seq(black_box(middle)));
    });
    group.finish();
}

criterion_group!(benches, room_log);
criterion_main!(benches);
