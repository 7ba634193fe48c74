//! Who is present in all rooms, on this node and on the others: what Redis is told and asked of it, how much at a time, and
//! what the hub hears. Sans-IO.
//!
//! [`RoomPresence`] has the users of a room, [`Nodes`] which nodes live; here they meet. The loop contract in one sentence: *hand in
//! what happened, call [`Presence::handle_deadlines`] within [`Presence::timeout`], carry out what [`Presence::poll`] has.*

pub(crate) mod delta;
pub(crate) mod local_users;
pub(crate) mod nodes;
pub(crate) mod room_presence;

use self::delta::{NodeSets, PresenceDelta, PresenceRequest};
use self::nodes::{Heartbeat, HeartbeatReply, NodeChange, NodeId, Nodes};
use self::room_presence::RoomPresence;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::bus::message::PresenceChange;
use crate::id::RoomName;

/// Shares and questions under way at once; rooms wait for their turn.
const WISHES_MAX: usize = 1024;

/// What is done in a turn of what concerns many rooms, as when a node has died; the rest waits for the next.
const ROOMS_PER_TURN: usize = 64;
const CHANGES_PER_TURN: usize = 1024;

/// Something to do for the bus.
#[derive(Debug)]
pub(crate) enum PresenceAction {
    /// Of a room in this one of its lives.
    Ask {
        room: RoomName,
        opening: u32,
        wish: PresenceRequest,
    },
    Heartbeat(Heartbeat),
    /// Tell the hub.
    Tell(RoomName, PresenceChange),
    /// All that Redis knows of the room has been told, or cannot be had for now.
    Loaded(RoomName),
}

/// What Redis answers to a [`PresenceRequest`].
#[derive(Debug)]
pub(crate) enum PresenceAnswer {
    /// Whether it had what the share continues.
    Updated(bool),
    Sets(NodeSets),
    Refused,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceCounts {
    pub(crate) nodes_alive: u64,
    pub(crate) users_elsewhere: u64,
    pub(crate) shares_sent: u64,
    pub(crate) shares_taken: u64,
    pub(crate) repairs: u64,
}

#[derive(Debug, Default)]
struct RoomEntry {
    opening: u32,
    /// Whether the hub has the room open.
    is_open: bool,
    is_loaded: bool,
    /// Whether it waits for its turn to ask.
    is_queued: bool,
    /// Whether the timer will look at it.
    is_timed: bool,
    roster: RoomPresence,
}

/// Something that concerns many rooms.
#[derive(Debug)]
struct BackgroundJob {
    task: JobKind,
    rooms: Vec<RoomName>,
}

#[derive(Clone, Debug)]
enum JobKind {
    /// Nodes live of which nobody knew that they do.
    Confirm,
    /// A node is dead.
    Drop(NodeId),
    /// A node is not dead after all.
    RemoveTombstone(NodeId),
    /// The own sets are to be said again.
    SayAgain,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Presence {
    nodes: Nodes,
    rooms: BTreeMap<RoomName, RoomEntry>,
    /// Rooms that want to ask and may not yet.
    queue: VecDeque<RoomName>,
    /// Rooms that want to ask later, by when and by their opening.
    timed: BTreeMap<(Duration, u32), RoomName>,
    under_way: usize,
    jobs: VecDeque<BackgroundJob>,
    /// Rooms that are loaded once it is known whether a node lives.
    doubtful: Vec<RoomName>,
    /// PresenceCounts the versions of all rooms.
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
            doubtful: Vec::new(),
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

    /// How many shares, questions and beats are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way + usize::from(self.nodes.is_asking())
    }

    /// Whether the hub may be told what else there is to know of a room, since it knows who is there.
    pub(crate) fn is_loaded(&self, name: &RoomName) -> bool {
        self.rooms.get(name).is_none_or(|place| place.is_loaded)
    }

    /// The hub has opened a room, of which it knows nobody, whatever it has known before.
    pub(crate) fn open(&mut self, now: Duration, name: &RoomName, opening: u32) {
        let place = self.rooms.entry(name.clone()).or_default();
        place.is_open = true;
        place.opening = opening;
        self.act(now, name, |roster, _, out| roster.tell_all(out));
    }

    pub(crate) fn close(&mut self, name: &RoomName) {
        if let Some(place) = self.rooms.get_mut(name) {
            place.is_open = false;
        }
    }

    /// Whether Redis has been told that nobody is there any more.
    pub(crate) fn may_forget(&self, name: &RoomName) -> bool {
        self.rooms.get(name).is_none_or(|place| place.roster.is_settled())
    }

    pub(crate) fn forget(&mut self, name: &RoomName) {
        if let Some(place) = self.rooms.remove(name) {
            self.counts.users_elsewhere -= place.roster.len_elsewhere() as u64;
        }
    }

    /// A user has come into a room here, or has gone.
    pub(crate) fn announce(&mut self, now: Duration, name: &RoomName, change: PresenceChange) {
        self.act(now, name, |roster, _, _| roster.change_own(change));
    }

    /// The room was subscribed, perhaps again; or something of it was dropped; or it is time to compare.
    pub(crate) fn query_soon(&mut self, now: Duration, name: &RoomName) {
        self.act(now, name, |roster, _, _| roster.query_soon());
    }

    /// Another node has said something.
    pub(crate) fn hear(&mut self, now: Duration, name: &RoomName, share: PresenceDelta) {
        self.counts.shares_taken += 1;
        self.act(now, name, |roster, nodes, out| roster.take_share(share, nodes, out));
    }

    /// An [`PresenceAction::Ask`] is answered.
    pub(crate) fn answer(&mut self, now: Duration, (name, opening): (&RoomName, u32), answer: PresenceAnswer) {
        self.under_way -= 1;
        if self.rooms.get(name).is_some_and(|place| place.opening == opening) {
            let is_refused = matches!(answer, PresenceAnswer::Refused);
            let is_mended = self.act(now, name, |roster, nodes, out| match answer {
                PresenceAnswer::Updated(is_done) => roster.take_shared(is_done),
                PresenceAnswer::Sets(records) => roster.take_records(now, records, nodes, out),
                PresenceAnswer::Refused => {
                    roster.fail(now);
                    false
                }
            });
            self.counts.repairs += u64::from(is_mended == Some(true));
            self.load(name, is_refused);
        }
        while self.under_way < WISHES_MAX
            && let Some(next) = self.queue.pop_front()
        {
            if let Some(place) = self.rooms.get_mut(&next) {
                place.is_queued = false;
            }
            self.pump(now, &next);
        }
    }

    /// An [`PresenceAction::Heartbeat`] is answered, or refused.
    pub(crate) fn answer_beat(&mut self, now: Duration, heard: Option<HeartbeatReply>) {
        match heard {
            Some(heard) => self.nodes.answer(now, heard),
            None => self.nodes.fail(),
        }
        self.run_nodes(now);
        if !self.nodes.is_looking() {
            for name in std::mem::take(&mut self.doubtful) {
                self.act(now, &name, |roster, nodes, out| roster.confirm(nodes, out));
                self.load(&name, true);
            }
        }
    }

    /// Does what is due. `links_lost` counts how often a link to Redis was lost.
    pub(crate) fn handle_deadlines(&mut self, now: Duration, links_lost: u64) {
        if std::mem::replace(&mut self.links_lost, links_lost) != links_lost {
            self.nodes.disturb(now);
        }
        self.nodes.handle_deadlines(now);
        self.run_nodes(now);
        for _ in 0..ROOMS_PER_TURN {
            let Some(entry) = self.timed.first_entry().filter(|entry| entry.key().0 <= now) else { break };
            let ((_, opening), name) = entry.remove_entry();
            if let Some(place) = self.rooms.get_mut(&name).filter(|place| place.opening == opening) {
                place.is_timed = false;
                self.pump(now, &name);
            }
        }
        self.run_errands(now);
    }

    pub(crate) fn timeout(&self, now: Duration) -> Option<Duration> {
        if !self.jobs.is_empty() || !self.actions.is_empty() {
            return Some(Duration::ZERO);
        }
        let timed = self.timed.first_key_value().map(|((at, _), _)| at.saturating_sub(now));
        timed.into_iter().chain(self.nodes.timeout(now)).min()
    }

    pub(crate) fn poll(&mut self) -> Option<PresenceAction> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // What a large set made it grow to is given back.
            self.actions.shrink_to(CHANGES_PER_TURN);
        }
        action
    }

    /// Hands something to a room's roster, and carries out what follows from it.
    fn act<R>(
        &mut self,
        now: Duration,
        name: &RoomName,
        act: impl FnOnce(&mut RoomPresence, &mut Nodes, &mut Vec<PresenceChange>) -> R,
    ) -> Option<R> {
        let place = self.rooms.get_mut(name)?;
        let before = place.roster.len_elsewhere() as u64;
        let result = act(&mut place.roster, &mut self.nodes, &mut self.changes);
        self.counts.users_elsewhere += place.roster.len_elsewhere() as u64;
        self.counts.users_elsewhere -= before;
        let changes = self.changes.drain(..);
        if place.is_open {
            self.actions.extend(changes.map(|change| PresenceAction::Tell(name.clone(), change)));
        } else {
            drop(changes);
        }
        self.changes.shrink_to(CHANGES_PER_TURN);
        self.pump(now, name);
        self.run_nodes(now);
        Some(result)
    }

    /// Sees whether a room is loaded now. `is_enough`: it is, whatever is missing.
    fn load(&mut self, name: &RoomName, is_enough: bool) {
        let Some(place) = self.rooms.get_mut(name).filter(|place| !place.is_loaded) else { return };
        if !is_enough && !place.roster.is_loaded() {
            return;
        }
        if !is_enough && place.roster.has_unknown() && self.nodes.is_looking() {
            return self.doubtful.push(name.clone());
        }
        place.is_loaded = true;
        self.actions.push_back(PresenceAction::Loaded(name.clone()));
    }

    /// Lets a room ask what it wants to, when it is time and its turn.
    fn pump(&mut self, now: Duration, name: &RoomName) {
        let Some(place) = self.rooms.get_mut(name) else { return };
        let Some(at) = place.roster.next() else { return };
        if at > now {
            if !std::mem::replace(&mut place.is_timed, true) {
                self.timed.insert((at, place.opening), name.clone());
            }
            return;
        }
        if self.under_way >= WISHES_MAX {
            if !std::mem::replace(&mut place.is_queued, true) {
                // Somebody waits for a room that is not loaded.
                if place.is_loaded {
                    self.queue.push_back(name.clone());
                } else {
                    self.queue.push_front(name.clone());
                }
            }
            return;
        }
        let Some(wish) = place.roster.poll(now, &mut self.versions) else { return };
        self.counts.shares_sent += u64::from(matches!(wish, PresenceRequest::Update { .. }));
        self.under_way += 1;
        self.actions.push_back(PresenceAction::Ask { room: name.clone(), opening: place.opening, wish });
    }

    fn run_nodes(&mut self, now: Duration) {
        while let Some(change) = self.nodes.poll_change() {
            let (task, rooms) = match change {
                NodeChange::Alive(_) => (JobKind::Confirm, self.rooms_where(RoomPresence::has_unknown)),
                NodeChange::Gone(node) => {
                    let rooms = self.rooms_where(|roster| roster.knows(&node));
                    (JobKind::Drop(node), rooms)
                }
                NodeChange::Returned(node) => (JobKind::RemoveTombstone(node), self.rooms_where(|_| true)),
                NodeChange::Forgotten => {
                    self.nodes.raise_floor(self.versions + 1);
                    (JobKind::SayAgain, self.rooms_where(RoomPresence::has_own))
                }
            };
            if !rooms.is_empty() {
                self.jobs.push_back(BackgroundJob { task, rooms });
            }
        }
        if let Some(beat) = self.nodes.poll_beat(now) {
            self.actions.push_back(PresenceAction::Heartbeat(beat));
        }
    }

    fn rooms_where(&self, mut wanted: impl FnMut(&RoomPresence) -> bool) -> Vec<RoomName> {
        let rooms = self.rooms.iter().filter(|(_, place)| wanted(&place.roster));
        rooms.map(|(name, _)| name.clone()).collect()
    }

    /// Goes on with what concerns many rooms, as far as a turn may.
    fn run_errands(&mut self, now: Duration) {
        let most = self.actions.len() + CHANGES_PER_TURN;
        for _ in 0..ROOMS_PER_TURN {
            let left = most.saturating_sub(self.actions.len());
            let Some(job) = self.jobs.front().filter(|_| left > 0) else { return };
            let Some(name) = job.rooms.last().cloned() else {
                self.jobs.pop_front();
                continue;
            };
            let task = job.task.clone();
            let is_done = self.act(now, &name, |roster, nodes, out| match task {
                JobKind::Confirm => {
                    roster.confirm(nodes, out);
                    true
                }
                // It has come back meanwhile, and what it said was taken all the while.
                JobKind::Drop(node) if nodes.counts(&node) && !roster.is_draining(&node) => true,
                JobKind::Drop(node) => roster.drain(&node, left, nodes, out),
                JobKind::RemoveTombstone(node) => {
                    roster.remove_tombstone(&node);
                    roster.confirm(nodes, out);
                    true
                }
                JobKind::SayAgain => {
                    roster.say_again();
                    true
                }
            });
            if is_done != Some(false)
                && let Some(job) = self.jobs.front_mut()
            {
                job.rooms.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests;
