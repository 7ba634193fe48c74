//! Connect, join, publish, receive it, close: as fast as possible.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::{ClientIndex, ReadMode, ReceivedMarker};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::Cpu;
use crate::marker::Marker;
use crate::record;

/// Cycles at the same time.
const SLOTS: u32 = 50;

/// Two, so that each client has another member beside it.
const SLOTS_OF_A_ROOM: u32 = 2;

/// One of the clients that go through cycles at the same time.
#[derive(Clone, Copy, Debug)]
struct Slot {
    began: Instant,
    has_joined: bool,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let (running, mut crowd) = bench.start("")?;
    bench.announce("");
    let mut slots = Vec::new();
    for _ in 0..SLOTS {
        crowd.begin_open(ReadMode::Messages.into())?;
        slots.push(Slot { began: Instant::now(), has_joined: false });
    }
    let mut latency = record::latencies();
    let warm_until = Instant::now() + bench.warm_up();
    while Instant::now() < warm_until {
        cycle(&mut crowd, &mut slots, warm_until, bench.text_bytes())?;
    }
    let me = std::process::id();
    let (server, load) = (running.pid.and_then(Cpu::of), Cpu::of(me).unwrap_or_default());
    let (began, until) = (Instant::now(), Instant::now() + bench.duration());
    while Instant::now() < until {
        for cycle in cycle(&mut crowd, &mut slots, until, bench.text_bytes())? {
            latency.saturating_record(cycle.as_micros() as u64);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let server = server.zip(running.pid.and_then(Cpu::of)).map(|(before, after)| after.since(before).total());
    let load = Cpu::of(me).unwrap_or_default().since(load).total();
    bench.record("50 at a time", |record| {
        let cycles = latency.len() as f64;
        record.set_rate("cycles_per_s", cycles / seconds);
        record.set("load_busy", load.as_secs_f64() / seconds);
        record.set_latency("cycle_", &latency);
        if let Some(server) = server {
            record.set("server_busy", server.as_secs_f64() / seconds);
            record.set("cpu_per_cycle_us", server.as_secs_f64() * 1e6 / cycles);
        }
    })
}

/// Waits for events and takes each slot a step further; returns how long each cycle took that has ended.
fn cycle(crowd: &mut Crowd, slots: &mut [Slot], until: Instant, text_bytes: usize) -> Result<Vec<Duration>, LoadError> {
    crowd.turn(Some(until))?;
    let mut ended = Vec::new();
    for client in 0..slots.len() as ClientIndex {
        let slot = &mut slots[client as usize];
        if !slot.has_joined && crowd.is_open(client) {
            slot.has_joined = true;
            let room = client / SLOTS_OF_A_ROOM;
            let marker = Marker { publisher: client, ..Marker::default() };
            let mut bytes = crowd.join_bytes(room);
            bytes.extend(crowd.chat_bytes(room, &marker.text(text_bytes)));
            crowd.send(client, &bytes)?;
        }
    }
    let mut markers = Vec::new();
    crowd.take_markers(&mut markers);
    crowd.take_messages();
    for ReceivedMarker { client, marker, .. } in markers {
        if client == marker.publisher {
            crowd.send_close(client);
        }
    }
    for disconnect in crowd.take_disconnects() {
        let slot = &mut slots[disconnect.client as usize];
        // Some servers hang up without a Close frame. That is a failure only before we have sent one.
        if crowd.close_code(disconnect.client).is_none() && !crowd.has_sent_close(disconnect.client) {
            return Err(LoadError::Disconnected { count: 1, why: disconnect.why });
        }
        ended.push(disconnect.at - slot.began);
        *slot = Slot { began: Instant::now(), has_joined: false };
        crowd.begin_reopen(disconnect.client, ReadMode::Messages.into())?;
    }
    Ok(ended)
}
