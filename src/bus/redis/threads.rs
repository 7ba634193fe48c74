//! Starts the two threads of the bus.

use std::io;
use std::sync::Arc;

use fastrand::Rng;
use mio::Waker;

use super::cluster::{ConnectionPool, Topology};
use super::commands::{ChannelKind, CommandThread, KeyNames, Packer, PipelineContext, Request, Response};
use super::config::RedisConfig;
use super::connection::{Backoff, LinkFactory};
use super::stats::Counters;
use super::subscribe::{ChannelTable, SubscriberEvent, SubscriberThread, SubscriptionChange};
use super::url::RedisUrl;
use crate::bus::worker::{QueueBounds, Worker, worker};
use crate::settings::Config;

/// Behind a full queue, the sender gathers. A batch of events may hold messages of 256 KiB.
const COMMANDS: QueueBounds = QueueBounds { requests: 64, responses: 64 };
const SUBSCRIBER: QueueBounds = QueueBounds { requests: 64, responses: 16 };

pub(crate) type Commands = Worker<Request, Response>;
pub(crate) type Subscriber = Worker<SubscriptionChange, SubscriberEvent>;

pub(crate) fn start(
    config: &Config,
    redis: &RedisConfig,
    (url, node, seed): (RedisUrl, String, u64),
    waker: Arc<Waker>,
    counters: &Arc<Counters>,
) -> io::Result<(Commands, Subscriber)> {
    let RedisUrl { topology, login } = url;
    let names = KeyNames::new(&redis.prefix);
    let kind = match topology {
        Topology::One(_) => ChannelKind::Global,
        Topology::Cluster(_) => ChannelKind::Sharded,
    };
    let mut random = Rng::with_seed(seed);

    let (commands, thread, queues) = worker(COMMANDS, Arc::clone(&waker))?;
    let at = (&thread.poll, &thread.waker);
    let backoff = Backoff::new(redis.timing.lease, random.fork());
    let factory = LinkFactory::new(Arc::clone(&login), "publishing", at, backoff)?;
    let packer = Packer::new(config, names.clone(), kind, node.clone());
    let context = PipelineContext::new(packer, redis.timing.hold, queues.responses, Arc::clone(counters));
    let pool = ConnectionPool::new(topology.clone(), factory)?;
    thread.spawn("redis-commands", CommandThread::new(pool, queues.requests, context))?;

    let (subscriber, thread, queues) = worker(SUBSCRIBER, waker)?;
    let backoff = Backoff::new(redis.timing.lease, random);
    let factory = LinkFactory::new(login, "subscribing", (&thread.poll, &thread.waker), backoff)?;
    let channels = ChannelTable::new(names, node, queues.responses, Arc::clone(counters));
    let pool = ConnectionPool::new(topology, factory)?;
    thread.spawn("redis-subscribe", SubscriberThread::new(pool, queues.requests, channels))?;
    Ok((commands, subscriber))
}
