//! Items that wait for their turn, in lines: one for each owner. The owners take turns by deficit round robin over what serving costs,
//! so that much of one owner holds up a little of another for a slice and not for all of it.
//!
//! A line has credit. The first line of the ring is served while its credit lasts; then it is given a quantum and goes to
//! the end. A slice costs no more than the quantum, or not much more, so a line that is passed has credit again soon, and the
//! next item is found in constant time. Where there is one owner, its items have their turns in the order in which they came.
//!
//! A new line is served before the ring, for a quantum: an owner that wants little and rarely waits for no others. It then has
//! its turn in the ring, empty or not, before it counts as new again.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;
use slab::Slab;

use crate::owner::Owner;

/// Places for so many items are kept when all have had their turns.
const PLACES_KEPT_MAX: usize = 1024;

/// Where an item stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuePlace(u32);

/// The line of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineIndex(u32);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// The most that an owner's items may cost before it is another's turn.
    quantum: u32,
    places: Slab<Queued<T>>,
    lines: Slab<Line>,
    by_owner: HashMap<Owner, LineIndex, FxBuildHasher>,
    /// Lines that have not had their turn yet, the oldest first.
    new: VecDeque<LineIndex>,
    /// All others, first the one whose turn it is. A line that has become empty leaves when its turn comes.
    ring: VecDeque<LineIndex>,
    /// The line of the item that was popped last.
    served: Option<LineIndex>,
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
    /// The most that the owner's items may cost until it is another's turn.
    credit: i64,
    first: Option<QueuePlace>,
    last: Option<QueuePlace>,
}

impl<T> FairQueue<T> {
    pub(crate) fn new(quantum: u32) -> Self {
        Self {
            quantum,
            places: Slab::new(),
            lines: Slab::new(),
            by_owner: HashMap::default(),
            new: VecDeque::new(),
            ring: VecDeque::new(),
            served: None,
        }
    }

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
        let Self { quantum, lines, new, by_owner, .. } = self;
        *by_owner.entry(owner).or_insert_with(|| {
            let line = Line { owner, credit: (*quantum).into(), first: None, last: None };
            let index = LineIndex(lines.insert(line) as u32);
            new.push_back(index);
            index
        })
    }

    /// The item whose turn it is waits no longer. [`FairQueue::charge`] tells the cost of serving it before the next one.
    pub(crate) fn pop(&mut self) -> Option<(T, Owner)> {
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.ring };
            let index = *list.front()?;
            let line = &mut self.lines[index.0 as usize];
            let owner = line.owner;
            match line.first {
                Some(first) if line.credit > 0 => {
                    self.served = Some(index);
                    return Some((self.remove(first), owner));
                }
                None if !is_new => {
                    self.drop_first_line(owner);
                    continue;
                }
                Some(_) => line.credit += i64::from(self.quantum),
                None => {}
            }
            list.pop_front();
            self.ring.push_back(index);
        }
    }

    /// Serving the item that was popped last has cost so much.
    pub(crate) fn charge(&mut self, cost: u32) {
        if let Some(line) = self.served.take().and_then(|index| self.lines.get_mut(index.0 as usize)) {
            line.credit -= i64::from(cost);
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

    fn drop_first_line(&mut self, owner: Owner) {
        if let Some(index) = self.ring.pop_front() {
            self.lines.remove(index.0 as usize);
            self.by_owner.remove(&owner);
        }
        if self.lines.is_empty() && self.places.capacity() > PLACES_KEPT_MAX {
            *self = Self::new(self.quantum);
        }
    }
}

#[cfg(test)]
mod tests;
