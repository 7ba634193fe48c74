//! The thread that sends requests to Redis, pipelined over a link to each master in the order in
//! which they came.
//!
//! Requests that are unanswered when a link is lost are sent again in order; the publishing
//! script recognises a publication that was accepted before. A request that cannot be answered
//! within the hold time fails.

use std::time::{Duration, Instant};

use mio::Events;

use super::paused_slots::PausedSlots;
use super::pipeline::{Pipeline, PipelineContext, QueuedRequest};
use super::request::Request;
use crate::bus::redis::cluster::{ConnectionPool, Master};
use crate::bus::redis::connection::LinkChange;
use crate::bus::worker::{RETRY, Task};
use crate::inbox::Inbox;

/// How often expired requests are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct CommandThread {
    pool: ConnectionPool<Pipeline>,
    paused: PausedSlots,
    requests: Inbox<Vec<Request>>,
    /// How many requests have come.
    accepted: u64,
    context: PipelineContext,
}

impl Task for CommandThread {
    fn timeout(&self, now: Instant) -> Duration {
        let mut timeout = self.pool.timeout(now);
        if !self.paused.is_empty() || self.pool.all.iter().any(|(_, master)| !master.work.is_empty()) {
            timeout = timeout.min(EXPIRY_INTERVAL);
        }
        if !self.context.responses.is_empty() {
            timeout = timeout.min(RETRY);
        }
        self.paused.timeout(now).map_or(timeout, |at| timeout.min(at))
    }

    fn turn(&mut self, now: Instant, events: &Events) {
        self.pool.note(events);
        self.requests.begin_drain();
        while let Some(batch) = self.requests.pop() {
            batch.into_iter().for_each(|request| self.accept(now, request));
        }
        self.drive(now);
        self.direct(now);
        let Self { pool, paused, context, .. } = self;
        paused.expire(now, context);
        for (_, Master { link, work: pipeline, .. }) in &mut pool.all {
            pipeline.expire(now, context);
            pipeline.fill(now, context, link);
            link.flush();
        }
        context.responses.flush();
    }

    /// Whether the last requests are answered. Those that wait for a link that is down are not
    /// waited for.
    fn is_done(&self) -> bool {
        self.pool.all.iter().all(|(_, master)| !master.link.is_up() || master.work.is_empty())
    }

    fn end(&mut self) {
        self.context.counters.publishing_up.set(false);
    }
}

impl CommandThread {
    pub(crate) fn new(pool: ConnectionPool<Pipeline>, requests: Inbox<Vec<Request>>, context: PipelineContext) -> Self {
        Self { pool, paused: PausedSlots::default(), requests, accepted: 0, context }
    }

    fn accept(&mut self, now: Instant, request: Request) {
        let slot = if self.pool.is_cluster() { self.context.packer.slot(&request) } else { 0 };
        self.accepted += 1;
        let queued = QueuedRequest::new(request, self.accepted, slot, now, self.context.hold);
        self.paused.accept(now, queued, &mut self.pool);
    }

    fn drive(&mut self, now: Instant) {
        let Self { pool, paused, context, .. } = self;
        let mut is_any_down = false;
        for (_, Master { link, work: pipeline, node }) in &mut pool.all {
            match link.drive(now, &mut |_, value| pipeline.take((now, node.as_ref()), context, value)) {
                Some(LinkChange::Up(run_id)) => pipeline.begin(run_id, context, link.out()),
                Some(LinkChange::Down) => {
                    is_any_down = true;
                    context.counters.reconnects_total.add(1);
                    pipeline.take_back();
                }
                None => {}
            }
        }
        context.counters.publishing_up.set(pool.is_any_up());
        if is_any_down && pool.is_cluster() {
            paused.pause_misplaced(now, pool);
        }
    }

    /// Sends requests on that were turned away.
    fn direct(&mut self, now: Instant) {
        let Self { pool, paused, context, .. } = self;
        for (queued, redirect) in context.redirected.drain(..) {
            paused.redirected(now, queued, redirect, pool);
        }
        if pool.refresh(now, Pipeline::is_empty).is_some_and(|changed| !changed.is_empty()) {
            paused.pause_misplaced(now, pool);
        }
        paused.release(now, pool);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::sync::{Arc, Barrier, mpsc};

    use fastrand::Rng;
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::bus::message::{ReadFrom, Ticket};
    use crate::bus::redis::cluster::Topology;
    use crate::bus::redis::commands::names::KeyNames;
    use crate::bus::redis::commands::packer::Packer;
    use crate::bus::redis::commands::request::{PendingRead, Response};
    use crate::bus::redis::commands::script::ChannelKind;
    use crate::bus::redis::connection::{Backoff, Endpoint, LinkFactory, ResolvedAddress};
    use crate::bus::redis::stats::Counters;
    use crate::bus::worker::{QueueBounds, Queues, worker};
    use crate::id::RoomName;
    use crate::settings::Config;

    /// The thread, which says when it ends.
    struct Told {
        thread: CommandThread,
        ended: mpsc::Sender<()>,
    }

    impl Task for Told {
        fn timeout(&self, now: Instant) -> Duration {
            self.thread.timeout(now)
        }

        fn turn(&mut self, now: Instant, events: &Events) {
            self.thread.turn(now, events);
        }

        fn is_done(&self) -> bool {
            self.thread.is_done()
        }

        fn end(&mut self) {
            self.thread.end();
            self.ended.send(()).unwrap();
        }
    }

    /// An endpoint that is not found before the test is over.
    struct Nowhere(Barrier);

    impl fmt::Display for Nowhere {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nowhere")
        }
    }

    impl Endpoint for Nowhere {
        fn known_address(&self) -> Option<ResolvedAddress> {
            None
        }

        fn resolve(&self) -> io::Result<ResolvedAddress> {
            self.0.wait();
            Err(io::Error::other("nowhere"))
        }
    }

    #[test]
    fn what_is_held_is_answered_in_time_while_a_name_is_looked_up_and_nothing_waits_for_the_look_up() {
        let mut loop_poll = Poll::new().unwrap();
        let loop_waker = Arc::new(Waker::new(loop_poll.registry(), Token(0)).unwrap());
        let (mut commands, thread, queues) = worker(QueueBounds { requests: 4, responses: 4 }, loop_waker).unwrap();
        let endpoint = Arc::new(Nowhere(Barrier::new(2)));
        let topology = Topology::One(Arc::clone(&endpoint) as Arc<dyn Endpoint>);
        let backoff = Backoff::new(Duration::from_secs(30), Rng::with_seed(7));
        let factory = LinkFactory::new(Arc::default(), "testing", (&thread.poll, &thread.waker), backoff).unwrap();
        let pool = ConnectionPool::new(topology, factory).unwrap();
        let counters = Arc::new(Counters::default());
        let packer = Packer::new(&Config::default(), KeyNames::new("roomcast"), ChannelKind::Global, "node".to_owned());
        let Queues { requests, responses } = queues;
        let hold = Duration::from_millis(200);
        let context = PipelineContext::new(packer, hold, responses, Arc::clone(&counters));
        let (ended, end) = mpsc::channel();
        thread.spawn("testing", Told { thread: CommandThread::new(pool, requests, context), ended }).unwrap();
        commands.push(Request::Read(PendingRead {
            ticket: Ticket(1),
            room: RoomName::new("lobby").unwrap(),
            from: ReadFrom::Newest(1),
            bytes_max: 1,
            since: Duration::ZERO,
            opening: None,
            reached: None,
        }));
        commands.flush();
        loop_poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(60))).unwrap();
        let response = commands.take_batch().unwrap().pop().unwrap();
        assert!(matches!(response, Response::Page(PendingRead { ticket: Ticket(1), .. }, Err(_))));
        drop(commands);
        end.recv_timeout(Duration::from_secs(60)).expect("the thread ends");
        endpoint.0.wait();
    }
}
