//! Requests of the loop to the command thread, and the responses to them. All but heartbeats
//! concern one room.
//!
//! Keys of the room `lobby`, all in one slot of a cluster:
//!
//! - `roomcast:{lobby}:meta`: a hash of `epoch`, `line`, `seq`, `till`, `run` and `last`.
//! - `roomcast:{lobby}:log`: a stream with ids `seq-0` and the fields `b` (body) and `t` (Unix
//!   milliseconds).
//! - `roomcast:{lobby}:id:<user> <id>`: the string `line seq`.
//! - `roomcast:{lobby}:gone`: a sorted set of the numbers of deleted messages, whose entries the stream does not have any more. It
//!   tells them from entries that were lost. Deleting trims it and the stream to as many numbers as the stream may have entries.
//! - `roomcast:{lobby}` is the channel.
//!
//! The room of control messages has two more, which outlive all others: `restrictions`, a hash from keys to the bodies of control
//! messages, and `expiries`, a sorted set of the keys of those that expire, by time.
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
//! without history, and when the last message has become too old. So quiet rooms are confirmed,
//! too, and rooms without history in which nothing is said while Redis is away. Publishing does not
//! check the run; that would make every message pay for what only a restart needs.

use std::time::Duration;

use bytes::Bytes;

use super::names::KeyNames;
use super::presence::{read_heartbeat, read_presence};
use super::restrictions::{RestrictionsRead, RestrictionsSlice, is_full, read_restrictions};
use super::script::Script;
use crate::bus::message::{BusRefusal, DeletionTargets, Numbered, Publication, ReadFrom, Signal, Ticket};
use crate::bus::redis::connection::{RunId, Value};
use crate::bus::redis::ordering::{HistoryQuery, HistorySlice, RoomPosition, fingerprint_of};
use crate::bus::redis::presence::{Heartbeat, HeartbeatReply, PresenceAnswer, PresenceRequest};
use crate::id::{Epoch, RoomName};
use crate::settings::RuleIndex;

/// A call of a script. It comes back with its [`Response`], so that the loop keeps no table of what
/// it has asked.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Publish(PendingPublication),
    Read(PendingRead),
    Query(RoomRequest<HistoryQuery>),
    Presence(RoomRequest<PresenceRequest>),
    Heartbeat(Heartbeat),
    /// The last heartbeat of this node.
    Leave,
    Signal(Signal),
    Restrictions(RestrictionsRead),
    /// Ask which commands the Redis user may not call.
    CheckRights(RightsPlace),
}

/// Which server is asked for the rights of the user: that of the heartbeats, or that of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RightsPlace {
    Nodes,
    Room(RoomName),
}

/// The outcome of a request. Each request gets one response.
#[derive(Debug)]
pub(crate) enum Response {
    Published(PendingPublication, Result<Numbering, BusRefusal>),
    Page(PendingRead, Result<HistorySlice, BusRefusal>),
    Query(RoomRequest<HistoryQuery>, Result<HistorySlice, BusRefusal>),
    Presence(RoomRequest<PresenceRequest>, Result<PresenceAnswer, BusRefusal>),
    Heartbeat(Result<HeartbeatReply, BusRefusal>),
    Left,
    Signal,
    Restrictions(RestrictionsRead, Result<RestrictionsSlice, BusRefusal>),
    /// The commands that the Redis user may not call.
    Rights(RightsPlace, Result<Vec<String>, BusRefusal>),
    /// The Redis user lacks a right at the server of a room. It answers no request; the request's own answer follows.
    RightMissing(RoomName),
}

/// A request with the answer of Redis.
#[derive(Debug)]
pub(super) enum Answered {
    Response(Response),
    /// This is no answer to the request.
    Unexpected(Request),
}

/// A publication that may have to be sent again.
#[derive(Clone, Debug)]
pub(crate) struct PendingPublication {
    pub(crate) ticket: Ticket,
    pub(crate) publication: Publication,
    /// The messages that it announces to be deleted.
    pub(crate) deletes: Option<Box<DeletionTargets>>,
    /// That of its room.
    pub(crate) rule: RuleIndex,
    /// Identifies it to Redis if the sender gave it no id.
    pub(crate) serial: u64,
    /// When it was submitted.
    pub(crate) at: Duration,
}

/// A read of history for the hub.
#[derive(Clone, Debug)]
pub(crate) struct PendingRead {
    pub(crate) ticket: Ticket,
    pub(crate) room: RoomName,
    pub(crate) from: ReadFrom,
    pub(crate) bytes_max: usize,
    /// When it was submitted.
    pub(crate) since: Duration,
    /// The opening of the room, if it was open when the read was sent.
    pub(crate) opening: Option<u32>,
    /// What was known of the room then.
    pub(crate) reached: Option<(Epoch, u64)>,
}

/// A request of the bus itself for a room, in one opening of it.
#[derive(Clone, Debug)]
pub(crate) struct RoomRequest<T> {
    pub(crate) room: RoomName,
    pub(crate) opening: u32,
    pub(crate) request: T,
}

/// What Redis has made of a publication.
#[derive(Clone, Debug)]
pub(crate) struct Numbering {
    pub(crate) run_id: RunId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) is_duplicate: bool,
}

impl PendingPublication {
    /// Whether it announces that the message with this number is deleted.
    pub(crate) fn deletes_message(&self, seq: u64) -> bool {
        self.deletes.as_ref().is_some_and(|targets| targets.seqs.contains(&seq))
    }
}

impl PendingRead {
    /// Whether an epoch that is not confirmed in the present run of Redis is renewed by the read,
    /// once all nodes have had time to confirm it. After a delivery, comparing is up to the
    /// reassembler. Older messages are read of rooms that are not open here, too.
    pub(super) fn may_renew(&self) -> bool {
        (self.opening.is_some() || self.from.is_backwards()) && self.reached.is_none()
    }
}

impl Request {
    pub(super) fn script(&self) -> Script {
        match self {
            Self::Publish(pending) if pending.publication.restriction.is_some() => Script::Restrict,
            Self::Publish(pending) if pending.deletes.is_some() => Script::Delete,
            Self::Publish(_) => Script::Publish,
            Self::Query(RoomRequest { request: HistoryQuery::Renew(_), .. }) => Script::Renew,
            Self::Query(RoomRequest { request: HistoryQuery::Confirm(..), .. }) => Script::Confirm,
            Self::Read(read) if read.from.is_backwards() => Script::ReadBefore,
            Self::Read(_) | Self::Query(_) => Script::Read,
            Self::Presence(RoomRequest { request: PresenceRequest::Update { .. }, .. }) => Script::UpdatePresence,
            Self::Presence(RoomRequest { request: PresenceRequest::Query { .. }, .. }) => Script::QueryPresence,
            Self::Heartbeat(_) | Self::Leave => Script::Heartbeat,
            Self::Signal(_) => Script::Signal,
            Self::Restrictions(_) => Script::ReadRestrictions,
            Self::CheckRights(_) => Script::CheckRights,
        }
    }

    /// The room that it concerns, by which a cluster decides which master runs the script; none if it goes to that of the heartbeats.
    pub(super) fn room(&self) -> Option<RoomName> {
        match self {
            Self::Publish(pending) => Some(pending.publication.room.clone()),
            Self::Read(read) => Some(read.room.clone()),
            Self::Query(RoomRequest { room, .. })
            | Self::Presence(RoomRequest { room, .. })
            | Self::Signal(Signal { room, .. })
            | Self::CheckRights(RightsPlace::Room(room)) => Some(room.clone()),
            Self::Restrictions(_) => Some(RoomName::control()),
            Self::Heartbeat(_) | Self::Leave | Self::CheckRights(RightsPlace::Nodes) => None,
        }
    }

    /// The key by which a cluster decides which master runs the script.
    pub(super) fn write_routing_key(&self, names: &KeyNames, text: &mut String) {
        match self.room() {
            Some(room) => names.write_channel(text, &room),
            None => names.write_nodes_key(text),
        }
    }

    /// The response of a request that Redis has not carried out.
    pub(super) fn refused(self, refusal: BusRefusal) -> Response {
        match self {
            Self::Publish(pending) => Response::Published(pending, Err(refusal)),
            Self::Read(read) => Response::Page(read, Err(refusal)),
            Self::Query(query) => Response::Query(query, Err(refusal)),
            Self::Presence(request) => Response::Presence(request, Err(refusal)),
            Self::Heartbeat(_) => Response::Heartbeat(Err(refusal)),
            Self::Leave => Response::Left,
            Self::Signal(_) => Response::Signal,
            Self::Restrictions(read) => Response::Restrictions(read, Err(refusal)),
            Self::CheckRights(place) => Response::Rights(place, Err(refusal)),
        }
    }

    /// Takes the answer of Redis, which was given in the run `run_id`.
    pub(super) fn answered(self, run_id: RunId, value: Value<'_>) -> Answered {
        fn pair<A, B>(
            asked: A,
            answer: Option<B>,
            response: fn(A, Result<B, BusRefusal>) -> Response,
            request: fn(A) -> Request,
        ) -> Answered {
            match answer {
                Some(answer) => Answered::Response(response(asked, Ok(answer))),
                None => Answered::Unexpected(request(asked)),
            }
        }
        match self {
            Self::Publish(pending) if is_full(&value) => Answered::Response(Response::Published(pending, Err(FULL))),
            Self::Publish(pending) if value.bytes() == Some(MISSING) => {
                Answered::Response(Response::Published(pending, Err(BusRefusal::NO_MESSAGE)))
            }
            Self::Publish(pending) => pair(pending, read_numbering(run_id, &value), Response::Published, Self::Publish),
            Self::Read(read) => pair(read, read_slice(run_id, value), Response::Page, Self::Read),
            Self::Query(query) => pair(query, read_slice(run_id, value), Response::Query, Self::Query),
            Self::Presence(asked) => {
                let answer = read_presence(&asked.request, value);
                pair(asked, answer, Response::Presence, Self::Presence)
            }
            Self::Heartbeat(heartbeat) => {
                let reply = read_heartbeat(value);
                pair(heartbeat, reply, |_, reply| Response::Heartbeat(reply), Self::Heartbeat)
            }
            Self::Leave => pair((), read_heartbeat(value), |(), _| Response::Left, |()| Self::Leave),
            Self::Signal(signal) => {
                let receivers = matches!(value, Value::Integer(_)).then_some(());
                pair(signal, receivers, |_, _| Response::Signal, Self::Signal)
            }
            Self::Restrictions(read) => {
                pair(read, read_restrictions(run_id, value), Response::Restrictions, Self::Restrictions)
            }
            Self::CheckRights(place) => pair(place, read_names(value), Response::Rights, Self::CheckRights),
        }
    }
}

const FULL: BusRefusal = BusRefusal::storage_full("there are as many bans and mutes as are allowed");

/// The answer of a script that found no such message.
const MISSING: &[u8] = b"missing";

/// Reads the names of commands.
fn read_names(value: Value<'_>) -> Option<Vec<String>> {
    value.items()?.map(|name| name.text().map(str::to_owned)).collect()
}

fn read_numbering(run_id: RunId, value: &Value<'_>) -> Option<Numbering> {
    let mut words = matches!(value, Value::Bulk(_)).then(|| value.text())??.split(' ');
    let (epoch, seq) = (Epoch::new(words.next()?), words.next()?.parse().ok()?);
    Some(Numbering { run_id, epoch, seq, is_duplicate: words.next() == Some("known") })
}

pub(super) fn read_slice(run_id: RunId, value: Value<'_>) -> Option<HistorySlice> {
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
    Some(HistorySlice { position, is_confirmed, complete, messages })
}

/// Reads a message of a room's channel: its epoch, its number and the offset of its body.
pub(crate) fn read_channel_message(payload: &[u8]) -> Option<(&str, u64, usize)> {
    let mut spaces = payload.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
    let (first, second) = (spaces.next()?, spaces.next()?);
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&payload[range]).ok();
    Some((text(0..first)?, text(first + 1..second)?.parse().ok()?, second + 1))
}
