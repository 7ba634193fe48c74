//! The subscriptions at one master, and which of them Redis has yet to acknowledge.

use std::collections::VecDeque;

use redis::Cmd;

use crate::bus::redis::commands::{ChannelKind, KeyNames};
use crate::bus::redis::connection::RunId;
use crate::id::RoomName;

/// Channels in one command. 10,000 channels one by one take 600 ms, in batches 7 ms.
const CHANNELS_PER_COMMAND: usize = 512;

/// A change of the subscriptions.
#[derive(Debug)]
pub(crate) struct SubscriptionChange {
    pub(crate) room: RoomName,
    /// The opening of the room that is subscribed; `None` to unsubscribe.
    pub(crate) opening: Option<u32>,
}

/// The subscriptions at one master.
#[derive(Default)]
pub(crate) struct Subscriptions {
    pub(crate) pending: VecDeque<SubscriptionChange>,
    /// What Redis has yet to acknowledge, in order. Entries are searched for, because the end of a
    /// subscription that Redis ended itself looks like an acknowledgement.
    pub(crate) unacknowledged: VecDeque<SubscriptionChange>,
    /// The run of Redis at the other end.
    pub(crate) run_id: RunId,
    text: String,
}

impl Subscriptions {
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.unacknowledged.is_empty()
    }

    /// Writes one command for as many pending changes of the same kind as possible. Returns
    /// whether there were any. Channels of a cluster go one by one: those of one command must
    /// share a slot, and an error should concern one room only.
    pub(crate) fn write_command(&mut self, names: &KeyNames, channels: ChannelKind, out: &mut Vec<u8>) -> bool {
        let Some(first) = self.pending.front() else { return false };
        let is_subscribe = first.opening.is_some();
        let (name, channels_max) = match (channels, is_subscribe) {
            (ChannelKind::Global, true) => ("SUBSCRIBE", CHANNELS_PER_COMMAND),
            (ChannelKind::Global, false) => ("UNSUBSCRIBE", CHANNELS_PER_COMMAND),
            (ChannelKind::Sharded, true) => ("SSUBSCRIBE", 1),
            (ChannelKind::Sharded, false) => ("SUNSUBSCRIBE", 1),
        };
        let is_of_kind = |change: &&SubscriptionChange| change.opening.is_some() == is_subscribe;
        let count = self.pending.iter().take(channels_max).take_while(is_of_kind).count();
        let mut command = Cmd::new();
        command.arg(name);
        for change in self.pending.drain(..count) {
            names.write_channel(&mut self.text, &change.room);
            command.arg(&self.text);
            self.unacknowledged.push_back(change);
        }
        command.write_packed_command(out);
        true
    }
}
