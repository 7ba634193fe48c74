//! The thread that sends requests to Redis, pipelined over a link to each master in the order in
//! which they came.
//!
//! Requests that are unanswered when a link is lost are sent again in order; the publishing
//! script recognises a publication that was accepted before. A request that cannot be answered
//! within the hold time fails.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::paused_slots::PausedSlots;
use super::pipeline::{Pipeline, PipelineContext, QueuedRequest};
use super::request::Request;
use crate::bus::redis::batch_sender::RETRY;
use crate::bus::redis::cluster::pool::{ConnectionPool, Master};
use crate::bus::redis::connection::link::LinkChange;
use crate::bus::redis::connection::run_id::RunId;
use crate::bus::redis::stats::add;
use crate::inbox::Inbox;

/// How often expired requests are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last requests of a dropped bus may take.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// See the [module](self).
pub(crate) struct CommandThread {
    poll: Poll,
    pool: ConnectionPool<Pipeline>,
    paused: PausedSlots,
    requests: Inbox<Vec<Request>>,
    context: PipelineContext,
}

impl CommandThread {
    pub(crate) fn new(
        poll: Poll,
        pool: ConnectionPool<Pipeline>,
        requests: Inbox<Vec<Request>>,
        context: PipelineContext,
    ) -> Self {
        Self { poll, pool, paused: PausedSlots::default(), requests, context }
    }

    /// Runs until the bus is dropped and its last requests are answered.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        let mut expires_at = None;
        while !self.has_ended(&mut expires_at) {
            let timeout = self.timeout(Instant::now());
            let timeout = if expires_at.is_some() { timeout.min(RETRY) } else { timeout };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("the thread that publishes to redis ends: {error}");
                break;
            }
            self.pool.note(&events);
            self.turn(Instant::now());
        }
        self.context.counters.publishing_up.store(false, Relaxed);
    }

    /// Whether the bus was dropped, and its last requests are answered or have taken too long.
    /// Requests that wait for a link that is down are not waited for.
    fn has_ended(&mut self, expires_at: &mut Option<Instant>) -> bool {
        if !self.context.counters.stop.load(Relaxed) {
            return false;
        }
        let now = Instant::now();
        let expires_at = *expires_at.get_or_insert(now + LEAVE_MAX);
        // A turn takes the requests that are still in the inbox.
        self.turn(now);
        now >= expires_at || self.pool.all.iter().all(|(_, master)| !master.link.is_up() || master.work.is_empty())
    }

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

    fn turn(&mut self, now: Instant) {
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

    fn accept(&mut self, now: Instant, request: Request) {
        let slot = if self.pool.is_cluster() { self.context.packer.slot(&request.call) } else { 0 };
        let queued = QueuedRequest::new(request, slot, now, self.context.hold);
        self.paused.accept(now, queued, &mut self.pool);
    }

    fn drive(&mut self, now: Instant) {
        let Self { pool, paused, context, .. } = self;
        let mut is_any_down = false;
        for (_, Master { link, work: pipeline, node }) in &mut pool.all {
            match link.drive(now, &mut |_, value| pipeline.take((now, node.as_ref()), context, value)) {
                Some(LinkChange::Up) => {
                    let run_id = link.run().map_or(RunId::UNKNOWN, |(run_id, _)| run_id);
                    pipeline.begin(run_id, context, &mut link.out);
                }
                Some(LinkChange::Down) => {
                    is_any_down = true;
                    add(&context.counters.reconnects_total, 1);
                    pipeline.take_back();
                }
                None => {}
            }
        }
        context.counters.publishing_up.store(pool.is_any_up(), Relaxed);
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
    use std::thread;

    use fastrand::Rng;
    use mio::{Token, Waker};

    use super::*;
    use crate::bus::message::ReadFrom;
    use crate::bus::redis::batch_sender::BatchSender;
    use crate::bus::redis::cluster::pool::LinkFactory;
    use crate::bus::redis::cluster::topology::Topology;
    use crate::bus::redis::commands::call::{ScriptCall, Unconfirmed};
    use crate::bus::redis::commands::names::KeyNames;
    use crate::bus::redis::commands::packer::Packer;
    use crate::bus::redis::commands::script::ChannelKind;
    use crate::bus::redis::connection::endpoint::{Endpoint, ResolvedAddress};
    use crate::bus::redis::stats::Counters;
    use crate::id::RoomName;
    use crate::inbox::inbox;
    use crate::settings::Config;

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
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut loop_poll = Poll::new().unwrap();
        let loop_waker = Arc::new(Waker::new(loop_poll.registry(), Token(0)).unwrap());
        let endpoint = Arc::new(Nowhere(Barrier::new(2)));
        let topology = Topology::One(Arc::clone(&endpoint) as Arc<dyn Endpoint>);
        let factory = LinkFactory::new(Arc::default(), "testing", (&poll, &waker), Rng::with_seed(7)).unwrap();
        let pool = ConnectionPool::new(topology, factory).unwrap();
        let (requests, orders_inbox) = inbox(4, Arc::clone(&waker));
        let (responses, replies_inbox) = inbox(4, loop_waker);
        let counters = Arc::new(Counters::default());
        let packer = Packer::new(&Config::default(), KeyNames::new("roomcast"), ChannelKind::Global, "node".to_owned());
        let context = PipelineContext::new(
            packer,
            Duration::from_millis(200),
            BatchSender::new(responses),
            Arc::clone(&counters),
        );
        let commander = CommandThread::new(poll, pool, orders_inbox, context);
        let room = RoomName::new("lobby").unwrap();
        let unconfirmed = Unconfirmed::Tell;
        let call = ScriptCall::Read { room, from: ReadFrom::Newest(1), bytes_max: 1, unconfirmed };
        requests.push(vec![Request { id: 1, call }]).unwrap();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            commander.run();
            ended.send(())
        });
        loop_poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(60))).unwrap();
        let reply = replies_inbox.pop().unwrap().pop().unwrap();
        assert!(reply.id == 1 && reply.result.is_err());
        counters.stop.store(true, Relaxed);
        waker.wake().unwrap();
        end.recv_timeout(Duration::from_secs(60)).expect("the thread ends");
        endpoint.0.wait();
    }
}
