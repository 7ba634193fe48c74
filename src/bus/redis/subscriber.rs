//! The thread that listens to Redis: subscribes to the channels of open rooms, and hands over what arrives, one batch a read.
//!
//! In a cluster a room is heard where its slot is, over a link to each master, by the commands for channels of slots: Redis itself
//! then ends the subscription when the slot goes elsewhere, and whoever is subscribed to another master again has been told of an
//! interruption. A channel that any node carries would go on as if nothing had happened when a master is replaced by a
//! replica that lacks its last messages.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll};

use super::cluster;
use super::ear::Ear;
pub(super) use super::ear::Wish;
use super::fault::Fault;
use super::lane::Redirect;
use super::link::Change;
use super::masters::{Master, Masters};
use super::port::{Port, RETRY};
use super::resp::Value;
use super::run_id::RunId;
use super::script::{self, Channels, Names};
use super::sequence::Arrival;
use super::share::Share;
use super::stats::{Counters, add};
use super::target::Node;
use crate::id::{Epoch, RoomName, UserId};
use crate::inbox::Inbox;
use crate::protocol::TypingStatus;

/// How long a room is left alone that lost its place in a cluster.
const RETRY_LOST: Duration = Duration::from_millis(20);

/// Bytes of messages that wait for a loop that is behind; beyond them messages are dropped, to be read again later.
const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often is said that somebody else uses our channels.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Which part of a cluster has it.
    slot: u16,
    /// The master at which it is subscribed, or about to be.
    at: Option<usize>,
    /// Whether that was acknowledged.
    is_heard: bool,
    /// In which life of Redis it was.
    run_id: RunId,
    /// The epoch of its last message, so that the next need not have one of its own.
    epoch: Option<Epoch>,
}

/// Which channels are wanted, and what of them is on its way to the loop.
struct Table {
    names: Names,
    /// This node, whose own shares come back and are no news.
    node: String,
    channels: HashMap<RoomName, Channel>,
    /// Rooms of a cluster that have to find their master anew, not before the time.
    lost: Vec<RoomName>,
    lost_until: Instant,
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
    masters: Masters<Ear>,
    wishes: Inbox<Vec<Wish>>,
    table: Table,
}

impl Subscriber {
    pub(super) fn new(
        poll: Poll,
        masters: Masters<Ear>,
        wishes: Inbox<Vec<Wish>>,
        (names, node): (Names, String),
        (news, counters): (Port<News>, Arc<Counters>),
    ) -> Self {
        let table = Table {
            names,
            node,
            channels: HashMap::new(),
            lost: Vec::new(),
            lost_until: Instant::now(),
            news,
            backlog_bytes: 0,
            gaps: HashSet::new(),
            counters,
            text: String::new(),
            complained_at: None,
        };
        Self { poll, masters, wishes, table }
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
            self.masters.note(&events);
            self.turn(Instant::now());
        }
        self.table.counters.subscribing_up.store(false, Relaxed);
    }

    fn timeout(&self, now: Instant) -> Duration {
        let mut timeout = self.masters.timeout(now);
        if !self.table.lost.is_empty() {
            timeout = timeout.min(self.table.lost_until.saturating_duration_since(now));
        }
        let is_held_up = !self.table.news.is_empty() || !self.table.gaps.is_empty();
        if is_held_up { timeout.min(RETRY) } else { timeout }
    }

    fn turn(&mut self, now: Instant) {
        let Self { masters, wishes, table, .. } = self;
        wishes.begin_drain();
        while let Some(batch) = wishes.pop() {
            batch.into_iter().for_each(|wish| table.wish(wish, masters));
        }
        self.drive(now);
        let Self { masters, table, .. } = self;
        if masters.follow(now, Ear::is_idle).is_some() {
            table.follow(masters);
        }
        if !table.lost.is_empty() && now >= table.lost_until {
            masters.want_chart();
            std::mem::take(&mut table.lost).iter().for_each(|room| table.settle(room, masters));
        }
        let channels = if masters.is_cluster() { Channels::OfSlots } else { Channels::Everywhere };
        for (_, Master { link, load: ear, .. }) in &mut masters.all {
            while link.can_send() && ear.write_command(&table.names, channels, &mut link.out) {}
            link.flush();
        }
        table.flush();
    }

    fn drive(&mut self, now: Instant) {
        let Self { masters, table, .. } = self;
        let is_cluster = masters.is_cluster();
        let (mut up, mut moved) = (Vec::new(), Vec::new());
        for (key, Master { link, load: ear, node }) in &mut masters.all {
            let change = link.drive(now, &mut |chunk, value| match value {
                Value::Error(text) if is_cluster => table.take_redirect(now, (ear, node.as_ref()), text, &mut moved),
                value => table.take(now, (key, ear), chunk, value),
            });
            match change {
                Some(Change::Up) => {
                    ear.run_id = link.run().map_or(RunId::UNKNOWN, |(run_id, _)| run_id);
                    up.push(key);
                }
                Some(Change::Down) => {
                    add(&table.counters.reconnects_total, 1);
                    *ear = Ear::default();
                    table.lose(key);
                    if !is_cluster {
                        table.news.push(News::Down);
                    }
                }
                None => {}
            }
        }
        table.counters.subscribing_up.store(masters.is_any_up(), Relaxed);
        moved.iter().for_each(|(slot, node)| masters.moved(*slot, node));
        if !up.is_empty() {
            table.follow(masters);
        }
    }
}

impl Table {
    fn wish(&mut self, wish: Wish, masters: &mut Masters<Ear>) {
        match wish {
            Wish::Subscribe(room, opening) => {
                self.names.write_channel(&mut self.text, &room);
                let slot = if masters.is_cluster() { cluster::slot(&self.text) } else { 0 };
                let run_id = RunId::UNKNOWN;
                let channel = Channel { opening, slot, at: None, is_heard: false, run_id, epoch: None };
                self.channels.insert(room.clone(), channel);
                self.settle(&room, masters);
            }
            Wish::Unsubscribe(room) => {
                let master = self.channels.remove(&room).and_then(|channel| masters.all.get_mut(channel.at?));
                if let Some(master) = master {
                    master.load.pending.push_back(Wish::Unsubscribe(room));
                }
            }
        }
    }

    /// Has a room subscribed where it belongs, if the link there stands; otherwise that is done once it does.
    fn settle(&mut self, room: &RoomName, masters: &mut Masters<Ear>) {
        let Some(channel) = self.channels.get_mut(room) else { return };
        let owner = masters.owner(channel.slot).filter(|owner| masters.all[*owner].link.is_up());
        if channel.at == owner && owner.is_some() {
            return;
        }
        // Where it was before, Redis ends it with the slot's departure.
        (channel.at, channel.is_heard) = (None, false);
        if let Some(owner) = owner {
            channel.at = Some(owner);
            masters.all[owner].load.pending.push_back(Wish::Subscribe(room.clone(), channel.opening));
        }
    }

    /// A link stands, or slots have another master.
    fn follow(&mut self, masters: &mut Masters<Ear>) {
        let belongs = |channel: &Channel| channel.at.is_some() && channel.at == masters.owner(channel.slot);
        let astray = self.channels.iter().filter(|(_, channel)| !belongs(channel));
        let astray: Vec<_> = astray.map(|(room, _)| room.clone()).collect();
        astray.iter().for_each(|room| self.settle(room, masters));
    }

    /// A link is lost, and with it what was subscribed there.
    fn lose(&mut self, key: usize) {
        for channel in self.channels.values_mut().filter(|channel| channel.at == Some(key)) {
            (channel.at, channel.is_heard) = (None, false);
        }
    }

    fn take(
        &mut self,
        now: Instant,
        (key, ear): (usize, &mut Ear),
        chunk: &Bytes,
        value: Value<'_>,
    ) -> Result<(), Fault> {
        if let Value::Error(text) = value {
            return Err(Fault::reply(text));
        }
        let strange = || Fault::lost("redis sends something strange on a subscription");
        let mut items = value.items().ok_or_else(strange)?;
        match items.next().and_then(|kind| kind.bytes()) {
            Some(b"message" | b"smessage") => {
                let (channel, payload) = (items.next(), items.next());
                let channel = channel.and_then(|channel| channel.bytes()).ok_or_else(strange)?;
                let payload = payload.and_then(|payload| payload.bytes()).ok_or_else(strange)?;
                self.take_message(chunk, channel, payload);
            }
            Some(kind @ (b"subscribe" | b"ssubscribe" | b"unsubscribe" | b"sunsubscribe")) => {
                let is_begin = !kind.starts_with(b"un") && !kind.starts_with(b"sun");
                let channel = items.next().and_then(|channel| channel.bytes()).ok_or_else(strange)?;
                let room = self.names.room(channel).ok_or_else(strange)?;
                let is_it = |(asked, opening): &(RoomName, Option<u32>)| {
                    asked.as_str() == room && opening.is_some() == is_begin
                };
                let asked = ear.asked.iter().position(is_it).and_then(|at| ear.asked.remove(at));
                match asked {
                    Some((room, Some(opening))) => self.take_begin((key, ear.run_id), room, opening),
                    Some((_, None)) => {}
                    None => self.take_end(now, key, room),
                }
            }
            _ => return Err(strange()),
        }
        Ok(())
    }

    fn take_begin(&mut self, (key, run_id): (usize, RunId), room: RoomName, opening: u32) {
        let channel = self.channels.get_mut(&room);
        if let Some(channel) = channel.filter(|channel| channel.at == Some(key) && channel.opening == opening) {
            (channel.is_heard, channel.run_id) = (true, run_id);
        }
        self.news.push(News::Subscribed(room, opening));
    }

    /// A subscription has ended, and nobody asked for that: the slot is somewhere else now.
    fn take_end(&mut self, now: Instant, key: usize, room: &str) {
        let Some((room, _)) = self.channels.get_key_value(room) else { return };
        let room = room.clone();
        let channel = self.channels.get_mut(&room).filter(|channel| channel.at == Some(key) && channel.is_heard);
        if let Some(channel) = channel {
            (channel.at, channel.is_heard) = (None, false);
            self.lose_room(now, room);
        }
    }

    fn lose_room(&mut self, now: Instant, room: RoomName) {
        if self.lost.is_empty() {
            self.lost_until = now + RETRY_LOST;
        }
        self.lost.push(room);
    }

    /// A master does not take a subscription.
    fn take_redirect(
        &mut self,
        now: Instant,
        (ear, from): (&mut Ear, Option<&Node>),
        text: &[u8],
        moved: &mut Vec<(u16, Node)>,
    ) -> Result<(), Fault> {
        let Some(redirect) = Redirect::read(text, from) else { return Err(Fault::reply(text)) };
        let Some((room, opening)) = ear.asked.pop_front() else { return Ok(()) };
        // Where the end of a subscription is not taken it has ended.
        let channel = self.channels.get_mut(&room).filter(|channel| Some(channel.opening) == opening);
        if let Some(channel) = channel {
            (channel.at, channel.is_heard) = (None, false);
            if let Redirect::Moved(node) = redirect {
                moved.push((channel.slot, node));
            }
            self.lose_room(now, room);
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
        let run_id = known.run_id;
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
        let arrival = Arrival { run_id, epoch, seq, body };
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
