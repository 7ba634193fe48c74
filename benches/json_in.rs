//! The parsing of a client's message by our types, which borrow, beside `serde_json::Value`, which owns
//! everything.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast::internals::protocol::ClientMessage;

const MESSAGES: [(&str, &str); 3] = [
    ("join", r#"{"type":"join","room":"lobby","since":{"epoch":"1k9rzj13wta6q","seq":4711},"id":"j-1"}"#),
    ("chat", r#"{"type":"chat","room":"lobby","text":"hello everybody, how are you?","id":"m-17"}"#),
    (
        "chat with data and escapes",
        r#"{"type":"chat","room":"lobby","text":"she said: \"h\u00e9llo\"\n","data":{"from":[3,4],"to":[5,6]},"id":"m-18"}"#,
    ),
];

fn json_in(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json_in");
    for (name, text) in MESSAGES {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{name}/ClientMessage"), |bencher| {
            bencher.iter(|| black_box(ClientMessage::parse(black_box(text)).expect("a message")));
        });
        group.bench_function(format!("{name}/Value"), |bencher| {
            bencher.iter(|| black_box(serde_json::from_str::<serde_json::Value>(black_box(text)).expect("JSON")));
        });
    }
    group.finish();
}

criterion_group!(benches, json_in);
criterion_main!(benches);
