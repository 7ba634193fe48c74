//! Several nodes and a small Redis that loses, doubles, delays, reorders and forgets, under seeded chance: in the end every hub
//! has been told what is true, and before that nobody is told to be gone who never was.

mod finale;
mod one_node;
mod redis;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use self::redis::{Call, Redis, room, user};
use super::nodes::tests::do_heartbeat;
use crate::bus::message::PresenceChange;
use crate::bus::redis::chance::Chance;
use crate::bus::redis::presence::delta::{PresenceAnswer, PresenceDelta, PresenceRequest};
use crate::bus::redis::presence::nodes::{Heartbeat, NodeId, Nodes};
use crate::bus::redis::presence::{Presence, PresenceAction};
use crate::id::{RoomName, UserId};
use crate::protocol::PresenceStatus;

const LEASE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(1);
const NODES_MAX: usize = 5;
const ROOMS: u64 = 3;
const USERS: u64 = 6;

struct Peer {
    id: NodeId,
    presence: Presence,
    calls: VecDeque<Call>,
    channel: VecDeque<(RoomName, PresenceDelta)>,
    openings: u32,
    /// Rooms that the bus has, and whether the hub has them open.
    rooms: BTreeMap<RoomName, bool>,
    subscribed: BTreeSet<RoomName>,
    loaded: BTreeSet<RoomName>,
    /// Rooms of which it is to be found out who is on other nodes.
    checks: BTreeSet<RoomName>,
    /// Who is here.
    here: BTreeMap<RoomName, BTreeSet<UserId>>,
    /// Whom the hub was told of.
    told: BTreeMap<RoomName, BTreeSet<UserId>>,
    frozen_until: Duration,
    links_lost: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    deaths: u64,
    leaves: u64,
    freezes: u64,
    losses: u64,
    repairs: u64,
}

struct World {
    chance: Chance,
    now: Duration,
    redis: Redis,
    snapshot: Redis,
    nodes: Vec<Peer>,
    names: u64,
    /// Nodes that were frozen, were refused a beat, or have ended: they may be taken for dead.
    shaky: BTreeSet<NodeId>,
    is_calm: bool,
    coverage: Coverage,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let redis = Redis { users_max: chance.below(8) as usize, ..Redis::default() };
        let mut world = Self {
            chance,
            now: Duration::from_secs(1000),
            snapshot: redis.clone(),
            redis,
            nodes: Vec::new(),
            names: 0,
            shaky: BTreeSet::new(),
            is_calm: false,
            coverage: Coverage::default(),
        };
        (0..3).for_each(|_| world.start());
        world
    }

    fn start(&mut self) {
        self.names += 1;
        let id = NodeId::new(&format!("n{}", self.names));
        self.nodes.push(Peer {
            presence: Presence::new(Nodes::new(id.clone(), LEASE, GRACE)),
            id,
            calls: VecDeque::new(),
            channel: VecDeque::new(),
            openings: 0,
            rooms: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            loaded: BTreeSet::new(),
            checks: BTreeSet::new(),
            here: BTreeMap::new(),
            told: BTreeMap::new(),
            frozen_until: Duration::ZERO,
            links_lost: 0,
        });
        let index = self.nodes.len() - 1;
        self.turn(index);
        // A user who stays for as long as the node does.
        self.open(index, &room(0));
        let steadfast = user(&format!("steadfast.{}", self.nodes[index].id.as_str()));
        self.announce(index, &room(0), steadfast, PresenceStatus::Online);
    }

    fn open(&mut self, index: usize, name: &RoomName) {
        let node = &mut self.nodes[index];
        match node.rooms.insert(name.clone(), true) {
            Some(true) => return,
            Some(false) => {}
            None => node.openings += 1,
        }
        let opening = match node.presence.rooms.get(name) {
            Some(place) => place.opening,
            None => node.openings,
        };
        node.presence.open(self.now, name, opening);
        self.drain(index);
    }

    fn announce(&mut self, index: usize, name: &RoomName, user: UserId, status: PresenceStatus) {
        let node = &mut self.nodes[index];
        let here = node.here.entry(name.clone()).or_default();
        let is_change = match status {
            PresenceStatus::Online => here.insert(user.clone()),
            PresenceStatus::Offline => here.remove(&user),
        };
        if is_change {
            node.presence.announce(self.now, name, PresenceChange { user, name: None, status });
            self.drain(index);
        }
    }

    /// What a bus does with what its presence wants.
    fn drain(&mut self, index: usize) {
        while let Some(action) = self.nodes[index].presence.poll() {
            let node = &mut self.nodes[index];
            match action {
                PresenceAction::Ask { room, opening, request } => {
                    node.calls.push_back(Call::Room(room, opening, request));
                }
                PresenceAction::Heartbeat(beat) => node.calls.push_back(Call::Heartbeat(beat)),
                PresenceAction::Loaded(room) => assert!(node.loaded.insert(room), "loaded twice"),
                PresenceAction::Checked(room) => drop(node.checks.remove(&room)),
                PresenceAction::Tell(room, PresenceChange { user, status, .. }) => {
                    assert_eq!(node.rooms.get(&room), Some(&true), "told of a room that is not open");
                    let told = node.told.entry(room).or_default();
                    let is_change = match status {
                        PresenceStatus::Online => told.insert(user.clone()),
                        PresenceStatus::Offline => told.remove(&user),
                    };
                    assert!(is_change, "{user} was told to be {status:?} twice");
                    if status == PresenceStatus::Offline
                        && let Some(of) = user.as_str().strip_prefix("steadfast.")
                    {
                        assert!(self.shaky.contains(&NodeId::new(of)), "{user} was never gone");
                    }
                }
            }
        }
    }

    fn turn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.presence.handle_deadlines(self.now, node.links_lost);
        self.drain(index);
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1 + self.chance.below(60));
        for index in 0..self.nodes.len() {
            if self.nodes[index].frozen_until <= self.now {
                self.turn(index);
                // A call is done and answered within some steps.
                (0..3).for_each(|_| self.execute(index));
                (0..2).for_each(|_| self.reply(index));
                (0..2).for_each(|_| self.arrive(index));
            }
        }
        if !self.is_calm && !self.nodes.is_empty() {
            let index = self.chance.below(self.nodes.len() as u64) as usize;
            self.act(index);
        }
    }

    fn act(&mut self, index: usize) {
        let name = room(self.chance.below(ROOMS));
        let user = user(&format!("u{}", self.chance.below(USERS)));
        let is_open = self.nodes[index].rooms.get(&name) == Some(&true);
        let is_frozen = self.nodes[index].frozen_until > self.now;
        match self.chance.below(400) {
            0..160 if !is_frozen => {
                if is_open {
                    let is_here = self.nodes[index].here.get(&name).is_some_and(|here| here.contains(&user));
                    let status = if is_here { PresenceStatus::Offline } else { PresenceStatus::Online };
                    self.announce(index, &name, user, status);
                } else {
                    self.open(index, &name);
                }
            }
            160..200 if is_open && !is_frozen => self.close(index, &name),
            200..230 if !is_frozen => self.forget(index, &name),
            230..245 if is_open && !is_frozen => {
                self.nodes[index].presence.query_soon(self.now, &name);
                self.drain(index);
            }
            245..260 if is_open && !is_frozen => {
                self.nodes[index].checks.insert(name.clone());
                self.nodes[index].presence.check(self.now, &name);
                self.drain(index);
            }
            260..266 => self.interrupt(index),
            266 => {
                self.redis = Redis { users_max: self.redis.users_max, ..Redis::default() };
                self.coverage.losses += 1;
            }
            267..270 => self.snapshot = self.redis.clone(),
            270 => {
                self.redis = self.snapshot.clone();
                self.coverage.losses += 1;
            }
            271..273 => {
                let millis = self.chance.below(6000);
                self.nodes[index].frozen_until = self.now + Duration::from_millis(millis);
                self.shaky.insert(self.nodes[index].id.clone());
                self.coverage.freezes += 1;
            }
            273 if self.nodes.len() > 1 => {
                self.shaky.insert(self.nodes[index].id.clone());
                self.nodes.remove(index);
                self.coverage.deaths += 1;
            }
            274 if self.nodes.len() > 1 => {
                let node = self.nodes.remove(index);
                do_heartbeat(&mut self.redis.beats, &node.id, &Heartbeat::leave());
                self.shaky.insert(node.id);
                self.coverage.leaves += 1;
            }
            275..278 if self.nodes.len() < NODES_MAX => self.start(),
            _ => {}
        }
    }

    fn close(&mut self, index: usize, name: &RoomName) {
        if self.nodes[index].here.get(name).is_some_and(|here| !here.is_empty()) {
            return;
        }
        let node = &mut self.nodes[index];
        node.rooms.insert(name.clone(), false);
        node.told.remove(name);
        node.checks.remove(name);
        node.presence.close(name);
    }

    fn forget(&mut self, index: usize, name: &RoomName) {
        let node = &mut self.nodes[index];
        if node.rooms.get(name) == Some(&false) && node.presence.may_forget(name) {
            node.rooms.remove(name);
            node.subscribed.remove(name);
            node.loaded.remove(name);
            node.presence.forget(name);
        }
    }

    /// The subscription is cut, and stands again some time later.
    fn interrupt(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.channel.clear();
        node.subscribed.clear();
        node.links_lost += 1;
    }

    /// Redis does what is asked next; some of it twice, since the first answer is lost, and some of it not.
    fn execute(&mut self, index: usize) {
        let is_open = |call: &Call| matches!(call, Call::Room(..) | Call::Heartbeat(_));
        let Some(at) = self.nodes[index].calls.iter().position(is_open) else { return };
        if self.chance.one_in(3) {
            return;
        }
        let is_refused = !self.is_calm && self.chance.one_in(40);
        let times = 1 + u64::from(!self.is_calm && self.chance.one_in(15));
        let by = self.nodes[index].id.clone();
        let done = match &self.nodes[index].calls[at] {
            Call::Room(name, opening, _) if is_refused => {
                Call::Answered(name.clone(), *opening, PresenceAnswer::Refused)
            }
            Call::Heartbeat(_) if is_refused => {
                self.shaky.insert(by.clone());
                Call::HeartbeatReply(None)
            }
            Call::Heartbeat(beat) => {
                let beat = beat.clone();
                Call::HeartbeatReply((0..times).map(|_| do_heartbeat(&mut self.redis.beats, &by, &beat)).last())
            }
            Call::Room(name, opening, request) => {
                let (name, opening, request) = (name.clone(), *opening, request.clone());
                let mut answer = PresenceAnswer::Refused;
                for _ in 0..times {
                    answer = match &request {
                        PresenceRequest::Update { .. } => {
                            let (is_done, delta) = self.redis.delta(&by, &name, &request);
                            delta.into_iter().for_each(|delta| self.publish(&name, &delta));
                            PresenceAnswer::Updated(is_done)
                        }
                        PresenceRequest::Query { known, tombstones } => {
                            PresenceAnswer::Sets(self.redis.who(&by, &name, known, tombstones))
                        }
                    };
                }
                Call::Answered(name, opening, answer)
            }
            Call::Answered(..) | Call::HeartbeatReply(_) => unreachable!("it is open"),
        };
        self.nodes[index].calls[at] = done;
    }

    fn publish(&mut self, name: &RoomName, delta: &PresenceDelta) {
        for node in self.nodes.iter_mut().filter(|node| node.id != delta.node && node.subscribed.contains(name)) {
            if self.is_calm || !self.chance.one_in(30) {
                node.channel.push_back((name.clone(), delta.clone()));
            }
        }
    }

    fn reply(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        match node.calls.front() {
            Some(Call::Answered(..) | Call::HeartbeatReply(_)) => {}
            _ => return,
        }
        match node.calls.pop_front() {
            Some(Call::Answered(name, opening, answer)) => node.presence.answer(self.now, (&name, opening), answer),
            Some(Call::HeartbeatReply(heard)) => node.presence.answer_heartbeat(self.now, heard),
            _ => {}
        }
        self.drain(index);
    }

    /// The next delta arrives, perhaps twice or out of order; or a room is subscribed.
    fn arrive(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if self.chance.one_in(4)
            && let Some(name) = node.rooms.keys().find(|name| !node.subscribed.contains(*name)).cloned()
        {
            node.subscribed.insert(name.clone());
            node.presence.query_soon(self.now, &name);
            return self.drain(index);
        }
        if self.chance.one_in(20) && node.channel.len() > 1 {
            node.channel.swap(0, 1);
        }
        let Some((name, delta)) = node.channel.pop_front() else { return };
        if self.chance.one_in(20) {
            node.channel.push_front((name.clone(), delta.clone()));
        }
        node.presence.observe(self.now, &name, delta);
        self.drain(index);
    }
}

#[test]
fn in_the_end_all_nodes_agree() {
    let seeds = std::env::var("ROOMCAST_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let first = std::env::var("ROOMCAST_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut sum = Coverage::default();
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..3000).for_each(|_| world.step());
            world.settle();
            world.check();
            world.coverage
        });
        let coverage = result.unwrap_or_else(|_| panic!("seed {seed}"));
        sum.deaths += coverage.deaths;
        sum.leaves += coverage.leaves;
        sum.freezes += coverage.freezes;
        sum.losses += coverage.losses;
        sum.repairs += coverage.repairs;
    }
    let least = [sum.deaths, sum.leaves, sum.freezes, sum.losses, sum.repairs].into_iter().min();
    assert!(least >= Some(seeds), "{sum:?} is too little to mean much");
}
