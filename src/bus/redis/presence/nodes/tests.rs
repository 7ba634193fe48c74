//! Nodes that beat, fall silent, leave and come back, against what Redis does with a beat.

use super::*;
use crate::bus::redis::presence::nodes::{Heartbeat, HeartbeatReply, LEFT, Liveness, NodeChange, NodeId, Nodes};

/// What the script does.
pub(crate) fn do_heartbeat(redis: &mut BTreeMap<NodeId, SmolStr>, by: &NodeId, beat: &Heartbeat) -> HeartbeatReply {
    for (node, text) in &beat.remove {
        if redis.get(node) == Some(text) {
            redis.remove(node);
        }
    }
    let had = redis.get(by).cloned().unwrap_or_default();
    let is_remembered = match &beat.text {
        None => had == beat.last_text,
        Some(text) => {
            let surprised = format_smolstr!("{text} !");
            if had != *text && had != surprised {
                redis.insert(by.clone(), if had == beat.last_text { text.clone() } else { surprised.clone() });
            }
            redis[by] != surprised
        }
    };
    HeartbeatReply { is_remembered, all: redis.iter().map(|(node, text)| (node.clone(), text.clone())).collect() }
}

const LEASE: Duration = Duration::from_secs(6);
const BEAT: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(5);

struct Heart {
    nodes: Nodes,
    now: Duration,
    /// What Redis has.
    redis: BTreeMap<NodeId, SmolStr>,
}

fn id(text: &str) -> NodeId {
    NodeId::new(text)
}

impl Heart {
    fn new() -> Self {
        let nodes = Nodes::new(id("own"), LEASE, GRACE);
        Self { nodes, now: Duration::from_secs(100), redis: BTreeMap::new() }
    }

    /// One turn a beat later: what was changed.
    fn beat(&mut self) -> Vec<NodeChange> {
        self.now += BEAT;
        self.turn()
    }

    fn turn(&mut self) -> Vec<NodeChange> {
        self.nodes.handle_deadlines(self.now);
        while let Some(beat) = self.nodes.poll_heartbeat(self.now) {
            let heard = do_heartbeat(&mut self.redis, &id("own"), &beat);
            self.nodes.answer(self.now, heard);
        }
        std::iter::from_fn(|| self.nodes.poll_change()).collect()
    }

    fn text(&mut self, node: &str, text: &str) {
        self.redis.insert(id(node), text.into());
    }
}

#[test]
fn a_silent_node_is_gone_within_the_lease_and_removed() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    assert_eq!(heart.beat(), []);
    assert_eq!(heart.nodes.alive(), 2);
    let silent_since = heart.now;
    let changes = std::iter::repeat_with(|| heart.beat()).find(|changes| !changes.is_empty()).unwrap();
    assert_eq!(changes, [NodeChange::Gone(id("a"))]);
    assert!(heart.now - silent_since <= LEASE * 5 / 6, "{:?}", heart.now - silent_since);
    assert_eq!((heart.nodes.alive(), heart.redis.contains_key(&id("a"))), (1, false));
    assert!(!heart.nodes.counts(&id("a")));
}

#[test]
fn who_beats_less_often_has_more_time() {
    let mut heart = Heart::new();
    heart.text("slow", "1 12000");
    for _ in 0..8 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.beat(), [NodeChange::Gone(id("slow"))]);
}

#[test]
fn a_redis_that_forgets_kills_nobody_who_beats_again() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    heart.beat();
    heart.redis.clear();
    assert_eq!(heart.beat(), [NodeChange::Forgotten]);
    assert_eq!(heart.beat(), []);
    heart.text("a", "2 6000");
    for _ in 0..3 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.nodes.liveness(&id("a")), Liveness::Alive);
}

#[test]
fn after_a_lost_link_the_others_have_time_to_come_back() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    heart.beat();
    heart.nodes.link_lost(heart.now);
    for _ in 0..9 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.beat(), [NodeChange::Gone(id("a"))]);
}

#[test]
fn whom_another_node_found_dead_is_dead() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    heart.beat();
    heart.redis.remove(&id("a"));
    assert_eq!(heart.beat(), [NodeChange::Gone(id("a"))]);
}

#[test]
fn who_leaves_counts_until_the_grace_is_over_and_is_removed_later() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    heart.beat();
    heart.text("a", LEFT);
    assert_eq!(heart.beat(), []);
    assert_eq!((heart.nodes.liveness(&id("a")), heart.nodes.alive()), (Liveness::Alive, 1));
    heart.now += GRACE - Duration::from_millis(1);
    assert_eq!(heart.turn(), []);
    assert_eq!(heart.nodes.timeout(heart.now), Some(Duration::from_millis(1)));
    heart.now += Duration::from_millis(1);
    assert_eq!(heart.turn(), [NodeChange::Gone(id("a"))]);
    let mut beats = 0;
    while heart.redis.contains_key(&id("a")) {
        assert_eq!(heart.beat(), []);
        beats += 1;
    }
    assert!((4..=6).contains(&beats), "{beats}");
    // Who comes later and finds it does not count it at all.
    let mut late = Heart::new();
    late.text("a", LEFT);
    assert_eq!((late.beat(), late.nodes.liveness(&id("a"))), (vec![], Liveness::Dead));
}

#[test]
fn an_unknown_node_is_looked_for_at_once_and_once() {
    let mut heart = Heart::new();
    heart.beat();
    for ghost in ["a", "b"] {
        assert_eq!(heart.nodes.liveness(&id(ghost)), Liveness::Unknown);
    }
    assert!(heart.nodes.is_looking());
    assert_eq!(heart.nodes.timeout(heart.now), Some(Duration::ZERO));
    heart.text("a", "1 6000");
    assert_eq!(heart.turn(), [NodeChange::Alive(id("a"))]);
    assert!(!heart.nodes.is_looking());
    assert_eq!(heart.nodes.liveness(&id("b")), Liveness::Unknown);
    assert!(!heart.nodes.is_looking(), "it was looked for");
    for i in 0..3 {
        heart.text("a", &format!("{i} 6000"));
        assert_eq!(heart.beat(), []);
    }
    heart.text("a", "9 6000");
    assert_eq!(heart.beat(), [NodeChange::Gone(id("b"))]);
}

#[test]
fn whom_we_alone_took_for_dead_returns_and_whom_the_others_took_for_dead_notices() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000");
    (0..4).for_each(|_| assert_eq!(heart.beat(), []));
    // It moves in the moment in which it is found dead, so that it is not removed.
    heart.now += BEAT;
    let beat = heart.nodes.poll_heartbeat(heart.now).unwrap();
    let heard = do_heartbeat(&mut heart.redis, &id("own"), &beat);
    heart.nodes.answer(heart.now, heard);
    heart.text("a", "2 6000");
    assert_eq!(heart.turn(), [NodeChange::Gone(id("a")), NodeChange::Returned(id("a"))]);
    heart.redis.remove(&id("own"));
    assert_eq!(heart.beat(), [NodeChange::Forgotten]);
    assert_eq!(heart.beat(), []);
}

#[test]
fn who_speaks_after_it_was_taken_for_dead_is_looked_for() {
    let mut heart = Heart::new();
    heart.text("a", "1 6000 0");
    heart.text("b", LEFT);
    while heart.beat().is_empty() {}
    heart.text("a", "1 6000 0");
    heart.nodes.insert(&id("a"), PeerState::Gone, "1 6000 0".into());
    heart.nodes.node_spoke(&id("b"));
    assert!(!heart.nodes.is_looking(), "it has left, this is only late");
    heart.nodes.node_spoke(&id("a"));
    assert_eq!((heart.nodes.liveness(&id("a")), heart.nodes.is_looking()), (Liveness::Unknown, true));
    assert_eq!(heart.turn(), [NodeChange::Returned(id("a"))]);
    assert!(heart.nodes.counts(&id("a")));
}

#[test]
fn a_beat_that_is_said_twice_remembers_what_the_first_has_found() {
    for is_forgotten in [false, true] {
        let mut heart = Heart::new();
        heart.beat();
        if is_forgotten {
            heart.redis.clear();
        }
        heart.now += BEAT;
        let beat = heart.nodes.poll_heartbeat(heart.now).unwrap();
        assert_eq!(heart.nodes.poll_heartbeat(heart.now + BEAT), None, "one at a time");
        do_heartbeat(&mut heart.redis, &id("own"), &beat);
        let heard = do_heartbeat(&mut heart.redis, &id("own"), &beat);
        heart.nodes.answer(heart.now, heard);
        assert_eq!(heart.nodes.poll_change().is_some(), is_forgotten);
        assert_eq!(heart.beat(), [], "and is done with it");
    }
}

#[test]
fn the_floor_is_read_from_the_beat() {
    let mut heart = Heart::new();
    heart.nodes.raise_floor(7);
    heart.text("a", "1 6000 9");
    heart.beat();
    assert_eq!((heart.nodes.floor(&id("a")), heart.nodes.floor(&id("b"))), (9, 0));
    assert_eq!(heart.redis[&id("own")], "1 6000 7");
}
