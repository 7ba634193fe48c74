//! What Redis does for a room in one atomic step each, how it is asked, and what it answers.
//!
//! Keys of the room `lobby`, all in one slot of a cluster: `roomcast:{lobby}:meta` (hash: `epoch`, `line`, `seq`, `till`, `run`, `last`),
//! `roomcast:{lobby}:log` (stream with ids `seq-0`, fields `b` body and `t` Unix milliseconds), `roomcast:{lobby}:id:<user> <id>`
//! (string: `line seq`) and the channel `roomcast:{lobby}`. A *line* is a run of numbers without repetition: it goes on when the
//! epoch is renewed, so that an id that was accepted before a renewal still counts.
//!
//! **After Redis has started again**, or a replica has taken over, it may lack its newest messages and give their numbers out again.
//! So an epoch belongs to one run of Redis: `run` is the beginning of its `run_id`, given by the node, since a script cannot ask for
//! it cheaply. Scripts that read say whether `run` is the present one. If not, the epoch is *unconfirmed*:
//!
//! - A node that has the room open compares the end of the last message that was delivered to it with what Redis has under that
//!   number. If they are equal, nothing that it delivered is lost; it confirms the epoch (`CONFIRM`), and nobody is told anything.
//!   Otherwise, and where there is nothing to compare, it renews it (`RENEW`), and all members are told `recovered: false`.
//! - A node that opens a room and finds its epoch unconfirmed waits until its link has stood for two seconds, so that nodes which
//!   have the room open can confirm it, and then renews it with the read. Nobody can confirm a room that was open nowhere: a client that
//!   resumes there is told `recovered: false` once after each restart or failover.
//!
//! The end of the newest message is in the stream, or in `last` (`seq end`) once there is no stream to hold it: without history, and
//! when its last message has become too old. So quiet rooms, and rooms without history in which nothing is said while Redis is away,
//! are confirmed, too. What is published is not checked: that would cost every message what only a restart needs.

use super::names::KeyNames;
use super::presence::presence_result;
use super::presence::{PresenceCall, PresenceResult};
use super::script::Script;
use crate::bus::message::{Numbered, Publication, ReadFrom};
use crate::bus::redis::connection::resp::Value;
use crate::bus::redis::connection::run_id::RunId;
use crate::bus::redis::ordering::history::fingerprint_of;
use crate::bus::redis::ordering::history::{HistoryQuery, HistorySlice, RoomPosition};
use crate::bus::redis::presence::delta::PresenceRequest;
use crate::id::{Epoch, RoomName, UserId};
use crate::protocol::TypingStatus;
use bytes::Bytes;

/// What a read does with an epoch that is not confirmed in the present run of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unconfirmed {
    /// It says so.
    Tell,
    /// It renews it, once every node has had time to confirm it.
    Renew,
}

/// What is known of the server that a call is packed for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) run_id: RunId,
    /// Whether other nodes have had time to confirm epochs in this run.
    pub(crate) is_settled: bool,
}

/// What Redis is to do.
#[derive(Clone, Debug)]
pub(crate) enum ScriptCall {
    Publish { publication: Publication, serial: u64 },
    Read { room: RoomName, from: ReadFrom, bytes_max: usize, unconfirmed: Unconfirmed },
    Ask { room: RoomName, question: HistoryQuery },
    Presence(PresenceCall),
    Typing { room: RoomName, user: UserId, status: TypingStatus },
}

impl ScriptCall {
    pub(super) fn script(&self) -> Script {
        match self {
            Self::Publish { .. } => Script::Publish,
            Self::Ask { question: HistoryQuery::Renew(_), .. } => Script::Renew,
            Self::Ask { question: HistoryQuery::Confirm(..), .. } => Script::Confirm,
            Self::Read { .. } | Self::Ask { .. } => Script::Read,
            Self::Presence(PresenceCall::Room(_, PresenceRequest::Update { .. })) => Script::UpdatePresence,
            Self::Presence(PresenceCall::Room(_, PresenceRequest::Query { .. })) => Script::QueryPresence,
            Self::Presence(PresenceCall::Heartbeat(_)) => Script::Heartbeat,
            Self::Typing { .. } => Script::Typing,
        }
    }

    /// The key by which a cluster finds who does it.
    pub(super) fn write_routing_key(&self, names: &KeyNames, text: &mut String) {
        match self.room() {
            Some(room) => names.write_channel(text, room),
            None => names.write_nodes_key(text),
        }
    }

    /// The room whose keys are concerned; a beat concerns those of none.
    pub(super) fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Publish { publication, .. } => Some(&publication.room),
            Self::Read { room, .. }
            | Self::Ask { room, .. }
            | Self::Presence(PresenceCall::Room(room, _))
            | Self::Typing { room, .. } => Some(room),
            Self::Presence(PresenceCall::Heartbeat(_)) => None,
        }
    }
}

/// What Redis has done.
#[derive(Clone, Debug)]
pub(crate) enum ScriptResult {
    Published { run_id: RunId, epoch: Epoch, seq: u64, duplicate: bool },
    Read(HistorySlice),
    Presence(PresenceResult),
    Typing,
}

/// Reads the answer to a call, which this run of Redis has given.
pub(crate) fn read_result(call: &ScriptCall, run_id: RunId, value: Value<'_>) -> Option<ScriptResult> {
    if let ScriptCall::Presence(call) = call {
        return presence_result(call, value).map(ScriptResult::Presence);
    }
    if let ScriptCall::Typing { .. } = call {
        return value.number().map(|_| ScriptResult::Typing);
    }
    if let ScriptCall::Publish { .. } = call {
        let mut words = value.text()?.split(' ');
        let (epoch, seq) = (Epoch::new(words.next()?), words.next()?.parse().ok()?);
        return Some(ScriptResult::Published { run_id, epoch, seq, duplicate: words.next() == Some("known") });
    }
    let mut items = value.items()?;
    let epoch = Epoch::new(items.next()?.text()?);
    let top = items.next()?.number()?;
    let complete = items.next()?.number()? == 1;
    let is_confirmed = items.next()?.number()? == 1;
    let ending = items.next()?.bytes()?;
    let fingerprint = (!ending.is_empty()).then(|| fingerprint_of(ending));
    let mut messages = Vec::new();
    while let Some(seq) = items.next() {
        let body = Bytes::copy_from_slice(items.next()?.bytes()?);
        messages.push(Numbered { seq: seq.number()?, body });
    }
    let standing = RoomPosition { run_id, epoch, top, fingerprint };
    Some(ScriptResult::Read(HistorySlice { standing, is_confirmed, complete, messages }))
}

/// Reads what was published on a room's channel: the epoch's text, the number, and where the body begins.
pub(crate) fn read_channel_message(payload: &[u8]) -> Option<(&str, u64, usize)> {
    let mut spaces = payload.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
    let (first, second) = (spaces.next()?, spaces.next()?);
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&payload[range]).ok();
    Some((text(0..first)?, text(first + 1..second)?.parse().ok()?, second + 1))
}
