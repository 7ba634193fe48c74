//! The sending end of a queue between the loop and a thread of the bus. What one turn produces is
//! one item, with one wake-up.

use std::time::Duration;

use crate::inbox::InboxSender;

/// How long a full queue is left alone.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

/// Gathers items. It has to be the only sender of its inbox.
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

    /// Whether all items have been sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sends the gathered items, if the queue has space. Otherwise they stay.
    pub(crate) fn flush(&mut self) {
        if !self.batch.is_empty() && self.sender.has_space() {
            // A receiver that is gone needs nothing.
            let _ = self.sender.push(std::mem::take(&mut self.batch));
        }
    }
}
