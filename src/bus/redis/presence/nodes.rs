//! Which nodes live, told by their beats. Sans-IO.
//!
//! Every node writes a number of its own six times a lease, and reads everybody's with the answer. A number that stands still for
//! four of our own answered beats is a dead node's. No clock of another machine is looked at, and while Redis is away no beat
//! is answered, so that nobody dies of it. The loop contract in one sentence: *send what [`Nodes::poll_beat`] has, hand in the
//! answer, carry out what [`Nodes::poll_change`] says, come back within [`Nodes::timeout`].*

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};

const BEATS_PER_LEASE: u32 = 6;

/// So many beats of ours must find a number unmoved: with the one in which it may just have moved, 5/6 of a lease.
const UNMOVED_MAX: u32 = 4;

/// How long nobody is declared dead after a link of ours was lost: whatever cut it may have cut the others', and they need so long
/// to connect again (their backoff is 5 s at most, connecting 3 s).
const SETTLE: Duration = Duration::from_secs(10);

/// What a node writes instead of its number when it ends.
pub(crate) const LEFT: &str = "left";

/// KeyNames a process for as long as it runs; never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(SmolStr);

impl Heartbeat {
    /// The last one of a node that ends.
    pub(crate) fn leave() -> Self {
        Self { says: Some(LEFT.into()), said: SmolStr::default(), remove: Vec::new() }
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

/// What Redis is to be told, and asked who else is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// What we say; without it, this is only a look.
    pub(crate) says: Option<SmolStr>,
    /// What we have said before, if Redis has forgotten nothing.
    pub(crate) said: SmolStr,
    /// Nodes to be removed, if they still say this.
    pub(crate) remove: Vec<(NodeId, SmolStr)>,
}

/// What Redis answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatReply {
    /// Whether it was what we have said before.
    pub(crate) is_remembered: bool,
    /// What everybody says, ourselves included.
    pub(crate) all: Vec<(NodeId, SmolStr)>,
}

/// What follows for the rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// A node that something was heard from before lives.
    Alive(NodeId),
    /// A node is dead, or has left and its users' grace is over.
    Gone(NodeId),
    /// A node that was taken for dead here alone lives: it does not know, so it has to be asked for.
    Returned(NodeId),
    /// Redis has forgotten us, or the others took us for dead.
    Forgotten,
}

/// What is to be thought of whom a node says to be present there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// They are.
    PresenceCounts,
    /// Nobody knows the node yet.
    Unknown,
    /// They were.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    /// It was mentioned in a room, and perhaps taken for dead before; Redis has not named it since.
    Mentioned {
        was_gone: bool,
    },
    Alive,
    /// It has left; its users may come back elsewhere until then.
    Leaving {
        until: Duration,
    },
    Gone,
}

#[derive(Debug)]
struct Peer {
    state: PeerState,
    /// What it last said.
    text: SmolStr,
    unmoved: u32,
    /// Whether the answer to a beat of ours named it. If it is not named any more though the beat is remembered, somebody has
    /// removed it.
    was_named: bool,
    /// Whether the last answer named it.
    is_named: bool,
}

impl Peer {
    fn has_left(&self) -> bool {
        has_left(&self.text)
    }

    fn number(&self, place: usize) -> Option<u64> {
        self.text.split(' ').nth(place)?.parse().ok()
    }

    /// The lease of its own, which decides how often it beats.
    fn lease(&self) -> Option<Duration> {
        self.number(1).map(Duration::from_millis)
    }
}

fn has_left(text: &str) -> bool {
    text.split(' ').next() == Some(LEFT)
}

/// A beat under way.
#[derive(Debug)]
struct InFlight {
    says: Option<SmolStr>,
    is_looked_for: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Nodes {
    own: NodeId,
    lease: Duration,
    grace: Duration,
    others: BTreeMap<NodeId, Peer>,
    beats: u64,
    /// Our sets of lower versions are void.
    floor: u64,
    /// What Redis last had of us.
    said: SmolStr,
    next_at: Duration,
    settled_at: Duration,
    sent: Option<InFlight>,
    wants_look: bool,
    remove: Vec<(NodeId, SmolStr)>,
    changes: VecDeque<NodeChange>,
}

impl Nodes {
    /// `lease` is how long a node may be silent, `grace` how long the users of one that has left count on.
    pub(crate) fn new(own: NodeId, lease: Duration, grace: Duration) -> Self {
        Self {
            own,
            lease,
            grace,
            others: BTreeMap::new(),
            beats: 0,
            floor: 0,
            said: SmolStr::default(),
            next_at: Duration::ZERO,
            settled_at: Duration::ZERO,
            sent: None,
            wants_look: false,
            remove: Vec::new(),
            changes: VecDeque::new(),
        }
    }

    /// How many nodes live, this one included.
    pub(crate) fn alive(&self) -> usize {
        1 + self.others.values().filter(|node| node.state == PeerState::Alive).count()
    }

    /// What is thought of a node. One that nobody has heard of is looked for at once.
    pub(crate) fn liveness(&mut self, node: &NodeId) -> Liveness {
        match self.others.get(node).map(|node| node.state) {
            Some(PeerState::Alive | PeerState::Leaving { .. }) => Liveness::PresenceCounts,
            Some(PeerState::Gone) => Liveness::Gone,
            Some(PeerState::Mentioned { .. }) => Liveness::Unknown,
            None => {
                self.insert(node, PeerState::Mentioned { was_gone: false }, SmolStr::default());
                self.wants_look = true;
                Liveness::Unknown
            }
        }
    }

    /// All our sets are said again, in versions from `floor` on. What Redis may still have of older ones, perhaps of rooms that
    /// are not open here any more, is not true.
    pub(crate) fn raise_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// The lowest version of a set of a node's that is true.
    pub(crate) fn floor(&self, node: &NodeId) -> u64 {
        self.others.get(node).and_then(|node| node.number(2)).unwrap_or(0)
    }

    /// Whether whom a node has count.
    pub(crate) fn counts(&self, node: &NodeId) -> bool {
        self.others.get(node).is_some_and(|node| matches!(node.state, PeerState::Alive | PeerState::Leaving { .. }))
    }

    /// A node has just spoken in a room. If it was taken for dead it is looked for again.
    pub(crate) fn hear_from(&mut self, node: &NodeId) {
        if let Some(node) = self.others.get_mut(node)
            && node.state == PeerState::Gone
            && !node.has_left()
        {
            node.state = PeerState::Mentioned { was_gone: true };
            node.unmoved = 0;
            self.wants_look = true;
        }
    }

    /// Whether a node that was mentioned is still being looked for.
    pub(crate) fn is_looking(&self) -> bool {
        self.wants_look || self.sent.as_ref().is_some_and(|sent| sent.is_looked_for)
    }

    /// Whether a beat is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.sent.is_some()
    }

    /// A link of ours was lost.
    pub(crate) fn disturb(&mut self, now: Duration) {
        self.settled_at = now + SETTLE;
    }

    pub(crate) fn timeout(&self, now: Duration) -> Option<Duration> {
        let wants_look = self.wants_look || !self.remove.is_empty();
        let beat = self.sent.is_none().then_some(if wants_look { now } else { self.next_at });
        let untils = self.others.values().filter_map(|node| match node.state {
            PeerState::Leaving { until } => Some(until),
            _ => None,
        });
        untils.chain(beat).min().map(|at| at.saturating_sub(now))
    }

    /// UserSet of nodes that have left do not count any more after the grace.
    pub(crate) fn handle_deadlines(&mut self, now: Duration) {
        for (id, node) in &mut self.others {
            if matches!(node.state, PeerState::Leaving { until } if until <= now) {
                node.state = PeerState::Gone;
                self.changes.push_back(NodeChange::Gone(id.clone()));
            }
        }
    }

    /// What is to be sent now; each is to be answered by [`Nodes::answer`] or [`Nodes::fail`] before there is another.
    pub(crate) fn poll_beat(&mut self, now: Duration) -> Option<Heartbeat> {
        if self.sent.is_some() {
            return None;
        }
        let says = if now >= self.next_at {
            self.next_at = now + self.lease / BEATS_PER_LEASE;
            self.beats += 1;
            Some(format_smolstr!("{} {} {}", self.beats, self.lease.as_millis(), self.floor))
        } else if self.wants_look || !self.remove.is_empty() {
            None
        } else {
            return None;
        };
        self.sent = Some(InFlight { says: says.clone(), is_looked_for: std::mem::take(&mut self.wants_look) });
        Some(Heartbeat { says, said: self.said.clone(), remove: std::mem::take(&mut self.remove) })
    }

    /// Redis did not take it. The next one is due when it is.
    pub(crate) fn fail(&mut self) {
        self.sent = None;
    }

    pub(crate) fn answer(&mut self, now: Duration, heard: HeartbeatReply) {
        let Some(sent) = self.sent.take() else { return };
        if !heard.is_remembered {
            // What Redis forgets is nobody's silence.
            self.others.values_mut().for_each(|node| (node.was_named, node.unmoved) = (false, 0));
            self.changes.push_back(NodeChange::Forgotten);
            if sent.says.is_none() {
                self.next_at = now;
            }
        }
        let is_beat = sent.says.is_some();
        self.said = SmolStr::default();
        self.others.values_mut().for_each(|node| node.is_named = false);
        for (id, text) in heard.all {
            if id == self.own {
                self.said = text;
            } else {
                self.hear(now, &id, text, is_beat);
            }
        }
        self.judge(now, is_beat);
        if is_beat && heard.is_remembered {
            self.others.values_mut().for_each(|node| node.was_named = node.is_named);
        }
    }

    pub(crate) fn poll_change(&mut self) -> Option<NodeChange> {
        self.changes.pop_front()
    }

    fn insert(&mut self, id: &NodeId, state: PeerState, text: SmolStr) {
        let node = Peer { state, text, unmoved: 0, was_named: false, is_named: true };
        self.others.insert(id.clone(), node);
    }

    fn hear(&mut self, now: Duration, id: &NodeId, text: SmolStr, is_beat: bool) {
        let has_left = has_left(&text);
        let Some(node) = self.others.get_mut(id) else {
            return self.insert(id, if has_left { PeerState::Gone } else { PeerState::Alive }, text);
        };
        node.is_named = true;
        let has_moved = node.text != text;
        node.unmoved = if has_moved { 0 } else { node.unmoved + u32::from(is_beat) };
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

    /// Decides who is dead.
    fn judge(&mut self, now: Duration, is_beat: bool) {
        let (own_lease, is_settled) = (self.lease, now >= self.settled_at);
        let (changes, remove) = (&mut self.changes, &mut self.remove);
        self.others.retain(|id, node| {
            if !node.is_named {
                if node.state == PeerState::Gone {
                    return false;
                }
                node.unmoved += u32::from(is_beat);
            }
            // Somebody who saw it before us found it dead.
            let is_removed = !node.is_named && node.was_named;
            // Who beats less often than we do is given the time.
            let slower = node.lease().unwrap_or(own_lease).as_millis().div_ceil(own_lease.as_millis().max(1)) as u32;
            let is_silent = is_settled && node.unmoved >= UNMOVED_MAX.saturating_mul(slower.max(1));
            match node.state {
                PeerState::Alive | PeerState::Mentioned { .. } if is_silent || is_removed => {
                    if node.state == PeerState::Alive {
                        log::warn!("node {id:?} is silent; its users count as gone");
                    }
                    node.state = PeerState::Gone;
                    changes.push_back(NodeChange::Gone(id.clone()));
                    if node.is_named {
                        remove.push((id.clone(), node.text.clone()));
                    }
                }
                // It stays for as long as anybody may not have seen it yet.
                PeerState::Gone if node.has_left() && node.unmoved < BEATS_PER_LEASE => {}
                PeerState::Gone if is_beat => remove.push((id.clone(), node.text.clone())),
                _ => {}
            }
            true
        });
    }
}

#[cfg(test)]
pub(super) mod tests;
