//! The cost of hub and bus for a member: a chat message from its text to the slices that all members are
//! handed, without sockets.

#[path = "../tests/support/local_room.rs"]
pub mod local_room;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use local_room::LocalRoom;

fn hub_broadcast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub_broadcast");
    for members in [10, 1_000, 10_000] {
        let mut room = LocalRoom::new(members);
        group.throughput(Throughput::Elements(members.into()));
        group.bench_function(format!("{members} members"), |bencher| {
            bencher.iter(|| {
                room.say(black_box(r#"{"type":"chat","room":"lobby","text":"hello everybody"}"#));
                room.flush(|frames| {
                    black_box(frames);
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hub_broadcast);
criterion_main!(benches);
