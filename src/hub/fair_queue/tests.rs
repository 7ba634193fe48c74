//! The order of turns: exhaustive for short sequences, at random for long ones, against a model that keeps plain lists.

use super::*;
use crate::owner::Owners;

fn owner(number: usize) -> Owner {
    Owners::new(1).api_key(&[number as u8; 32])
}

/// The same rules, on lists that are searched.
#[derive(Default)]
struct Model {
    lines: VecDeque<(usize, i64, Vec<u32>)>,
}

impl Model {
    fn push(&mut self, owner: usize, room: u32) {
        match self.lines.iter_mut().find(|(other, ..)| *other == owner) {
            Some((_, _, rooms)) => rooms.push(room),
            None => self.lines.push_back((owner, 64, vec![room])),
        }
    }

    fn pop(&mut self) -> Option<(u32, usize)> {
        while let Some((owner, credit, rooms)) = self.lines.front_mut() {
            if rooms.is_empty() {
                self.lines.pop_front();
            } else if *credit > 0 {
                return Some((rooms.remove(0), *owner));
            } else {
                *credit += 64;
                self.lines.rotate_left(1);
            }
        }
        None
    }

    fn charge(&mut self, sends: u32) {
        if let Some((_, credit, _)) = self.lines.front_mut() {
            *credit -= i64::from(sends);
        }
    }

    fn remove(&mut self, room: u32) {
        self.lines.iter_mut().for_each(|(_, _, rooms)| rooms.retain(|other| *other != room));
    }
}

/// A queue beside its model.
#[derive(Default)]
struct Pair {
    queue: FairQueue,
    model: Model,
    /// The rooms that wait.
    waiting: Vec<(u32, QueuePlace)>,
    rooms: u32,
}

impl Pair {
    fn push(&mut self, number: usize) {
        self.rooms += 1;
        self.waiting.push((self.rooms, self.queue.push(owner(number), RoomIndex(self.rooms))));
        self.model.push(number, self.rooms);
    }

    /// A slice with so many sends. Says whose it was.
    fn serve(&mut self, sends: u32) -> Option<usize> {
        let popped = self.model.pop();
        let expected = popped.map(|(room, number)| (RoomIndex(room), owner(number)));
        assert_eq!(self.queue.pop(), expected);
        let (room, number) = popped?;
        self.waiting.retain(|(other, _)| *other != room);
        self.queue.charge(sends);
        self.model.charge(sends);
        Some(number)
    }

    fn remove(&mut self, at: usize) {
        let (room, place) = self.waiting.remove(at);
        assert_eq!(self.queue.remove(place), RoomIndex(room));
        self.model.remove(room);
    }

    fn check(&self) {
        assert_eq!(self.queue.is_empty(), self.waiting.is_empty());
        assert!(self.queue.lines.len() == self.queue.by_owner.len() && self.queue.lines.len() == self.queue.ring.len());
    }
}

#[test]
fn every_short_sequence_gives_the_order_of_the_model() {
    const OPERATIONS: u32 = 7;
    const LENGTH: u32 = 7;
    for sequence in 0..OPERATIONS.pow(LENGTH) {
        let mut pair = Pair::default();
        for step in 0..LENGTH {
            match sequence / OPERATIONS.pow(step) % OPERATIONS {
                number @ 0..3 => pair.push(number as usize),
                3 => drop(pair.serve(1)),
                4 => drop(pair.serve(64)),
                5 if !pair.waiting.is_empty() => pair.remove(0),
                6 if !pair.waiting.is_empty() => pair.remove(pair.waiting.len() - 1),
                _ => break,
            }
            pair.check();
        }
        while pair.serve(30).is_some() {}
        pair.check();
    }
}

#[test]
fn long_sequences_give_the_order_of_the_model() {
    for seed in 0..100 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::default();
        for _ in 0..2000 {
            match chance.u32(..10) {
                0..5 => pair.push(chance.usize(..8) * chance.usize(..2)),
                5..9 => drop(pair.serve(chance.u32(1..=64))),
                _ if pair.waiting.is_empty() => {}
                _ => pair.remove(chance.usize(..pair.waiting.len())),
            }
            pair.check();
        }
        while pair.serve(1).is_some() {}
        pair.check();
    }
}

#[test]
fn owners_that_always_have_rooms_make_as_many_sends_as_each_other() {
    for seed in 0..20 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::default();
        // The first owner has many rooms, the others one; each room comes again after its slice.
        (0..1000).for_each(|_| pair.push(0));
        (1..5).for_each(|number| pair.push(number));
        let mut sends = [0_u32; 5];
        for _ in 0..5000 {
            let cost = chance.u32(1..=64);
            let number = pair.serve(cost).unwrap();
            sends[number] += cost;
            pair.push(number);
            let (least, most) = (sends.iter().min().unwrap(), sends.iter().max().unwrap());
            assert!(most - least <= 2 * 64, "seed {seed}: {sends:?}");
        }
    }
}

#[test]
fn one_owner_has_its_rooms_served_in_the_order_in_which_they_came() {
    let mut queue = FairQueue::default();
    for room in 0..1000 {
        queue.push(Owner::HOST, RoomIndex(room));
    }
    for room in 0..1000 {
        assert_eq!(queue.pop(), Some((RoomIndex(room), Owner::HOST)));
        queue.charge(64);
    }
    assert_eq!(queue.pop(), None);
}

#[test]
fn rooms_that_have_had_their_turns_leave_no_memory() {
    let mut queue = FairQueue::default();
    for room in 0..100_000 {
        queue.push(owner(room as usize % 200), RoomIndex(room));
    }
    assert_eq!(queue.ring.len(), 200);
    while queue.pop().is_some() {
        queue.charge(1);
    }
    assert!(queue.places.capacity() == 0 && queue.lines.is_empty() && queue.by_owner.is_empty());
}
