//! What Redis does for presence, in one atomic step each.
//!
//! Keys of the room `lobby`, in one slot with the others: `roomcast:{lobby}:nodes` (hash: node → version of its set) and
//! `roomcast:{lobby}:on:<node>` (hash: user → display name, empty if it has none). The set of another node than the caller's is
//! named within the script, which a cluster allows since it is in the same slot. `roomcast:nodes` (hash: node → `beats lease
//! floor`, or `left`) is of all rooms. On a room's channel a share is `@<node> <base> <version> <changes>`; no epoch begins like this. `base` is
//! `=` for a whole set, and the changes are missing if they are too many to be sent to everybody.

use super::super::nodes::{Beat, Heard, NodeId};
use super::super::resp::Value;
use super::super::share::{CHANGES_MAX, Name, Record, Records, Share, Users, Whereabouts, Wish};
use super::{Packer, Script};
use crate::id::{RoomName, UserId};
use crate::protocol::TypingStatus;
use serde_json::json;

/// Users in one answer; it has at least one node's, however many they are.
const USERS_MAX: usize = 8192;

/// KEYS nodes, own set; ARGV life of keys, node, base or nothing for a whole set, version, changes, whether to publish them. Done
/// twice it does no more than once. Returns 0 if Redis does not have what the changes continue.
pub(super) const SHARE: &str = "
local had = redis.call('HGET', KEYS[1], ARGV[2])
if had ~= ARGV[4] then
  if ARGV[3] == '' then
    redis.call('DEL', KEYS[2])
  elseif had ~= ARGV[3] then
    return 0
  end
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
  for _, change in ipairs(cjson.decode(ARGV[5])) do
    if change[2] == cjson.null then
      redis.call('HDEL', KEYS[2], change[1])
    else
      redis.call('HSET', KEYS[2], change[1], change[2])
    end
  end
  local base = ARGV[3] == '' and '=' or ARGV[3]
  local changes = ARGV[6] == '1' and ARGV[5] or ''
  redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), '@' .. ARGV[2] .. ' ' .. base .. ' ' .. ARGV[4] .. ' ' .. changes)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
";

/// KEYS nodes, own set; ARGV life of keys, node, most users, number of known nodes, a known node and its version …, a dead node and the
/// version to remove …. Returns own version, own number of users, and for each other node its name, version and users; no
/// users if the version is known, or for want of space.
pub(super) const WHO: &str = "
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
local on = string.sub(KEYS[1], 1, -6) .. 'on:'
local known, at = {}, 5
for i = 1, tonumber(ARGV[4]) do
  known[ARGV[at]] = ARGV[at + 1]
  at = at + 2
end
while at < #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('DEL', on .. ARGV[at])
  end
  at = at + 2
end
local nodes, most, total = redis.call('HGETALL', KEYS[1]), tonumber(ARGV[3]), 0
local found = {false, redis.call('HLEN', KEYS[2])}
for i = 1, #nodes, 2 do
  local node, version = nodes[i], nodes[i + 1]
  if node == ARGV[2] then
    found[1] = version
  else
    local users = false
    if known[node] ~= version then
      local count = redis.call('HLEN', on .. node)
      if total == 0 or total + count <= most then
        users = redis.call('HGETALL', on .. node)
        total = total + math.max(count, 1)
      end
    end
    found[#found + 1] = {node, version, users}
  end
end
return found
";

/// KEYS all nodes; ARGV life of the key, node, what it says or nothing, what it has said before, a node to remove and what it must have
/// said …. Returns whether it had said that, and what all say. That it had not is kept with what it says, for when it says it
/// twice.
pub(super) const BEAT: &str = "
for i = 5, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
local had = redis.call('HGET', KEYS[1], ARGV[2]) or ''
local is_remembered = had == ARGV[4]
if ARGV[3] ~= '' then
  local surprised = ARGV[3] .. ' !'
  if had ~= ARGV[3] and had ~= surprised then
    had = is_remembered and ARGV[3] or surprised
    redis.call('HSET', KEYS[1], ARGV[2], had)
  end
  is_remembered = had == ARGV[3]
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local all, found = redis.call('HGETALL', KEYS[1]), {is_remembered and 1 or 0}
for i = 1, #all do found[i + 1] = all[i] end
return found
";

/// KEYS nodes, which is only there to tell the room; ARGV what to publish.
pub(super) const TYPING: &str = "
return redis.call('PUBLISH', string.sub(KEYS[1], 1, -7), ARGV[1])
";

/// Stands in the place of what a share continues, so that it is no share to an older version.
const TYPES: &str = "typing";

/// What Redis is to do for presence.
#[derive(Clone, Debug)]
pub(in super::super) enum PresenceCall {
    Room(RoomName, Wish),
    Beat(Beat),
}

/// What it has done.
#[derive(Clone, Debug)]
pub(in super::super) enum PresenceDone {
    /// Whether it had what the share continues.
    Shared(bool),
    Records(Records),
    Heard(Heard),
}

impl Packer {
    /// Appends a call.
    pub(super) fn pack_presence(&mut self, call: &PresenceCall, sha: usize, out: &mut Vec<u8>) {
        let Self { names, node, shas, life, command, text, .. } = self;
        command.clear();
        command.arg("EVALSHA").arg(&shas[sha]);
        match call {
            PresenceCall::Room(room, wish) => {
                command.arg(2);
                names.write_key(text, room, "nodes");
                command.arg(&*text);
                names.write_key(text, room, "on:");
                text.push_str(node);
                command.arg(&*text).arg(*life).arg(&*node);
                match wish {
                    Wish::Share { base, version, changes } => {
                        let is_told = changes.len() <= CHANGES_MAX;
                        let base = base.map(|base| base.to_string()).unwrap_or_default();
                        command.arg(base).arg(*version).arg(changes_json(changes)).arg(u8::from(is_told));
                    }
                    Wish::Who { known, graves } => {
                        command.arg(USERS_MAX).arg(known.len());
                        for (node, version) in known.iter().chain(graves) {
                            command.arg(node.as_str()).arg(*version);
                        }
                    }
                }
            }
            PresenceCall::Beat(Beat { says, said, remove }) => {
                names.write_nodes_key(text);
                command.arg(1).arg(&*text).arg(*life).arg(&*node).arg(says.as_deref().unwrap_or_default());
                command.arg(said.as_str());
                for (node, text) in remove {
                    command.arg(node.as_str()).arg(text.as_str());
                }
            }
        }
        command.write_packed_command(out);
    }
}

impl Packer {
    /// Appends what tells the other nodes that somebody types.
    pub(super) fn pack_typing(&mut self, room: &RoomName, user: &UserId, status: TypingStatus, out: &mut Vec<u8>) {
        let Self { names, node, shas, command, text, .. } = self;
        names.write_key(text, room, "nodes");
        command.clear();
        command.arg("EVALSHA").arg(&shas[Script::Typing as usize]).arg(1).arg(&*text);
        let word = match status {
            TypingStatus::Start => "start",
            TypingStatus::Stop => "stop",
        };
        command.arg(format!("@{node} {TYPES} {word} {user}")).write_packed_command(out);
    }
}

/// Reads who types on another node than `own`, if it is about that.
pub(in super::super) fn typing(payload: &[u8], own: &str) -> Option<(UserId, TypingStatus)> {
    let mut words = std::str::from_utf8(payload).ok()?.strip_prefix('@')?.split(' ');
    let _ = words.next().filter(|node| *node != own)?;
    let _ = words.next().filter(|word| *word == TYPES)?;
    let status = match words.next()? {
        "start" => TypingStatus::Start,
        "stop" => TypingStatus::Stop,
        _ => return None,
    };
    Some((UserId::new(words.next()?).ok()?, status))
}

fn changes_json(changes: &[(UserId, Whereabouts)]) -> String {
    let pair = |(user, whereabouts): &(UserId, Whereabouts)| match whereabouts {
        Whereabouts::Here(name) => json!([user.as_str(), name.as_deref().unwrap_or_default()]),
        Whereabouts::Gone => json!([user.as_str(), null]),
    };
    serde_json::Value::Array(changes.iter().map(pair).collect()).to_string()
}

fn name(text: &str) -> Name {
    (!text.is_empty()).then(|| text.into())
}

/// Whether a payload is a share, and not a message.
pub(in super::super) fn is_share(payload: &[u8]) -> bool {
    payload.first() == Some(&b'@')
}

/// Reads a share of another node than `own`.
pub(in super::super) fn share(payload: &[u8], own: &str) -> Option<Share> {
    let text = std::str::from_utf8(payload).ok()?.strip_prefix('@')?;
    let mut words = text.splitn(4, ' ');
    let node = words.next().filter(|node| !node.is_empty() && *node != own)?;
    let base = match words.next()? {
        "=" => None,
        base => Some(base.parse().ok()?),
    };
    let version = words.next()?.parse().ok()?;
    let changes = match words.next()? {
        "" => None,
        json => {
            let pairs: Vec<(String, Option<String>)> = serde_json::from_str(json).ok()?;
            let change = |(user, text): (String, Option<String>)| {
                let whereabouts = text.map_or(Whereabouts::Gone, |text| Whereabouts::Here(name(&text)));
                Some((UserId::new(&user).ok()?, whereabouts))
            };
            Some(pairs.into_iter().filter_map(change).collect())
        }
    };
    Some(Share { node: NodeId::new(node), base, version, changes })
}

/// Reads the answer to a call.
pub(super) fn done(call: &PresenceCall, value: Value<'_>) -> Option<PresenceDone> {
    match call {
        PresenceCall::Room(_, Wish::Share { .. }) => Some(PresenceDone::Shared(value.number()? == 1)),
        PresenceCall::Room(_, Wish::Who { .. }) => {
            let mut items = value.items()?;
            let (version, count) = (items.next()?.number(), items.next()?.number()? as usize);
            let others = items.map(record).collect::<Option<_>>()?;
            // Without a version there is no set, whatever was left of it.
            Some(PresenceDone::Records(Records { own: version.map(|version| (version, count)), others }))
        }
        PresenceCall::Beat(_) => {
            let mut items = value.items()?;
            let is_remembered = items.next()?.number()? == 1;
            let mut all = Vec::new();
            while let Some(node) = items.next() {
                all.push((NodeId::new(node.text()?), items.next()?.text()?.into()));
            }
            Some(PresenceDone::Heard(Heard { is_remembered, all }))
        }
    }
}

fn record(value: Value<'_>) -> Option<Record> {
    let mut items = value.items()?;
    let (node, version) = (NodeId::new(items.next()?.text()?), items.next()?.number()?);
    let users = match items.next()? {
        Value::Array(mut pairs) => {
            let mut users = Users::new();
            while let Some(user) = pairs.next() {
                // Somebody may have put something else there.
                let text = pairs.next()?.text().unwrap_or_default();
                if let Some(user) = user.text().and_then(|user| UserId::new(user).ok()) {
                    users.insert(user, name(text));
                }
            }
            Some(users)
        }
        _ => None,
    };
    Some(Record { node, version, users })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn who_types_is_read_and_is_no_share() {
        let payload = b"@n1 typing start ann";
        assert_eq!(typing(payload, "n2"), Some((user("ann"), TypingStatus::Start)));
        assert_eq!(typing(payload, "n1"), None, "one's own");
        assert_eq!(share(payload, "n2"), None);
        for bad in
            ["@n1 typing", "@n1 typing start", "@n1 typing pause ann", "@n1 typing stop ", "@n1 1 2 []", "e 7 {}"]
        {
            assert_eq!(typing(bad.as_bytes(), "n2"), None, "{bad}");
        }
    }

    #[test]
    fn shares_are_read_as_they_were_written() {
        let changes = vec![
            (user("ann"), Whereabouts::Here(Some("Ann \"the\u{1}\n cat\" Ü 🐈".into()))),
            (user("bob"), Whereabouts::Here(None)),
            (user("日本"), Whereabouts::Gone),
        ];
        for (base, changes) in [(Some(7), Some(changes.clone())), (None, Some(changes)), (None, None)] {
            let json = changes.as_deref().map(changes_json).unwrap_or_default();
            let word = base.map_or_else(|| "=".to_owned(), |base: u64| base.to_string());
            let payload = format!("@n1 {word} 8 {json}");
            let expected = Share { node: NodeId::new("n1"), base, version: 8, changes };
            assert_eq!(share(payload.as_bytes(), "n2"), Some(expected));
            assert_eq!(share(payload.as_bytes(), "n1"), None, "one's own");
        }
        for bad in ["@", "@n", "@n 1", "@n 1 2", "@n x 2 ", "@n 1 x ", "@n 1 2 {", "@n 1 2 [1]", "@ 1 2 []", "n 1 2 []"]
        {
            assert_eq!(share(bad.as_bytes(), "own"), None, "{bad}");
        }
        let share = share(br#"@n 1 2 [["two words","x"],["ann","Ann"]]"#, "own").unwrap();
        assert_eq!(share.changes.unwrap(), [(user("ann"), Whereabouts::Here(Some("Ann".into())))]);
    }
}
