//! The copy claim: the bytes that a broadcast copies and allocates do not depend on the number of members.

#[path = "support/local_room.rs"]
pub mod local_room;

use std::alloc::System;

use local_room::LocalRoom;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BROADCASTS: u64 = 100;
const CHAT: &str = r#"{"type":"chat","room":"lobby","text":"hello"}"#;

/// The cost of a hundred broadcasts.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    appended_bytes: u64,
    allocations: usize,
    allocations_of_flushes: usize,
}

/// Flushes to members who all must be given bytes of the one log; says to how many.
fn flush(room: &mut LocalRoom) -> u64 {
    let mut tail = None;
    room.flush(|frames| {
        let end = frames.as_ptr_range().end;
        assert_eq!(*tail.get_or_insert(end), end, "a copy was made");
    })
}

fn measure(members: u32) -> Cost {
    let mut room = LocalRoom::new(members);
    // Warm: the buffers that are used again have their size.
    for _ in 0..20 {
        room.say(CHAT);
        flush(&mut room);
    }
    let before = room.hub.stats().appended_bytes;
    let all = Region::new(ALLOCATOR);
    let mut allocations_of_flushes = 0;
    for _ in 0..BROADCASTS {
        room.say(CHAT);
        let region = Region::new(ALLOCATOR);
        assert_eq!(flush(&mut room), u64::from(members));
        allocations_of_flushes += region.change().allocations + region.change().reallocations;
    }
    let change = all.change();
    let appended_bytes = room.hub.stats().appended_bytes - before;
    Cost { appended_bytes, allocations: change.allocations + change.reallocations, allocations_of_flushes }
}

#[test]
fn a_broadcast_copies_and_allocates_the_same_for_ten_members_and_for_ten_thousand() {
    let of_ten = measure(10);
    assert_eq!(of_ten.allocations_of_flushes, 0, "{of_ten:?}");
    assert!(of_ten.appended_bytes > 0 && of_ten.allocations > 0, "{of_ten:?}");
    for members in [100, 1_000, 10_000] {
        assert_eq!(measure(members), of_ten, "{members} members");
    }
}
