//! The threads that ask the back-end and wait for its answers, one question each.
//!
//! A thread begins when a question comes and no other is idle, and ends when it has been idle for a while. The loop gives each
//! a question at a time, so neither end ever waits for the other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use mio::Waker;

use super::answer::{Failure, Reply};
use super::back_end::BackEnd;
use crate::inbox::{Inbox, InboxSender, inbox};

/// A thread that has found nothing to do twice, so long after each other, ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A question for a thread.
pub(super) struct Errand {
    pub(super) ticket: u64,
    pub(super) body: Vec<u8>,
    /// How long the answer may take.
    pub(super) time: Duration,
}

/// What a thread finds in its place.
enum Order {
    Ask(Errand),
    /// Put there by the thread itself: it ends, and takes no further question.
    Ended,
}

/// A thread, as the loop sees it.
struct AskingThread {
    /// Room for one order.
    place: Arc<ArrayQueue<Order>>,
    thread: Thread,
}

/// An answer, and the thread that brings it, which is idle from then on.
struct Delivery {
    ticket: u64,
    reply: Reply,
    thread: AskingThread,
}

/// What all threads share.
struct Shared {
    back_end: BackEnd,
    idle_max: Duration,
    is_dropped: AtomicBool,
}

/// The loop's end of the threads. When it is dropped, those that are idle end, and the others do after their answer.
pub(super) struct AskingThreads {
    shared: Arc<Shared>,
    /// The one that has been idle for the shortest time is last, so that those that are not needed end.
    idle: Vec<AskingThread>,
    deliveries: Inbox<Delivery>,
    sender: InboxSender<Delivery>,
}

impl AskingThreads {
    /// No threads yet, of which `max` may be under way. `waker` wakes the loop.
    pub(super) fn new(back_end: BackEnd, max: usize, waker: Arc<Waker>) -> Self {
        let shared = Arc::new(Shared { back_end, idle_max: IDLE_MAX, is_dropped: AtomicBool::new(false) });
        let (sender, deliveries) = inbox(max, waker);
        Self { shared, idle: Vec::new(), deliveries, sender }
    }

    /// Has a thread ask. The caller has no more under way than allowed.
    ///
    /// # Errors
    /// The system has no thread.
    pub(super) fn ask(&mut self, errand: Errand) -> io::Result<()> {
        let mut order = Order::Ask(errand);
        while let Some(idle) = self.idle.pop() {
            match idle.place.push(order) {
                Ok(()) => {
                    idle.thread.unpark();
                    return Ok(());
                }
                // It has ended meanwhile.
                Err(refused) => order = refused,
            }
        }
        let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
        let place = Arc::new(ArrayQueue::new(1));
        // An empty queue takes one.
        let _ = place.push(order);
        thread::Builder::new().name("roomcast-auth".to_owned()).spawn(move || work(&shared, &place, &sender)).map(drop)
    }

    /// The next answer.
    pub(super) fn poll(&mut self) -> Option<(u64, Reply)> {
        if self.deliveries.is_empty() {
            return None;
        }
        self.deliveries.begin_drain();
        let Delivery { ticket, reply, thread } = self.deliveries.pop()?;
        self.idle.push(thread);
        Some((ticket, reply))
    }
}

impl Drop for AskingThreads {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::SeqCst);
        self.idle.iter().for_each(|idle| idle.thread.unpark());
        // A thread whose answer is not there yet finds what was stored above.
        std::iter::from_fn(|| self.deliveries.pop()).for_each(|delivery| delivery.thread.thread.unpark());
    }
}

/// What a thread does.
fn work(shared: &Shared, place: &Arc<ArrayQueue<Order>>, sender: &InboxSender<Delivery>) {
    let mut was_idle = false;
    loop {
        match place.pop() {
            Some(Order::Ask(Errand { ticket, body, time })) => {
                // Whatever happens there, somebody waits for an answer.
                let asked = catch_unwind(AssertUnwindSafe(|| shared.back_end.ask(&body, time)));
                let reply = asked.unwrap_or_else(|_| Err(Failure::no_decision("asking it has failed")));
                let thread = AskingThread { place: Arc::clone(place), thread: thread::current() };
                // There is room for what is under way; without a server nobody wants it.
                let _ = sender.push(Delivery { ticket, reply, thread });
                was_idle = false;
            }
            Some(Order::Ended) => return,
            None if shared.is_dropped.load(Ordering::SeqCst) => return,
            None => {
                // If a question came before this call, it returns at once, and may find that the question is answered already.
                thread::park_timeout(shared.idle_max);
                // What is put there stays, so that no question can be lost behind it. If a question comes first there is no
                // room for it.
                if place.is_empty() && was_idle && place.push(Order::Ended).is_ok() {
                    return;
                }
                was_idle = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mio::{Poll, Token};

    use super::*;
    use crate::server::webhook::answer::FailureKind;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Threads that ask where nobody listens.
    fn threads(idle_max: Duration) -> (AskingThreads, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let back_end = BackEnd::new("http://127.0.0.1:1/", 4).unwrap();
        let mut threads = AskingThreads::new(back_end, 4, waker);
        Arc::get_mut(&mut threads.shared).unwrap().idle_max = idle_max;
        (threads, poll)
    }

    fn ask(threads: &mut AskingThreads, ticket: u64) {
        threads.ask(Errand { ticket, body: b"{}".to_vec(), time: PATIENCE }).unwrap();
    }

    fn wait_until(mut is_done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }

    fn answer(threads: &mut AskingThreads) -> u64 {
        let mut found = None;
        wait_until(|| {
            found = threads.poll();
            found.is_some()
        });
        let (ticket, reply) = found.unwrap();
        assert_eq!(reply.unwrap_err().kind, FailureKind::Unreachable);
        ticket
    }

    /// How many threads there are.
    fn count(threads: &AskingThreads) -> usize {
        Arc::strong_count(&threads.shared) - 1
    }

    #[test]
    fn a_thread_that_is_idle_is_used_again() {
        let (mut threads, _poll) = threads(PATIENCE);
        for ticket in 0..20 {
            ask(&mut threads, ticket);
            assert_eq!((answer(&mut threads), count(&threads)), (ticket, 1));
        }
        (20..24).for_each(|ticket| ask(&mut threads, ticket));
        let mut answered = [(); 4].map(|()| answer(&mut threads));
        answered.sort_unstable();
        assert_eq!((answered, count(&threads)), ([20, 21, 22, 23], 4));
    }

    #[test]
    fn a_thread_that_is_idle_for_long_ends_and_loses_no_question() {
        let (mut threads, _poll) = threads(Duration::from_millis(1));
        for ticket in 0..50 {
            ask(&mut threads, ticket);
            assert_eq!(answer(&mut threads), ticket);
            if ticket % 10 == 0 {
                wait_until(|| count(&threads) == 0);
            }
        }
    }

    #[test]
    fn threads_end_when_nobody_asks_any_more() {
        let (mut threads, _poll) = threads(Duration::from_secs(3600));
        ask(&mut threads, 0);
        answer(&mut threads);
        ask(&mut threads, 1);
        ask(&mut threads, 2);
        let shared = Arc::clone(&threads.shared);
        drop(threads);
        wait_until(|| Arc::strong_count(&shared) == 1);
    }
}
