//! One end of a queue between the loop and a thread of the bus: what one turn produces goes over as one item, with one wake.

use std::time::Duration;

use crate::inbox::InboxSender;

/// How long a full queue is left alone.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

/// Gathers items. It must be the only sender of its inbox.
pub(crate) struct BatchSender<T> {
    sender: InboxSender<Vec<T>>,
    batch: Vec<T>,
}

impl<T> BatchSender<T> {
    pub(crate) fn new(sender: InboxSender<Vec<T>>) -> Self {
        Self { sender, batch: Vec::new() }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.batch.push(item);
    }

    /// Whether nothing waits to go over.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sends what was gathered, if the queue has space; otherwise it goes on being gathered.
    pub(crate) fn flush(&mut self) {
        if !self.batch.is_empty() && self.sender.has_space() {
            // A receiver that is gone needs nothing any more.
            let _ = self.sender.push(std::mem::take(&mut self.batch));
        }
    }
}
