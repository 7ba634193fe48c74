//! Nodes that beat, fall silent, leave and come back, against what Redis does with a beat.

use super::*;
use crate::bus::redis::presence::nodes::{Heartbeat, HeartbeatReply, LEFT, Liveness, NodeChange, NodeId, Nodes};

/// What the script does.
pub(crate) fn do_beat(redis: &mut BTreeMap<NodeId, SmolStr>, by: &NodeId, beat: &Heartbeat) -> HeartbeatReply {
    for (node, text) in &beat.remove {
        if redis.get(node) == Some(text) {
            redis.remove(node);
        }
    }
    let had = redis.get(by).cloned().unwrap_or_default();
    let is_remembered = match &beat.says {
        None => had == beat.said,
        Some(says) => {
            let surprised = format_smolstr!("{says} !");
            if had != *says && had != surprised {
                redis.insert(by.clone(), if had == beat.said { says.clone() } else { surprised.clone() });
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
        while let Some(beat) = self.nodes.poll_beat(self.now) {
            let heard = do_beat(&mut self.redis, &id("own"), &beat);
            self.nodes.answer(self.now, heard);
        }
        std::iter::from_fn(|| self.nodes.poll_change()).collect()
    }

    fn says(&mut self, node: &str, text: &str) {
        self.redis.insert(id(node), text.into());
    }
}

#[test]
fn a_silent_node_is_gone_within_the_lease_and_removed() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
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
    heart.says("slow", "1 12000");
    for _ in 0..8 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.beat(), [NodeChange::Gone(id("slow"))]);
}

#[test]
fn a_redis_that_forgets_kills_nobody_who_beats_again() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
    heart.beat();
    heart.redis.clear();
    assert_eq!(heart.beat(), [NodeChange::Forgotten]);
    assert_eq!(heart.beat(), []);
    heart.says("a", "2 6000");
    for _ in 0..3 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.nodes.liveness(&id("a")), Liveness::PresenceCounts);
}

#[test]
fn after_a_lost_link_the_others_have_time_to_come_back() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
    heart.beat();
    heart.nodes.disturb(heart.now);
    for _ in 0..9 {
        assert_eq!(heart.beat(), []);
    }
    assert_eq!(heart.beat(), [NodeChange::Gone(id("a"))]);
}

#[test]
fn whom_another_node_found_dead_is_dead() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
    heart.beat();
    heart.redis.remove(&id("a"));
    assert_eq!(heart.beat(), [NodeChange::Gone(id("a"))]);
}

#[test]
fn who_leaves_counts_until_the_grace_is_over_and_is_removed_later() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
    heart.beat();
    heart.says("a", LEFT);
    assert_eq!(heart.beat(), []);
    assert_eq!((heart.nodes.liveness(&id("a")), heart.nodes.alive()), (Liveness::PresenceCounts, 1));
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
    late.says("a", LEFT);
    assert_eq!((late.beat(), late.nodes.liveness(&id("a"))), (vec![], Liveness::Gone));
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
    heart.says("a", "1 6000");
    assert_eq!(heart.turn(), [NodeChange::Alive(id("a"))]);
    assert!(!heart.nodes.is_looking());
    assert_eq!(heart.nodes.liveness(&id("b")), Liveness::Unknown);
    assert!(!heart.nodes.is_looking(), "it was looked for");
    for i in 0..3 {
        heart.says("a", &format!("{i} 6000"));
        assert_eq!(heart.beat(), []);
    }
    heart.says("a", "9 6000");
    assert_eq!(heart.beat(), [NodeChange::Gone(id("b"))]);
}

#[test]
fn whom_we_alone_took_for_dead_returns_and_whom_the_others_took_for_dead_notices() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000");
    (0..4).for_each(|_| assert_eq!(heart.beat(), []));
    // It moves in the moment in which it is found dead, so that it is not removed.
    heart.now += BEAT;
    let beat = heart.nodes.poll_beat(heart.now).unwrap();
    let heard = do_beat(&mut heart.redis, &id("own"), &beat);
    heart.nodes.answer(heart.now, heard);
    heart.says("a", "2 6000");
    assert_eq!(heart.turn(), [NodeChange::Gone(id("a")), NodeChange::Returned(id("a"))]);
    heart.redis.remove(&id("own"));
    assert_eq!(heart.beat(), [NodeChange::Forgotten]);
    assert_eq!(heart.beat(), []);
}

#[test]
fn who_speaks_after_it_was_taken_for_dead_is_looked_for() {
    let mut heart = Heart::new();
    heart.says("a", "1 6000 0");
    heart.says("b", LEFT);
    while heart.beat().is_empty() {}
    heart.says("a", "1 6000 0");
    heart.nodes.insert(&id("a"), PeerState::Gone, "1 6000 0".into());
    heart.nodes.hear_from(&id("b"));
    assert!(!heart.nodes.is_looking(), "it has left, this is only late");
    heart.nodes.hear_from(&id("a"));
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
        let beat = heart.nodes.poll_beat(heart.now).unwrap();
        assert_eq!(heart.nodes.poll_beat(heart.now + BEAT), None, "one at a time");
        do_beat(&mut heart.redis, &id("own"), &beat);
        let heard = do_beat(&mut heart.redis, &id("own"), &beat);
        heart.nodes.answer(heart.now, heard);
        assert_eq!(heart.nodes.poll_change().is_some(), is_forgotten);
        assert_eq!(heart.beat(), [], "and is done with it");
    }
}

#[test]
fn the_floor_is_read_from_the_beat() {
    let mut heart = Heart::new();
    heart.nodes.raise_floor(7);
    heart.says("a", "1 6000 9");
    heart.beat();
    assert_eq!((heart.nodes.floor(&id("a")), heart.nodes.floor(&id("b"))), (9, 0));
    assert_eq!(heart.redis[&id("own")], "1 6000 7");
}
