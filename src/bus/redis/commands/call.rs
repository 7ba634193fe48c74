//! The calls of the scripts that concern one room, and their answers.
//!
//! Keys of the room `lobby`, all in one slot of a cluster:
//!
//! - `roomcast:{lobby}:meta`: a hash of `epoch`, `line`, `seq`, `till`, `run` and `last`.
//! - `roomcast:{lobby}:log`: a stream with ids `seq-0` and the fields `b` (body) and `t` (Unix
//!   milliseconds).
//! - `roomcast:{lobby}:id:<user> <id>`: the string `line seq`.
//! - `roomcast:{lobby}` is the channel.
//!
//! A *line* is a series of numbers without repetition. It continues when the epoch is renewed, so
//! that an id that was accepted before still counts.
//!
//! **After Redis has restarted**, or a replica has taken over, it may lack its newest messages and
//! assign their numbers again. So an epoch belongs to one run of Redis: `run` is the beginning of
//! its `run_id`, supplied by the node, since a script cannot query it cheaply. Scripts that read
//! report whether `run` is the present one. If it is not, the epoch is *unconfirmed*:
//!
//! - A node that has the room open compares the end of the last message that it delivered with the
//!   one that Redis has under that number. If they are equal, nothing that the node delivered is
//!   lost, and it confirms the epoch. Otherwise, or if there is nothing to compare, it renews the
//!   epoch, and all members are told `recovered: false`.
//! - A node that opens a room waits until its link has been up for two seconds, so that other nodes
//!   can confirm the epoch, and then renews it with the read. Nobody can confirm a room that was
//!   open nowhere: a client that resumes there is told `recovered: false` once after each restart
//!   or failover.
//!
//! The end of the newest message is in the stream, or in `last` (`seq end`) if no stream holds it:
//! without history, and when the last message has become too old. So quiet rooms are confirmed, too,
//! and rooms without history in which nothing is said while Redis is away. Publishing does not check
//! the run; that would make every message pay for what only a restart needs.

use bytes::Bytes;

use super::names::KeyNames;
use super::presence::presence_result;
use super::presence::{PresenceCall, PresenceResult};
use super::script::Script;
use crate::bus::message::{Numbered, Publication, ReadFrom, Signal};
use crate::bus::redis::connection::resp::Value;
use crate::bus::redis::connection::run_id::RunId;
use crate::bus::redis::ordering::history::fingerprint_of;
use crate::bus::redis::ordering::history::{HistoryQuery, HistorySlice, RoomPosition};
use crate::bus::redis::presence::delta::PresenceRequest;
use crate::id::{Epoch, RoomName};

/// What a read does with an epoch that is not confirmed in the present run of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unconfirmed {
    /// The answer says that the epoch is unconfirmed.
    Tell,
    /// The epoch is renewed, once all nodes have had time to confirm it.
    Renew,
}

/// What is known about the server that a call is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) run_id: RunId,
    /// Whether other nodes have had time to confirm epochs in this run.
    pub(crate) is_settled: bool,
}

/// A call of a script.
#[derive(Clone, Debug)]
pub(crate) enum ScriptCall {
    Publish { publication: Publication, serial: u64 },
    Read { room: RoomName, from: ReadFrom, bytes_max: usize, unconfirmed: Unconfirmed },
    Query { room: RoomName, query: HistoryQuery },
    Presence(PresenceCall),
    Signal(Signal),
}

impl ScriptCall {
    pub(super) fn script(&self) -> Script {
        match self {
            Self::Publish { .. } => Script::Publish,
            Self::Query { query: HistoryQuery::Renew(_), .. } => Script::Renew,
            Self::Query { query: HistoryQuery::Confirm(..), .. } => Script::Confirm,
            Self::Read { .. } | Self::Query { .. } => Script::Read,
            Self::Presence(PresenceCall::Room(_, PresenceRequest::Update { .. })) => Script::UpdatePresence,
            Self::Presence(PresenceCall::Room(_, PresenceRequest::Query { .. })) => Script::QueryPresence,
            Self::Presence(PresenceCall::Heartbeat(_)) => Script::Heartbeat,
            Self::Signal(_) => Script::Signal,
        }
    }

    /// The key by which a cluster decides which master runs the call.
    pub(super) fn write_routing_key(&self, names: &KeyNames, text: &mut String) {
        match self.room() {
            Some(room) => names.write_channel(text, room),
            None => names.write_nodes_key(text),
        }
    }

    /// The room whose keys the call uses. A heartbeat uses those of none.
    pub(super) fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Publish { publication, .. } => Some(&publication.room),
            Self::Read { room, .. }
            | Self::Query { room, .. }
            | Self::Presence(PresenceCall::Room(room, _))
            | Self::Signal(Signal { room, .. }) => Some(room),
            Self::Presence(PresenceCall::Heartbeat(_)) => None,
        }
    }
}

/// The answer of a script.
#[derive(Clone, Debug)]
pub(crate) enum ScriptResult {
    Published { run_id: RunId, epoch: Epoch, seq: u64, duplicate: bool },
    Read(HistorySlice),
    Presence(PresenceResult),
    Signal,
}

/// Reads the answer to a call. `run_id` is the run of Redis that gave it.
pub(crate) fn read_result(call: &ScriptCall, run_id: RunId, value: Value<'_>) -> Option<ScriptResult> {
    if let ScriptCall::Presence(call) = call {
        return presence_result(call, value).map(ScriptResult::Presence);
    }
    if let ScriptCall::Signal(_) = call {
        return value.number().map(|_| ScriptResult::Signal);
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
    let position = RoomPosition { run_id, epoch, top, fingerprint };
    Some(ScriptResult::Read(HistorySlice { position, is_confirmed, complete, messages }))
}

/// Reads a message of a room's channel: its epoch, its number and the offset of its body.
pub(crate) fn read_channel_message(payload: &[u8]) -> Option<(&str, u64, usize)> {
    let mut spaces = payload.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
    let (first, second) = (spaces.next()?, spaces.next()?);
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&payload[range]).ok();
    Some((text(0..first)?, text(first + 1..second)?.parse().ok()?, second + 1))
}
