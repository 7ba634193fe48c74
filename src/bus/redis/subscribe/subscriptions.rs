//! The subscriptions at one master, and which of them Redis has yet to acknowledge.

use std::collections::VecDeque;

use redis::Cmd;

use crate::bus::redis::commands::names::KeyNames;
use crate::bus::redis::commands::script::ChannelKind;
use crate::bus::redis::connection::run_id::RunId;
use crate::id::RoomName;

/// Channels in one command. 10,000 channels one by one take 600 ms, in batches 7 ms.
const CHANNELS_PER_COMMAND: usize = 512;

/// A change of the subscriptions. The number tells one opening of a room from another.
#[derive(Debug)]
pub(crate) enum SubscriptionChange {
    Subscribe(RoomName, u32),
    Unsubscribe(RoomName),
}

/// The subscriptions at one master.
#[derive(Default)]
pub(crate) struct Subscriptions {
    pub(crate) pending: VecDeque<SubscriptionChange>,
    /// What Redis has yet to acknowledge, in order; subscriptions with their opening. Entries are
    /// searched for, because the end of a subscription that Redis ended itself looks like an
    /// acknowledgement.
    pub(crate) unacknowledged: VecDeque<(RoomName, Option<u32>)>,
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
        let is_subscribe = |change: &SubscriptionChange| matches!(change, SubscriptionChange::Subscribe(..));
        let Some(first) = self.pending.front().map(is_subscribe) else { return false };
        let mut command = Cmd::new();
        let (words, most) = match channels {
            ChannelKind::Global => (["SUBSCRIBE", "UNSUBSCRIBE"], CHANNELS_PER_COMMAND),
            ChannelKind::Sharded => (["SSUBSCRIBE", "SUNSUBSCRIBE"], 1),
        };
        command.arg(if first { words[0] } else { words[1] });
        for _ in 0..most {
            if self.pending.front().map(is_subscribe) != Some(first) {
                break;
            }
            let Some(change) = self.pending.pop_front() else { break };
            let (room, opening) = match change {
                SubscriptionChange::Subscribe(room, opening) => (room, Some(opening)),
                SubscriptionChange::Unsubscribe(room) => (room, None),
            };
            names.write_channel(&mut self.text, &room);
            command.arg(&self.text);
            self.unacknowledged.push_back((room, opening));
        }
        command.write_packed_command(out);
        true
    }
}
