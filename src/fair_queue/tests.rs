//! The order of turns: exhaustive for short sequences, at random for long ones, against a model that keeps plain lists.

use super::*;
use crate::owner::Owners;

fn owner(number: usize) -> Owner {
    Owners::new(1).api_key(&[number as u8; 32])
}

/// The same rules, on a list that is searched.
#[derive(Default)]
struct Model {
    lines: Vec<ModelLine>,
    served: Option<usize>,
    reached: u64,
    given: u64,
}

struct ModelLine {
    turn: (u64, bool, u64),
    owner: usize,
    items: Vec<u32>,
}

impl Model {
    fn push(&mut self, owner: usize, item: u32) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.owner == owner) {
            return line.items.push(item);
        }
        self.given += 1;
        self.lines.push(ModelLine { turn: (self.reached, false, self.given), owner, items: vec![item] });
    }

    fn pop(&mut self) -> Option<(u32, usize)> {
        self.charge(0);
        let next = self.lines.iter_mut().filter(|line| !line.items.is_empty()).min_by_key(|line| line.turn);
        let Some(next) = next else {
            *self = Self::default();
            return None;
        };
        let (turn, owner, item) = (next.turn, next.owner, next.items.remove(0));
        (self.reached, self.served) = (turn.0, Some(owner));
        self.lines.retain(|line| line.turn >= turn);
        Some((item, owner))
    }

    /// The owner whose item comes next.
    fn next(&self) -> Option<usize> {
        let waiting = self.lines.iter().filter(|line| !line.items.is_empty());
        waiting.min_by_key(|line| line.turn).map(|line| line.owner)
    }

    fn has(&self, owner: usize) -> bool {
        self.lines.iter().any(|line| line.owner == owner && !line.items.is_empty())
    }

    fn charge(&mut self, cost: u32) {
        let Some(served) = self.served.take() else { return };
        self.given += 1;
        let given = self.given;
        if let Some(line) = self.lines.iter_mut().find(|line| line.owner == served) {
            line.turn = (line.turn.0 + u64::from(cost), true, given);
        }
    }

    fn remove(&mut self, item: u32) {
        self.lines.iter_mut().for_each(|line| line.items.retain(|other| *other != item));
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
        Self { queue: FairQueue::default(), model: Model::default(), waiting: Vec::new(), items: 0 }
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
        let listed = self.queue.turns.len() + usize::from(self.queue.served.is_some());
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
            assert!(most - least <= 64, "seed {seed}: {sends:?}");
        }
    }
}

#[test]
fn one_owner_has_its_rooms_served_in_the_order_in_which_they_came() {
    let mut queue = FairQueue::default();
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
    let mut queue = FairQueue::default();
    for item in 0..100_000 {
        queue.push(owner(item as usize % 200), item);
    }
    assert_eq!(queue.turns.len(), 200);
    while queue.pop().is_some() {
        queue.charge(1);
    }
    assert!(queue.places.capacity() == 0 && queue.lines.is_empty() && queue.by_owner.is_empty());
}

#[test]
fn an_owner_that_wants_little_waits_for_one_item_of_others_whatever_they_cost() {
    for cost in [1, 64, 4096] {
        let mut pair = Pair::new();
        (0..8).for_each(|number| pair.push(number));
        for nth in 0..50 {
            // Each time when others have had other turns than before.
            for _ in 0..8 + nth {
                let number = pair.serve(cost).unwrap();
                pair.push(number);
            }
            pair.push(9);
            assert_eq!(pair.serve(1), Some(9), "{cost}");
        }
    }
}

#[test]
fn an_owner_gets_no_more_by_coming_and_going() {
    let mut pair = Pair::new();
    (1..3).for_each(|number| pair.push(number));
    let mut costs = [0_u32; 3];
    pair.push(0);
    for _ in 0..1000 {
        // The first owner's items are costly. The next one comes when there has been none for a while, which others have used.
        let cost = if pair.model.next() == Some(0) { 64 } else { 1 };
        let number = pair.serve(cost).unwrap();
        costs[number] += cost;
        if number != 0 {
            pair.push(number);
        }
        if costs[1] % 8 == 7 && !pair.model.has(0) {
            pair.push(0);
        }
    }
    assert!(costs[0] > 64 && costs[0] <= costs[1] + 64, "{costs:?}");
}
