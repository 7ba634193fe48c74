//! What one master is asked to tell: subscriptions, as commands, and which of them it has yet to acknowledge.

use std::collections::VecDeque;

use redis::Cmd;

use super::run_id::RunId;
use super::script::{Channels, Names};
use crate::id::RoomName;

/// Channels in one command: one by one 10,000 take 600 ms, so they take 7.
const CHANNELS_PER_COMMAND: usize = 512;

/// What the loop wants. The number tells one opening of a room from another.
#[derive(Debug)]
pub(super) enum Wish {
    Subscribe(RoomName, u32),
    Unsubscribe(RoomName),
}

/// What is asked of one master.
#[derive(Default)]
pub(super) struct Ear {
    pub(super) pending: VecDeque<Wish>,
    /// What Redis has yet to acknowledge, in order: a subscription has its opening. Since an end of a subscription that nobody
    /// asked for looks like one that was, this is looked through and not only taken from.
    pub(super) asked: VecDeque<(RoomName, Option<u32>)>,
    /// Which life of Redis tells.
    pub(super) run_id: RunId,
    text: String,
}

impl Ear {
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.asked.is_empty()
    }

    /// Writes as many of the pending wishes as are alike; says whether there were any. Channels of slots go one by one: those
    /// of one command must have the same slot, and an error is to concern one room.
    pub(super) fn write_command(&mut self, names: &Names, channels: Channels, out: &mut Vec<u8>) -> bool {
        let is_subscribe = |wish: &Wish| matches!(wish, Wish::Subscribe(..));
        let Some(first) = self.pending.front().map(is_subscribe) else { return false };
        let mut command = Cmd::new();
        let (words, most) = match channels {
            Channels::Everywhere => (["SUBSCRIBE", "UNSUBSCRIBE"], CHANNELS_PER_COMMAND),
            Channels::OfSlots => (["SSUBSCRIBE", "SUNSUBSCRIBE"], 1),
        };
        command.arg(if first { words[0] } else { words[1] });
        for _ in 0..most {
            if self.pending.front().map(is_subscribe) != Some(first) {
                break;
            }
            let Some(wish) = self.pending.pop_front() else { break };
            let (room, opening) = match wish {
                Wish::Subscribe(room, opening) => (room, Some(opening)),
                Wish::Unsubscribe(room) => (room, None),
            };
            names.write_channel(&mut self.text, &room);
            command.arg(&self.text);
            self.asked.push_back((room, opening));
        }
        command.write_packed_command(out);
        true
    }
}
