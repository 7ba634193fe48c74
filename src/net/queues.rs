//! Which connections wait for something to be done in a turn.

use std::collections::VecDeque;

use crate::fair_queue::FairQueue;
use crate::id::{ConnectionId, Slot};
use crate::owner::Owner;

/// So many slots a list may have room for while it is empty.
const KEPT_MAX: usize = 4096;

/// Connections that wait for one kind of work, each once. The addresses that they come from take turns.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Those that began to wait after the work of the last turn, which have no place yet: nobody has two turns in one.
    recent: Vec<Slot>,
    queue: FairQueue<Slot>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Slots with something to read, in the order in which they are read.
    pub(super) ready: Waiting,
    /// Slots whose write buffer is to be written, or whose sockets were found to take bytes again.
    pub(super) dirty: Waiting,
    /// Slots whose connections are gone.
    pub(super) gone: VecDeque<Slot>,
    /// The connections that were accepted when there were as many as WebSockets may be, oldest first. Some have gone since.
    pub(super) spares: VecDeque<ConnectionId>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.queue.is_empty()
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.recent.push(slot);
    }

    /// The work of a turn begins: all that wait get their place. Says how many there are.
    pub(super) fn begin(&mut self, owner: impl Fn(Slot) -> Owner) -> usize {
        for slot in self.recent.drain(..) {
            self.queue.push(owner(slot), slot);
        }
        if self.recent.capacity() > KEPT_MAX {
            self.recent = Vec::new();
        }
        self.queue.len()
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.queue.pop().map(|(slot, _)| slot)
    }

    /// The work for the connection that was popped last was so many units.
    pub(super) fn charge(&mut self, units: u32) {
        self.queue.charge(units);
    }
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.dirty.is_empty() && self.gone.is_empty()
    }

    /// Gives back memory: a crowd that came or went at once has made the list long.
    pub(super) fn shrink(&mut self) {
        if self.gone.is_empty() && self.gone.capacity() > KEPT_MAX {
            self.gone = VecDeque::new();
        }
    }
}
