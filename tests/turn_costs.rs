//! The copy claim for the whole server: the bytes that its thread allocates and copies in the turns of a
//! broadcast to real sockets do not depend on the number of members. Members that read their copies do
//! not wake the server.

pub mod support;

use std::alloc::System;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mio::Events;
use roomcast::OpenPolicy;
use roomcast::{Config, Now, Stats};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::host::{Host, LOOK};
use support::{Raw, Stream, TEXT, frame, raise_file_limit, upgrade_request};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BROADCASTS: u64 = 100;
const CHAT: &[u8] = br#"{"type":"chat","room":"lobby","text":"hello"}"#;

/// The cost of a hundred broadcasts.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    allocations: usize,
    allocated_bytes: usize,
    appended_bytes: u64,
    partial_frame_bytes: u64,
    /// In all turns but the first of each broadcast: these do nothing but send.
    allocations_of_later_turns: usize,
}

/// Nothing becomes due while it is measured.
fn standstill() -> Now {
    Now::default()
}

fn host(members: u32) -> Host {
    raise_file_limit();
    let mut config = Config::default();
    config.net.connections_max = members;
    config.hub.message_rate = 0;
    // A full history, so that it does not grow while it is measured.
    config.history.messages_max = 10;
    Host::with(config, OpenPolicy, standstill)
}

/// Members of one user, so that the room has one presence to tell.
fn join<S: Stream + Send>(host: &mut Host, count: u32, connect: impl Fn() -> Raw<S> + Sync) -> Vec<Raw<S>> {
    host.serve(|| {
        let member = |_| {
            let mut raw = connect();
            raw.send(upgrade_request("/ws?userId=ann", &[]).as_bytes());
            raw.upgraded();
            raw.send(&frame(TEXT, true, br#"{"type":"join","room":"lobby"}"#));
            raw.json_of("joined");
            raw
        };
        (0..count).map(member).collect()
    })
}

/// Turns until as many sends were made as there are members. Returns how much the turns after the first
/// allocated.
fn turn_until_sent(host: &mut Host, members: u32) -> usize {
    let sends_before = host.server.stats().hub.sends;
    let mut first_turn_ended = None;
    host.turn_until("a send a member", |host| {
        let sends = host.server.stats().hub.sends - sends_before;
        if sends > 0 && first_turn_ended.is_none() {
            first_turn_ended = Some(Region::new(ALLOCATOR));
        }
        sends >= u64::from(members)
    });
    assert_eq!(host.server.stats().hub.sends - sends_before, u64::from(members), "more than one send a member");
    let change = first_turn_ended.expect("a turn has sent").change();
    change.allocations + change.reallocations
}

fn measure(count: u32) -> Cost {
    let mut host = host(count);
    let address = host.listen();
    let mut members = join(&mut host, count, || Raw::connect(address));
    let chat = frame(TEXT, true, CHAT);
    // Warm: the buffers that are used again have their size.
    for _ in 0..20 {
        members[0].send(&chat);
        turn_until_sent(&mut host, count);
    }
    let before = host.server.stats();
    let all = Region::new(ALLOCATOR);
    let mut allocations_of_later_turns = 0;
    for _ in 0..BROADCASTS {
        members[0].send(&chat);
        allocations_of_later_turns += turn_until_sent(&mut host, count);
    }
    let change = all.change();
    let after = host.server.stats();
    check_sends(&before, &after, count);
    for member in &mut members {
        for seq in 1..=20 + BROADCASTS {
            assert_eq!(member.json_of("chat")["seq"], seq);
        }
    }
    Cost {
        allocations: change.allocations + change.reallocations,
        allocated_bytes: change.bytes_allocated,
        appended_bytes: after.hub.appended_bytes - before.hub.appended_bytes,
        partial_frame_bytes: after.net.partial_frame_bytes - before.net.partial_frame_bytes,
        allocations_of_later_turns,
    }
}

fn check_sends(before: &Stats, after: &Stats, members: u32) {
    let sent_bytes = after.hub.sent_bytes - before.hub.sent_bytes;
    let appended_bytes = after.hub.appended_bytes - before.hub.appended_bytes;
    assert_eq!(sent_bytes, appended_bytes * u64::from(members));
    let turns = u64::from(members.div_ceil(Config::default().hub.sends_per_turn));
    assert_eq!(after.turns - before.turns, BROADCASTS * turns);
}

/// The events that wake the loop while no message is sent.
fn events(host: &mut Host) -> usize {
    let mut events = Events::with_capacity(64);
    host.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    events.iter().count()
}

/// Messages of several members that are there when a turn begins go out in one send a member.
fn check_bundling<S: Stream>(host: &mut Host, members: &mut [Raw<S>]) {
    // Host sees no more events a turn.
    const TALKERS: usize = 4;
    for talker in &mut members[..TALKERS] {
        talker.send(&frame(TEXT, true, CHAT));
    }
    turn_until_sent(host, members.len() as u32);
    assert_eq!(events(host), 0, "something was left over");
    for member in members {
        (0..TALKERS).for_each(|_| drop(member.json_of("chat")));
        assert_eq!(events(host), 0, "that a member has read woke the loop");
    }
}

fn check_bundling_over_unix_sockets(path: &Path) {
    let mut host = host(10);
    host.server.listen_unix(path).unwrap();
    let mut members = join(&mut host, 10, || Raw::over(UnixStream::connect(path).unwrap()));
    host.turn(LOOK);
    check_bundling(&mut host, &mut members);
}

// One test: the allocator counts for the whole process.
#[test]
fn a_broadcast_over_sockets_costs_the_same_for_ten_members_and_for_a_thousand() {
    let of_ten = measure(10);
    assert_eq!((of_ten.partial_frame_bytes, of_ten.allocations_of_later_turns), (0, 0), "{of_ten:?}");
    assert!(of_ten.appended_bytes > 0 && of_ten.allocations > 0, "{of_ten:?}");
    for members in [100, 1_000] {
        assert_eq!(measure(members), of_ten, "{members} members");
    }
    let mut tcp = host(10);
    let address = tcp.listen();
    let mut members = join(&mut tcp, 10, || Raw::connect(address));
    tcp.turn(LOOK);
    check_bundling(&mut tcp, &mut members);
    let folder = tempfile::tempdir().unwrap();
    check_bundling_over_unix_sockets(&folder.path().join("socket"));
}
