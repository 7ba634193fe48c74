//! What the simulation of several nodes does not show by itself.

use std::time::Duration;

use super::*;
use crate::bus::message::PresenceChange;
use crate::bus::redis::presence::delta::{
    CHANGES_MAX, Name, NodeSet, NodeSets, PresenceDelta, PresenceRequest, UserSet, UserState,
};
use crate::bus::redis::presence::nodes::{Heartbeat, HeartbeatReply, NodeId, Nodes};
use crate::bus::redis::presence::room_presence::RoomPresence;
use crate::id::UserId;
use crate::protocol::PresenceStatus;

const NOW: Duration = Duration::from_secs(1000);

fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn id(text: &str) -> NodeId {
    NodeId::new(text)
}

/// One that knows `a` and `b` to live.
fn nodes() -> Nodes {
    let mut nodes = Nodes::new(id("own"), Duration::from_secs(30), Duration::from_secs(5));
    let Heartbeat { text, .. } = nodes.poll_heartbeat(NOW).unwrap();
    let all = vec![(id("own"), text.unwrap()), (id("a"), "1 30000 0".into()), (id("b"), "1 30000 0".into())];
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all });
    nodes
}

/// The same without one of them.
fn dead(mut nodes: Nodes, node: &str) -> Nodes {
    let others = ["a", "b"].into_iter().filter(|other| *other != node);
    let all = others.map(|other| (id(other), "2 30000 0".into())).collect();
    nodes.poll_heartbeat(NOW + Duration::from_secs(5)).expect("a beat");
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all });
    assert!(!nodes.counts(&id(node)));
    nodes
}

fn here(users: &[&str]) -> Vec<(UserId, UserState)> {
    users.iter().map(|name| (user(name), UserState::Here(None))).collect()
}

fn delta(node: &str, base: Option<u64>, version: u64, changes: Vec<(UserId, UserState)>) -> PresenceDelta {
    PresenceDelta { node: id(node), base, version, changes: Some(changes) }
}

/// `+ann -bob`, as the hub is told.
fn told(out: &mut Vec<PresenceChange>) -> String {
    let word = |change: PresenceChange| match change.status {
        PresenceStatus::Online => format!("+{}", change.user),
        PresenceStatus::Offline => format!("-{}", change.user),
    };
    out.drain(..).map(word).collect::<Vec<_>>().join(" ")
}

fn come(room: &mut RoomPresence, name: &str) {
    room.change_own(PresenceChange { user: user(name), name: None, status: PresenceStatus::Online });
}

fn go(room: &mut RoomPresence, name: &str) {
    room.change_own(PresenceChange { user: user(name), name: None, status: PresenceStatus::Offline });
}

fn record(node: &str, version: u64, users: &[&str]) -> NodeSet {
    let users: UserSet = users.iter().map(|name| (user(name), None)).collect();
    NodeSet { node: id(node), version, users: Some(users) }
}

/// What is said next, at the earliest.
fn said(room: &mut RoomPresence, versions: &mut u64) -> (Duration, Option<u64>, Vec<(UserId, UserState)>) {
    let at = room.next().expect("something to say").max(NOW);
    match room.poll(at, versions) {
        Some(PresenceRequest::Update { base, changes, .. }) => (at, base, changes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_happens_meanwhile_goes_together_and_who_comes_and_goes_not_at_all() {
    let (mut room, mut versions) = (RoomPresence::default(), 40);
    come(&mut room, "ann");
    assert_eq!(said(&mut room, &mut versions), (NOW, None, here(&["ann"])));
    come(&mut room, "bob");
    assert_eq!(room.next(), None, "one at a time");
    room.update_answered(true);
    come(&mut room, "carl");
    go(&mut room, "ann");
    go(&mut room, "bob");
    let (at, base, changes) = said(&mut room, &mut versions);
    assert_eq!((at, base), (NOW + Duration::from_millis(50), Some(41)));
    assert_eq!(changes, [(user("ann"), UserState::Gone), (user("carl"), UserState::Here(None))]);
    room.update_answered(true);
    assert!(room.is_settled() && room.next().is_none());
    go(&mut room, "carl");
    come(&mut room, "carl");
    assert!(room.is_settled());
}

#[test]
fn ten_thousand_changes_are_told_some_at_a_time_and_a_whole_set_at_once() {
    let (mut room, mut versions) = (RoomPresence::default(), 0);
    come(&mut room, "first");
    said(&mut room, &mut versions);
    room.update_answered(true);
    (0..10_000).for_each(|i| come(&mut room, &format!("u{i}")));
    let mut sizes = Vec::new();
    while room.next().is_some() {
        sizes.push(said(&mut room, &mut versions).2.len());
        room.update_answered(true);
    }
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>(), sizes[0]), (10, 10_000, CHANGES_MAX));
    // Redis does not have what the last one continued.
    come(&mut room, "last");
    said(&mut room, &mut versions);
    assert!(room.update_answered(false));
    let (_, base, changes) = said(&mut room, &mut versions);
    assert_eq!((base, changes.len()), (None, 10_002));
}

#[test]
fn what_redis_refuses_is_said_again_later_and_whole() {
    let (mut room, mut versions) = (RoomPresence::default(), 0);
    come(&mut room, "ann");
    said(&mut room, &mut versions);
    room.fail(NOW);
    assert_eq!(room.next(), Some(NOW + Duration::from_secs(1)));
    assert_eq!(said(&mut room, &mut versions).2, here(&["ann"]));
    assert_eq!(versions, 2, "the first may have been done after all");
}

#[test]
fn shares_are_taken_in_order_and_once() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let mut take = |room: &mut RoomPresence, delta| {
        room.apply_delta(delta, &mut nodes, &mut out);
        told(&mut out)
    };
    assert_eq!(take(&mut room, delta("a", None, 5, here(&["ann", "bob"]))), "+ann +bob");
    assert_eq!(take(&mut room, delta("a", None, 4, here(&["old"]))), "");
    let gone = vec![(user("ann"), UserState::Gone)];
    assert_eq!(take(&mut room, delta("a", Some(5), 8, gone)), "-ann");
    assert_eq!(take(&mut room, delta("a", Some(5), 8, here(&["ann"]))), "");
    assert_eq!(take(&mut room, delta("b", None, 3, here(&["ann", "bob"]))), "+ann");
    assert_eq!(room.next(), None);
    // One is missing: it waits for the answer.
    assert_eq!(take(&mut room, delta("a", Some(9), 10, here(&["dora"]))), "");
    let Some(PresenceRequest::Query { known, .. }) = room.poll(NOW, &mut 0) else { panic!("it does not ask") };
    assert_eq!(known, [(id("a"), 8), (id("b"), 3)]);
    let others = vec![record("a", 9, &["bob", "carl"]), NodeSet { users: None, ..record("b", 3, &[]) }];
    room.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    assert_eq!(told(&mut out), "+carl +dora");
    assert_eq!(room.next(), None);
}

#[test]
fn shares_that_wait_have_a_bound_and_are_asked_for() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    for version in 2..10_000 {
        room.apply_delta(delta("a", Some(version - 1), version, here(&["ann"])), &mut nodes, &mut out);
    }
    assert_eq!((room.waiting_deltas.len(), out.len()), (WAITING_CHANGES_MAX, 0));
    let mut answers = 0;
    while room.poll(NOW, &mut 0).is_some() {
        answers += 1;
        let others = vec![record("a", 9_999, &["bob"])];
        room.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    }
    assert_eq!((told(&mut out).as_str(), answers, room.waiting_deltas.len()), ("+bob", 1, 0));
}

#[test]
fn a_user_that_has_moved_while_nothing_was_heard_is_not_gone_in_between() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    room.apply_delta(delta("a", None, 5, here(&["ann", "bob"])), &mut nodes, &mut out);
    room.apply_delta(delta("b", None, 6, here(&["carl"])), &mut nodes, &mut out);
    told(&mut out);
    // The room is subscribed again. That ann came to the other node was missed, that she left this one is heard.
    room.query_soon();
    let gone = |base, version, name| delta("a", Some(base), version, vec![(user(name), UserState::Gone)]);
    room.apply_delta(gone(5, 7, "ann"), &mut nodes, &mut out);
    room.poll(NOW, &mut 0).expect("a question");
    room.apply_delta(gone(7, 8, "bob"), &mut nodes, &mut out);
    assert_eq!(told(&mut out), "", "the answer is not there yet");
    let others = vec![record("a", 7, &["bob"]), record("b", 9, &["ann", "carl"])];
    room.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    assert_eq!(told(&mut out), "-bob");
    // The same where only the answer tells of it, and of users that come and go.
    room.query_soon();
    room.poll(NOW, &mut 0).expect("a question");
    let others = vec![record("b", 10, &["dora"]), record("a", 9, &["ann", "carl", "eve"])];
    room.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    assert_eq!(told(&mut out), "+dora +eve");
    assert_eq!(room.next(), None);
}

#[test]
fn a_check_is_done_when_all_that_was_there_after_it_has_come() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let answer = |others| NodeSets { local: None, others };
    room.query_soon();
    room.poll(NOW, &mut 0).expect("a question");
    room.check();
    room.apply_sets(NOW, answer(vec![record("a", 5, &["ann"])]), &mut nodes, &mut out);
    assert!(!room.is_checked(), "it was asked before");
    room.poll(NOW, &mut 0).expect("a question");
    room.fail(NOW);
    assert!(!room.is_checked() && room.poll(NOW, &mut 0).is_none(), "it was refused");
    room.poll(NOW + RETRY_AFTER, &mut 0).expect("a question");
    let in_part = vec![record("a", 6, &[]), NodeSet { users: None, ..record("b", 6, &[]) }];
    room.apply_sets(NOW, answer(in_part), &mut nodes, &mut out);
    assert!(!room.is_checked(), "more is to come");
    room.poll(NOW + RETRY_AFTER, &mut 0).expect("a question");
    room.apply_sets(NOW, answer(vec![record("b", 6, &["bob"])]), &mut nodes, &mut out);
    assert!(room.take_checked() && !room.is_checked(), "once");
    assert_eq!((told(&mut out).as_str(), room.next()), ("+ann -ann +bob", None));
    // One that is asked again while it is under way counts from then on.
    room.check();
    room.poll(NOW + RETRY_AFTER, &mut 0).expect("a question");
    room.check();
    room.apply_sets(NOW, answer(vec![]), &mut nodes, &mut out);
    assert!(!room.is_checked() && room.next().is_some());
}

#[test]
fn too_large_a_set_is_asked_for() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let notice = PresenceDelta { node: id("a"), base: None, version: 2, changes: None };
    room.apply_delta(notice, &mut nodes, &mut out);
    assert!(matches!(room.poll(NOW, &mut 0), Some(PresenceRequest::Query { .. })));
}

#[test]
fn a_room_is_loaded_when_nothing_is_left_to_be_asked_for() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    room.query_soon();
    let answers = [
        vec![record("a", 5, &["ann"]), NodeSet { users: None, ..record("b", 6, &[]) }],
        vec![NodeSet { users: None, ..record("a", 5, &[]) }, record("b", 6, &["bob"])],
    ];
    for (others, expected) in answers.into_iter().zip(["+ann", "+bob"]) {
        assert!(!room.is_loaded());
        room.poll(NOW, &mut 0).expect("a question");
        room.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
        assert_eq!(told(&mut out), expected);
    }
    assert!(room.is_loaded() && room.next().is_none());
}

#[test]
fn a_dead_node_s_users_go_some_at_a_time_unless_they_are_elsewhere() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    room.apply_delta(delta("a", None, 5, here(&["ann", "bob", "carl", "dora"])), &mut nodes, &mut out);
    room.apply_delta(delta("b", None, 6, here(&["bob"])), &mut nodes, &mut out);
    assert_eq!(told(&mut out), "+ann +bob +carl +dora");
    let mut nodes = dead(nodes, "a");
    assert!(!room.drain(&id("a"), 2, &nodes, &mut out));
    assert_eq!(told(&mut out), "-ann");
    room.announce_all(&mut out);
    assert_eq!(told(&mut out), "+carl +dora +bob");
    // It is heard from while it withers, so it is asked for.
    room.apply_delta(delta("a", None, 7, here(&["ann"])), &mut nodes, &mut out);
    assert!(room.drain(&id("a"), 9, &nodes, &mut out));
    assert_eq!(told(&mut out), "-carl -dora");
    let Some(PresenceRequest::Query { known, tombstones }) = room.poll(NOW, &mut 0) else { panic!("it does not ask") };
    assert_eq!((known, tombstones), (vec![(id("b"), 6)], vec![(id("a"), 5)]));
    room.apply_sets(NOW, NodeSets { local: None, others: vec![record("a", 7, &["ann"])] }, &mut nodes, &mut out);
    assert_eq!((told(&mut out).as_str(), room.has_unknown()), ("", true), "nobody knows whether it lives");
    nodes.poll_heartbeat(NOW).expect("a look");
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all: vec![(id("a"), "3 30000 0".into())] });
    room.confirm(&mut nodes, &mut out);
    assert_eq!((told(&mut out).as_str(), room.has_unknown()), ("+ann", false));
}

#[test]
fn the_set_of_a_node_that_lives_is_asked_for_and_not_removed() {
    // It came back while its users went, or when they had gone.
    for is_early in [true, false] {
        let (mut room, alive, mut out) = (RoomPresence::default(), nodes(), Vec::new());
        let mut dead = dead(nodes(), "a");
        room.apply_delta(delta("b", None, 4, here(&["bob"])), &mut dead, &mut out);
        room.apply_delta(delta("a", None, 5, here(&["ann"])), &mut nodes(), &mut out);
        assert!(room.drain(&id("a"), 9, if is_early { &alive } else { &dead }, &mut out));
        if !is_early {
            assert_eq!((room.next(), room.tombstones.len()), (None, 1));
            room.remove_tombstone(&id("a"));
        }
        let Some(PresenceRequest::Query { known, tombstones }) = room.poll(NOW, &mut 0) else {
            panic!("it does not ask")
        };
        assert_eq!((known, tombstones), (vec![(id("b"), 4)], vec![]), "is_early: {is_early}");
    }
}

#[test]
fn a_set_that_redis_does_not_have_counts_until_its_node_must_have_noticed() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    room.apply_delta(delta("a", None, 5, here(&["ann"])), &mut nodes, &mut out);
    told(&mut out);
    let mut ask = |room: &mut RoomPresence, now| {
        room.query_soon();
        room.poll(now, &mut 0).expect("a question");
        room.apply_sets(now, NodeSets::default(), &mut nodes, &mut out);
        told(&mut out)
    };
    for wait in [Duration::ZERO, MISSING_MAX - Duration::from_millis(1)] {
        assert_eq!(ask(&mut room, NOW + wait), "");
    }
    assert_eq!(ask(&mut room, NOW + MISSING_MAX), "-ann");
    assert_eq!(room.len_elsewhere(), 0);
}

#[test]
fn what_redis_has_brought_back_from_an_old_copy_does_not_count() {
    let (mut room, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let all = vec![(id("own"), "1 30000 0".into()), (id("a"), "2 30000 6".into())];
    nodes.liveness(&id("unknown"));
    nodes.poll_heartbeat(NOW).expect("a look");
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all });
    for (version, expected) in [(5, ""), (6, "+ann")] {
        let records = NodeSets { local: None, others: vec![record("a", version, &["ann"])] };
        room.apply_sets(NOW, records, &mut nodes, &mut out);
        assert_eq!(told(&mut out), expected);
    }
}

#[test]
fn the_own_set_is_said_again_if_redis_has_another() {
    let found_and_wanted = [(Some((1, 1)), false), (None, true), (Some((1, 0)), true), (Some((9, 1)), true)];
    for (found, is_mended) in found_and_wanted {
        let (mut room, mut versions) = (RoomPresence::default(), 0);
        come(&mut room, "ann");
        said(&mut room, &mut versions);
        room.update_answered(true);
        room.query_soon();
        room.poll(NOW, &mut versions).expect("a question");
        let records = NodeSets { local: found, others: Vec::new() };
        assert_eq!(room.apply_sets(NOW, records, &mut nodes(), &mut Vec::new()), is_mended, "{found:?}");
        assert_eq!(room.is_settled(), !is_mended);
    }
    // A room in which nobody has been since it was opened.
    for (found, is_mended) in [(None, false), (Some((7, 0)), false), (Some((7, 2)), true)] {
        let mut room = RoomPresence::default();
        let records = NodeSets { local: found, others: Vec::new() };
        assert_eq!(room.apply_sets(NOW, records, &mut nodes(), &mut Vec::new()), is_mended, "{found:?}");
    }
}

#[test]
fn a_user_elsewhere_takes_little_memory() {
    let bytes = std::mem::size_of::<UserId>() + std::mem::size_of::<Name>();
    assert!(bytes <= 40, "{bytes} bytes, of which a tree's nodes have 11 and are at least half full");
    assert!(std::mem::size_of::<RoomPresence>() <= 256, "{} bytes a room", std::mem::size_of::<RoomPresence>());
}
