//! The two threads of the bus, and the queues between them and the loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use fastrand::Rng;
use mio::{Poll, Token, Waker};

use super::batch_sender::BatchSender;
use super::cluster::pool::{ConnectionPool, LinkFactory};
use super::cluster::topology::Topology;
use super::commands::call::ScriptCall;
use super::commands::names::KeyNames;
use super::commands::packer::Packer;
use super::commands::pipeline::PipelineContext;
use super::commands::presence::PresenceCall;
use super::commands::request::{Request, Response};
use super::commands::script::ChannelKind;
use super::commands::thread::CommandThread;
use super::config::RedisConfig;
use super::presence::nodes::Heartbeat;
use super::stats::Counters;
use super::subscribe::channels::ChannelTable;
use super::subscribe::event::SubscriberEvent;
use super::subscribe::subscriptions::SubscriptionChange;
use super::subscribe::thread::SubscriberThread;
use super::url::RedisUrl;
use crate::inbox::{Inbox, inbox};
use crate::settings::Config;

const WAKE: Token = Token(0);

/// Batches in a queue. Behind a full one, the sender gathers.
const BATCHES_MAX: usize = 64;

/// The same for events. A batch may hold messages of 256 KiB.
const EVENT_BATCHES_MAX: usize = 16;

pub(crate) struct Threads {
    pub(crate) requests: BatchSender<Request>,
    pub(crate) responses: Inbox<Vec<Response>>,
    pub(crate) changes: BatchSender<SubscriptionChange>,
    pub(crate) events: Inbox<Vec<SubscriberEvent>>,
    wakers: [Arc<Waker>; 2],
    counters: Arc<Counters>,
}

impl Threads {
    pub(crate) fn start(
        config: &Config,
        redis: &RedisConfig,
        (url, node, seed): (RedisUrl, String, u64),
        waker: Arc<Waker>,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let names = KeyNames::new(&redis.prefix);
        let channels = match url.topology {
            Topology::One(_) => ChannelKind::Global,
            Topology::Cluster(_) => ChannelKind::Sharded,
        };
        let mut random = Rng::with_seed(seed);
        let packer = Packer::new(config, names.clone(), channels, node.clone());

        let poll = Poll::new()?;
        let command_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (requests, orders_inbox) = inbox(BATCHES_MAX, Arc::clone(&command_waker));
        let (responses, replies_inbox) = inbox(BATCHES_MAX, Arc::clone(&waker));
        let factory = LinkFactory::new(Arc::clone(&url.login), "publishing", (&poll, &command_waker), random.fork())?;
        let pool = ConnectionPool::new(url.topology.clone(), factory)?;
        let desk = PipelineContext::new(packer, redis.timing.hold, BatchSender::new(responses), Arc::clone(counters));
        let command_thread = CommandThread::new(poll, pool, orders_inbox, desk);

        let poll = Poll::new()?;
        let subscriber_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (changes, wishes_inbox) = inbox(BATCHES_MAX, Arc::clone(&subscriber_waker));
        let (events, news_inbox) = inbox(EVENT_BATCHES_MAX, waker);
        let factory = LinkFactory::new(Arc::clone(&url.login), "subscribing", (&poll, &subscriber_waker), random)?;
        let pool = ConnectionPool::new(url.topology, factory)?;
        let channels = ChannelTable::new(names, node, BatchSender::new(events), Arc::clone(counters));
        let subscriber = SubscriberThread::new(poll, pool, wishes_inbox, channels);

        let threads = Self {
            requests: BatchSender::new(requests),
            responses: replies_inbox,
            changes: BatchSender::new(changes),
            events: news_inbox,
            wakers: [command_waker, subscriber_waker],
            counters: Arc::clone(counters),
        };
        // Linux shows 15 bytes of a thread's name.
        let builder = thread::Builder::new().name("redis-commander".to_owned());
        builder.spawn(move || command_thread.run())?;
        thread::Builder::new().name("redis-listener".to_owned()).spawn(move || subscriber.run())?;
        Ok(threads)
    }

    pub(crate) fn begin_turn(&self) {
        self.responses.begin_drain();
        self.events.begin_drain();
    }

    /// Hands over what this turn has produced.
    pub(crate) fn flush(&mut self) {
        self.requests.flush();
        self.changes.flush();
    }

    /// Whether something waits behind a full queue.
    pub(crate) fn are_held_up(&self) -> bool {
        !self.requests.is_empty() || !self.changes.is_empty()
    }
}

/// The last that a node says.
pub(crate) fn leave() -> ScriptCall {
    ScriptCall::Presence(PresenceCall::Heartbeat(Heartbeat::leave()))
}

impl Drop for Threads {
    /// Waits for nothing: what must be written has been written by then, and the threads end by themselves.
    fn drop(&mut self) {
        self.requests.push(Request { id: u64::MAX, call: leave() });
        self.requests.flush();
        self.counters.stop.store(true, Relaxed);
        self.wakers.iter().for_each(|waker| {
            let _ = waker.wake();
        });
    }
}
