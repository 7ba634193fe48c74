//! Connect, join, say, hear oneself, close: as fast as it goes.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::client::{ClientIndex, Ear, HeardMarker};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::machine::Cpu;
use crate::marker::Marker;
use crate::record;

/// Cycles at the same time.
const SLOTS: u32 = 50;

/// Somebody else is in the room.
const SLOTS_OF_A_ROOM: u32 = 2;

/// How far a slot's client is.
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
        crowd.begin_open(Ear::Messages.into())?;
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
        record.set("cycles_per_s", cycles / seconds);
        record.set("load_busy", load.as_secs_f64() / seconds);
        record.set_latency("cycle_", &latency);
        if let Some(server) = server {
            record.set("server_busy", server.as_secs_f64() / seconds);
            record.set("cpu_per_cycle_us", server.as_secs_f64() * 1e6 / cycles);
        }
    })
}

/// Waits for something to happen and takes the slots that it concerns a step further; the time of cycles that ended.
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
            crowd.say(client, &bytes)?;
        }
    }
    let mut markers = Vec::new();
    crowd.take_markers(&mut markers);
    crowd.take_messages();
    for HeardMarker { client, marker, .. } in markers {
        if client == marker.publisher {
            crowd.say_goodbye(client);
        }
    }
    for farewell in crowd.take_farewells() {
        let slot = &mut slots[farewell.client as usize];
        // Some servers hang up without saying Close; before we have said it, that would be a failure.
        if crowd.close_code(farewell.client).is_none() && !crowd.has_said_goodbye(farewell.client) {
            return Err(LoadError::Gone { count: 1, why: farewell.why });
        }
        ended.push(farewell.at - slot.began);
        *slot = Slot { began: Instant::now(), has_joined: false };
        crowd.begin_reopen(farewell.client, Ear::Messages.into())?;
    }
    Ok(ended)
}
