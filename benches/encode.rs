//! The encoding of a chat message: its JSON is serialised once, and the header and the number are put
//! around it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast::internals::protocol::{Chat, append_chat, chat_body};
use serde_json::value::RawValue;

fn encode(criterion: &mut Criterion) {
    let long = "words and \"quotes\" ".repeat(54);
    let data = RawValue::from_string(r#"{"kind":"move","from":[3,4],"to":[5,6],"note":"as it is"}"#.to_owned());
    let data = data.expect("this is JSON");
    let cases =
        [("short", "hello everybody", None), ("1 KiB", &long[..1024], None), ("with data", "a move", Some(&*data))];
    let mut group = criterion.benchmark_group("encode");
    for (name, text, data) in cases {
        let chat = Chat {
            room: "lobby",
            user_id: "ann",
            name: Some("Ann"),
            text,
            data,
            id: Some("m-17"),
            ts: 1_700_000_000_000,
        };
        let body = chat_body(&chat);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("body/{name}"), |bencher| bencher.iter(|| chat_body(black_box(&chat))));
        // As the room's log does it, into a buffer that has its size.
        let mut buffer = Vec::with_capacity(4096);
        group.bench_function(format!("frame/{name}"), |bencher| {
            bencher.iter(|| {
                buffer.clear();
                append_chat(&mut buffer, black_box(&body), 12_345);
                black_box(&buffer).len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
