//! The way for other threads to the loop: a bounded queue without locks, and the host's waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use mio::Waker;

/// Why something could not be put into an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The loop is behind; try again later.
    #[error("inbox is full; try again later")]
    Full,
    /// The receiving end was dropped.
    #[error("the server is gone")]
    Closed,
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    woken: AtomicBool,
    closed: AtomicBool,
    waker: Arc<Waker>,
}

/// The loop's end: what other threads have sent.
pub(crate) struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

/// Another thread's end.
pub(crate) struct InboxSender<T> {
    shared: Arc<Shared<T>>,
}

/// Makes an inbox that holds `messages_max` and wakes `waker`'s poll.
pub(crate) fn inbox<T>(messages_max: usize, waker: Arc<Waker>) -> (InboxSender<T>, Inbox<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(messages_max),
        woken: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        waker,
    });
    (InboxSender { shared: Arc::clone(&shared) }, Inbox { shared })
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> InboxSender<T> {
    /// Puts a message in, and wakes the loop unless a wake is already under way.
    ///
    /// # Errors
    /// [`PushError`]; the message is lost then, so keep a copy if it matters.
    pub(crate) fn push(&self, message: T) -> Result<(), PushError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(PushError::Closed);
        }
        self.shared.queue.push(message).map_err(|_| PushError::Full)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // Only the sender that sets the flag makes the system call. The loop clears the flag before it
        // drains, so a message that is pushed after the drain has begun causes another wake.
        if !self.shared.woken.swap(true, Ordering::AcqRel) && self.shared.waker.wake().is_err() {
            self.shared.woken.store(false, Ordering::Release);
        }
    }

    /// Whether the queue has space. A sole sender can rely on it for the next [`InboxSender::push`].
    #[cfg(feature = "redis")]
    pub(crate) fn has_space(&self) -> bool {
        !self.shared.queue.is_full()
    }
}

impl<T> Inbox<T> {
    /// To be called before [`Inbox::pop`]ing what is there.
    pub(crate) fn begin_drain(&self) {
        self.shared.woken.store(false, Ordering::Release);
    }

    /// The oldest message.
    pub(crate) fn pop(&self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    #[test]
    fn messages_arrive_in_order_with_one_wake_a_batch() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, inbox) = inbox::<u32>(4, waker);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..4).for_each(|i| sender.push(i).unwrap()));
        });
        assert_eq!(sender.push(9), Err(PushError::Full));
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().count(), 1);
        inbox.begin_drain();
        assert_eq!(std::iter::from_fn(|| inbox.pop()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        drop(inbox);
        assert_eq!(sender.push(9), Err(PushError::Closed));
    }
}
