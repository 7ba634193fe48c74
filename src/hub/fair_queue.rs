//! Rooms that wait for their turn, in lines: one for each owner. The owners take turns by deficit round robin over sends, so
//! that many rooms of one owner hold up a room of another for a slice and not for all of theirs.
//!
//! A line has credit. The first line of the ring is served while its credit lasts; then it is given [`QUANTUM`] and goes to
//! the end. A slice is no longer than the quantum, so every line that is passed has credit again, and the next room is found
//! in constant time. Where there is one owner, its rooms have their turns in the order in which they came.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;
use slab::Slab;

use crate::owner::Owner;

use super::budget::SLICE_SENDS_MAX;
use super::index::RoomIndex;

/// Sends that an owner may make before it is another's turn.
const QUANTUM: i64 = SLICE_SENDS_MAX as i64;

/// Places for so many rooms are kept when all have had their turns.
const PLACES_KEPT_MAX: usize = 1024;

/// Where a room stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuePlace(u32);

/// A line in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineIndex(u32);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    places: Slab<Queued>,
    lines: Slab<Line>,
    by_owner: HashMap<Owner, LineIndex, FxBuildHasher>,
    /// All lines, first the one whose turn it is. A line that has become empty leaves when its turn comes.
    ring: VecDeque<LineIndex>,
}

/// A room in a line, and its neighbours.
#[derive(Debug)]
struct Queued {
    room: RoomIndex,
    line: LineIndex,
    before: Option<QueuePlace>,
    behind: Option<QueuePlace>,
}

/// The rooms of an owner.
#[derive(Debug)]
struct Line {
    owner: Owner,
    /// Sends that the owner may make until it is another's turn.
    credit: i64,
    first: Option<QueuePlace>,
    last: Option<QueuePlace>,
}

impl FairQueue {
    /// Whether no room waits.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A room waits from now on, behind those of its owner.
    pub(super) fn push(&mut self, owner: Owner, room: RoomIndex) -> QueuePlace {
        let index = self.line_of(owner);
        let line = &mut self.lines[index.0 as usize];
        let queued = Queued { room, line: index, before: line.last, behind: None };
        let place = QueuePlace(self.places.insert(queued) as u32);
        match line.last.replace(place) {
            Some(last) => self.places[last.0 as usize].behind = Some(place),
            None => line.first = Some(place),
        }
        place
    }

    /// The line of an owner; a new one comes last.
    fn line_of(&mut self, owner: Owner) -> LineIndex {
        let Self { lines, ring, by_owner, .. } = self;
        *by_owner.entry(owner).or_insert_with(|| {
            let index = LineIndex(lines.insert(Line { owner, credit: QUANTUM, first: None, last: None }) as u32);
            ring.push_back(index);
            index
        })
    }

    /// The room whose turn it is waits no longer. What its slice has cost is told by [`FairQueue::charge`] before the next one.
    pub(super) fn pop(&mut self) -> Option<(RoomIndex, Owner)> {
        loop {
            let index = *self.ring.front()?;
            let line = &mut self.lines[index.0 as usize];
            let owner = line.owner;
            let Some(first) = line.first else {
                self.drop_first_line(owner);
                continue;
            };
            if line.credit > 0 {
                return Some((self.remove(first), owner));
            }
            line.credit += QUANTUM;
            self.ring.rotate_left(1);
        }
    }

    /// The slice of the room that was popped last made so many sends.
    pub(super) fn charge(&mut self, sends: u32) {
        if let Some(index) = self.ring.front() {
            self.lines[index.0 as usize].credit -= i64::from(sends);
        }
    }

    /// A room waits no longer.
    pub(super) fn remove(&mut self, place: QueuePlace) -> RoomIndex {
        let Queued { room, line, before, behind } = self.places.remove(place.0 as usize);
        let line = &mut self.lines[line.0 as usize];
        match before {
            Some(before) => self.places[before.0 as usize].behind = behind,
            None => line.first = behind,
        }
        match behind {
            Some(behind) => self.places[behind.0 as usize].before = before,
            None => line.last = before,
        }
        room
    }

    fn drop_first_line(&mut self, owner: Owner) {
        if let Some(index) = self.ring.pop_front() {
            self.lines.remove(index.0 as usize);
            self.by_owner.remove(&owner);
        }
        if self.ring.is_empty() && self.places.capacity() > PLACES_KEPT_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests;
