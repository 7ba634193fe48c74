//! The channels of open rooms: where each is subscribed, and what arrives on it.

#![expect(clippy::disallowed_methods, reason = "runs on a thread of the bus, which has its own clock")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::SubscriberEvent;
use super::subscriptions::{SubscriptionChange, Subscriptions};
use crate::bus::redis::cluster::{ConnectionPool, Master, Redirect, slot_of_key};
use crate::bus::redis::commands::{ChannelKind, KeyNames, is_presence, read_channel_message, read_delta, read_signal};
use crate::bus::redis::connection::{HostPort, LinkError, RunId, Value};
use crate::bus::redis::ordering::ChannelMessage;
use crate::bus::redis::stats::Counters;
use crate::bus::worker::{BatchSender, RETRY};
use crate::id::{Epoch, RoomName};

/// How long a room waits before it is subscribed again, after its slot has left a master.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Bytes of messages that wait for a loop that is behind. Beyond it, messages are dropped, to be
/// read again later.
const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often foreign messages on our channels are logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

struct Channel {
    opening: u32,
    /// The cluster slot of the channel.
    slot: u16,
    /// The master at which it is subscribed, or about to be.
    at: Option<usize>,
    is_acknowledged: bool,
    /// The run of Redis in which it is subscribed.
    run_id: RunId,
    /// The epoch of the last message, which most messages share.
    epoch: Option<Epoch>,
}

/// The wanted channels, and the events that are on their way to the loop.
pub(crate) struct ChannelTable {
    names: KeyNames,
    /// This node. Its own deltas come back and are ignored.
    node: String,
    channels: HashMap<RoomName, Channel>,
    /// Rooms of a cluster that are subscribed again at `retry_at`.
    retry: Vec<RoomName>,
    retry_at: Instant,
    events: BatchSender<SubscriberEvent>,
    backlog_bytes: usize,
    gaps: HashSet<RoomName>,
    pub(super) counters: Arc<Counters>,
    text: String,
    logged_at: Option<Instant>,
}

impl ChannelTable {
    pub(crate) fn new(
        names: KeyNames,
        node: String,
        events: BatchSender<SubscriberEvent>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            names,
            node,
            channels: HashMap::new(),
            retry: Vec::new(),
            retry_at: Instant::now(),
            events,
            backlog_bytes: 0,
            gaps: HashSet::new(),
            counters,
            text: String::new(),
            logged_at: None,
        }
    }

    pub(super) fn timeout(&self, now: Instant) -> Duration {
        let retry = (!self.retry.is_empty()).then(|| self.retry_at.saturating_duration_since(now));
        let full = (!self.events.is_empty() || !self.gaps.is_empty()).then_some(RETRY);
        retry.into_iter().chain(full).min().unwrap_or(Duration::MAX)
    }

    /// Subscribes rooms again whose slots have left a master, once their time has come.
    pub(super) fn retry_lost(&mut self, now: Instant, pool: &mut ConnectionPool<Subscriptions>) {
        if !self.retry.is_empty() && now >= self.retry_at {
            pool.request_slot_map();
            std::mem::take(&mut self.retry).iter().for_each(|room| self.subscribe_at_owner(room, pool));
        }
    }

    /// Writes subscriptions and ends of subscriptions.
    pub(super) fn write_commands(&mut self, pool: &mut ConnectionPool<Subscriptions>) {
        let channels = if pool.is_cluster() { ChannelKind::Sharded } else { ChannelKind::Global };
        for (_, Master { link, work: subscriptions, .. }) in &mut pool.all {
            while link.can_send() && subscriptions.write_command(&self.names, channels, link.out()) {}
            link.flush();
        }
    }

    pub(super) fn apply(&mut self, change: SubscriptionChange, pool: &mut ConnectionPool<Subscriptions>) {
        let SubscriptionChange { room, opening } = change;
        let Some(opening) = opening else {
            let master = self.channels.remove(&room).and_then(|channel| pool.all.get_mut(channel.at?));
            if let Some(master) = master {
                master.work.pending.push_back(SubscriptionChange { room, opening: None });
            }
            return;
        };
        self.names.write_channel(&mut self.text, &room);
        let slot = if pool.is_cluster() { slot_of_key(&self.text) } else { 0 };
        let run_id = RunId::UNKNOWN;
        let channel = Channel { opening, slot, at: None, is_acknowledged: false, run_id, epoch: None };
        self.channels.insert(room.clone(), channel);
        self.subscribe_at_owner(&room, pool);
    }

    /// Subscribes a room at the owner of its slot, if the link there is up. Otherwise this
    /// happens when it comes up.
    fn subscribe_at_owner(&mut self, room: &RoomName, pool: &mut ConnectionPool<Subscriptions>) {
        let Some(channel) = self.channels.get_mut(room) else { return };
        let owner = pool.owner(channel.slot).filter(|owner| pool.all[*owner].link.is_up());
        if channel.at == owner && owner.is_some() {
            return;
        }
        // At the former master, Redis ends the subscription itself.
        (channel.at, channel.is_acknowledged) = (None, false);
        if let Some(owner) = owner {
            channel.at = Some(owner);
            pool.all[owner]
                .work
                .pending
                .push_back(SubscriptionChange { room: room.clone(), opening: Some(channel.opening) });
        }
    }

    /// A link is up, or slots have another master.
    pub(super) fn resubscribe(&mut self, pool: &mut ConnectionPool<Subscriptions>) {
        let belongs = |channel: &Channel| channel.at.is_some() && channel.at == pool.owner(channel.slot);
        let misplaced = self.channels.iter().filter(|(_, channel)| !belongs(channel));
        let misplaced: Vec<_> = misplaced.map(|(room, _)| room.clone()).collect();
        misplaced.iter().for_each(|room| self.subscribe_at_owner(room, pool));
    }

    /// A link is lost, and with it the subscriptions there.
    pub(super) fn link_lost(&mut self, key: usize, kind: ChannelKind) {
        for channel in self.channels.values_mut().filter(|channel| channel.at == Some(key)) {
            (channel.at, channel.is_acknowledged) = (None, false);
        }
        if kind == ChannelKind::Global {
            self.events.push(SubscriberEvent::LinkLost);
        }
    }

    pub(super) fn take(
        &mut self,
        now: Instant,
        (key, subscriptions): (usize, &mut Subscriptions),
        chunk: &Bytes,
        value: Value<'_>,
    ) -> Result<(), LinkError> {
        if let Value::Error(text) = value {
            return Err(LinkError::reply(text));
        }
        let unexpected = || LinkError::lost("redis sends an unexpected reply on a subscription");
        let mut items = value.items().ok_or_else(unexpected)?;
        match items.next().and_then(|kind| kind.bytes()) {
            Some(b"message" | b"smessage") => {
                let (channel, payload) = (items.next(), items.next());
                let channel = channel.and_then(|channel| channel.bytes()).ok_or_else(unexpected)?;
                let payload = payload.and_then(|payload| payload.bytes()).ok_or_else(unexpected)?;
                self.take_message(chunk, channel, payload);
            }
            Some(kind @ (b"subscribe" | b"ssubscribe" | b"unsubscribe" | b"sunsubscribe")) => {
                let is_begin = !kind.starts_with(b"un") && !kind.starts_with(b"sun");
                let channel = items.next().and_then(|channel| channel.bytes()).ok_or_else(unexpected)?;
                let room = self.names.room(channel).ok_or_else(unexpected)?;
                let unacknowledged = &mut subscriptions.unacknowledged;
                let is_it =
                    |change: &SubscriptionChange| change.room.as_str() == room && change.opening.is_some() == is_begin;
                let change = unacknowledged.iter().position(is_it).and_then(|at| unacknowledged.remove(at));
                match change {
                    Some(SubscriptionChange { room, opening: Some(opening) }) => {
                        self.subscribed((key, subscriptions.run_id), room, opening);
                    }
                    Some(_) => {}
                    None => self.ended(now, key, room),
                }
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn subscribed(&mut self, (key, run_id): (usize, RunId), room: RoomName, opening: u32) {
        let channel = self.channels.get_mut(&room);
        if let Some(channel) = channel.filter(|channel| channel.at == Some(key) && channel.opening == opening) {
            (channel.is_acknowledged, channel.run_id) = (true, run_id);
        }
        self.events.push(SubscriberEvent::Subscribed(room, opening));
    }

    /// Redis has ended a subscription, because its slot has moved.
    fn ended(&mut self, now: Instant, key: usize, room: &str) {
        let Some((room, _)) = self.channels.get_key_value(room) else { return };
        let room = room.clone();
        let channel = self.channels.get_mut(&room).filter(|channel| channel.at == Some(key) && channel.is_acknowledged);
        if let Some(channel) = channel {
            (channel.at, channel.is_acknowledged) = (None, false);
            self.retry_later(now, room);
        }
    }

    fn retry_later(&mut self, now: Instant, room: RoomName) {
        if self.retry.is_empty() {
            self.retry_at = now + RETRY_AFTER;
        }
        self.retry.push(room);
    }

    /// A master refuses a subscription.
    pub(super) fn take_redirect(
        &mut self,
        now: Instant,
        (subscriptions, from): (&mut Subscriptions, Option<&HostPort>),
        text: &[u8],
        moved: &mut Vec<(u16, HostPort)>,
    ) -> Result<(), LinkError> {
        let Some(redirect) = Redirect::read(text, from) else { return Err(LinkError::reply(text)) };
        let Some(SubscriptionChange { room, opening }) = subscriptions.unacknowledged.pop_front() else {
            return Ok(());
        };
        // If the end of a subscription is refused, it has ended already.
        let channel = self.channels.get_mut(&room).filter(|channel| Some(channel.opening) == opening);
        if let Some(channel) = channel {
            (channel.at, channel.is_acknowledged) = (None, false);
            if let Redirect::Moved(node) = redirect {
                moved.push((channel.slot, node));
            }
            self.retry_later(now, room);
        }
        Ok(())
    }

    fn take_message(&mut self, chunk: &Bytes, channel: &[u8], payload: &[u8]) {
        let known = self.names.room(channel).and_then(|room| self.channels.get_key_value(room));
        // A late message of a room that was closed.
        let Some((room, known)) = known else { return };
        let room = room.clone();
        if is_presence(payload) {
            if let Some(signal) = read_signal(&room, payload, &self.node) {
                // Signals are dropped first.
                if self.backlog_bytes <= BACKLOG_BYTES_MAX / 4 {
                    self.backlog_bytes += payload.len();
                    self.events.push(SubscriberEvent::Signal(signal));
                }
                return;
            }
            // A later version may say something that this one cannot read. That is ignored.
            let delta = read_delta(payload, &self.node);
            return self.queue_event(room, payload.len(), |room| Some(SubscriberEvent::Presence(room, delta?)));
        }
        let Some((epoch, seq, body_at)) = read_channel_message(payload) else { return self.log_foreign_message(&room) };
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
        let message = ChannelMessage { run_id, epoch, seq, body };
        self.queue_event(room, payload.len(), |room| Some(SubscriberEvent::Message(room, message)));
    }

    /// Tells the loop, unless it is too far behind.
    fn queue_event(&mut self, room: RoomName, bytes: usize, events: impl FnOnce(RoomName) -> Option<SubscriberEvent>) {
        if self.backlog_bytes > BACKLOG_BYTES_MAX {
            self.counters.dropped_total.add(1);
            self.gaps.insert(room);
        } else if let Some(events) = events(room) {
            self.backlog_bytes += bytes;
            self.events.push(events);
        }
    }

    /// At most once a second.
    fn log_foreign_message(&mut self, room: &RoomName) {
        let now = Instant::now();
        if self.logged_at.is_none_or(|at| now >= at + COMPLAINT_INTERVAL) {
            self.logged_at = Some(now);
            log::warn!("something other than roomcast publishes on the channel of room {room}; it is ignored");
        }
    }

    pub(super) fn flush(&mut self) {
        self.events.flush();
        if self.events.is_empty() {
            self.backlog_bytes = 0;
            // Gaps are reported after all messages that were not dropped. Reported earlier, more
            // could be dropped behind the report.
            self.gaps.drain().for_each(|room| self.events.push(SubscriberEvent::Gap(room)));
            self.events.flush();
        }
    }
}
