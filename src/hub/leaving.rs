//! Members that have asked to leave while the log held something for them.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{Epoch, Slot};
use crate::steps;

/// A member that asked to leave while the log held something for it.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) id: Option<Box<str>>,
    pub(super) then: AfterLeave,
}

/// The request that a member sent behind a `leave` that is not answered yet.
#[derive(Debug)]
pub(super) enum AfterLeave {
    Nothing,
    /// To join again, which begins after `left`.
    Join(Rejoin),
    /// To join and to leave again. The second `leave`, with this id, is answered right after the first.
    Leave(Option<Box<str>>),
}

/// A `join` that waits for a `leave`.
#[derive(Debug)]
pub(super) struct Rejoin {
    pub(super) id: Option<Box<str>>,
    /// The position to resume after.
    pub(super) since: Option<(Epoch, u64)>,
    pub(super) history: u32,
}

/// Those of a room, by slot.
#[derive(Debug, Default)]
pub(super) struct Leavers {
    /// Boxed, because a node of the tree has room for eleven.
    by_slot: BTreeMap<Slot, Box<Leaving>>,
    /// Those that had read the whole log when they asked, and wait for messages on their way to the bus. Others may have
    /// gone meanwhile.
    level: VecDeque<Slot>,
}

impl Leavers {
    pub(super) fn insert(&mut self, slot: Slot, leaving: Leaving, is_level: bool) {
        self.by_slot.insert(slot, Box::new(leaving));
        if is_level {
            self.level.push_back(slot);
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Leaving> {
        steps::note(1);
        self.by_slot.get(&slot).map(|leaving| &**leaving)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Leaving> {
        self.by_slot.get_mut(&slot).map(|leaving| &mut **leaving)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Leaving> {
        steps::note(1);
        self.by_slot.remove(&slot).map(|leaving| *leaving)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    pub(super) fn take_level(&mut self, max: usize) -> Vec<Slot> {
        let count = max.min(self.level.len());
        steps::note(count as u64);
        self.level.drain(..count).collect()
    }

    pub(super) fn has_level(&self) -> bool {
        !self.level.is_empty()
    }
}
