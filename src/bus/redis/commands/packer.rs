//! Encodes requests as calls of scripts.

mod presence;

use std::fmt::{self, Write};
use std::time::Duration;

use redis::Cmd;

use super::names::KeyNames;
use super::request::{PendingPublication, PendingRead, Request, RightsPlace, RoomRequest};
use super::restrictions::{PURGE_MAX, READ_MAX, RestrictionsRead};
use super::script::{ChannelKind, Script};
use super::signal::write_signal;
use crate::bus::message::{DeletionTargets, ReadFrom, RestrictionAction, RestrictionChange, Signal};
use crate::bus::redis::cluster::slot_of_key;
use crate::bus::redis::connection::RunId;
use crate::bus::redis::ordering::HistoryQuery;
use crate::bus::redis::presence::Heartbeat;
use crate::id::{Epoch, RoomName};
use crate::protocol::DELETED_HEAD;
use crate::settings::{Config, RoomLimits, RoomLimitsTable, RuleIndex};

/// How much longer the keys of a room live than history and ids. A room in use is touched every
/// 30 s, so it never expires.
const SLACK: Duration = Duration::from_secs(5 * 60);

/// How long a publication without an id is remembered. The bus repeats one within seconds or
/// never.
const OWN_ID_AGE: Duration = Duration::from_secs(2 * 60);

/// The size limit of an answer to a query for missing messages.
const FILL_BYTES_MAX: usize = 256 * 1024;

/// The hash of restrictions by key, and the sorted set of the keys of those that expire, in the slot of the control room. They
/// have no ttl.
const RESTRICTIONS: &str = "restrictions";
const EXPIRIES: &str = "expiries";

/// The sorted set of the numbers of a room's deleted messages, by themselves.
const GONE: &str = "gone";

/// What is known about the server that a call is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) run_id: RunId,
    /// Whether other nodes have had time to confirm epochs in this run.
    pub(crate) is_settled: bool,
}

pub(crate) struct Packer {
    names: KeyNames,
    channels: ChannelKind,
    /// The name of this node. Epochs and ids that begin with it are unique.
    node: String,
    shas: [String; Script::ALL.len()],
    /// Of the keys that are no room's history.
    ttl: u64,
    dedupe_window: Duration,
    limits: RoomLimitsTable,
    restrictions_max: u32,
    attempts: u64,
    command: Cmd,
    text: String,
}

/// What the scripts are told about the history of a room; the times in milliseconds.
#[derive(Clone, Copy, Debug)]
struct HistoryArgs {
    ttl: u64,
    id_ttl: u64,
    messages_max: u32,
    age: u64,
}

impl HistoryArgs {
    fn new(limits: &RoomLimits, dedupe_window: Duration) -> Self {
        let age = limits.history_age;
        let id_ttl = age.max(dedupe_window);
        Self {
            ttl: (id_ttl + SLACK).as_millis() as u64,
            // Redis refuses an expiry of 0.
            id_ttl: id_ttl.as_millis().max(1) as u64,
            // A history of age 0 is no history, whatever its number of messages.
            messages_max: if age.is_zero() { 0 } else { limits.history_messages },
            age: age.as_millis() as u64,
        }
    }
}

impl Packer {
    pub(crate) fn new(config: &Config, names: KeyNames, channels: ChannelKind, node: String) -> Self {
        let limits = config.room_limits();
        let dedupe_window = config.history.dedupe_window;
        Self {
            names,
            channels,
            node,
            shas: Default::default(),
            ttl: HistoryArgs::new(limits.get(RuleIndex::default()), dedupe_window).ttl,
            dedupe_window,
            limits,
            restrictions_max: config.hub.restrictions_max,
            attempts: 0,
            command: Cmd::new(),
            text: String::new(),
        }
    }

    /// The cluster slot of the keys of a request.
    pub(crate) fn slot(&mut self, request: &Request) -> u16 {
        request.write_routing_key(&self.names, &mut self.text);
        slot_of_key(&self.text)
    }

    /// Appends a SCRIPT LOAD. Its answer goes to [`Packer::loaded`].
    pub(crate) fn load(&mut self, script: Script, out: &mut Vec<u8>) {
        self.command.clear();
        self.command.arg("SCRIPT").arg("LOAD").arg(script.source(self.channels)).write_packed_command(out);
    }

    pub(crate) fn loaded(&mut self, script: Script, sha: &str) {
        sha.clone_into(&mut self.shas[script as usize]);
    }

    /// Appends a call of the script of a request.
    pub(crate) fn pack(&mut self, request: &Request, server: Server, out: &mut Vec<u8>) {
        self.command.clear();
        self.command.arg("EVALSHA").arg(&self.shas[request.script() as usize]);
        match request {
            Request::Publish(pending) => self.pack_publication(pending, server.run_id),
            Request::Read(read) => self.pack_read(read, server),
            Request::Query(RoomRequest { room, request: query, .. }) => self.pack_query(room, query, server.run_id),
            Request::Presence(RoomRequest { room, request, .. }) => self.pack_presence(room, request),
            Request::Heartbeat(heartbeat) => self.pack_heartbeat(heartbeat),
            Request::Leave => self.pack_heartbeat(&Heartbeat::leave()),
            Request::Signal(signal) => self.pack_signal(signal),
            Request::Restrictions(read) => self.pack_restrictions_read(*read),
            Request::CheckRights(place) => {
                match place {
                    RightsPlace::Nodes => self.names.write_rights_key(&mut self.text),
                    RightsPlace::Room(room) => self.names.write_key(&mut self.text, room, "rights"),
                }
                self.command.arg(1).arg(&self.text);
            }
        }
        self.command.write_packed_command(out);
    }

    fn pack_publication(&mut self, pending: &PendingPublication, run_id: RunId) {
        let PendingPublication { publication, deletes, rule, serial, .. } = pending;
        let history = self.history_args(*rule);
        let change = publication.restriction.as_deref();
        self.command.arg(match (change, deletes) {
            (Some(_), _) => 5,
            (None, Some(_)) => 4,
            (None, None) => 3,
        });
        self.arg_key(&publication.room, "meta");
        self.arg_key(&publication.room, "log");
        self.names.write_key(&mut self.text, &publication.room, "id:");
        // No user name begins with `!`, and none contains a space, so no two ids share a key.
        let (_, id_ttl) = match &publication.id {
            Some(id) => (write!(self.text, "{} {id}", publication.user), history.id_ttl),
            None => (write!(self.text, "!{} {serial}", self.node), OWN_ID_AGE.as_millis() as u64),
        };
        self.command.arg(&self.text);
        if change.is_some() {
            self.arg_key(&publication.room, RESTRICTIONS);
            self.arg_key(&publication.room, EXPIRIES);
        } else if deletes.is_some() {
            self.arg_key(&publication.room, GONE);
        }
        self.arg_candidate();
        self.command.arg(&*publication.body).arg(history.messages_max).arg(history.ttl).arg(id_ttl);
        self.arg_text(format_args!("{run_id}"));
        if let Some(RestrictionChange { key, action }) = change {
            let (is_kept, expires_at) = match action {
                RestrictionAction::Keep { expires_at } => (true, *expires_at),
                RestrictionAction::Lift => (false, None),
            };
            self.command.arg(&**key).arg(u8::from(is_kept));
            self.command.arg(expires_at.map(|at| at.to_string()).unwrap_or_default()).arg(self.restrictions_max);
        } else if let Some(DeletionTargets { epoch, seqs }) = deletes.as_deref() {
            self.command.arg(epoch.as_ref().map_or("", Epoch::as_str)).arg(DELETED_HEAD);
            self.command.arg(&**seqs);
        }
    }

    fn pack_restrictions_read(&mut self, read: RestrictionsRead) {
        let room = RoomName::control();
        self.command.arg(2);
        self.arg_key(&room, RESTRICTIONS);
        self.arg_key(&room, EXPIRIES);
        let cursor = read.cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
        self.command.arg(cursor).arg(READ_MAX).arg(PURGE_MAX);
    }

    fn pack_read(&mut self, read: &PendingRead, server: Server) {
        let (first, bytes_max) = match read.from {
            ReadFrom::Before { seq, count } => return self.pack_read_before(read, (seq, count), server),
            ReadFrom::After(seq) => (i64::try_from(seq).unwrap_or(i64::MAX).saturating_add(1), read.bytes_max),
            ReadFrom::Newest(0) => (1, 0),
            ReadFrom::Newest(count) => (-i64::from(count), read.bytes_max),
        };
        let HistoryArgs { age, .. } = self.arg_room(&read.room, server.run_id);
        let renews = read.may_renew() && server.is_settled;
        self.command.arg(first).arg(bytes_max).arg(age).arg(u8::from(renews));
    }

    fn pack_read_before(&mut self, read: &PendingRead, (seq, count): (Option<u64>, u32), server: Server) {
        let HistoryArgs { age, .. } = self.arg_room(&read.room, server.run_id);
        let renews = read.may_renew() && server.is_settled;
        self.command.arg(seq.map(|seq| seq.to_string()).unwrap_or_default()).arg(count);
        self.command.arg(read.bytes_max).arg(age).arg(u8::from(renews));
    }

    fn pack_query(&mut self, room: &RoomName, query: &HistoryQuery, run_id: RunId) {
        self.arg_room(room, run_id);
        match query {
            HistoryQuery::Position => self.command.arg(1).arg(0).arg("").arg(0),
            HistoryQuery::Since(first) => self.command.arg(*first).arg(FILL_BYTES_MAX).arg("").arg(0),
            HistoryQuery::Renew(epoch) => self.command.arg(epoch.as_str()),
            HistoryQuery::Confirm(epoch, run_id) => self.command.arg(epoch.as_str()).arg(run_id.to_string()),
        };
    }

    fn pack_signal(&mut self, signal: &Signal) {
        self.command.arg(1);
        self.arg_key(&signal.room, "nodes");
        write_signal(&mut self.text, &self.node, signal);
        self.command.arg(&self.text);
    }

    fn history_args(&self, rule: RuleIndex) -> HistoryArgs {
        HistoryArgs::new(self.limits.get(rule), self.dedupe_window)
    }

    /// Appends what the scripts have in common that read a room: its keys, a candidate epoch, the
    /// run, and the ttl of the keys. No message causes this, so the rule of the room is looked for.
    fn arg_room(&mut self, room: &RoomName, run_id: RunId) -> HistoryArgs {
        let history = self.history_args(self.limits.find(room));
        self.command.arg(2);
        self.arg_key(room, "meta");
        self.arg_key(room, "log");
        self.arg_candidate();
        self.arg_text(format_args!("{run_id}"));
        self.command.arg(history.ttl);
        history
    }

    fn arg_key(&mut self, room: &RoomName, key: &str) {
        self.names.write_key(&mut self.text, room, key);
        self.command.arg(&self.text);
    }

    /// Appends a candidate epoch. Each attempt has its own: an earlier attempt may have begun the
    /// room, and Redis may have lost it since.
    fn arg_candidate(&mut self) {
        self.attempts += 1;
        self.text.clear();
        let _ = write!(self.text, "{}{:x}", self.node, self.attempts);
        self.command.arg(&self.text);
    }

    /// Appends a text without allocating.
    fn arg_text(&mut self, text: fmt::Arguments<'_>) {
        self.text.clear();
        let _ = self.text.write_fmt(text);
        self.command.arg(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bus::message::{Publication, Ticket};
    use crate::bus::redis::commands::request::{Answered, Response, read_channel_message};
    use crate::bus::redis::connection::Value;
    use crate::bus::redis::connection::resp;
    use crate::bus::redis::ordering::fingerprint_of;
    use crate::id::UserId;
    use crate::owner::Owner;

    fn packed(id: Option<&str>) -> String {
        let mut packer =
            Packer::new(&Config::default(), KeyNames::new("roomcast"), ChannelKind::Global, "node".to_owned());
        packer.loaded(Script::Publish, "sha");
        let publication = Publication {
            room: RoomName::new("lobby").unwrap(),
            user: UserId::new("ann:x").unwrap(),
            owner: Owner::HOST,
            id: id.map(Into::into),
            body: Bytes::from_static(b"{\r\n"),
            restriction: None,
        };
        let mut out = Vec::new();
        let server = Server { run_id: RunId::new(7), is_settled: true };
        let pending = PendingPublication {
            ticket: Ticket(1),
            publication,
            deletes: None,
            rule: RuleIndex::default(),
            serial: 9,
            at: Duration::ZERO,
        };
        packer.pack(&Request::Publish(pending), server, &mut out);
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
        let names = KeyNames::new("roomcast");
        assert_eq!(names.room(b"roomcast:{a/b}"), Some("a/b"));
        assert_eq!(names.room(b"roomcast2:{a}"), None);
        assert_eq!(read_channel_message(b"e 7 {\"a b\""), Some(("e", 7, 4)));
        assert_eq!(read_channel_message(b"e 7 "), Some(("e", 7, 4)));
        for bad in ["", "e", "e 7", "e x y"] {
            assert_eq!(read_channel_message(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn answers_are_read() {
        let reply = b"*7\r\n$1\r\ne\r\n$1\r\n9\r\n:1\r\n:0\r\n$2\r\nhi\r\n$1\r\n9\r\n$2\r\nhi\r\n".as_slice();
        let (value, _) = resp::parse(reply).unwrap().unwrap();
        let room = RoomName::new("lobby").unwrap();
        let query = RoomRequest { room, opening: 1, request: HistoryQuery::Since(9) };
        let (request, run_id) = (Request::Query(query), RunId::new(7));
        let answered = request.clone().answered(run_id, value);
        let Answered::Response(Response::Query(query, Ok(slice))) = answered else { panic!("not read") };
        assert_eq!(query.opening, 1);
        assert_eq!((slice.position.top, slice.complete, slice.messages.len()), (9, true, 1));
        assert_eq!((slice.is_confirmed, slice.position.fingerprint), (false, Some(fingerprint_of(b"hi"))));
        assert!(
            matches!(request.answered(run_id, Value::Nil), Answered::Unexpected(Request::Query(_))),
            "to be asked again"
        );
    }
}
