//! A thread that works for a bus, and the queues between it and the loop.
//!
//! What a turn of the loop asks is one item of a queue and one wake of the thread, and what a turn
//! of the thread answers is one item and one wake of the loop. Neither end ever waits for the
//! other: behind a full queue, a sender gathers and tries again.
//!
//! The loop contract in one sentence: *call [`Worker::begin_turn`], push requests and take batches
//! of responses, call [`Worker::flush`], sleep no longer than [`Worker::timeout`].* A [`Task`] is
//! what the thread does.

#![expect(clippy::disallowed_methods, reason = "runs on a thread of the bus, which has its own clock")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::inbox::{Inbox, InboxSender, inbox};

/// How long a full queue is left alone.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

/// How long the last requests of a bus that was dropped may take.
const LAST_REQUESTS_MAX: Duration = Duration::from_millis(200);

/// Batches of responses that the loop takes in a turn. The rest waits for the next turn.
pub(crate) const BATCHES_PER_TURN: usize = 8;

/// The token by which the poll of the thread reports that the loop has woken it.
const WAKE: Token = Token(0);

/// The work of a thread.
pub(crate) trait Task: Send + 'static {
    /// How long the thread may sleep.
    fn timeout(&self, now: Instant) -> Duration;

    /// Takes the requests that have come, and does what is due. `events` is what the poll has
    /// reported.
    fn turn(&mut self, now: Instant, events: &Events);

    /// Whether the last requests of a bus that was dropped need no further turn. The thread ends
    /// then, or 200 ms after the drop.
    fn is_done(&self) -> bool {
        true
    }

    /// The thread ends.
    fn end(&mut self) {}
}

/// Batches that the queues of a worker hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueBounds {
    pub(crate) requests: usize,
    pub(crate) responses: usize,
}

/// The loop's end. When it is dropped, the thread is told what was pushed, and ends.
pub(crate) struct Worker<Request, Response> {
    requests: BatchSender<Request>,
    responses: Inbox<Vec<Response>>,
    batches_left: usize,
    waker: Arc<Waker>,
    is_dropped: Arc<AtomicBool>,
}

/// The thread's end of the queues, which its task uses.
pub(crate) struct Queues<Request, Response> {
    pub(crate) requests: Inbox<Vec<Request>>,
    pub(crate) responses: BatchSender<Response>,
}

/// A thread that has not begun yet.
pub(crate) struct WorkerThread {
    pub(crate) poll: Poll,
    /// Wakes the thread.
    pub(crate) waker: Arc<Waker>,
    is_dropped: Arc<AtomicBool>,
}

/// The loop's end, the thread, and what the task of the thread is made with.
pub(crate) type WorkerParts<Request, Response> = (Worker<Request, Response>, WorkerThread, Queues<Request, Response>);

/// Makes a worker. `loop_waker` wakes the loop.
///
/// # Errors
/// There is no file descriptor left for the poll of the thread.
pub(crate) fn worker<Request, Response>(
    bounds: QueueBounds,
    loop_waker: Arc<Waker>,
) -> io::Result<WorkerParts<Request, Response>> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let is_dropped = Arc::new(AtomicBool::new(false));
    let (to_thread, requests) = inbox(bounds.requests, Arc::clone(&waker));
    let (to_loop, responses) = inbox(bounds.responses, loop_waker);
    let worker = Worker {
        requests: BatchSender::new(to_thread),
        responses,
        batches_left: BATCHES_PER_TURN,
        waker: Arc::clone(&waker),
        is_dropped: Arc::clone(&is_dropped),
    };
    Ok((worker, WorkerThread { poll, waker, is_dropped }, Queues { requests, responses: BatchSender::new(to_loop) }))
}

impl<Request, Response> Worker<Request, Response> {
    pub(crate) fn begin_turn(&mut self) {
        self.batches_left = BATCHES_PER_TURN;
        self.responses.begin_drain();
    }

    pub(crate) fn push(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Hands over what was pushed, if the queue has space. Otherwise it stays.
    pub(crate) fn flush(&mut self) {
        self.requests.flush();
    }

    /// The next batch of responses, unless this turn has taken as many as it may.
    pub(crate) fn take_batch(&mut self) -> Option<Vec<Response>> {
        if self.batches_left == 0 {
            return None;
        }
        let batch = self.responses.pop()?;
        self.batches_left -= 1;
        Some(batch)
    }

    /// How long until a turn has something to do here without being woken.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if self.batches_left == 0 && !self.responses.is_empty() {
            return Some(Duration::ZERO);
        }
        (!self.requests.is_empty()).then_some(RETRY)
    }
}

impl<Request, Response> Drop for Worker<Request, Response> {
    /// Waits for nothing: the thread ends by itself.
    fn drop(&mut self) {
        self.requests.flush();
        self.is_dropped.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

impl WorkerThread {
    /// Starts the thread. Linux shows 15 bytes of its name.
    pub(crate) fn spawn(self, name: &str, task: impl Task) -> io::Result<()> {
        thread::Builder::new().name(name.to_owned()).spawn(move || self.run(task))?;
        Ok(())
    }

    /// Works until the bus is dropped and its last requests are done.
    fn run(mut self, mut task: impl Task) {
        let mut events = Events::with_capacity(16);
        let mut ends_at = None;
        loop {
            let mut timeout = task.timeout(Instant::now());
            if self.is_dropped.load(Ordering::Acquire) {
                // Requests that were pushed before the drop are in the inbox by now.
                events.clear();
                let now = Instant::now();
                task.turn(now, &events);
                if task.is_done() || now >= *ends_at.get_or_insert(now + LAST_REQUESTS_MAX) {
                    break;
                }
                timeout = timeout.min(RETRY);
            }
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the thread {} ends: {error}", thread::current().name().unwrap_or_default());
                break;
            }
            task.turn(Instant::now(), &events);
        }
        task.end();
    }
}

/// The sending end of a queue. It gathers items and sends them as one, with one wake.
pub(crate) struct BatchSender<T> {
    /// Nobody else sends to this inbox, so its space can be relied on.
    sender: InboxSender<Vec<T>>,
    batch: Vec<T>,
}

impl<T> BatchSender<T> {
    fn new(sender: InboxSender<Vec<T>>) -> Self {
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

/// One blocking call on a thread of its own, such as looking up a name. If it is dropped, its
/// thread ends when the call returns.
pub(crate) struct Lookup<T> {
    answer: Inbox<io::Result<T>>,
}

impl<T: Send + 'static> Lookup<T> {
    /// Starts a thread that runs `find`. `waker` is woken when the result is there.
    pub(crate) fn start(waker: &Arc<Waker>, find: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<Self> {
        let (sender, answer) = inbox(1, Arc::clone(waker));
        thread::Builder::new().name("bus-lookup".to_owned()).spawn(move || {
            // The receiver may be gone.
            let _ = sender.push(find());
        })?;
        Ok(Self { answer })
    }

    /// The result, once.
    pub(crate) fn poll(&self) -> Option<io::Result<T>> {
        self.answer.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Answers each request with its double, and says when it ends.
    struct Doubler {
        queues: Queues<u32, u32>,
        ended: mpsc::Sender<u32>,
        batches: u32,
        /// Turns that are wanted after the drop.
        turns_left: u32,
    }

    impl Task for Doubler {
        fn timeout(&self, _now: Instant) -> Duration {
            if self.queues.responses.is_empty() { LONG } else { RETRY }
        }

        fn turn(&mut self, _now: Instant, _events: &Events) {
            self.turns_left = self.turns_left.saturating_sub(1);
            self.queues.requests.begin_drain();
            while let Some(batch) = self.queues.requests.pop() {
                self.batches += 1;
                batch.into_iter().for_each(|number| self.queues.responses.push(2 * number));
            }
            self.queues.responses.flush();
        }

        fn is_done(&self) -> bool {
            self.turns_left == 0
        }

        fn end(&mut self) {
            self.ended.send(self.batches).unwrap();
        }
    }

    struct Bench {
        poll: Poll,
        worker: Worker<u32, u32>,
        end: mpsc::Receiver<u32>,
    }

    const BOUNDS: QueueBounds = QueueBounds { requests: 2, responses: BATCHES_PER_TURN + 1 };

    /// The loop's end, and the thread with its task, which the test starts.
    fn bench(turns_left: u32) -> (Bench, WorkerThread, Doubler) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let (worker, thread, queues) = worker(BOUNDS, waker).unwrap();
        let (ended, end) = mpsc::channel();
        (Bench { poll, worker, end }, thread, Doubler { queues, ended, batches: 0, turns_left })
    }

    /// How many events a poll reports now.
    fn wakes(poll: &mut Poll, timeout: Duration) -> usize {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(timeout)).unwrap();
        events.iter().count()
    }

    #[test]
    fn the_requests_of_a_turn_are_one_batch_and_one_wake_and_so_are_the_responses() {
        let (mut bench, mut thread, mut task) = bench(0);
        (0..3).for_each(|number| bench.worker.push(number));
        assert_eq!(wakes(&mut thread.poll, Duration::ZERO), 0, "gathered, not sent");
        bench.worker.flush();
        assert_eq!(wakes(&mut thread.poll, LONG), 1);
        task.turn(Instant::now(), &Events::with_capacity(1));
        assert_eq!((task.batches, wakes(&mut bench.poll, LONG)), (1, 1));
        bench.worker.begin_turn();
        assert_eq!((bench.worker.take_batch(), bench.worker.take_batch()), (Some(vec![0, 2, 4]), None));
        bench.worker.flush();
        assert_eq!(wakes(&mut thread.poll, Duration::ZERO), 0, "there was nothing to send");
    }

    #[test]
    fn behind_a_full_queue_requests_gather_and_go_over_as_one_batch_later() {
        let (mut bench, _thread, mut task) = bench(0);
        for number in 0..BOUNDS.requests as u32 + 2 {
            assert_eq!(bench.worker.timeout(), (number > BOUNDS.requests as u32).then_some(RETRY));
            bench.worker.push(number);
            bench.worker.flush();
        }
        task.turn(Instant::now(), &Events::with_capacity(1));
        bench.worker.flush();
        assert_eq!(bench.worker.timeout(), None);
        task.turn(Instant::now(), &Events::with_capacity(1));
        let batches: Vec<_> = std::iter::from_fn(|| bench.worker.take_batch()).collect();
        assert_eq!((task.batches, batches), (3, vec![vec![0, 2], vec![4, 6]]));
    }

    #[test]
    fn a_turn_takes_a_bounded_number_of_batches_and_wants_another_turn_for_the_rest() {
        let (mut bench, _thread, mut task) = bench(0);
        for number in 0..=BATCHES_PER_TURN as u32 {
            task.queues.responses.push(number);
            task.queues.responses.flush();
        }
        bench.worker.begin_turn();
        assert_eq!(std::iter::from_fn(|| bench.worker.take_batch()).count(), BATCHES_PER_TURN);
        assert_eq!(bench.worker.timeout(), Some(Duration::ZERO));
        bench.worker.begin_turn();
        assert_eq!(std::iter::from_fn(|| bench.worker.take_batch()).count(), 1);
        assert_eq!(bench.worker.timeout(), None);
    }

    #[test]
    fn a_worker_that_is_dropped_hands_over_its_last_requests_and_its_thread_ends() {
        let (mut bench, thread, task) = bench(2);
        thread.spawn("doubler", task).unwrap();
        bench.worker.push(7);
        drop(bench.worker);
        assert_eq!(bench.end.recv_timeout(LONG), Ok(1));
    }

    #[test]
    fn a_task_that_is_never_done_does_not_keep_its_thread() {
        let (bench, thread, task) = bench(u32::MAX);
        thread.spawn("doubler", task).unwrap();
        drop(bench.worker);
        assert_eq!(bench.end.recv_timeout(LONG), Ok(0));
    }
}
