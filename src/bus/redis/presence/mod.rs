//! The present users of all rooms, on this node and on others: what Redis is told and asked, in
//! which portions, and what the hub is told. Sans-IO.
//!
//! [`RoomPresence`] has the users of one room, and [`Nodes`] knows which nodes are alive. The
//! loop contract in one sentence: *hand in what happened, call [`Presence::handle_deadlines`]
//! within [`Presence::timeout`], carry out what [`Presence::poll`] returns.*

mod check;
mod delta;
mod local_users;
mod moves;
mod nodes;
mod replica;
mod room_presence;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

pub(crate) use self::delta::{
    CHANGES_MAX, Name, NodeSet, NodeSets, PresenceAnswer, PresenceDelta, PresenceRequest, UserSet, UserState,
};
use self::nodes::NodeChange;
pub(crate) use self::nodes::{Heartbeat, HeartbeatReply, NodeId, Nodes};
use self::room_presence::RoomPresence;
use crate::bus::message::PresenceChange;
use crate::id::RoomName;

/// Updates and queries under way. Beyond it, rooms wait for their turn.
const REQUESTS_MAX: usize = 1024;

/// The share of background jobs that is done in a turn: rooms that are looked at, those of them that are changed, and users.
const LOOKS_PER_TURN: u32 = 512;
const ROOMS_PER_TURN: usize = 64;
const CHANGES_PER_TURN: usize = 1024;

/// Something that the bus has to do.
#[derive(Debug)]
pub(crate) enum PresenceAction {
    /// Send a request for a room, in this opening of it.
    Ask {
        room: RoomName,
        opening: u32,
        request: PresenceRequest,
    },
    Heartbeat(Heartbeat),
    Tell(RoomName, PresenceChange),
    /// All that Redis knows of the room was told, or is unavailable for now.
    Loaded(RoomName),
    /// All that Redis knew of the room when the hub asked was told.
    Checked(RoomName),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceCounts {
    pub(crate) nodes_alive: u64,
    pub(crate) users_elsewhere: u64,
    pub(crate) updates_sent: u64,
    pub(crate) deltas_received: u64,
    pub(crate) repairs: u64,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether a list has it")]
struct RoomEntry {
    opening: u32,
    /// Whether the hub has the room open.
    is_open: bool,
    is_loaded: bool,
    /// Whether it waits for its turn to send a request.
    is_queued: bool,
    /// Whether it has an entry in `timed`.
    is_timed: bool,
    presence: RoomPresence,
}

/// A change of a node that concerns many rooms, such as its death. It is carried out over many
/// turns.
#[derive(Debug)]
struct BackgroundJob {
    change: NodeChange,
    /// Where the rooms begin, in their order, that are still to be looked at. One that is opened meanwhile knows of the change when
    /// it hears of the node, so it does not matter on which side it is.
    from: Bound<RoomName>,
}

#[derive(Debug)]
pub(crate) struct Presence {
    nodes: Nodes,
    rooms: BTreeMap<RoomName, RoomEntry>,
    /// Rooms that wait for their turn to send a request.
    queue: VecDeque<RoomName>,
    /// Rooms that send a request later, by time and opening.
    timed: BTreeMap<(Duration, u32), RoomName>,
    under_way: usize,
    jobs: VecDeque<BackgroundJob>,
    /// Rooms that are loaded or checked as soon as it is known whether some node is alive.
    unconfirmed: VecDeque<RoomName>,
    /// The last version. All rooms share one counter.
    versions: u64,
    links_lost: u64,
    actions: VecDeque<PresenceAction>,
    changes: Vec<PresenceChange>,
    counts: PresenceCounts,
}

impl Presence {
    pub(crate) fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            rooms: BTreeMap::new(),
            queue: VecDeque::new(),
            timed: BTreeMap::new(),
            under_way: 0,
            jobs: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            versions: 0,
            links_lost: 0,
            actions: VecDeque::new(),
            changes: Vec::new(),
            counts: PresenceCounts::default(),
        }
    }

    pub(crate) fn counts(&self) -> PresenceCounts {
        PresenceCounts { nodes_alive: self.nodes.alive() as u64, ..self.counts }
    }

    /// How many updates, queries and heartbeats are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way + usize::from(self.nodes.is_asking())
    }

    /// Whether the hub may be told more about a room, because it knows the present users.
    pub(crate) fn is_loaded(&self, name: &RoomName) -> bool {
        self.rooms.get(name).is_none_or(|entry| entry.is_loaded)
    }

    /// The hub has opened a room. It knows nothing of its users, whatever it was told before.
    pub(crate) fn open(&mut self, now: Duration, name: &RoomName, opening: u32) {
        let entry = self.rooms.entry(name.clone()).or_default();
        entry.is_open = true;
        entry.opening = opening;
        self.act(now, name, |presence, _, out| presence.announce_all(out));
    }

    pub(crate) fn close(&mut self, name: &RoomName) {
        if let Some(entry) = self.rooms.get_mut(name) {
            entry.is_open = false;
        }
    }

    /// Whether Redis knows that no user of this node is left.
    pub(crate) fn may_forget(&self, name: &RoomName) -> bool {
        self.rooms.get(name).is_none_or(|entry| entry.presence.is_settled())
    }

    pub(crate) fn forget(&mut self, name: &RoomName) {
        if let Some(entry) = self.rooms.remove(name) {
            self.counts.users_elsewhere -= entry.presence.len_elsewhere() as u64;
        }
    }

    /// A user has come into a room on this node, or has left it.
    pub(crate) fn announce(&mut self, now: Duration, name: &RoomName, change: PresenceChange) {
        self.act(now, name, |presence, _, _| presence.change_own(change));
    }

    /// The room was subscribed, or a message was dropped, or it is time to compare.
    pub(crate) fn query_soon(&mut self, now: Duration, name: &RoomName) {
        self.act(now, name, |presence, _, _| presence.query_soon());
    }

    /// The hub wants to know who is in a room on other nodes now.
    pub(crate) fn check(&mut self, now: Duration, name: &RoomName) {
        self.act(now, name, |presence, _, _| presence.check());
    }

    /// Takes a delta of another node.
    pub(crate) fn observe(&mut self, now: Duration, name: &RoomName, delta: PresenceDelta) {
        self.counts.deltas_received += 1;
        self.act(now, name, |presence, nodes, out| presence.apply_delta(delta, nodes, out));
    }

    /// Takes the answer to a [`PresenceAction::Ask`].
    pub(crate) fn answer(&mut self, now: Duration, (name, opening): (&RoomName, u32), answer: PresenceAnswer) {
        self.under_way -= 1;
        if self.rooms.get(name).is_some_and(|entry| entry.opening == opening) {
            let is_refused = matches!(answer, PresenceAnswer::Refused);
            let is_mended = self.act(now, name, |presence, nodes, out| match answer {
                PresenceAnswer::Updated(is_done) => presence.update_answered(is_done),
                PresenceAnswer::Sets(sets) => presence.apply_sets(now, sets, nodes, out),
                PresenceAnswer::Refused => {
                    presence.fail(now);
                    false
                }
            });
            self.counts.repairs += u64::from(is_mended == Some(true));
            if is_refused {
                self.load(name);
            } else {
                self.load_if_complete(name);
            }
        }
        while self.under_way < REQUESTS_MAX
            && let Some(next) = self.queue.pop_front()
        {
            if let Some(entry) = self.rooms.get_mut(&next) {
                entry.is_queued = false;
            }
            self.send_next(now, &next);
        }
    }

    /// Takes the answer to a [`PresenceAction::Heartbeat`], or its failure.
    pub(crate) fn answer_heartbeat(&mut self, now: Duration, reply: Option<HeartbeatReply>) {
        match reply {
            Some(reply) => self.nodes.answer(now, reply),
            None => self.nodes.fail(),
        }
        self.run_nodes(now);
        self.confirm_rooms(now);
    }

    /// Goes on with rooms that wait for nodes to be found alive, or not. Says how many there were.
    fn confirm_rooms(&mut self, now: Duration) -> u32 {
        let mut confirmed = 0;
        while confirmed < ROOMS_PER_TURN as u32
            && !self.nodes.is_looking()
            && let Some(name) = self.unconfirmed.pop_front()
        {
            confirmed += 1;
            self.act(now, &name, |presence, nodes, out| presence.confirm(nodes, out));
            self.load(&name);
            self.tell_checked(&name);
        }
        confirmed
    }

    /// Does what is due. `links_lost` counts how often a link to Redis was lost. Says at how many rooms it has looked.
    pub(crate) fn handle_deadlines(&mut self, now: Duration, links_lost: u64) -> u32 {
        if std::mem::replace(&mut self.links_lost, links_lost) != links_lost {
            self.nodes.link_lost(now);
        }
        self.nodes.handle_deadlines(now);
        self.run_nodes(now);
        let mut looks = self.confirm_rooms(now);
        for _ in 0..ROOMS_PER_TURN {
            let Some(entry) = self.timed.first_entry().filter(|entry| entry.key().0 <= now) else { break };
            let ((_, opening), name) = entry.remove_entry();
            looks += 1;
            if let Some(entry) = self.rooms.get_mut(&name).filter(|entry| entry.opening == opening) {
                entry.is_timed = false;
                self.send_next(now, &name);
            }
        }
        looks + self.run_jobs(now)
    }

    pub(crate) fn timeout(&self, now: Duration) -> Option<Duration> {
        let has_confirmed = !self.unconfirmed.is_empty() && !self.nodes.is_looking();
        if !self.jobs.is_empty() || !self.actions.is_empty() || has_confirmed {
            return Some(Duration::ZERO);
        }
        let timed = self.timed.first_key_value().map(|((at, _), _)| at.saturating_sub(now));
        timed.into_iter().chain(self.nodes.timeout(now)).min()
    }

    pub(crate) fn poll(&mut self) -> Option<PresenceAction> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // Gives back what a large set has made it allocate.
            self.actions.shrink_to(CHANGES_PER_TURN);
        }
        action
    }

    /// Hands something to a room, and carries out what follows.
    fn act<R>(
        &mut self,
        now: Duration,
        name: &RoomName,
        act: impl FnOnce(&mut RoomPresence, &mut Nodes, &mut Vec<PresenceChange>) -> R,
    ) -> Option<R> {
        let entry = self.rooms.get_mut(name)?;
        let before = entry.presence.len_elsewhere() as u64;
        let result = act(&mut entry.presence, &mut self.nodes, &mut self.changes);
        self.counts.users_elsewhere += entry.presence.len_elsewhere() as u64;
        self.counts.users_elsewhere -= before;
        let changes = self.changes.drain(..);
        if entry.is_open {
            self.actions.extend(changes.map(|change| PresenceAction::Tell(name.clone(), change)));
        } else {
            drop(changes);
        }
        self.changes.shrink_to(CHANGES_PER_TURN);
        self.send_next(now, name);
        self.run_nodes(now);
        Some(result)
    }

    /// Marks a room as loaded and checked, if all that Redis knows of it has come.
    fn load_if_complete(&mut self, name: &RoomName) {
        let Some(entry) = self.rooms.get(name).filter(|entry| entry.presence.is_loaded()) else { return };
        let is_awaited = !entry.is_loaded || entry.presence.is_checked();
        if is_awaited && entry.presence.has_unknown() && self.nodes.is_looking() {
            return self.unconfirmed.push_back(name.clone());
        }
        self.load(name);
        self.tell_checked(name);
    }

    /// Answers the check of a room, if its answer is complete.
    fn tell_checked(&mut self, name: &RoomName) {
        let entry = self.rooms.get_mut(name);
        if entry.is_some_and(|entry| entry.presence.take_checked() && entry.is_open) {
            self.actions.push_back(PresenceAction::Checked(name.clone()));
        }
    }

    /// Marks a room as loaded, whatever is missing.
    fn load(&mut self, name: &RoomName) {
        let Some(entry) = self.rooms.get_mut(name).filter(|entry| !entry.is_loaded) else { return };
        entry.is_loaded = true;
        self.actions.push_back(PresenceAction::Loaded(name.clone()));
    }

    /// Sends the next request of a room, once it is time and its turn.
    fn send_next(&mut self, now: Duration, name: &RoomName) {
        let Some(entry) = self.rooms.get_mut(name) else { return };
        let Some(at) = entry.presence.next() else { return };
        if at > now {
            if !std::mem::replace(&mut entry.is_timed, true) {
                self.timed.insert((at, entry.opening), name.clone());
            }
            return;
        }
        if self.under_way >= REQUESTS_MAX {
            if !std::mem::replace(&mut entry.is_queued, true) {
                // A client waits for a room that is not loaded.
                if entry.is_loaded {
                    self.queue.push_back(name.clone());
                } else {
                    self.queue.push_front(name.clone());
                }
            }
            return;
        }
        let Some(request) = entry.presence.poll(now, &mut self.versions) else { return };
        self.counts.updates_sent += u64::from(matches!(request, PresenceRequest::Update { .. }));
        self.under_way += 1;
        self.actions.push_back(PresenceAction::Ask { room: name.clone(), opening: entry.opening, request });
    }

    fn run_nodes(&mut self, now: Duration) {
        while let Some(change) = self.nodes.poll_change() {
            if change == NodeChange::Forgotten {
                self.nodes.raise_floor(self.versions + 1);
            }
            self.jobs.push_back(BackgroundJob { change, from: Bound::Unbounded });
        }
        if let Some(heartbeat) = self.nodes.poll_heartbeat(now) {
            self.actions.push_back(PresenceAction::Heartbeat(heartbeat));
        }
    }

    /// Continues background jobs, as far as a turn allows. Says at how many rooms it has looked.
    fn run_jobs(&mut self, now: Duration) -> u32 {
        let (mut looks_left, actions_max) = (LOOKS_PER_TURN, self.actions.len() + CHANGES_PER_TURN);
        for _ in 0..ROOMS_PER_TURN {
            let left = actions_max.saturating_sub(self.actions.len());
            if left == 0 {
                break;
            }
            let Some((name, change)) = self.next_concerned(&mut looks_left) else { break };
            let is_done =
                self.act(now, &name, |presence, nodes, out| presence.apply_node_change(&change, left, nodes, out));
            if is_done != Some(false)
                && let Some(job) = self.jobs.front_mut()
            {
                job.from = Bound::Excluded(name);
            }
        }
        LOOKS_PER_TURN - looks_left
    }

    /// The next room that a background job has to change, at which the job stays. None if this takes more looks than are left, or
    /// no job is.
    fn next_concerned(&mut self, looks_left: &mut u32) -> Option<(RoomName, NodeChange)> {
        while let Some(job) = self.jobs.front_mut() {
            let mut seen: Option<&RoomName> = None;
            for (name, entry) in self.rooms.range::<RoomName, _>((job.from.as_ref(), Bound::Unbounded)) {
                if *looks_left == 0 {
                    if let Some(seen) = seen {
                        job.from = Bound::Excluded(seen.clone());
                    }
                    return None;
                }
                *looks_left -= 1;
                if entry.presence.is_concerned(&job.change) {
                    job.from = Bound::Included(name.clone());
                    return Some((name.clone(), job.change.clone()));
                }
                seen = Some(name);
            }
            self.jobs.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests;
