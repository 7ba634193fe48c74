//! What the bus says that it holds, against what the allocator has handed out.

use std::alloc::System;

use roomcast::bus::{Bus, BusRequest, LocalBus, Publication, Ticket};
use roomcast::{Config, Now, Owner, RoomName, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a crowd says.
#[derive(Debug)]
struct Crowd {
    messages: usize,
    rooms: usize,
    body_bytes: usize,
    has_ids: bool,
}

/// Publishes, and gives what is held besides: as the bus says, and as the allocator has counted.
fn hold(crowd: &Crowd) -> (f64, f64) {
    let mut bus = LocalBus::new(&Config::default(), 1);
    bus.begin_turn(Now::default());
    while bus.poll_event().is_some() {}
    let region = Region::new(ALLOCATOR);
    for number in 0..crowd.messages {
        let publication = Publication {
            room: RoomName::new(&format!("room-{}", number % crowd.rooms)).unwrap(),
            user: UserId::new("a-user-of-many").unwrap(),
            owner: Owner::HOST,
            id: crowd.has_ids.then(|| format!("{number:036}").into()),
            body: vec![b'x'; crowd.body_bytes].into(),
        };
        bus.submit(BusRequest::Publish { ticket: Ticket(1), publication });
        while bus.poll_event().is_some() {}
    }
    let change = region.change();
    let counted = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    ((bus.stats().history_bytes + bus.stats().dedupe_bytes) as f64, counted)
}

#[test]
fn what_is_charged_is_what_is_held() {
    for (messages, rooms, body_bytes, has_ids) in [
        (50_000, 100, 200, false),
        (50_000, 50_000, 200, false),
        (50_000, 10_000, 100, false),
        (20_000, 50, 2000, false),
        (50_000, 100, 200, true),
        (50_000, 20_000, 200, true),
    ] {
        let crowd = Crowd { messages, rooms, body_bytes, has_ids };
        let (said, counted) = hold(&crowd);
        let ratio = said / counted;
        assert!((0.85..=1.15).contains(&ratio), "{crowd:?}: {said} charged, {counted} held: {ratio:.2}");
    }
}
