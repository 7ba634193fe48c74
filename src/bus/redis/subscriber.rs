//! The thread that listens to Redis: subscribes to the channels of open rooms, and hands over what arrives, one batch a read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll};
use redis::Cmd;

use super::fault::Fault;
use super::link::{Change, Link};
use super::port::{Port, RETRY};
use super::resp::Value;
use super::script::{self, Names};
use super::sequence::Arrival;
use super::share::Share;
use super::stats::{Counters, add};
use crate::id::{Epoch, RoomName, UserId};
use crate::inbox::Inbox;
use crate::protocol::TypingStatus;

/// Channels in one command: one by one 10,000 take 600 ms, so they take 7.
const CHANNELS_PER_COMMAND: usize = 512;

/// Bytes of messages that wait for a loop that is behind; beyond them messages are dropped, to be read again later.
const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often is said that somebody else uses our channels.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// What the loop wants. The number tells one opening of a room from another.
#[derive(Debug)]
pub(super) enum Wish {
    Subscribe(RoomName, u32),
    Unsubscribe(RoomName),
}

/// What the loop is told, in the order in which it happened.
#[derive(Debug)]
pub(super) enum News {
    /// From now on nothing of the room is missed.
    Subscribed(RoomName, u32),
    /// No room is subscribed any more.
    Down,
    Arrival(RoomName, Arrival),
    /// Another node has said who is present there.
    Share(RoomName, Share),
    /// Somebody types on another node.
    Typing(RoomName, UserId, TypingStatus),
    /// A message of the room was dropped.
    Gap(RoomName),
}

struct Channel {
    opening: u32,
    /// The epoch of its last message, so that the next need not have one of its own.
    epoch: Option<Epoch>,
}

/// Which channels are wanted, and what of them is on its way.
struct Table {
    names: Names,
    /// This node, whose own shares come back and are no news.
    node: String,
    channels: HashMap<RoomName, Channel>,
    pending: VecDeque<Wish>,
    /// Subscriptions that Redis has yet to acknowledge, in order.
    asked: VecDeque<(RoomName, u32)>,
    news: Port<News>,
    backlog_bytes: usize,
    gaps: HashSet<RoomName>,
    counters: Arc<Counters>,
    text: String,
    complained_at: Option<Instant>,
}

/// See the [module](self).
pub(super) struct Subscriber {
    poll: Poll,
    link: Link,
    wishes: Inbox<Vec<Wish>>,
    table: Table,
}

impl Subscriber {
    pub(super) fn new(
        poll: Poll,
        link: Link,
        wishes: Inbox<Vec<Wish>>,
        (names, node): (Names, String),
        (news, counters): (Port<News>, Arc<Counters>),
    ) -> Self {
        let table = Table {
            names,
            node,
            channels: HashMap::new(),
            pending: VecDeque::new(),
            asked: VecDeque::new(),
            news,
            backlog_bytes: 0,
            gaps: HashSet::new(),
            counters,
            text: String::new(),
            complained_at: None,
        };
        Self { poll, link, wishes, table }
    }

    /// The thread's life: until the bus is dropped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        while !self.table.counters.stop.load(Relaxed) {
            let timeout = self.timeout(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("the thread that subscribes to redis ends: {error}");
                break;
            }
            self.turn(Instant::now());
        }
        self.table.counters.subscribing_up.store(false, Relaxed);
    }

    fn timeout(&self, now: Instant) -> Duration {
        let timeout = self.link.timeout(now);
        let is_held_up = !self.table.news.is_empty() || !self.table.gaps.is_empty();
        if is_held_up { timeout.min(RETRY) } else { timeout }
    }

    fn turn(&mut self, now: Instant) {
        let Self { link, wishes, table, .. } = self;
        wishes.begin_drain();
        while let Some(batch) = wishes.pop() {
            batch.into_iter().for_each(|wish| table.wish(wish, link.is_up()));
        }
        match link.drive(now, &mut |chunk, value| table.take(chunk, value)) {
            Some(Change::Up) => {
                table.counters.subscribing_up.store(true, Relaxed);
                table.want_all();
            }
            Some(Change::Down) => {
                table.counters.subscribing_up.store(false, Relaxed);
                add(&table.counters.reconnects_total, 1);
                table.pending.clear();
                table.asked.clear();
                table.news.push(News::Down);
            }
            None => {}
        }
        while link.can_send() && table.write_command(&mut link.out) {}
        link.flush();
        table.flush();
    }
}

impl Table {
    fn wish(&mut self, wish: Wish, is_up: bool) {
        match &wish {
            Wish::Subscribe(room, opening) => {
                let channel = Channel { opening: *opening, epoch: None };
                self.channels.insert(room.clone(), channel);
            }
            Wish::Unsubscribe(room) => {
                self.channels.remove(room);
            }
        }
        // Otherwise all that are wanted then are asked for once the link stands.
        if is_up {
            self.pending.push_back(wish);
        }
    }

    fn want_all(&mut self) {
        let all = self.channels.iter().map(|(room, channel)| Wish::Subscribe(room.clone(), channel.opening));
        self.pending = all.collect();
    }

    /// Writes as many of the pending wishes as are alike; says whether there were any.
    fn write_command(&mut self, out: &mut Vec<u8>) -> bool {
        let is_subscribe = |wish: &Wish| matches!(wish, Wish::Subscribe(..));
        let Some(first) = self.pending.front().map(is_subscribe) else { return false };
        let mut command = Cmd::new();
        command.arg(if first { "SUBSCRIBE" } else { "UNSUBSCRIBE" });
        for _ in 0..CHANNELS_PER_COMMAND {
            if self.pending.front().map(is_subscribe) != Some(first) {
                break;
            }
            let Some(wish) = self.pending.pop_front() else { break };
            let (Wish::Subscribe(room, _) | Wish::Unsubscribe(room)) = &wish;
            self.names.write_channel(&mut self.text, room);
            command.arg(&self.text);
            if let Wish::Subscribe(room, opening) = wish {
                self.asked.push_back((room, opening));
            }
        }
        command.write_packed_command(out);
        true
    }

    fn take(&mut self, chunk: &Bytes, value: Value<'_>) -> Result<(), Fault> {
        if let Value::Error(text) = value {
            return Err(Fault::reply(text));
        }
        let strange = || Fault::lost("redis sends something strange on a subscription");
        let mut items = value.items().ok_or_else(strange)?;
        match items.next().and_then(|kind| kind.bytes()) {
            Some(b"message") => {
                let (channel, payload) = (items.next(), items.next());
                let channel = channel.and_then(|channel| channel.bytes()).ok_or_else(strange)?;
                let payload = payload.and_then(|payload| payload.bytes()).ok_or_else(strange)?;
                self.take_message(chunk, channel, payload);
            }
            Some(b"subscribe") => {
                let (room, opening) = self.asked.pop_front().ok_or_else(strange)?;
                self.news.push(News::Subscribed(room, opening));
            }
            Some(b"unsubscribe") => {}
            _ => return Err(strange()),
        }
        Ok(())
    }

    fn take_message(&mut self, chunk: &Bytes, channel: &[u8], payload: &[u8]) {
        let known = self.names.room(channel).and_then(|room| self.channels.get_key_value(room));
        // A straggler of a room that was closed.
        let Some((room, known)) = known else { return };
        let room = room.clone();
        if script::is_share(payload) {
            if let Some((user, status)) = script::typing(payload, &self.node) {
                // The first thing to be shed, and nobody misses it.
                if self.backlog_bytes <= BACKLOG_BYTES_MAX / 4 {
                    self.backlog_bytes += payload.len();
                    self.news.push(News::Typing(room, user, status));
                }
                return;
            }
            // What a later version may say in this way is none that can be read, and is passed over.
            let share = script::share(payload, &self.node);
            return self.hand_over(room, payload.len(), |room| Some(News::Share(room, share?)));
        }
        let Some((epoch, seq, body_at)) = script::arrival(payload) else { return self.complain(&room) };
        let epoch = match &known.epoch {
            Some(known) if known.as_str() == epoch => known.clone(),
            _ => {
                let epoch = Epoch::new(epoch);
                if let Some(channel) = self.channels.get_mut(&room) {
                    channel.epoch = Some(epoch.clone());
                }
                epoch
            }
        };
        let body = chunk.slice_ref(&payload[body_at..]);
        let arrival = Arrival { epoch, seq, body };
        self.hand_over(room, payload.len(), |room| Some(News::Arrival(room, arrival)));
    }

    /// Has the loop told, unless it is too far behind.
    fn hand_over(&mut self, room: RoomName, bytes: usize, news: impl FnOnce(RoomName) -> Option<News>) {
        if self.backlog_bytes > BACKLOG_BYTES_MAX {
            add(&self.counters.dropped_total, 1);
            self.gaps.insert(room);
        } else if let Some(news) = news(room) {
            self.backlog_bytes += bytes;
            self.news.push(news);
        }
    }

    /// At most once a second, however much is said.
    fn complain(&mut self, room: &RoomName) {
        let now = Instant::now();
        if self.complained_at.is_none_or(|at| now >= at + COMPLAINT_INTERVAL) {
            self.complained_at = Some(now);
            log::warn!("something else than roomcast publishes on the channel of room {room}; it is ignored");
        }
    }

    fn flush(&mut self) {
        self.news.flush();
        if self.news.is_empty() {
            self.backlog_bytes = 0;
            // Told behind what was not dropped, and only now: before, more could have been dropped.
            self.gaps.drain().for_each(|room| self.news.push(News::Gap(room)));
            self.news.flush();
        }
    }
}
