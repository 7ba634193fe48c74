//! The order of turns: exhaustive for short sequences, at random for long ones, against a model that keeps plain lists.

use super::*;
use crate::owner::Owners;

fn owner(number: usize) -> Owner {
    Owners::new(1).api_key(&[number as u8; 32])
}

const QUANTUM: u32 = 64;

/// The same rules, on lists that are searched.
#[derive(Default)]
struct Model {
    new: VecDeque<(usize, i64, Vec<u32>)>,
    ring: VecDeque<(usize, i64, Vec<u32>)>,
    served: Option<usize>,
}

impl Model {
    fn lines(&mut self) -> impl Iterator<Item = &mut (usize, i64, Vec<u32>)> {
        self.new.iter_mut().chain(&mut self.ring)
    }

    fn push(&mut self, owner: usize, item: u32) {
        if let Some((_, _, items)) = self.lines().find(|(other, ..)| *other == owner) {
            return items.push(item);
        }
        self.new.push_back((owner, QUANTUM.into(), vec![item]));
    }

    fn pop(&mut self) -> Option<(u32, usize)> {
        loop {
            let is_new = !self.new.is_empty();
            let mut line = if is_new { self.new.pop_front() } else { self.ring.pop_front() }?;
            if line.2.is_empty() && !is_new {
                continue;
            }
            if !line.2.is_empty() && line.1 > 0 {
                let (owner, item) = (line.0, line.2.remove(0));
                if is_new {
                    self.new.push_front(line);
                } else {
                    self.ring.push_front(line);
                }
                self.served = Some(owner);
                return Some((item, owner));
            }
            if !line.2.is_empty() {
                line.1 += i64::from(QUANTUM);
            }
            self.ring.push_back(line);
        }
    }

    fn charge(&mut self, cost: u32) {
        let served = self.served;
        if let Some((_, credit, _)) = self.lines().find(|(owner, ..)| Some(*owner) == served) {
            *credit -= i64::from(cost);
        }
    }

    fn remove(&mut self, item: u32) {
        self.lines().for_each(|(_, _, items)| items.retain(|other| *other != item));
    }
}

/// A queue beside its model.
struct Pair {
    queue: FairQueue<u32>,
    model: Model,
    /// The items that wait.
    waiting: Vec<(u32, QueuePlace)>,
    items: u32,
}

impl Pair {
    fn new() -> Self {
        Self { queue: FairQueue::new(QUANTUM), model: Model::default(), waiting: Vec::new(), items: 0 }
    }

    fn push(&mut self, number: usize) {
        self.items += 1;
        self.waiting.push((self.items, self.queue.push(owner(number), self.items)));
        self.model.push(number, self.items);
    }

    /// A slice with so many sends. Says whose it was.
    fn serve(&mut self, sends: u32) -> Option<usize> {
        let popped = self.model.pop();
        let expected = popped.map(|(item, number)| (item, owner(number)));
        assert_eq!(self.queue.pop(), expected);
        let (item, number) = popped?;
        self.waiting.retain(|(other, _)| *other != item);
        self.queue.charge(sends);
        self.model.charge(sends);
        Some(number)
    }

    fn remove(&mut self, at: usize) {
        let (item, place) = self.waiting.remove(at);
        assert_eq!(self.queue.remove(place), item);
        self.model.remove(item);
    }

    fn check(&self) {
        assert_eq!(self.queue.is_empty(), self.waiting.is_empty());
        let listed = self.queue.new.len() + self.queue.ring.len();
        assert!(self.queue.lines.len() == self.queue.by_owner.len() && self.queue.lines.len() == listed);
    }
}

#[test]
fn every_short_sequence_gives_the_order_of_the_model() {
    const OPERATIONS: u32 = 7;
    const LENGTH: u32 = 7;
    for sequence in 0..OPERATIONS.pow(LENGTH) {
        let mut pair = Pair::new();
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
        let mut pair = Pair::new();
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
        let mut pair = Pair::new();
        // The first owner has many items, the others one; each item comes again after its slice.
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
    let mut queue = FairQueue::new(QUANTUM);
    for item in 0..1000 {
        queue.push(Owner::HOST, item);
    }
    for item in 0..1000 {
        assert_eq!(queue.pop(), Some((item, Owner::HOST)));
        queue.charge(64);
    }
    assert_eq!(queue.pop(), None);
}

#[test]
fn rooms_that_have_had_their_turns_leave_no_memory() {
    let mut queue = FairQueue::new(QUANTUM);
    for item in 0..100_000 {
        queue.push(owner(item as usize % 200), item);
    }
    assert_eq!(queue.new.len(), 200);
    while queue.pop().is_some() {
        queue.charge(1);
    }
    assert!(queue.places.capacity() == 0 && queue.lines.is_empty() && queue.by_owner.is_empty());
}

#[test]
fn an_owner_that_wants_little_and_rarely_is_served_before_those_that_always_wait() {
    let mut pair = Pair::new();
    let serve_crowd = |pair: &mut Pair| {
        let number = pair.serve(QUANTUM).unwrap();
        assert_ne!(number, 9);
        pair.push(number);
    };
    (0..8).for_each(|number| pair.push(number));
    for _ in 0..50 {
        (0..16).for_each(|_| serve_crowd(&mut pair));
        pair.push(9);
        assert_eq!(pair.serve(QUANTUM), Some(9));
        // Items that come soon after that wait for its turn in the ring; only the line that was served last comes behind it.
        pair.push(9);
        (0..7).for_each(|_| serve_crowd(&mut pair));
        assert_eq!(pair.serve(1), Some(9));
    }
}
