//! The thread that subscribes to the channels of open rooms, and hands what arrives to the loop,
//! one batch for each read.
//!
//! In a cluster each room is subscribed at the master of its slot, by the commands for sharded
//! channels. Redis ends such a subscription when the slot moves, and the next one makes the room
//! check for missing messages. A global channel would go on as if nothing had happened when a
//! replica takes over that lacks the last messages.

use std::time::{Duration, Instant};

use mio::Events;

use super::channels::ChannelTable;
use super::subscriptions::{SubscriptionChange, Subscriptions};
use crate::bus::redis::cluster::{ConnectionPool, Master};
use crate::bus::redis::commands::ChannelKind;
use crate::bus::redis::connection::{LinkChange, Value};
use crate::bus::worker::Task;
use crate::inbox::Inbox;

pub(crate) struct SubscriberThread {
    pool: ConnectionPool<Subscriptions>,
    changes: Inbox<Vec<SubscriptionChange>>,
    channels: ChannelTable,
}

impl SubscriberThread {
    pub(crate) fn new(
        pool: ConnectionPool<Subscriptions>,
        changes: Inbox<Vec<SubscriptionChange>>,
        channels: ChannelTable,
    ) -> Self {
        Self { pool, changes, channels }
    }
}

impl Task for SubscriberThread {
    fn timeout(&self, now: Instant) -> Duration {
        self.pool.timeout(now).min(self.channels.timeout(now))
    }

    fn turn(&mut self, now: Instant, events: &Events) {
        let Self { pool, changes, channels } = self;
        pool.note(events);
        changes.begin_drain();
        while let Some(batch) = changes.pop() {
            batch.into_iter().for_each(|change| channels.apply(change, pool));
        }
        drive(now, pool, channels);
        if pool.refresh(now, Subscriptions::is_idle).is_some() {
            channels.resubscribe(pool);
        }
        channels.retry_lost(now, pool);
        channels.write_commands(pool);
        channels.flush();
    }

    fn end(&mut self) {
        self.channels.counters.subscribing_up.set(false);
    }
}

fn drive(now: Instant, pool: &mut ConnectionPool<Subscriptions>, channels: &mut ChannelTable) {
    let kind = if pool.is_cluster() { ChannelKind::Sharded } else { ChannelKind::Global };
    let (mut is_any_new, mut moved) = (false, Vec::new());
    for (key, Master { link, work: subscriptions, node }) in &mut pool.all {
        let change = link.drive(now, &mut |chunk, value| match value {
            Value::Error(text) if kind == ChannelKind::Sharded => {
                channels.take_redirect(now, (subscriptions, node.as_ref()), text, &mut moved)
            }
            value => channels.take(now, (key, subscriptions), chunk, value),
        });
        match change {
            Some(LinkChange::Up(run_id)) => (subscriptions.run_id, is_any_new) = (run_id, true),
            Some(LinkChange::Down) => {
                channels.counters.reconnects_total.add(1);
                *subscriptions = Subscriptions::default();
                channels.link_lost(key, kind);
            }
            None => {}
        }
    }
    channels.counters.subscribing_up.set(pool.is_any_up());
    moved.iter().for_each(|(slot, node)| pool.slot_moved(*slot, node));
    if is_any_new {
        channels.resubscribe(pool);
    }
}
