//! The two threads of the bus, and the loop's ends of the queues between them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use mio::{Poll, Token, Waker};

use super::RedisConfig;
use super::commander::{Commander, FAREWELL_MAX, Order, Reply};
use super::lane::Desk;
use super::masters::{Harbour, Masters};
use super::nodes::Beat;
use super::port::Port;
use super::script::{Call, Channels, Names, Packer, PresenceCall};
use super::stats::Counters;
use super::subscriber::{News, Subscriber, Wish};
use super::target::{Site, Target};
use crate::config::Config;
use crate::inbox::{Inbox, inbox};

const WAKE: Token = Token(0);

/// Batches in a queue; behind a full one the sender gathers.
const BATCHES_MAX: usize = 64;

/// The same for messages, each batch of which may have 256 KiB.
const NEWS_BATCHES_MAX: usize = 16;

/// How often is looked whether the farewell is said.
const FAREWELL_LOOK: Duration = Duration::from_millis(2);

pub(super) struct Threads {
    pub(super) orders: Port<Order>,
    pub(super) replies: Inbox<Vec<Reply>>,
    pub(super) wishes: Port<Wish>,
    pub(super) news: Inbox<Vec<News>>,
    wakers: [Arc<Waker>; 2],
    counters: Arc<Counters>,
    commander: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(
        config: &Config,
        redis: &RedisConfig,
        (target, node, seed): (Target, String, u64),
        waker: Arc<Waker>,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let names = Names::new(&redis.prefix);
        let channels = match target.site {
            Site::One(_) => Channels::Everywhere,
            Site::Cluster(_) => Channels::OfSlots,
        };
        let mut random = Rng::with_seed(seed);
        let packer = Packer::new(config, names.clone(), channels, node.clone());

        let poll = Poll::new()?;
        let commander_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (orders, orders_inbox) = inbox(BATCHES_MAX, Arc::clone(&commander_waker));
        let (replies, replies_inbox) = inbox(BATCHES_MAX, Arc::clone(&waker));
        let harbour = Harbour::new(&target, "publishing", (&poll, &commander_waker), random.fork())?;
        let masters = Masters::new(target.site.clone(), harbour)?;
        let desk = Desk::new(packer, redis.hold, Port::new(replies), Arc::clone(counters));
        let commander = Commander::new(poll, masters, orders_inbox, desk);

        let poll = Poll::new()?;
        let subscriber_waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (wishes, wishes_inbox) = inbox(BATCHES_MAX, Arc::clone(&subscriber_waker));
        let (news, news_inbox) = inbox(NEWS_BATCHES_MAX, waker);
        let harbour = Harbour::new(&target, "subscribing", (&poll, &subscriber_waker), random)?;
        let masters = Masters::new(target.site, harbour)?;
        let out = (Port::new(news), Arc::clone(counters));
        let subscriber = Subscriber::new(poll, masters, wishes_inbox, (names, node), out);

        let mut threads = Self {
            orders: Port::new(orders),
            replies: replies_inbox,
            wishes: Port::new(wishes),
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

    pub(super) fn begin_turn(&self) {
        self.replies.begin_drain();
        self.news.begin_drain();
    }

    /// Hands over what this turn has produced.
    pub(super) fn flush(&mut self) {
        self.orders.flush();
        self.wishes.flush();
    }

    /// Whether something could not be handed over.
    pub(super) fn are_held_up(&self) -> bool {
        !self.orders.is_empty() || !self.wishes.is_empty()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let is_up = self.counters.publishing_up.load(Relaxed);
        self.orders.push(Order { id: u64::MAX, call: Call::Presence(PresenceCall::Beat(Beat::farewell())) });
        self.orders.flush();
        self.counters.stop.store(true, Relaxed);
        self.wakers.iter().for_each(|waker| {
            let _ = waker.wake();
        });
        // The process may end right behind this, and the farewell with it. Beyond that time nobody is waited for, nor is a
        // thread that looks something up.
        for _ in 0..FAREWELL_MAX.as_millis() / FAREWELL_LOOK.as_millis() {
            if !is_up || self.commander.as_ref().is_none_or(JoinHandle::is_finished) {
                return;
            }
            thread::park_timeout(FAREWELL_LOOK);
        }
    }
}
