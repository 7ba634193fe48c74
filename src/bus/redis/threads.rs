//! The two threads of the bus, and the loop's ends of the queues between them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Duration;

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
use super::commands::thread::{CommandThread, LEAVE_MAX};
use super::config::RedisConfig;
use super::presence::nodes::Heartbeat;
use super::stats::Counters;
use super::subscribe::channels::ChannelTable;
use super::subscribe::event::SubscriberEvent;
use super::subscribe::subscriptions::SubscriptionChange;
use super::subscribe::thread::SubscriberThread;
use super::url::RedisUrl;
use crate::config::Config;
use crate::inbox::{Inbox, inbox};

const WAKE: Token = Token(0);

/// Batches in a queue; behind a full one the sender gathers.
const BATCHES_MAX: usize = 64;

/// The same for messages, each batch of which may have 256 KiB.
const NEWS_BATCHES_MAX: usize = 16;

/// How often is looked whether the leave is said.
const LEAVE_CHECK: Duration = Duration::from_millis(2);

pub(crate) struct Threads {
    pub(crate) orders: BatchSender<Request>,
    pub(crate) replies: Inbox<Vec<Response>>,
    pub(crate) wishes: BatchSender<SubscriptionChange>,
    pub(crate) news: Inbox<Vec<SubscriberEvent>>,
    wakers: [Arc<Waker>; 2],
    counters: Arc<Counters>,
    commander: Option<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(
        config: &Config,
        redis: &RedisConfig,
        (target, node, seed): (RedisUrl, String, u64),
        waker: Arc<Waker>,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let names = KeyNames::new(&redis.prefix);
        let channels = match target.topology {
            Topology::One(_) => ChannelKind::Global,
            Topology::Cluster(_) => ChannelKind::Sharded,
        };
        let mut random = Rng::with_seed(seed);
        let packer = Packer::new(config, names.clone(), channels, node.clone());

        let poll = Poll::new()?;
        let commander_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (orders, orders_inbox) = inbox(BATCHES_MAX, Arc::clone(&commander_waker));
        let (replies, replies_inbox) = inbox(BATCHES_MAX, Arc::clone(&waker));
        let factory =
            LinkFactory::new(Arc::clone(&target.login), "publishing", (&poll, &commander_waker), random.fork())?;
        let pool = ConnectionPool::new(target.topology.clone(), factory)?;
        let desk = PipelineContext::new(packer, redis.hold, BatchSender::new(replies), Arc::clone(counters));
        let commander = CommandThread::new(poll, pool, orders_inbox, desk);

        let poll = Poll::new()?;
        let subscriber_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (wishes, wishes_inbox) = inbox(BATCHES_MAX, Arc::clone(&subscriber_waker));
        let (news, news_inbox) = inbox(NEWS_BATCHES_MAX, waker);
        let factory = LinkFactory::new(Arc::clone(&target.login), "subscribing", (&poll, &subscriber_waker), random)?;
        let pool = ConnectionPool::new(target.topology, factory)?;
        let channels = ChannelTable::new(names, node, BatchSender::new(news), Arc::clone(counters));
        let subscriber = SubscriberThread::new(poll, pool, wishes_inbox, channels);

        let mut threads = Self {
            orders: BatchSender::new(orders),
            replies: replies_inbox,
            wishes: BatchSender::new(wishes),
            news: news_inbox,
            wakers: [commander_waker, subscriber_waker],
            counters: Arc::clone(counters),
            commander: None,
        };
        // Linux shows 15 bytes of a name.
        let builder = thread::Builder::new().name("redis-commander".to_owned());
        threads.commander = Some(builder.spawn(move || commander.run())?);
        thread::Builder::new().name("redis-listener".to_owned()).spawn(move || subscriber.run())?;
        Ok(threads)
    }

    pub(crate) fn begin_turn(&self) {
        self.replies.begin_drain();
        self.news.begin_drain();
    }

    /// Hands over what this turn has produced.
    pub(crate) fn flush(&mut self) {
        self.orders.flush();
        self.wishes.flush();
    }

    /// Whether something could not be handed over.
    pub(crate) fn are_held_up(&self) -> bool {
        !self.orders.is_empty() || !self.wishes.is_empty()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let is_up = self.counters.publishing_up.load(Relaxed);
        self.orders
            .push(Request { id: u64::MAX, call: ScriptCall::Presence(PresenceCall::Heartbeat(Heartbeat::leave())) });
        self.orders.flush();
        self.counters.stop.store(true, Relaxed);
        self.wakers.iter().for_each(|waker| {
            let _ = waker.wake();
        });
        // The process may end right behind this, and the leave with it. Beyond that time nobody is waited for, nor is a
        // thread that looks something up.
        for _ in 0..LEAVE_MAX.as_millis() / LEAVE_CHECK.as_millis() {
            if !is_up || self.commander.as_ref().is_none_or(JoinHandle::is_finished) {
                return;
            }
            thread::park_timeout(LEAVE_CHECK);
        }
    }
}
