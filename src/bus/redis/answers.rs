//! The commander's end of the queue of replies. The answer to a publication is told only when its copy has come over the
//! subscription, so such a reply goes over without a wake: the loop takes it in the turn that the copy causes. A wake of its own would
//! cost a turn with nothing to say, on the very core for which the subscriber waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::commander::Reply;
use super::port::RETRY;
use crate::inbox::InboxSender;

/// How long a reply may lie there that has woken nobody. Its copy may be lost, and what is asked then should not wait.
const UNWOKEN_MAX: Duration = Duration::from_millis(5);

/// How far a room was heard: the number of the last message that has come over its subscription. The subscriber sets it before it
/// wakes the loop for that message, so whoever finds a number not reached behind something that it has handed over itself
/// knows that a wake is still to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Heard {
    pub(super) fn reach(&self, seq: u64) {
        self.0.store(seq, Ordering::SeqCst);
    }

    pub(super) fn has_reached(&self, seq: u64) -> bool {
        self.0.load(Ordering::SeqCst) >= seq
    }
}

/// See the [module](self). It must be the only sender of its inbox.
///
/// **Bounds:** those of the inbox. Behind a full one it gathers; whoever makes it full has the loop woken.
pub(super) struct Answers {
    sender: InboxSender<Vec<Reply>>,
    batch: Vec<Reply>,
    /// Whether something in the batch is waited for.
    is_urgent: bool,
    /// The copies for which replies in the batch wait.
    copies: Vec<(Heard, u64)>,
    /// When the loop is woken for what has gone over without a wake.
    wake_at: Option<Instant>,
}

impl Answers {
    pub(super) fn new(sender: InboxSender<Vec<Reply>>) -> Self {
        Self { sender, batch: Vec::new(), is_urgent: false, copies: Vec::new(), wake_at: None }
    }

    /// Gathers a reply for which the loop is to be woken.
    pub(super) fn push(&mut self, reply: Reply) {
        self.batch.push(reply);
        self.is_urgent = true;
    }

    /// Gathers a reply with which nothing can be done before a copy has come: of the message `seq` in the room that is heard so far.
    pub(super) fn push_for_copy(&mut self, reply: Reply, heard: Heard, seq: u64) {
        self.batch.push(reply);
        self.copies.push((heard, seq));
    }

    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let retry = (!self.batch.is_empty()).then_some(RETRY);
        let wake = self.wake_at.map(|at| at.saturating_duration_since(now));
        retry.into_iter().chain(wake).min()
    }

    /// Hands over what was gathered, if the queue has space; otherwise it goes on being gathered.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.sender.is_empty() {
            // The copies have come, or something else.
            self.wake_at = None;
        } else if self.wake_at.is_some_and(|at| at <= now) {
            self.wake();
        }
        if self.batch.is_empty() || !self.sender.has_space() {
            return;
        }
        // A receiver that is gone needs nothing any more.
        let _ = self.sender.push_unwoken(std::mem::take(&mut self.batch));
        // Looked at behind the push: a copy that is heard only now has its wake to come.
        let is_heard = self.copies.iter().any(|(heard, seq)| heard.has_reached(*seq));
        if self.is_urgent || is_heard || !self.sender.has_space() {
            self.wake();
        } else {
            self.wake_at.get_or_insert(now + UNWOKEN_MAX);
        }
        self.is_urgent = false;
        self.copies.clear();
    }

    fn wake(&mut self) {
        self.wake_at = None;
        self.sender.wake();
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll, Token, Waker};

    use super::*;
    use crate::inbox::{Inbox, inbox};

    struct Bench {
        poll: Poll,
        answers: Answers,
        inbox: Inbox<Vec<Reply>>,
        now: Instant,
    }

    const BATCHES_MAX: usize = 3;

    fn reply(id: u64) -> Reply {
        Reply { id, result: Err("no") }
    }

    impl Bench {
        fn new() -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let (sender, inbox) = inbox(BATCHES_MAX, waker);
            Self { poll, answers: Answers::new(sender), inbox, now: Instant::now() }
        }

        /// Hands over a reply that waits for the copy of a message.
        fn wait_for_copy(&mut self, heard: &Heard, seq: u64) {
            self.answers.push_for_copy(reply(seq), heard.clone(), seq);
            self.answers.flush(self.now);
        }

        /// What the commander does when its time has come.
        fn sleep(&mut self) {
            self.now += self.answers.timeout(self.now).expect("something is to come");
            self.answers.flush(self.now);
        }

        fn is_woken(&mut self) -> bool {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        }

        /// What a turn of the loop finds.
        fn turn(&self) -> Vec<u64> {
            self.inbox.begin_drain();
            std::iter::from_fn(|| self.inbox.pop()).flatten().map(|reply| reply.id).collect()
        }
    }

    #[test]
    fn a_reply_that_waits_for_its_copy_wakes_nobody_and_is_found_by_the_next_turn() {
        let mut bench = Bench::new();
        let heard = Heard::default();
        heard.reach(6);
        bench.wait_for_copy(&heard, 7);
        assert!(!bench.is_woken());
        assert_eq!(bench.turn(), [7]);
        bench.sleep();
        assert!(!bench.is_woken(), "it was taken");
        assert_eq!(bench.answers.timeout(bench.now), None);
    }

    #[test]
    fn a_reply_that_nobody_takes_wakes_after_its_time_and_later_ones_do_not_put_that_off() {
        let mut bench = Bench::new();
        let heard = Heard::default();
        bench.wait_for_copy(&heard, 1);
        let first = bench.answers.timeout(bench.now).unwrap();
        assert_eq!(first, UNWOKEN_MAX);
        bench.now += first / 2;
        bench.wait_for_copy(&heard, 2);
        assert!(!bench.is_woken());
        assert_eq!(bench.answers.timeout(bench.now), Some(first - first / 2));
        bench.sleep();
        assert!(bench.is_woken());
        assert_eq!(bench.answers.timeout(bench.now), None, "once is enough");
        assert_eq!(bench.turn(), [1, 2]);
    }

    #[test]
    fn other_replies_wake_at_once_and_so_does_one_whose_copy_was_heard_before() {
        let mut bench = Bench::new();
        let heard = Heard::default();
        bench.answers.push(reply(1));
        bench.answers.flush(bench.now);
        assert!(bench.is_woken());
        assert_eq!(bench.turn(), [1]);

        bench.answers.push(reply(2));
        bench.wait_for_copy(&heard, 3);
        assert!(bench.is_woken(), "they go over together");
        assert_eq!(bench.turn(), [2, 3]);

        bench.wait_for_copy(&heard, 4);
        assert!(!bench.is_woken(), "what was urgent is gone");
        bench.answers.push(reply(5));
        bench.answers.flush(bench.now);
        assert!(bench.is_woken());
        assert_eq!(bench.turn(), [4, 5]);

        heard.reach(6);
        bench.wait_for_copy(&heard, 6);
        assert!(bench.is_woken(), "no other wake is to come");
        assert_eq!(bench.answers.timeout(bench.now), None);
        assert_eq!(bench.turn(), [6]);
    }

    #[test]
    fn who_makes_the_queue_full_wakes_and_what_finds_it_full_goes_over_later() {
        let mut bench = Bench::new();
        let heard = Heard::default();
        for seq in 1..=3 {
            assert!(!bench.is_woken());
            bench.wait_for_copy(&heard, seq);
        }
        assert!(bench.is_woken());
        bench.wait_for_copy(&heard, 4);
        bench.answers.push(reply(5));
        bench.sleep();
        assert!(!bench.is_woken());
        assert_eq!(bench.turn(), [1, 2, 3]);
        bench.sleep();
        assert!(bench.is_woken());
        assert_eq!(bench.turn(), [4, 5]);
    }
}
