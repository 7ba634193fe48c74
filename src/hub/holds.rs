//! What keeps bytes in a room's log: cursors of blocked members, and places where readers of pages will go on. Ordered by
//! where they stand, so that neither the lowest nor the one that changes is searched for.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::room_log::Offset;
use crate::steps;

use super::index::{CatchUpIndex, LiveIndex};

/// Somebody holds the log from an offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold<I> {
    offset: Offset,
    holder: I,
}

/// Offsets count modulo 2^32. Those of one log lie within a gibibyte, where this is an order.
impl<I: Ord> Ord for Hold<I> {
    fn cmp(&self, other: &Self) -> Ordering {
        steps::note(1);
        match self.offset.behind(other.offset) as u32 {
            0 => self.holder.cmp(&other.holder),
            behind if behind < 1 << 31 => Ordering::Less,
            _ => Ordering::Greater,
        }
    }
}

impl<I: Ord> PartialOrd for Hold<I> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Holders by where they hold the log. A holder is there at most once.
#[derive(Debug)]
pub(super) struct HoldersOf<I>(BTreeSet<Hold<I>>);

impl<I> Default for HoldersOf<I> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<I: Ord + Copy> HoldersOf<I> {
    pub(super) fn insert(&mut self, offset: Offset, holder: I) {
        self.0.insert(Hold { offset, holder });
    }

    pub(super) fn remove(&mut self, offset: Offset, holder: I) {
        self.0.remove(&Hold { offset, holder });
    }

    pub(super) fn lowest(&self) -> Option<Offset> {
        self.0.first().map(|hold| hold.offset)
    }

    /// One of the lowest holders.
    pub(super) fn first(&self) -> Option<I> {
        self.0.first().map(|hold| hold.holder)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = I> {
        self.0.iter().map(|hold| hold.holder)
    }
}

/// Both kinds of holders of a room's log.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) blocked: HoldersOf<LiveIndex>,
    pub(super) pinned: HoldersOf<CatchUpIndex>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_found_where_offsets_wrap() {
        let mut holders = HoldersOf::default();
        let front = Offset::default().forward(u32::MAX as usize - 50);
        for at in [70, 0, 100, 30] {
            holders.insert(front.forward(at), LiveIndex(at as u32));
        }
        assert_eq!((holders.lowest(), holders.first()), (Some(front), Some(LiveIndex(0))));
        holders.remove(front, LiveIndex(0));
        assert_eq!(holders.lowest(), Some(front.forward(30)));
        // Two at one place.
        holders.insert(front.forward(30), LiveIndex(7));
        holders.remove(front.forward(30), LiveIndex(30));
        assert!(holders.iter().eq([7, 70, 100].map(LiveIndex)));
        assert!(!holders.is_empty());
    }
}
