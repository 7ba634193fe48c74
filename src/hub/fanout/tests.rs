//! The fan-out alone, against a naive model: all short histories, and long ones at random.

use std::collections::BTreeMap;

use super::*;
use crate::bus::message::ReadFrom;
use crate::hub::connection::{Connection, Connections};
use crate::hub::index::{CatchUpIndex, Place, RoomIndex};
use crate::hub::reader::{CatchUp, CatchUpReason, CatchUpStep, Shown};
use crate::hub::users::tests::key;
use crate::id::ConnectionId;
use crate::owner::Owner;
use crate::rights::Rights;

const ROOM: RoomIndex = RoomIndex(0);
const FRAME_BYTES: usize = 3;

/// What a socket takes of the whole frames that it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    All,
    FirstFrame,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Append,
    /// So many sends of the round, each of which takes so much.
    Serve(u32, Taken),
    /// A blocked member's socket takes bytes again.
    Drain(usize, Taken),
    Join,
    Leave(usize),
}

/// What a member has been sent, which is what the model knows of it.
#[derive(Debug)]
struct Reader {
    /// Where in all that was ever appended it began.
    start: usize,
    received: Vec<u8>,
}

/// A fanout, and a naive model of it: all that was ever appended, and a list of what each member has of it.
struct World {
    fanout: Fanout,
    members: Members,
    connections: Connections,
    appended: Vec<u8>,
    readers: BTreeMap<Slot, Reader>,
    slots: u32,
    round_began: Option<usize>,
    floor: usize,
}

impl World {
    fn new(members: u32) -> Self {
        let mut world = Self {
            fanout: Fanout::default(),
            members: Members::default(),
            connections: Connections::new(0),
            appended: Vec::new(),
            readers: BTreeMap::new(),
            slots: 0,
            round_began: None,
            floor: 0,
        };
        (0..members).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        let id = ConnectionId::new(self.slots, self.slots);
        self.slots += 1;
        self.connections.insert(id, Connection::new(id.serial, key(id.slot.0), Owner::HOST));
        let member = CatchUp {
            connection: id,
            reason: CatchUpReason::FellBack,
            epoch: None,
            from: ReadFrom::Newest(0),
            gap: false,
            shown: Shown::Nothing,
            step: CatchUpStep::Output,
        };
        self.members.enter(ROOM, member, Rights::ALL, &mut self.connections);
        let tail = self.fanout.tail();
        self.members.go_live(ROOM, CatchUpIndex(0), tail, &mut self.connections).expect("it has just come in");
        self.readers.insert(id.slot, Reader { start: self.appended.len(), received: Vec::new() });
    }

    fn leave(&mut self, nth: usize) {
        let Some(slot) = self.readers.keys().nth(nth).copied() else { return };
        self.members.remove(ROOM, slot, &mut self.connections).expect("a reader is a member");
        self.readers.remove(&slot);
        self.trim();
    }

    fn append(&mut self) {
        let frame = [(self.appended.len() / FRAME_BYTES) as u8; FRAME_BYTES];
        self.appended.extend(frame);
        let size = FrameSize { seq: None, bytes: FRAME_BYTES };
        // As in the hub: without a reader nothing is kept.
        if self.members.has_live() {
            self.fanout.append(size, |out| out.extend(frame));
        }
    }

    fn serve(&mut self, sends_max: u32, taken: Taken) -> Sent {
        if self.fanout.begin_round(&self.members) {
            self.round_began = Some(self.appended.len());
        }
        let Self { fanout, members, readers, .. } = self;
        let sent = fanout.serve(members, sends_max, &mut |slot, owed| take(readers, slot, owed, taken));
        assert!(sent.sends <= sends_max && sent.is_over != fanout.is_in_round());
        if sent.is_over {
            let has_more = self.fanout.end_round();
            let began = self.round_began.take().expect("a round was under way");
            assert_eq!(has_more, self.fanout.log_bytes() > 0 && began < self.appended.len());
            self.floor = began;
            self.trim();
        }
        sent
    }

    fn drain(&mut self, nth: usize, taken: Taken) {
        let Some(member) = self.members.blocked().nth(nth) else { return };
        let Some(Place::Live(at)) = self.connections.place(member.slot(), ROOM) else { panic!("it is live") };
        let Self { fanout, members, readers, .. } = self;
        let sent = fanout.serve_blocked(members, at, &mut |slot, owed| take(readers, slot, owed, taken));
        assert_eq!(sent.is_over, !self.members.live(at).expect("it is live").is_blocked());
        self.trim();
    }

    /// Exactly what a member that is blocked, or that the next round finds, has yet to be sent is kept.
    fn trim(&mut self) {
        self.fanout.trim(&self.members);
        if self.readers.is_empty() {
            (self.floor, self.round_began) = (self.appended.len(), None);
            assert_eq!(self.fanout.log_bytes(), 0);
            return;
        }
        let read_by = |slot: Slot| self.readers[&slot].start + self.readers[&slot].received.len();
        let lowest = self.members.blocked().map(|member| read_by(member.slot())).fold(self.floor, usize::min);
        // What was appended while nobody was there was never in the log.
        let oldest = self.appended.len() - self.fanout.log_bytes();
        assert!(oldest >= lowest, "{oldest} was dropped last, {lowest} is needed");
        let first_start = self.readers.values().map(|reader| reader.start).min().unwrap_or(0);
        assert!(oldest <= lowest.max(first_start), "{oldest} is kept, {lowest} would do");
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Append => self.append(),
            Action::Serve(sends, taken) => drop(self.serve(sends, taken)),
            Action::Drain(nth, taken) => self.drain(nth, taken),
            Action::Join => self.join(),
            Action::Leave(nth) => self.leave(nth),
        }
        self.check();
    }

    /// Members have got what was appended since they came: in order, without a gap, nothing twice.
    fn check(&self) {
        for (slot, Reader { start, received }) in &self.readers {
            assert_eq!(received[..], self.appended[*start..][..received.len()], "{slot:?}");
            let Some(Place::Live(at)) = self.connections.place(*slot, ROOM) else { panic!("{slot:?} is not live") };
            let member = self.members.live(at).expect("its place is in the list");
            assert_eq!(member.slot(), *slot);
            assert_eq!(member.cursor().behind(self.fanout.tail()), self.appended.len() - start - received.len());
        }
        assert_eq!(self.members.live_count() as usize, self.readers.len());
    }

    /// All sockets take everything: then all members have everything, and the log owns nothing.
    fn finish(mut self) {
        while self.members.blocked().next().is_some() {
            self.drain(0, Taken::All);
        }
        // The round under way, and one for what came since it began.
        for _ in 0..2 {
            while !self.serve(1, Taken::All).is_over {}
        }
        self.check();
        for (slot, reader) in &self.readers {
            assert_eq!(reader.received.len(), self.appended.len() - reader.start, "{slot:?}");
        }
        assert_eq!(self.fanout.log_bytes(), 0);
    }
}

fn take(readers: &mut BTreeMap<Slot, Reader>, slot: Slot, owed: &[u8], taken: Taken) -> usize {
    assert!(!owed.is_empty() && owed.len().is_multiple_of(FRAME_BYTES), "{} bytes are no whole frames", owed.len());
    let bytes = match taken {
        Taken::All => owed.len(),
        Taken::FirstFrame => FRAME_BYTES,
        Taken::Nothing => 0,
    };
    readers.get_mut(&slot).expect("it is a member").received.extend(&owed[..bytes]);
    bytes
}

#[test]
fn members_get_everything_in_order_in_all_short_histories() {
    const ACTIONS: [Action; 9] = [
        Action::Append,
        Action::Serve(1, Taken::All),
        Action::Serve(1, Taken::FirstFrame),
        Action::Serve(2, Taken::Nothing),
        Action::Drain(0, Taken::All),
        Action::Drain(0, Taken::FirstFrame),
        Action::Join,
        Action::Leave(0),
        Action::Leave(1),
    ];
    for members in 0..3 {
        for length in 1..=6 {
            for history in 0..9_usize.pow(length) {
                let nth = |step: u32| ACTIONS[history / 9_usize.pow(step) % 9];
                // The same happens later, or nothing does, when nothing was appended.
                if nth(0) != Action::Append {
                    continue;
                }
                let mut world = World::new(members);
                (0..length).for_each(|step| world.perform(nth(step)));
                world.finish();
            }
        }
    }
}

#[test]
fn members_get_everything_in_order_in_large_rooms_at_random() {
    for seed in 0..40 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut world = World::new(chance.u32(0..300));
        for _ in 0..2000 {
            let taken = [Taken::All, Taken::All, Taken::All, Taken::FirstFrame, Taken::Nothing][chance.usize(0..5)];
            let action = match chance.u32(0..10) {
                0..3 => Action::Append,
                3..6 => Action::Serve(chance.u32(1..100), taken),
                6..8 => Action::Drain(chance.usize(0..10), taken),
                8 => Action::Join,
                _ => Action::Leave(chance.usize(0..300)),
            };
            world.perform(action);
        }
        world.finish();
    }
}
