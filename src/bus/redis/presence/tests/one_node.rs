//! One node by itself: how much happens at once, and when.

use std::time::Duration;

use super::super::*;
use super::redis::{room, user};
use crate::bus::message::PresenceChange;
use crate::bus::redis::presence::delta::{
    NodeSet, NodeSets, PresenceAnswer, PresenceDelta, PresenceRequest, UserSet, UserState,
};
use crate::bus::redis::presence::nodes::{HeartbeatReply, NodeId, Nodes};
use crate::bus::redis::presence::{Presence, PresenceAction};
use crate::id::RoomName;
use crate::protocol::PresenceStatus;

const LEASE: Duration = Duration::from_secs(6);
const BEAT: Duration = Duration::from_secs(1);

/// What a turn brought.
#[derive(Debug, Default)]
struct Turn {
    told: usize,
    asked: Vec<(RoomName, u32, PresenceRequest)>,
    loaded: usize,
    /// At how many rooms it looked.
    looks: u32,
}

struct Host {
    presence: Presence,
    now: Duration,
    links_lost: u64,
    /// What it said with its last beat, and whether Redis remembers the one before.
    said: String,
    is_remembered: bool,
    others: Vec<(&'static str, String)>,
    turns: u32,
}

impl Host {
    fn new() -> Self {
        let presence = Presence::new(Nodes::new(NodeId::new("own"), LEASE, BEAT));
        let others = vec![("a", "1 6000 0".to_owned())];
        let now = Duration::from_secs(100);
        let mut host =
            Self { presence, now, links_lost: 0, said: String::new(), is_remembered: true, others, turns: 0 };
        host.turn();
        host
    }

    /// Beats are answered at once, all else is for the caller.
    fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.turns += 1;
        assert!(self.turns < 10_000, "it goes on for ever");
        turn.looks = self.presence.handle_deadlines(self.now, self.links_lost);
        while let Some(action) = self.presence.poll() {
            match action {
                PresenceAction::Heartbeat(beat) => {
                    let own = beat.text.unwrap_or(beat.last_text);
                    self.said = own.to_string();
                    let is_remembered = std::mem::replace(&mut self.is_remembered, true);
                    let others = self.others.iter().map(|(node, text)| (NodeId::new(node), text.as_str().into()));
                    let all = others.chain([(NodeId::new("own"), own)]).collect();
                    self.presence.answer_heartbeat(self.now, Some(HeartbeatReply { is_remembered, all }));
                }
                PresenceAction::Ask { room, opening, request } => turn.asked.push((room, opening, request)),
                PresenceAction::Tell(..) => turn.told += 1,
                PresenceAction::Loaded(_) => turn.loaded += 1,
                PresenceAction::Checked(_) => {}
            }
        }
        turn
    }

    fn beat(&mut self) -> Turn {
        self.now += BEAT;
        self.turn()
    }

    fn open(&mut self, number: u64) {
        self.presence.open(self.now, &room(number), number as u32);
    }

    fn hear(&mut self, number: u64, version: u64, users: usize) {
        let changes = (0..users).map(|i| (user(&format!("u{i}")), UserState::Here(None))).collect();
        let delta = PresenceDelta { node: NodeId::new("a"), base: None, version, changes: Some(changes) };
        self.presence.observe(self.now, &room(number), delta);
    }

    fn dies(&mut self) -> Turn {
        let mut turn = self.beat();
        while turn.told == 0 {
            turn = self.beat();
        }
        turn
    }
}

#[test]
fn the_users_of_a_dead_node_go_over_many_turns() {
    const USERS: usize = 5000;
    const ROOMS: u64 = 300;
    let mut host = Host::new();
    for number in 0..=ROOMS {
        host.open(number);
        host.hear(number, number + 1, if number == 0 { USERS } else { 1 });
    }
    let all = USERS + ROOMS as usize;
    assert_eq!((host.turn().told, host.presence.counts().users_elsewhere), (all, all as u64));
    let mut told = vec![host.dies().told];
    while host.presence.timeout(host.now) == Some(Duration::ZERO) {
        told.push(host.turn().told);
    }
    assert_eq!((told.iter().sum::<usize>(), host.presence.counts().users_elsewhere), (all, 0));
    assert!(told.iter().all(|told| *told <= CHANGES_PER_TURN), "{told:?}");
    let turns = USERS / CHANGES_PER_TURN + ROOMS as usize / ROOMS_PER_TURN;
    assert!((turns..turns + 5).contains(&told.len()), "{told:?}");
}

#[test]
fn a_node_that_comes_back_when_its_users_are_going_or_gone_is_whole_again() {
    for (users, is_late) in [(3000, false), (3000, true)] {
        let mut host = Host::new();
        host.open(0);
        host.hear(0, 1, users);
        host.turn();
        let mut told = host.dies().told;
        while is_late && told < users {
            told += host.turn().told;
        }
        assert_eq!(told == users, is_late);
        // It was taken for dead here alone, and does not know.
        "2 6000 0".clone_into(&mut host.others[0].1);
        host.now += BEAT;
        let mut asked = Vec::new();
        while host.presence.timeout(host.now) == Some(Duration::ZERO) {
            asked.extend(host.turn().asked);
        }
        let [(name, opening, PresenceRequest::Query { known, tombstones })] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((known.len(), tombstones.len()), (0, 0), "what it has is asked for, and not removed");
        let set: UserSet = (0..users).map(|i| (user(&format!("u{i}")), None)).collect();
        let record = NodeSet { node: NodeId::new("a"), version: 1, users: Some(set) };
        let records = NodeSets { local: None, others: vec![record] };
        host.presence.answer(host.now, (name, *opening), PresenceAnswer::Sets(records));
        assert_eq!((host.turn().told, host.presence.counts().users_elsewhere), (users, users as u64));
    }
}

#[test]
fn so_many_rooms_ask_at_once_and_those_first_in_which_somebody_waits() {
    const ROOMS: u64 = 3000;
    let mut host = Host::new();
    (0..ROOMS).for_each(|number| host.open(number));
    // All are subscribed, and again after a cut; then one more is opened.
    for round in 0..2 {
        (0..ROOMS).for_each(|number| host.presence.query_soon(host.now, &room(number)));
        if round == 1 {
            host.open(ROOMS);
            host.presence.query_soon(host.now, &room(ROOMS));
        }
        let mut asked = host.turn().asked;
        assert_eq!(asked.len(), REQUESTS_MAX);
        let (mut answered, mut loaded) = (0, 0);
        while let Some((name, opening, _)) = asked.pop() {
            host.presence.answer(host.now, (&name, opening), PresenceAnswer::Sets(NodeSets::default()));
            let turn = host.turn();
            (answered, loaded) = (answered + 1, loaded + turn.loaded);
            if round == 1 && answered == 1 {
                assert_eq!(turn.asked[0].0, room(ROOMS));
            }
            asked.extend(turn.asked);
            assert!(asked.len() <= REQUESTS_MAX);
        }
        assert_eq!((answered, loaded as u64), if round == 0 { (ROOMS, ROOMS) } else { (ROOMS + 1, 1) });
    }
}

fn change(name: &str, status: PresenceStatus) -> PresenceChange {
    PresenceChange { user: user(name), name: None, status }
}

#[test]
fn shares_go_one_after_another_and_a_room_is_kept_until_the_last_is_said() {
    let mut host = Host::new();
    host.open(0);
    let mut asked_at = Vec::new();
    for name in ["ann", "bob", "carl"] {
        host.presence.announce(host.now, &room(0), change(name, PresenceStatus::Online));
        let (name, opening) = loop {
            if let Some((name, opening, PresenceRequest::Update { .. })) = host.turn().asked.pop() {
                break (name, opening);
            }
            host.now += host.presence.timeout(host.now).expect("it is not done");
        };
        asked_at.push(host.now);
        assert!(!host.presence.may_forget(&room(0)), "it is under way");
        host.presence.answer(host.now, (&name, opening), PresenceAnswer::Updated(true));
        assert!(host.presence.may_forget(&room(0)));
    }
    let waits: Vec<_> = asked_at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(waits, [50, 50]);
    host.presence.announce(host.now, &room(0), change("ann", PresenceStatus::Offline));
    assert!(!host.presence.may_forget(&room(0)), "it is yet to be said");
}

#[test]
fn a_redis_that_forgets_is_told_all_again_above_a_floor() {
    let mut host = Host::new();
    host.open(0);
    host.presence.announce(host.now, &room(0), change("ann", PresenceStatus::Online));
    let asked = host.turn().asked;
    host.presence.answer(host.now, (&asked[0].0, asked[0].1), PresenceAnswer::Updated(true));
    host.is_remembered = false;
    let mut asked = host.beat().asked;
    asked.extend(host.turn().asked);
    assert!(matches!(asked[..], [(_, _, PresenceRequest::Update { base: None, version: 2, .. })]), "{asked:?}");
    host.beat();
    assert!(host.said.ends_with(" 6000 2"), "{}", host.said);
}

#[test]
fn a_room_is_loaded_once_it_is_known_whether_the_nodes_in_it_live() {
    let mut host = Host::new();
    host.open(0);
    host.presence.query_soon(host.now, &room(0));
    let asked = host.turn().asked;
    let users: UserSet = [(user("ann"), None)].into();
    let record = NodeSet { node: NodeId::new("b"), version: 1, users: Some(users) };
    let records = NodeSets { local: None, others: vec![record] };
    host.presence.answer(host.now, (&asked[0].0, asked[0].1), PresenceAnswer::Sets(records));
    assert!(!host.presence.is_loaded(&room(0)));
    // It has just begun, and is found when it is looked for.
    host.others.push(("b", "1 6000 0".to_owned()));
    let turn = host.turn();
    assert_eq!((turn.told, turn.loaded), (1, 1));
    assert!(host.presence.is_loaded(&room(0)));
}

#[test]
fn nobody_dies_right_after_a_link_was_lost() {
    let mut host = Host::new();
    host.open(0);
    host.hear(0, 1, 1);
    assert_eq!(host.turn().told, 1);
    host.links_lost += 1;
    let begun = host.now;
    while host.beat().told == 0 {}
    assert!(host.now - begun > Duration::from_secs(10), "{:?}", host.now - begun);
    assert!(host.now - begun < Duration::from_secs(13), "{:?}", host.now - begun);
}

#[test]
fn what_redis_refuses_holds_up_nobody_who_wants_to_read() {
    let mut host = Host::new();
    host.open(0);
    host.presence.query_soon(host.now, &room(0));
    let asked = host.turn().asked;
    host.presence.answer(host.now, (&asked[0].0, asked[0].1), PresenceAnswer::Refused);
    assert_eq!(host.turn().loaded, 1);
    host.now += Duration::from_secs(1);
    assert!(matches!(host.turn().asked[..], [(_, _, PresenceRequest::Query { .. })]), "and it is asked again");
}

#[test]
fn a_node_that_dies_is_looked_for_in_some_rooms_a_turn_also_while_rooms_come_and_go() {
    const ROOMS: u64 = 5000;
    // Their names are in another order than their numbers.
    let holds = [7, ROOMS / 2, ROOMS - 1, ROOMS];
    let mut host = Host::new();
    (0..ROOMS).for_each(|number| host.open(number));
    holds[..3].iter().for_each(|number| host.hear(*number, *number, 1));
    assert_eq!(host.turn().told, 3);
    let mut turn = host.beat();
    while host.presence.jobs.is_empty() {
        assert_eq!(turn.told, 0);
        turn = host.beat();
    }
    let (mut told, mut most, mut turns) = (turn.told, turn.looks, 0);
    while host.presence.timeout(host.now) == Some(Duration::ZERO) {
        // Those that are looked at next are forgotten; others are opened on both sides.
        let next = host.presence.jobs.front().map(|job| (job.from.clone(), Bound::Unbounded));
        let names: Vec<_> = next
            .into_iter()
            .flat_map(|range| host.presence.rooms.range::<RoomName, _>(range).map(|(name, _)| name.clone()))
            .collect();
        let quiet = names.iter().filter(|name| holds.iter().all(|number| **name != room(*number)));
        quiet.take(3).for_each(|name| host.presence.forget(name));
        (0..3).for_each(|nth| host.open(ROOMS + 1 + 3 * turns + nth));
        let turn = host.turn();
        (told, most, turns) = (told + turn.told, most.max(turn.looks), turns + 1);
    }
    assert_eq!((told, host.presence.counts().users_elsewhere), (3, 0));
    assert!(most > LOOKS_PER_TURN / 2 && most <= LOOKS_PER_TURN + 2 * ROOMS_PER_TURN as u32, "{most} rooms in a turn");
    assert!(turns >= ROOMS / u64::from(LOOKS_PER_TURN), "{turns}");
    // A room that is opened now knows that it is dead.
    host.open(holds[3]);
    host.presence.query_soon(host.now, &room(holds[3]));
    let asked = host.turn().asked;
    let set = NodeSet { node: NodeId::new("a"), version: 9999, users: Some([(user("ann"), None)].into()) };
    host.presence.answer(
        host.now,
        (&asked[0].0, asked[0].1),
        PresenceAnswer::Sets(NodeSets { local: None, others: vec![set] }),
    );
    assert_eq!(host.turn().told, 0);
}
