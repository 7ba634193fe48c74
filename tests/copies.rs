//! The copy claim: what a broadcast copies and allocates does not depend on the number of members.

use std::alloc::System;

use roomcast::bus::{Bus, LocalBus};
use roomcast::hub::{Hub, OpenPolicy};
use roomcast::publication::BusRequest;
use roomcast::{Config, ConnectionId, Now, UserId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BROADCASTS: u64 = 100;

struct Room {
    hub: Hub,
    bus: LocalBus,
}

/// What a hundred broadcasts cost.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    appended_bytes: u64,
    allocations: usize,
    allocations_of_flushes: usize,
}

impl Room {
    fn new(members: u32) -> Self {
        let mut config = Config::default();
        config.limits.message_rate = 0;
        // A full history, so that it does not grow while it is measured.
        config.limits.history_messages_max = 10;
        let mut room = Self { hub: Hub::new(&config, Box::new(OpenPolicy)), bus: LocalBus::new(&config, 1) };
        for slot in 0..members {
            let id = ConnectionId { slot, generation: 1 };
            room.hub.connect(id, &UserId::new(&format!("user-{slot:06}")).unwrap(), None);
            room.hub.handle_text(Now::default(), id, r#"{"type":"join","room":"lobby"}"#);
            room.run_bus();
        }
        room.hub.drain_output(|_| {});
        room.flush();
        room
    }

    fn run_bus(&mut self) {
        let now = Now::default();
        loop {
            match self.hub.poll_bus_request() {
                Some(BusRequest::Open(room)) => self.bus.open(now, &room),
                Some(BusRequest::Close(room)) => self.bus.close(now, &room),
                Some(BusRequest::Publish { ticket, publication }) => self.bus.publish(now, ticket, publication),
                Some(BusRequest::Read { ticket, room, from, bytes_max }) => {
                    self.bus.read(now, ticket, &room, from, bytes_max);
                }
                None => match self.bus.poll_event() {
                    Some(event) => self.hub.handle_bus_event(now, event),
                    None => return,
                },
            }
        }
    }

    /// Flushes until nothing is owed; says to how many members, who all must be given bytes of the one log.
    fn flush(&mut self) -> u64 {
        let (mut sends, mut tail) = (0, None);
        while self.hub.has_work() {
            self.hub.flush_rooms(Now::default(), 64, &mut |_, frames| {
                sends += 1;
                let end = frames.as_ptr_range().end;
                assert_eq!(*tail.get_or_insert(end), end, "a copy was made");
                frames.len()
            });
        }
        sends
    }

    fn broadcast(&mut self) {
        let sender = ConnectionId { slot: 0, generation: 1 };
        self.hub.handle_text(Now::default(), sender, r#"{"type":"chat","room":"lobby","text":"hello"}"#);
        self.run_bus();
    }

    fn measure(members: u32) -> Cost {
        let mut room = Self::new(members);
        // Warm: the buffers that are used again have their size.
        for _ in 0..20 {
            room.broadcast();
            room.flush();
        }
        let before = room.hub.stats().appended_bytes;
        let all = Region::new(ALLOCATOR);
        let mut allocations_of_flushes = 0;
        for _ in 0..BROADCASTS {
            room.broadcast();
            let flush = Region::new(ALLOCATOR);
            assert_eq!(room.flush(), u64::from(members));
            allocations_of_flushes += flush.change().allocations + flush.change().reallocations;
        }
        let change = all.change();
        let appended_bytes = room.hub.stats().appended_bytes - before;
        Cost { appended_bytes, allocations: change.allocations + change.reallocations, allocations_of_flushes }
    }
}

#[test]
fn a_broadcast_copies_and_allocates_the_same_for_ten_members_and_for_ten_thousand() {
    let of_ten = Room::measure(10);
    assert_eq!(of_ten.allocations_of_flushes, 0, "{of_ten:?}");
    assert!(of_ten.appended_bytes > 0 && of_ten.allocations > 0, "{of_ten:?}");
    for members in [100, 1_000, 10_000] {
        assert_eq!(Room::measure(members), of_ten, "{members} members");
    }
}
