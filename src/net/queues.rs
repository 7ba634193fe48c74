//! Which connections wait for something to be done in a turn.

use std::collections::VecDeque;

use crate::id::{ConnectionId, Slot};

/// So many slots a list may have room for while it is empty.
const KEPT_MAX: usize = 4096;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Slots with something to read, each once, in the order in which they are read.
    pub(super) ready: VecDeque<Slot>,
    /// Slots whose write buffer is to be written, or whose sockets were found to take bytes again, each once.
    pub(super) dirty: VecDeque<Slot>,
    /// Slots whose connections are gone.
    pub(super) gone: VecDeque<Slot>,
    /// The connections that were accepted when there were as many as WebSockets may be, oldest first. Some have gone since.
    pub(super) spares: VecDeque<ConnectionId>,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.dirty.is_empty() && self.gone.is_empty()
    }

    /// Gives back memory: a crowd that came or went at once has made them long.
    pub(super) fn shrink(&mut self) {
        for list in [&mut self.ready, &mut self.dirty, &mut self.gone] {
            if list.is_empty() && list.capacity() > KEPT_MAX {
                *list = VecDeque::new();
            }
        }
    }
}
