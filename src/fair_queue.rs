//! Items that wait for their turn, in lines: one for each owner. The owners take turns by start-time fair queueing (Goyal, Vin and
//! Cheng 1996) over what serving costs, so that much of one owner holds up a little of another for one item and not for all of it.
//!
//! A line has a tag: what had been served of each owner when its next item may start. The line with the lowest tag is
//! served, and its tag then grows by what that has cost. A line that becomes busy starts where the queue stands, before others
//! that stand there: an owner that wants little and rarely waits for the item that is being served, and for no other. It starts
//! later if its own tag is ahead. So nobody gets more by coming and going. The next item is found in the logarithm of the
//! number of owners. Where there is one owner, its items have their turns in the order in which they came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rustc_hash::FxBuildHasher;
use slab::Slab;

use crate::owner::Owner;

/// Places for so many items are kept when all have had their turns.
const PLACES_KEPT_MAX: usize = 1024;

/// Where an item stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuePlace(u32);

/// The line of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LineIndex(u32);

/// When a line has its turn: the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    tag: u64,
    /// Of lines with the same tag, those come first that have not been served.
    was_served: bool,
    /// Of these or those, the one that has had its tag for longest comes first.
    order: u64,
    line: LineIndex,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    places: Slab<Queued<T>>,
    lines: Slab<Line>,
    by_owner: HashMap<Owner, LineIndex, FxBuildHasher>,
    /// Every line once, but for the one below. A line that has become empty leaves when its turn comes, for it may be ahead until
    /// then.
    turns: BinaryHeap<Reverse<Turn>>,
    /// The turn of the item that was popped last, which has not been charged yet.
    served: Option<Turn>,
    /// The tag of the line that was served last.
    reached: u64,
    /// How many turns were given.
    given: u64,
}

/// An item in a line, and its neighbours.
#[derive(Debug)]
struct Queued<T> {
    item: T,
    line: LineIndex,
    before: Option<QueuePlace>,
    behind: Option<QueuePlace>,
}

/// The items of an owner that wait.
#[derive(Debug)]
struct Line {
    owner: Owner,
    first: Option<QueuePlace>,
    last: Option<QueuePlace>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            places: Slab::new(),
            lines: Slab::new(),
            by_owner: HashMap::default(),
            turns: BinaryHeap::new(),
            served: None,
            reached: 0,
            given: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// An item waits from now on, behind those of its owner.
    pub(crate) fn push(&mut self, owner: Owner, item: T) -> QueuePlace {
        let index = self.line_of(owner);
        let line = &mut self.lines[index.0 as usize];
        let queued = Queued { item, line: index, before: line.last, behind: None };
        let place = QueuePlace(self.places.insert(queued) as u32);
        match line.last.replace(place) {
            Some(last) => self.places[last.0 as usize].behind = Some(place),
            None => line.first = Some(place),
        }
        place
    }

    /// The line of an owner, new or not.
    fn line_of(&mut self, owner: Owner) -> LineIndex {
        let Self { lines, by_owner, turns, reached, given, .. } = self;
        *by_owner.entry(owner).or_insert_with(|| {
            let line = LineIndex(lines.insert(Line { owner, first: None, last: None }) as u32);
            *given += 1;
            turns.push(Reverse(Turn { tag: *reached, was_served: false, order: *given, line }));
            line
        })
    }

    /// The item whose turn it is waits no longer. [`FairQueue::charge`] tells the cost of serving it before the next one.
    pub(crate) fn pop(&mut self) -> Option<(T, Owner)> {
        self.charge(0);
        if self.is_empty() {
            self.forget_lines();
        }
        while let Some(Reverse(turn)) = self.turns.pop() {
            let Line { owner, first, .. } = self.lines[turn.line.0 as usize];
            if let Some(first) = first {
                self.reached = turn.tag;
                self.served = Some(turn);
                return Some((self.remove(first), owner));
            }
            self.drop_line(turn.line);
        }
        None
    }

    /// Serving the item that was popped last has cost so much.
    pub(crate) fn charge(&mut self, cost: u32) {
        if let Some(Turn { tag, line, .. }) = self.served.take() {
            self.given += 1;
            let turn = Turn { tag: tag + u64::from(cost), was_served: true, order: self.given, line };
            self.turns.push(Reverse(turn));
        }
    }

    /// An item waits no longer.
    pub(crate) fn remove(&mut self, place: QueuePlace) -> T {
        let Queued { item, line, before, behind } = self.places.remove(place.0 as usize);
        let line = &mut self.lines[line.0 as usize];
        match before {
            Some(before) => self.places[before.0 as usize].behind = behind,
            None => line.first = behind,
        }
        match behind {
            Some(behind) => self.places[behind.0 as usize].before = before,
            None => line.last = before,
        }
        item
    }

    fn drop_line(&mut self, index: LineIndex) {
        let line = self.lines.remove(index.0 as usize);
        self.by_owner.remove(&line.owner);
    }

    /// Nobody waits, so nobody has to wait for what others have cost.
    fn forget_lines(&mut self) {
        while let Some(Reverse(turn)) = self.turns.pop() {
            self.drop_line(turn.line);
        }
        (self.reached, self.given) = (0, 0);
        if self.places.capacity() > PLACES_KEPT_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests;
