//! What one master is unacknowledged to tell: subscriptions, as commands, and which of them it has yet to acknowledge.

use crate::bus::redis::commands::names::KeyNames;
use crate::bus::redis::commands::script::ChannelKind;
use crate::bus::redis::connection::run_id::RunId;
use std::collections::VecDeque;

use redis::Cmd;

use crate::id::RoomName;

/// ChannelKind in one command: one by one 10,000 take 600 ms, so they take 7.
const CHANNELS_PER_COMMAND: usize = 512;

/// What the loop wants. The number tells one opening of a room from another.
#[derive(Debug)]
pub(crate) enum SubscriptionChange {
    Subscribe(RoomName, u32),
    Unsubscribe(RoomName),
}

/// What is unacknowledged of one master.
#[derive(Default)]
pub(crate) struct Subscriptions {
    pub(crate) pending: VecDeque<SubscriptionChange>,
    /// What Redis has yet to acknowledge, in order: a subscription has its opening. Since an end of a subscription that nobody
    /// unacknowledged for looks like one that was, this is looked through and not only taken from.
    pub(crate) unacknowledged: VecDeque<(RoomName, Option<u32>)>,
    /// Which life of Redis tells.
    pub(crate) run_id: RunId,
    text: String,
}

impl Subscriptions {
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.unacknowledged.is_empty()
    }

    /// Writes as many of the pending wishes as are alike; says whether there were any. ChannelKind of slots go one by one: those
    /// of one command must have the same slot, and an error is to concern one room.
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
