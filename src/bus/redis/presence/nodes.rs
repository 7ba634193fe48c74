//! Which nodes are alive, according to their heartbeats. Sans-IO.
//!
//! Each node writes a number six times per lease, and reads those of all nodes with the answer. A
//! node is dead if its number has not changed during four of our own answered heartbeats. No
//! clock of another machine is read. While Redis is away no heartbeat is answered, so nobody is
//! declared dead for that.
//!
//! The loop contract in one sentence: *send what [`Nodes::poll_heartbeat`] returns, hand in the
//! answer, carry out what [`Nodes::poll_change`] returns, come back within [`Nodes::timeout`].*

use crate::unicode::Escaped;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};

const HEARTBEATS_PER_LEASE: u32 = 6;

/// How many of our heartbeats have to find a number unchanged. With the interval in which it may
/// just have changed, this is 5/6 of a lease.
const UNCHANGED_MAX: u32 = 4;

/// How long nobody is declared dead after a link of ours was lost. The cause may have cut the
/// links of other nodes, too, and they need this long to reconnect (at most 1 s of backoff, and 3
/// s each to connect and to log in).
const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// What a node that leaves writes in place of its number.
pub(crate) const LEFT: &str = "left";

/// Identifies a process while it runs. Never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(SmolStr);

impl Heartbeat {
    /// The last heartbeat of a node.
    pub(crate) fn leave() -> Self {
        Self { text: Some(LEFT.into()), last_text: SmolStr::default(), remove: Vec::new() }
    }
}

impl NodeId {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A heartbeat: what Redis is told. The answer contains the heartbeats of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// What this node writes. `None` only queries the other nodes.
    pub(crate) text: Option<SmolStr>,
    /// What this node wrote last. Redis has it unless it lost data.
    pub(crate) last_text: SmolStr,
    /// Nodes to remove, if this is still what they wrote last.
    pub(crate) remove: Vec<(NodeId, SmolStr)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatReply {
    /// Whether Redis had our last heartbeat.
    pub(crate) is_remembered: bool,
    /// What all nodes wrote last, this one included.
    pub(crate) all: Vec<(NodeId, SmolStr)>,
}

/// A consequence for the rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// A node that was mentioned before is alive.
    Alive(NodeId),
    /// A node is dead, or has left and the grace of its users is over.
    Gone(NodeId),
    /// A node that was taken for dead by this node only is alive. It does not know about that, so
    /// its sets have to be queried.
    Returned(NodeId),
    /// Redis has lost our heartbeat, or other nodes took us for dead.
    Forgotten,
}

/// Whether the users of a node count as present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    Unknown,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    /// It was mentioned in a room; Redis has not named it since. It may have been taken for dead
    /// before.
    Mentioned {
        was_gone: bool,
    },
    Alive,
    /// It has left. Until then its users may come back on another node.
    Leaving {
        until: Duration,
    },
    Gone,
}

#[derive(Debug)]
struct Peer {
    state: PeerState,
    /// What it wrote last.
    text: SmolStr,
    unchanged: u32,
    /// Whether the answer to our last remembered heartbeat named it. If the next one does not,
    /// another node has removed it.
    was_named: bool,
    /// Whether the last answer named it.
    is_named: bool,
}

impl Peer {
    fn has_left(&self) -> bool {
        has_left(&self.text)
    }

    fn number(&self, entry: usize) -> Option<u64> {
        self.text.split(' ').nth(entry)?.parse().ok()
    }

    /// Its own lease, which decides how often it sends heartbeats.
    fn lease(&self) -> Option<Duration> {
        self.number(1).map(Duration::from_millis)
    }
}

fn has_left(text: &str) -> bool {
    text.split(' ').next() == Some(LEFT)
}

#[derive(Debug)]
struct SentHeartbeat {
    text: Option<SmolStr>,
    is_looked_for: bool,
}

#[derive(Debug)]
pub(crate) struct Nodes {
    own: NodeId,
    lease: Duration,
    grace: Duration,
    others: BTreeMap<NodeId, Peer>,
    heartbeats: u64,
    /// Versions of our sets below this one are void.
    floor: u64,
    /// What Redis last had of this node.
    last_text: SmolStr,
    next_at: Duration,
    settled_at: Duration,
    sent: Option<SentHeartbeat>,
    wants_look: bool,
    remove: Vec<(NodeId, SmolStr)>,
    changes: VecDeque<NodeChange>,
}

impl Nodes {
    /// `lease` is how long a node may be silent, `grace` how long users of a node that has left
    /// still count.
    pub(crate) fn new(own: NodeId, lease: Duration, grace: Duration) -> Self {
        Self {
            own,
            lease,
            grace,
            others: BTreeMap::new(),
            heartbeats: 0,
            floor: 0,
            last_text: SmolStr::default(),
            next_at: Duration::ZERO,
            settled_at: Duration::ZERO,
            sent: None,
            wants_look: false,
            remove: Vec::new(),
            changes: VecDeque::new(),
        }
    }

    /// The number of nodes that are alive, this one included.
    pub(crate) fn alive(&self) -> usize {
        1 + self.others.values().filter(|node| node.state == PeerState::Alive).count()
    }

    /// Whether the users of a node count. A node that is not known is queried for at once.
    pub(crate) fn liveness(&mut self, node: &NodeId) -> Liveness {
        match self.others.get(node).map(|node| node.state) {
            Some(PeerState::Alive | PeerState::Leaving { .. }) => Liveness::Alive,
            Some(PeerState::Gone) => Liveness::Dead,
            Some(PeerState::Mentioned { .. }) => Liveness::Unknown,
            None => {
                self.insert(node, PeerState::Mentioned { was_gone: false }, SmolStr::default());
                self.wants_look = true;
                Liveness::Unknown
            }
        }
    }

    /// All our sets are sent again, in versions from `floor` on. Older sets in Redis, perhaps of
    /// rooms that are not open here any more, are void.
    pub(crate) fn raise_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// The lowest valid version of a node's sets.
    pub(crate) fn floor(&self, node: &NodeId) -> u64 {
        self.others.get(node).and_then(|node| node.number(2)).unwrap_or(0)
    }

    /// Whether the users of a node count.
    pub(crate) fn counts(&self, node: &NodeId) -> bool {
        self.others.get(node).is_some_and(|node| matches!(node.state, PeerState::Alive | PeerState::Leaving { .. }))
    }

    /// A node has published something. If it was taken for dead, it is looked for again.
    pub(crate) fn node_spoke(&mut self, node: &NodeId) {
        if let Some(node) = self.others.get_mut(node)
            && node.state == PeerState::Gone
            && !node.has_left()
        {
            node.state = PeerState::Mentioned { was_gone: true };
            node.unchanged = 0;
            self.wants_look = true;
        }
    }

    /// Whether a mentioned node is still being looked for.
    pub(crate) fn is_looking(&self) -> bool {
        self.wants_look || self.sent.as_ref().is_some_and(|sent| sent.is_looked_for)
    }

    /// Whether a heartbeat is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.sent.is_some()
    }

    pub(crate) fn link_lost(&mut self, now: Duration) {
        self.settled_at = now + SETTLE_AFTER;
    }

    pub(crate) fn timeout(&self, now: Duration) -> Option<Duration> {
        let wants_look = self.wants_look || !self.remove.is_empty();
        let heartbeat = self.sent.is_none().then_some(if wants_look { now } else { self.next_at });
        let untils = self.others.values().filter_map(|node| match node.state {
            PeerState::Leaving { until } => Some(until),
            _ => None,
        });
        untils.chain(heartbeat).min().map(|at| at.saturating_sub(now))
    }

    /// After the grace, users of nodes that have left do not count any more.
    pub(crate) fn handle_deadlines(&mut self, now: Duration) {
        for (id, node) in &mut self.others {
            if matches!(node.state, PeerState::Leaving { until } if until <= now) {
                node.state = PeerState::Gone;
                self.changes.push_back(NodeChange::Gone(id.clone()));
            }
        }
    }

    /// The next heartbeat. Each has to be followed by [`Nodes::answer`] or [`Nodes::fail`] before
    /// there is another.
    pub(crate) fn poll_heartbeat(&mut self, now: Duration) -> Option<Heartbeat> {
        if self.sent.is_some() {
            return None;
        }
        let text = if now >= self.next_at {
            self.next_at = now + self.lease / HEARTBEATS_PER_LEASE;
            self.heartbeats += 1;
            Some(format_smolstr!("{} {} {}", self.heartbeats, self.lease.as_millis(), self.floor))
        } else if self.wants_look || !self.remove.is_empty() {
            None
        } else {
            return None;
        };
        self.sent = Some(SentHeartbeat { text: text.clone(), is_looked_for: std::mem::take(&mut self.wants_look) });
        Some(Heartbeat { text, last_text: self.last_text.clone(), remove: std::mem::take(&mut self.remove) })
    }

    /// Redis did not accept it. The next one goes at its usual time.
    pub(crate) fn fail(&mut self) {
        self.sent = None;
    }

    pub(crate) fn answer(&mut self, now: Duration, reply: HeartbeatReply) {
        let Some(sent) = self.sent.take() else { return };
        if !reply.is_remembered {
            // If Redis has lost data, nobody was silent.
            self.others.values_mut().for_each(|node| (node.was_named, node.unchanged) = (false, 0));
            self.changes.push_back(NodeChange::Forgotten);
            if sent.text.is_none() {
                self.next_at = now;
            }
        }
        let is_heartbeat = sent.text.is_some();
        self.last_text = SmolStr::default();
        self.others.values_mut().for_each(|node| node.is_named = false);
        for (id, text) in reply.all {
            if id == self.own {
                self.last_text = text;
            } else {
                self.observe(now, &id, text, is_heartbeat);
            }
        }
        self.update_liveness(now, is_heartbeat);
        if is_heartbeat && reply.is_remembered {
            self.others.values_mut().for_each(|node| node.was_named = node.is_named);
        }
    }

    pub(crate) fn poll_change(&mut self) -> Option<NodeChange> {
        self.changes.pop_front()
    }

    fn insert(&mut self, id: &NodeId, state: PeerState, text: SmolStr) {
        let node = Peer { state, text, unchanged: 0, was_named: false, is_named: true };
        self.others.insert(id.clone(), node);
    }

    fn observe(&mut self, now: Duration, id: &NodeId, text: SmolStr, is_heartbeat: bool) {
        let has_left = has_left(&text);
        let Some(node) = self.others.get_mut(id) else {
            return self.insert(id, if has_left { PeerState::Gone } else { PeerState::Alive }, text);
        };
        node.is_named = true;
        let has_moved = node.text != text;
        node.unchanged = if has_moved { 0 } else { node.unchanged + u32::from(is_heartbeat) };
        node.text = text;
        let change = match node.state {
            PeerState::Mentioned { .. } if has_left => Some((PeerState::Gone, Some(NodeChange::Gone(id.clone())))),
            PeerState::Mentioned { was_gone: false } => Some((PeerState::Alive, Some(NodeChange::Alive(id.clone())))),
            PeerState::Mentioned { was_gone: true } => Some((PeerState::Alive, Some(NodeChange::Returned(id.clone())))),
            PeerState::Alive if has_left => Some((PeerState::Leaving { until: now + self.grace }, None)),
            PeerState::Gone if has_moved && !has_left => {
                Some((PeerState::Alive, Some(NodeChange::Returned(id.clone()))))
            }
            _ => None,
        };
        if let Some((state, change)) = change {
            node.state = state;
            self.changes.extend(change);
        }
    }

    /// Decides which nodes are dead.
    fn update_liveness(&mut self, now: Duration, is_heartbeat: bool) {
        let (own_lease, is_settled) = (self.lease, now >= self.settled_at);
        let (changes, remove) = (&mut self.changes, &mut self.remove);
        self.others.retain(|id, node| {
            if !node.is_named {
                if node.state == PeerState::Gone {
                    return false;
                }
                node.unchanged += u32::from(is_heartbeat);
            }
            // Another node saw it before, and found it dead.
            let is_removed = !node.is_named && node.was_named;
            // A node that sends heartbeats less often than this one gets the time.
            let slower = node.lease().unwrap_or(own_lease).as_millis().div_ceil(own_lease.as_millis().max(1)) as u32;
            let is_silent = is_settled && node.unchanged >= UNCHANGED_MAX.saturating_mul(slower.max(1));
            match node.state {
                PeerState::Alive | PeerState::Mentioned { .. } if is_silent || is_removed => {
                    if node.state == PeerState::Alive {
                        log::warn!("node {} is silent; its users count as gone", Escaped(format_args!("{id:?}")));
                    }
                    node.state = PeerState::Gone;
                    changes.push_back(NodeChange::Gone(id.clone()));
                    if node.is_named {
                        remove.push((id.clone(), node.text.clone()));
                    }
                }
                // It stays until all nodes have seen it.
                PeerState::Gone if node.has_left() && node.unchanged < HEARTBEATS_PER_LEASE => {}
                PeerState::Gone if is_heartbeat => remove.push((id.clone(), node.text.clone())),
                _ => {}
            }
            true
        });
    }
}

#[cfg(test)]
pub(super) mod tests;
