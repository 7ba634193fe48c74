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

fn share(node: &str, base: Option<u64>, version: u64, changes: Vec<(UserId, UserState)>) -> PresenceDelta {
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

fn come(roster: &mut RoomPresence, name: &str) {
    roster.change_own(PresenceChange { user: user(name), name: None, status: PresenceStatus::Online });
}

fn go(roster: &mut RoomPresence, name: &str) {
    roster.change_own(PresenceChange { user: user(name), name: None, status: PresenceStatus::Offline });
}

fn record(node: &str, version: u64, users: &[&str]) -> NodeSet {
    let users: UserSet = users.iter().map(|name| (user(name), None)).collect();
    NodeSet { node: id(node), version, users: Some(users) }
}

/// What is said next, at the earliest.
fn said(roster: &mut RoomPresence, versions: &mut u64) -> (Duration, Option<u64>, Vec<(UserId, UserState)>) {
    let at = roster.next().expect("something to say").max(NOW);
    match roster.poll(at, versions) {
        Some(PresenceRequest::Update { base, changes, .. }) => (at, base, changes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_happens_meanwhile_goes_together_and_who_comes_and_goes_not_at_all() {
    let (mut roster, mut versions) = (RoomPresence::default(), 40);
    come(&mut roster, "ann");
    assert_eq!(said(&mut roster, &mut versions), (NOW, None, here(&["ann"])));
    come(&mut roster, "bob");
    assert_eq!(roster.next(), None, "one at a time");
    roster.update_answered(true);
    come(&mut roster, "carl");
    go(&mut roster, "ann");
    go(&mut roster, "bob");
    let (at, base, changes) = said(&mut roster, &mut versions);
    assert_eq!((at, base), (NOW + Duration::from_millis(50), Some(41)));
    assert_eq!(changes, [(user("ann"), UserState::Gone), (user("carl"), UserState::Here(None))]);
    roster.update_answered(true);
    assert!(roster.is_settled() && roster.next().is_none());
    go(&mut roster, "carl");
    come(&mut roster, "carl");
    assert!(roster.is_settled());
}

#[test]
fn ten_thousand_changes_are_told_some_at_a_time_and_a_whole_set_at_once() {
    let (mut roster, mut versions) = (RoomPresence::default(), 0);
    come(&mut roster, "first");
    said(&mut roster, &mut versions);
    roster.update_answered(true);
    (0..10_000).for_each(|i| come(&mut roster, &format!("u{i}")));
    let mut sizes = Vec::new();
    while roster.next().is_some() {
        sizes.push(said(&mut roster, &mut versions).2.len());
        roster.update_answered(true);
    }
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>(), sizes[0]), (10, 10_000, CHANGES_MAX));
    // Redis does not have what the last one continued.
    come(&mut roster, "last");
    said(&mut roster, &mut versions);
    assert!(roster.update_answered(false));
    let (_, base, changes) = said(&mut roster, &mut versions);
    assert_eq!((base, changes.len()), (None, 10_002));
}

#[test]
fn what_redis_refuses_is_said_again_later_and_whole() {
    let (mut roster, mut versions) = (RoomPresence::default(), 0);
    come(&mut roster, "ann");
    said(&mut roster, &mut versions);
    roster.fail(NOW);
    assert_eq!(roster.next(), Some(NOW + Duration::from_secs(1)));
    assert_eq!(said(&mut roster, &mut versions).2, here(&["ann"]));
    assert_eq!(versions, 2, "the first may have been done after all");
}

#[test]
fn shares_are_taken_in_order_and_once() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let mut take = |roster: &mut RoomPresence, share| {
        roster.apply_delta(share, &mut nodes, &mut out);
        told(&mut out)
    };
    assert_eq!(take(&mut roster, share("a", None, 5, here(&["ann", "bob"]))), "+ann +bob");
    assert_eq!(take(&mut roster, share("a", None, 4, here(&["old"]))), "");
    let gone = vec![(user("ann"), UserState::Gone)];
    assert_eq!(take(&mut roster, share("a", Some(5), 8, gone)), "-ann");
    assert_eq!(take(&mut roster, share("a", Some(5), 8, here(&["ann"]))), "");
    assert_eq!(take(&mut roster, share("b", None, 3, here(&["ann", "bob"]))), "+ann");
    assert_eq!(roster.next(), None);
    // One is missing: it waits for the answer.
    assert_eq!(take(&mut roster, share("a", Some(9), 10, here(&["dora"]))), "");
    let Some(PresenceRequest::Query { known, .. }) = roster.poll(NOW, &mut 0) else { panic!("it does not ask") };
    assert_eq!(known, [(id("a"), 8), (id("b"), 3)]);
    let others = vec![record("a", 9, &["bob", "carl"]), NodeSet { users: None, ..record("b", 3, &[]) }];
    roster.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    assert_eq!(told(&mut out), "+carl +dora");
    assert_eq!(roster.next(), None);
}

#[test]
fn shares_that_wait_have_a_bound_and_are_asked_for() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    for version in 2..10_000 {
        roster.apply_delta(share("a", Some(version - 1), version, here(&["ann"])), &mut nodes, &mut out);
    }
    assert_eq!((roster.waiting_deltas.len(), out.len()), (WAITING_CHANGES_MAX, 0));
    let mut answers = 0;
    while roster.poll(NOW, &mut 0).is_some() {
        answers += 1;
        let others = vec![record("a", 9_999, &["bob"])];
        roster.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
    }
    assert_eq!((told(&mut out).as_str(), answers, roster.waiting_deltas.len()), ("+bob", 1, 0));
}

#[test]
fn too_large_a_set_is_asked_for() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let notice = PresenceDelta { node: id("a"), base: None, version: 2, changes: None };
    roster.apply_delta(notice, &mut nodes, &mut out);
    assert!(matches!(roster.poll(NOW, &mut 0), Some(PresenceRequest::Query { .. })));
}

#[test]
fn a_room_is_loaded_when_nothing_is_left_to_be_asked_for() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    roster.query_soon();
    let answers = [
        vec![record("a", 5, &["ann"]), NodeSet { users: None, ..record("b", 6, &[]) }],
        vec![NodeSet { users: None, ..record("a", 5, &[]) }, record("b", 6, &["bob"])],
    ];
    for (others, expected) in answers.into_iter().zip(["+ann", "+bob"]) {
        assert!(!roster.is_loaded());
        roster.poll(NOW, &mut 0).expect("a question");
        roster.apply_sets(NOW, NodeSets { local: None, others }, &mut nodes, &mut out);
        assert_eq!(told(&mut out), expected);
    }
    assert!(roster.is_loaded() && roster.next().is_none());
}

#[test]
fn a_dead_node_s_users_go_some_at_a_time_unless_they_are_elsewhere() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    roster.apply_delta(share("a", None, 5, here(&["ann", "bob", "carl", "dora"])), &mut nodes, &mut out);
    roster.apply_delta(share("b", None, 6, here(&["bob"])), &mut nodes, &mut out);
    assert_eq!(told(&mut out), "+ann +bob +carl +dora");
    let mut nodes = dead(nodes, "a");
    assert!(!roster.drain(&id("a"), 2, &nodes, &mut out));
    assert_eq!(told(&mut out), "-ann");
    roster.announce_all(&mut out);
    assert_eq!(told(&mut out), "+carl +dora +bob");
    // It is heard from while it withers, so it is asked for.
    roster.apply_delta(share("a", None, 7, here(&["ann"])), &mut nodes, &mut out);
    assert!(roster.drain(&id("a"), 9, &nodes, &mut out));
    assert_eq!(told(&mut out), "-carl -dora");
    let Some(PresenceRequest::Query { known, tombstones }) = roster.poll(NOW, &mut 0) else {
        panic!("it does not ask")
    };
    assert_eq!((known, tombstones), (vec![(id("b"), 6)], vec![(id("a"), 5)]));
    roster.apply_sets(NOW, NodeSets { local: None, others: vec![record("a", 7, &["ann"])] }, &mut nodes, &mut out);
    assert_eq!((told(&mut out).as_str(), roster.has_unknown()), ("", true), "nobody knows whether it lives");
    nodes.poll_heartbeat(NOW).expect("a look");
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all: vec![(id("a"), "3 30000 0".into())] });
    roster.confirm(&mut nodes, &mut out);
    assert_eq!((told(&mut out).as_str(), roster.has_unknown()), ("+ann", false));
}

#[test]
fn the_set_of_a_node_that_lives_is_asked_for_and_not_removed() {
    // It came back while its users went, or when they had gone.
    for is_early in [true, false] {
        let (mut roster, alive, mut out) = (RoomPresence::default(), nodes(), Vec::new());
        let mut dead = dead(nodes(), "a");
        roster.apply_delta(share("b", None, 4, here(&["bob"])), &mut dead, &mut out);
        roster.apply_delta(share("a", None, 5, here(&["ann"])), &mut nodes(), &mut out);
        assert!(roster.drain(&id("a"), 9, if is_early { &alive } else { &dead }, &mut out));
        if !is_early {
            assert_eq!((roster.next(), roster.tombstones.len()), (None, 1));
            roster.remove_tombstone(&id("a"));
        }
        let Some(PresenceRequest::Query { known, tombstones }) = roster.poll(NOW, &mut 0) else {
            panic!("it does not ask")
        };
        assert_eq!((known, tombstones), (vec![(id("b"), 4)], vec![]), "is_early: {is_early}");
    }
}

#[test]
fn a_set_that_redis_does_not_have_counts_until_its_node_must_have_noticed() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    roster.apply_delta(share("a", None, 5, here(&["ann"])), &mut nodes, &mut out);
    told(&mut out);
    let mut ask = |roster: &mut RoomPresence, now| {
        roster.query_soon();
        roster.poll(now, &mut 0).expect("a question");
        roster.apply_sets(now, NodeSets::default(), &mut nodes, &mut out);
        told(&mut out)
    };
    for wait in [Duration::ZERO, MISSING_MAX - Duration::from_millis(1)] {
        assert_eq!(ask(&mut roster, NOW + wait), "");
    }
    assert_eq!(ask(&mut roster, NOW + MISSING_MAX), "-ann");
    assert_eq!(roster.len_elsewhere(), 0);
}

#[test]
fn what_redis_has_brought_back_from_an_old_copy_does_not_count() {
    let (mut roster, mut nodes, mut out) = (RoomPresence::default(), nodes(), Vec::new());
    let all = vec![(id("own"), "1 30000 0".into()), (id("a"), "2 30000 6".into())];
    nodes.liveness(&id("unknown"));
    nodes.poll_heartbeat(NOW).expect("a look");
    nodes.answer(NOW, HeartbeatReply { is_remembered: true, all });
    for (version, expected) in [(5, ""), (6, "+ann")] {
        let records = NodeSets { local: None, others: vec![record("a", version, &["ann"])] };
        roster.apply_sets(NOW, records, &mut nodes, &mut out);
        assert_eq!(told(&mut out), expected);
    }
}

#[test]
fn the_own_set_is_said_again_if_redis_has_another() {
    let found_and_wanted = [(Some((1, 1)), false), (None, true), (Some((1, 0)), true), (Some((9, 1)), true)];
    for (found, is_mended) in found_and_wanted {
        let (mut roster, mut versions) = (RoomPresence::default(), 0);
        come(&mut roster, "ann");
        said(&mut roster, &mut versions);
        roster.update_answered(true);
        roster.query_soon();
        roster.poll(NOW, &mut versions).expect("a question");
        let records = NodeSets { local: found, others: Vec::new() };
        assert_eq!(roster.apply_sets(NOW, records, &mut nodes(), &mut Vec::new()), is_mended, "{found:?}");
        assert_eq!(roster.is_settled(), !is_mended);
    }
    // A room in which nobody has been since it was opened.
    for (found, is_mended) in [(None, false), (Some((7, 0)), false), (Some((7, 2)), true)] {
        let mut roster = RoomPresence::default();
        let records = NodeSets { local: found, others: Vec::new() };
        assert_eq!(roster.apply_sets(NOW, records, &mut nodes(), &mut Vec::new()), is_mended, "{found:?}");
    }
}

#[test]
fn a_user_elsewhere_takes_little_memory() {
    let bytes = std::mem::size_of::<UserId>() + std::mem::size_of::<Name>();
    assert!(bytes <= 40, "{bytes} bytes, of which a tree's nodes have 11 and are at least half full");
    assert!(std::mem::size_of::<RoomPresence>() <= 256, "{} bytes a room", std::mem::size_of::<RoomPresence>());
}
