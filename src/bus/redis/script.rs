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

mod names;
mod presence;

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;

pub(super) use self::names::Names;
pub(super) use self::presence::{PresenceCall, PresenceDone, is_share, share, typing};
use super::cluster;
use super::resp::Value;
use super::run_id::RunId;
use super::sequence::{Extract, Question, Standing, fingerprint};
use super::share::Wish;
use crate::config::Config;
use crate::id::{Epoch, RoomName, UserId};
use crate::protocol::TypingStatus;
use crate::publication::{Numbered, Publication, ReadFrom};

/// How long keys of a room outlive what they must, so that a room in use, which is touched every 30 s, never expires.
const SLACK: Duration = Duration::from_secs(5 * 60);

/// How long a publication without an id of its own is remembered: it is sent again within seconds or never.
const OWN_ID_AGE: Duration = Duration::from_secs(2 * 60);

/// What an answer to a question about missing messages may weigh.
const FILL_BYTES_MAX: usize = 256 * 1024;

/// Begins a room that is not there: with the number at which its stream ends, should only the hash have been lost.
/// An id that is not larger than the last one would be refused by `XADD`, *after* the counter was increased.
const BEGIN: &str = "
local function begin(candidate, run)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local seq = last and string.match(last[1], '^%d+') or '0'
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'line', candidate, 'seq', seq, 'run', run)
  return seq
end
";

/// Where a room stands, as the first items of an answer: epoch, top, whether what follows reaches up to it, whether the epoch is
/// confirmed in this run, and the end of message `top`, if it is known.
const STAND: &str = "
local function stand(candidate, run)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'run', 'last')
  local epoch, top, known, last = meta[1], meta[2], meta[3], meta[4]
  if not epoch then epoch, top, known = candidate, begin(candidate, run), run end
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local ending = ''
  if newest and newest[1] == top .. '-0' then
    ending = string.sub(newest[2][2], -32)
  elseif last and string.sub(last, 1, #top + 1) == top .. ' ' then
    ending = string.sub(last, #top + 2)
  end
  return {epoch, top, 1, known == run and 1 or 0, ending}, newest
end
local function renew(found, candidate, run)
  redis.call('HSET', KEYS[1], 'epoch', candidate, 'run', run)
  redis.call('PUBLISH', string.sub(KEYS[1], 1, -6), candidate .. ' ' .. found[2] .. ' ')
  found[1], found[4] = candidate, 1
end
local function live(life)
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
end
";

/// Unix milliseconds by Redis' clock and no other: a node whose own is ahead would take everybody's history for too old.
const CLOCK: &str = "
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
";

/// KEYS meta, log, id; ARGV candidate epoch, body, most messages, life of keys, life of the id, run. Returns `epoch seq`, with `known` behind
/// it if the id was: one string costs Redis less than a list. Numbers are written by `string.format`: Lua would write large ones as
/// 1e+15. All that can fail comes before `PUBLISH`: nothing is published that is not kept; and what could not be kept is not known,
/// so that it can be tried again. The life of keys is renewed after two minutes (less than [`SLACK`]), at `till`, which saves a tenth of
/// Redis' time, and where the stream is new, perhaps because it alone was lost, and has no life yet: `NOMKSTREAM` tells without a
/// further call.
const PUBLISH: &str = "
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'line', 'seq', 'till')
local epoch, line, last, till = meta[1], meta[2], meta[3], tonumber(meta[4] or 0)
if not epoch then
  last = begin(ARGV[1], ARGV[6])
  epoch, line = ARGV[1], ARGV[1]
end
local seq = string.format('%.0f', last + 1)
local mark = line .. ' ' .. seq
local known = redis.call('SET', KEYS[3], mark, 'NX', 'GET', 'PX', ARGV[5])
if known then
  local of, number = string.match(known, '^(%S+) (%d+)$')
  if of == line then return epoch .. ' ' .. number .. ' known' end
  redis.call('SET', KEYS[3], mark, 'PX', ARGV[5])
end
redis.call('HSET', KEYS[1], 'seq', seq)
local now = clock()
if ARGV[3] ~= '0' then
  local stamp = string.format('%.0f', now)
  local kept = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], seq .. '-0', 'b', ARGV[2], 't', stamp)
  if not kept then
    kept = redis.pcall('XADD', KEYS[2], seq .. '-0', 'b', ARGV[2], 't', stamp)
    till = 0
  end
  if type(kept) == 'table' then
    redis.call('DEL', KEYS[3])
    return kept
  end
else
  redis.call('HSET', KEYS[1], 'last', seq .. ' ' .. string.sub(ARGV[2], -32))
end
if now >= till or till > now + 120000 then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[1], 'till', string.format('%.0f', now + 120000))
end
redis.call('PUBLISH', string.sub(KEYS[1], 1, -6), epoch .. ' ' .. seq .. ' ' .. ARGV[2])
return epoch .. ' ' .. seq
";

/// KEYS meta, log; ARGV candidate epoch, run, life of keys, first number (negative: so many newest), most bytes, age (empty: any),
/// `1` if an unconfirmed epoch is to be renewed. Returns how the room stands, and number and body of each message; at least two, if there
/// are so many. What is older than the age is cut off the stream for good, so that each message is looked at once for it.
const READ: &str = "
local found, newest = stand(ARGV[1], ARGV[2])
if found[4] == 0 and ARGV[7] == '1' then renew(found, ARGV[1], ARGV[2]) end
live(ARGV[3])
local top, bytes, most, age = found[2], 0, tonumber(ARGV[5]), tonumber(ARGV[6])
if most == 0 then return found end
local oldest = age and clock() - age
if oldest and newest and tonumber(newest[2][4]) < oldest then
  redis.call('HSET', KEYS[1], 'last', top .. ' ' .. found[5])
end
while oldest do
  local entries, young = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 64), nil
  for i = 1, #entries do
    if tonumber(entries[i][2][4]) >= oldest then young = i break end
  end
  if young == 1 or #entries == 0 then break end
  local from = young and entries[young][1] or string.format('%.0f-1', tonumber(string.match(entries[#entries][1], '^%d+')))
  redis.call('XTRIM', KEYS[2], 'MINID', from)
  if young then break end
end
local first = tonumber(ARGV[4])
if first < 0 then first = math.max(tonumber(top) + first + 1, 1) end
while true do
  local entries = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', first), '+', 'COUNT', 64)
  for i = 1, #entries do
    local body = entries[i][2][2]
    bytes = bytes + #body
    if bytes > most and #found > 7 then found[3] = 0 return found end
    found[#found + 1] = string.match(entries[i][1], '^%d+')
    found[#found + 1] = body
  end
  if #entries < 64 then return found end
  first = tonumber(found[#found - 1]) + 1
end
";

/// KEYS meta, log; ARGV candidate epoch, run, life of keys, the epoch that is to end. Tells everybody by a message without body.
const RENEW: &str = "
local found = stand(ARGV[1], ARGV[2])
if found[1] == ARGV[4] then renew(found, ARGV[1], ARGV[2]) end
live(ARGV[3])
return found
";

/// KEYS meta, log; ARGV candidate epoch, run, life of keys, the epoch that is confirmed, the run in which it was compared. If that is not
/// the present one, it stays unconfirmed.
const CONFIRM: &str = "
local found = stand(ARGV[1], ARGV[2])
if found[1] == ARGV[4] and ARGV[5] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'run', ARGV[2])
  found[4] = 1
end
live(ARGV[3])
return found
";

/// Who hears what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// Whoever has subscribed, at any server that the message reaches.
    Everywhere,
    /// In a cluster, whoever has subscribed where the slot is: the message goes nowhere else, and who subscribes learns when the
    /// slot gets another master.
    OfSlots,
}

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Publish,
    Read,
    Renew,
    Confirm,
    Share,
    Who,
    Beat,
    Typing,
}

impl Script {
    pub(super) const ALL: [Self; 8] =
        [Self::Publish, Self::Read, Self::Renew, Self::Confirm, Self::Share, Self::Who, Self::Beat, Self::Typing];

    pub(super) fn source(self, channels: Channels) -> String {
        let source = match self {
            Self::Publish => format!("{BEGIN}{CLOCK}{PUBLISH}"),
            Self::Read => format!("{BEGIN}{STAND}{CLOCK}{READ}"),
            Self::Renew => format!("{BEGIN}{STAND}{RENEW}"),
            Self::Confirm => format!("{BEGIN}{STAND}{CONFIRM}"),
            Self::Share => presence::SHARE.to_owned(),
            Self::Who => presence::WHO.to_owned(),
            Self::Beat => presence::BEAT.to_owned(),
            Self::Typing => presence::TYPING.to_owned(),
        };
        match channels {
            Channels::Everywhere => source,
            Channels::OfSlots => source.replace("'PUBLISH'", "'SPUBLISH'"),
        }
    }
}

/// What a read does with an epoch that is not confirmed in the present run of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unconfirmed {
    /// It says so.
    Tell,
    /// It renews it, once every node has had time to confirm it.
    Renew,
}

/// What is known of the server that a call is packed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) run_id: RunId,
    /// Whether other nodes have had time to confirm epochs in this run.
    pub(super) is_settled: bool,
}

/// What Redis is to do.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Publish { publication: Publication, serial: u64 },
    Read { room: RoomName, from: ReadFrom, bytes_max: usize, unconfirmed: Unconfirmed },
    Ask { room: RoomName, question: Question },
    Presence(PresenceCall),
    Typing { room: RoomName, user: UserId, status: TypingStatus },
}

impl Call {
    fn script(&self) -> Script {
        match self {
            Self::Publish { .. } => Script::Publish,
            Self::Ask { question: Question::Renew(_), .. } => Script::Renew,
            Self::Ask { question: Question::Confirm(..), .. } => Script::Confirm,
            Self::Read { .. } | Self::Ask { .. } => Script::Read,
            Self::Presence(PresenceCall::Room(_, Wish::Share { .. })) => Script::Share,
            Self::Presence(PresenceCall::Room(_, Wish::Who { .. })) => Script::Who,
            Self::Presence(PresenceCall::Beat(_)) => Script::Beat,
            Self::Typing { .. } => Script::Typing,
        }
    }

    /// The key by which a cluster finds who does it.
    fn write_routing_key(&self, names: &Names, text: &mut String) {
        match self.room() {
            Some(room) => names.write_channel(text, room),
            None => names.write_nodes_key(text),
        }
    }

    /// The room whose keys are concerned; a beat concerns those of none.
    fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Publish { publication, .. } => Some(&publication.room),
            Self::Read { room, .. }
            | Self::Ask { room, .. }
            | Self::Presence(PresenceCall::Room(room, _))
            | Self::Typing { room, .. } => Some(room),
            Self::Presence(PresenceCall::Beat(_)) => None,
        }
    }
}

/// What Redis has done.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Published { run_id: RunId, epoch: Epoch, seq: u64, duplicate: bool },
    Read(Extract),
    Presence(PresenceDone),
    Typing,
}

/// Writes calls as commands of the protocol.
pub(super) struct Packer {
    names: Names,
    channels: Channels,
    /// Where this node's epochs and its own message ids come from: no other process has it.
    node: String,
    shas: [String; Script::ALL.len()],
    life: u64,
    id_life: u64,
    messages_max: u32,
    history_age_millis: u64,
    attempts: u64,
    command: Cmd,
    text: String,
}

impl Packer {
    pub(super) fn new(config: &Config, names: Names, channels: Channels, node: String) -> Self {
        let id_life = config.timing.history_age.max(config.timing.dedupe_window);
        Self {
            names,
            channels,
            node,
            shas: Default::default(),
            life: (id_life + SLACK).as_millis() as u64,
            // Redis refuses an expiry of nothing.
            id_life: id_life.as_millis().max(1) as u64,
            // With an age of nothing there is no history, whatever its number.
            messages_max: if config.timing.history_age.is_zero() { 0 } else { config.limits.history_messages_max },
            history_age_millis: config.timing.history_age.as_millis() as u64,
            attempts: 0,
            command: Cmd::new(),
            text: String::new(),
        }
    }

    /// Which part of a cluster does a call.
    pub(super) fn slot(&mut self, call: &Call) -> u16 {
        call.write_routing_key(&self.names, &mut self.text);
        cluster::slot(&self.text)
    }

    /// Appends the command that has Redis remember a script; its answer goes to [`Packer::loaded`].
    pub(super) fn load(&mut self, script: Script, out: &mut Vec<u8>) {
        self.command.clear();
        self.command.arg("SCRIPT").arg("LOAD").arg(script.source(self.channels)).write_packed_command(out);
    }

    pub(super) fn loaded(&mut self, script: Script, sha: &str) {
        sha.clone_into(&mut self.shas[script as usize]);
    }

    /// Appends a call. Nothing is said twice with the same candidate for an epoch: the first attempt may have begun the room,
    /// and Redis may have lost it since.
    pub(super) fn pack(&mut self, call: &Call, server: Server, out: &mut Vec<u8>) {
        if let Call::Presence(presence) = call {
            return self.pack_presence(presence, call.script() as usize, out);
        }
        if let Call::Typing { room, user, status } = call {
            return self.pack_typing(room, user, *status, out);
        }
        let Some(room) = call.room() else { return };
        self.attempts += 1;
        let keys = if call.script() == Script::Publish { 3 } else { 2 };
        self.command.clear();
        self.command.arg("EVALSHA").arg(&self.shas[call.script() as usize]).arg(keys);
        for key in ["meta", "log"] {
            self.names.write_key(&mut self.text, room, key);
            self.command.arg(&self.text);
        }
        if let Call::Publish { publication, serial, .. } = call {
            self.names.write_key(&mut self.text, room, "id:");
            // Neither can a user be called like this, nor can the end of a user's name be taken for the beginning of an id.
            let _ = match &publication.id {
                Some(id) => write!(self.text, "{} {id}", publication.user),
                None => write!(self.text, "!{} {serial}", self.node),
            };
            self.command.arg(&self.text);
        }
        self.text.clear();
        let _ = write!(self.text, "{}{:x}", self.node, self.attempts);
        self.command.arg(&self.text);
        self.text.clear();
        let _ = write!(self.text, "{}", server.run_id);
        match call {
            Call::Publish { publication, .. } => {
                let id_life = match publication.id {
                    Some(_) => self.id_life,
                    None => OWN_ID_AGE.as_millis() as u64,
                };
                self.command.arg(&*publication.body).arg(self.messages_max).arg(self.life).arg(id_life).arg(&self.text);
            }
            Call::Read { from, bytes_max, unconfirmed, .. } => {
                let (first, most) = match from {
                    ReadFrom::After(seq) => (i64::try_from(*seq).unwrap_or(i64::MAX).saturating_add(1), *bytes_max),
                    ReadFrom::Newest(0) => (1, 0),
                    ReadFrom::Newest(count) => (-i64::from(*count), *bytes_max),
                };
                let renews = *unconfirmed == Unconfirmed::Renew && server.is_settled;
                self.command.arg(&self.text).arg(self.life).arg(first).arg(most);
                self.command.arg(self.history_age_millis).arg(u8::from(renews));
            }
            Call::Ask { question, .. } => self.pack_question(question),
            Call::Presence(_) | Call::Typing { .. } => {}
        }
        self.command.write_packed_command(out);
    }

    /// The arguments of a question behind the candidate; the run is in `text`.
    fn pack_question(&mut self, question: &Question) {
        self.command.arg(&self.text).arg(self.life);
        match question {
            Question::Position => self.command.arg(1).arg(0).arg("").arg(0),
            Question::Since(first) => self.command.arg(*first).arg(FILL_BYTES_MAX).arg("").arg(0),
            Question::Renew(epoch) => self.command.arg(epoch.as_str()),
            Question::Confirm(epoch, run_id) => self.command.arg(epoch.as_str()).arg(run_id.to_string()),
        };
    }
}

/// Reads the answer to a call, which this run of Redis has given.
pub(super) fn done(call: &Call, run_id: RunId, value: Value<'_>) -> Option<Done> {
    if let Call::Presence(call) = call {
        return presence::done(call, value).map(Done::Presence);
    }
    if let Call::Typing { .. } = call {
        return value.number().map(|_| Done::Typing);
    }
    if let Call::Publish { .. } = call {
        let mut words = value.text()?.split(' ');
        let (epoch, seq) = (Epoch::new(words.next()?), words.next()?.parse().ok()?);
        return Some(Done::Published { run_id, epoch, seq, duplicate: words.next() == Some("known") });
    }
    let mut items = value.items()?;
    let epoch = Epoch::new(items.next()?.text()?);
    let top = items.next()?.number()?;
    let complete = items.next()?.number()? == 1;
    let is_confirmed = items.next()?.number()? == 1;
    let ending = items.next()?.bytes()?;
    let print = (!ending.is_empty()).then(|| fingerprint(ending));
    let mut messages = Vec::new();
    while let Some(seq) = items.next() {
        let body = Bytes::copy_from_slice(items.next()?.bytes()?);
        messages.push(Numbered { seq: seq.number()?, body });
    }
    let standing = Standing { run_id, epoch, top, print };
    Some(Done::Read(Extract { standing, is_confirmed, complete, messages }))
}

/// Reads what was published on a room's channel: the epoch's text, the number, and where the body begins.
pub(super) fn arrival(payload: &[u8]) -> Option<(&str, u64, usize)> {
    let mut spaces = payload.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
    let (first, second) = (spaces.next()?, spaces.next()?);
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&payload[range]).ok();
    Some((text(0..first)?, text(first + 1..second)?.parse().ok()?, second + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserId;

    fn packed(id: Option<&str>) -> String {
        let mut packer =
            Packer::new(&Config::default(), Names::new("roomcast"), Channels::Everywhere, "node".to_owned());
        packer.loaded(Script::Publish, "sha");
        let publication = Publication {
            room: RoomName::new("lobby").unwrap(),
            user: UserId::new("ann:x").unwrap(),
            id: id.map(Into::into),
            body: Bytes::from_static(b"{\r\n"),
        };
        let mut out = Vec::new();
        let server = Server { run_id: RunId::new(7), is_settled: true };
        packer.pack(&Call::Publish { publication, serial: 9 }, server, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_publication_names_its_keys_readably() {
        let command = packed(Some("1 2"));
        let expected = "*12\r\n$7\r\nEVALSHA\r\n$3\r\nsha\r\n$1\r\n3\r\n$21\r\nroomcast:{lobby}:meta\r\n\
            $20\r\nroomcast:{lobby}:log\r\n$29\r\nroomcast:{lobby}:id:ann:x 1 2\r\n$5\r\nnode1\r\n$3\r\n{\r\n\r\n\
            $4\r\n1000\r\n$7\r\n3900000\r\n$7\r\n3600000\r\n$8\r\n00000007\r\n";
        assert_eq!(command, expected);
        assert!(packed(None).contains("\r\nroomcast:{lobby}:id:!node 9\r\n"));
    }

    #[test]
    fn channels_and_payloads_are_told_apart() {
        let names = Names::new("roomcast");
        assert_eq!(names.room(b"roomcast:{a/b}"), Some("a/b"));
        assert_eq!(names.room(b"roomcast2:{a}"), None);
        assert_eq!(arrival(b"e 7 {\"a b\""), Some(("e", 7, 4)));
        assert_eq!(arrival(b"e 7 "), Some(("e", 7, 4)));
        for bad in ["", "e", "e 7", "e x y"] {
            assert_eq!(arrival(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn answers_are_read() {
        let reply = b"*7\r\n$1\r\ne\r\n$1\r\n9\r\n:1\r\n:0\r\n$2\r\nhi\r\n$1\r\n9\r\n$2\r\nhi\r\n".as_slice();
        let (value, _) = super::super::resp::parse(reply).unwrap().unwrap();
        let room = RoomName::new("lobby").unwrap();
        let call = Call::Ask { room, question: Question::Since(9) };
        let run_id = RunId::new(7);
        let Some(Done::Read(extract)) = done(&call, run_id, value) else { panic!("not read") };
        assert_eq!((extract.standing.top, extract.complete, extract.messages.len()), (9, true, 1));
        assert_eq!((extract.is_confirmed, extract.standing.print), (false, Some(fingerprint(b"hi"))));
        assert_eq!(done(&call, run_id, Value::Nil).map(|_| ()), None);
    }
}
