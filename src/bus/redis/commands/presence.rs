//! The answers of the scripts of presence, and what they publish.
//!
//! Keys of the room `lobby`, all in one slot: `roomcast:{lobby}:nodes` (hash: node → version of
//! its set) and `roomcast:{lobby}:on:<node>` (hash: user → display name, empty if there is none).
//! Scripts build the names of other nodes' sets, which a cluster allows because the slot is the
//! same. `roomcast:nodes` (hash: node → `beats lease floor`, or `left`) belongs to no room.
//!
//! On a room's channel a delta is `@<node> <base> <version> <changes>`; no epoch begins with `@`.
//! The base is `=` for a whole set. The changes are empty if they are too many to be published.

use serde_json::json;

use crate::bus::redis::connection::Value;
use crate::bus::redis::presence::{
    HeartbeatReply, Name, NodeId, NodeSet, NodeSets, PresenceAnswer, PresenceDelta, PresenceRequest, UserSet, UserState,
};
use crate::id::UserId;

/// Users in one answer. It contains the set of at least one node, however large that is.
pub(super) const USERS_MAX: usize = 8192;

pub(super) fn changes_json(changes: &[(UserId, UserState)]) -> String {
    let pair = |(user, state): &(UserId, UserState)| match state {
        UserState::Here(name) => json!([user.as_str(), name.as_deref().unwrap_or_default()]),
        UserState::Gone => json!([user.as_str(), null]),
    };
    serde_json::Value::Array(changes.iter().map(pair).collect()).to_string()
}

fn name(text: &str) -> Name {
    (!text.is_empty()).then(|| text.into())
}

/// Whether a payload is about presence, and not a message.
pub(crate) fn is_presence(payload: &[u8]) -> bool {
    payload.first() == Some(&b'@')
}

/// Reads a delta of another node than `own`.
pub(crate) fn read_delta(payload: &[u8], own: &str) -> Option<PresenceDelta> {
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
                let state = text.map_or(UserState::Gone, |text| UserState::Here(name(&text)));
                Some((UserId::new(&user).ok()?, state))
            };
            Some(pairs.into_iter().filter_map(change).collect())
        }
    };
    Some(PresenceDelta { node: NodeId::new(node), base, version, changes })
}

/// Reads the answer to a request for a room.
pub(super) fn read_presence(request: &PresenceRequest, value: Value<'_>) -> Option<PresenceAnswer> {
    if let PresenceRequest::Update { .. } = request {
        return match value {
            Value::Integer(is_done @ 0..=1) => Some(PresenceAnswer::Updated(is_done == 1)),
            _ => None,
        };
    }
    let mut items = value.items()?;
    let (version, count) = (items.next()?.number(), items.next()?.number()? as usize);
    let others = items.map(record).collect::<Option<_>>()?;
    // A set without a version does not exist, even if users are left of it.
    Some(PresenceAnswer::Sets(NodeSets { local: version.map(|version| (version, count)), others }))
}

pub(super) fn read_heartbeat(value: Value<'_>) -> Option<HeartbeatReply> {
    let mut items = value.items()?;
    let is_remembered = items.next()?.number()? == 1;
    let mut all = Vec::new();
    while let Some(node) = items.next() {
        all.push((NodeId::new(node.text()?), items.next()?.text()?.into()));
    }
    Some(HeartbeatReply { is_remembered, all })
}

fn record(value: Value<'_>) -> Option<NodeSet> {
    let mut items = value.items()?;
    let (node, version) = (NodeId::new(items.next()?.text()?), items.next()?.number()?);
    let users = match items.next()? {
        Value::Array(mut pairs) => {
            let mut users = UserSet::new();
            while let Some(user) = pairs.next() {
                // A key that was changed by hand may hold anything.
                let text = pairs.next()?.text().unwrap_or_default();
                if let Some(user) = user.text().and_then(|user| UserId::new(user).ok()) {
                    users.insert(user, name(text));
                }
            }
            Some(users)
        }
        _ => None,
    };
    Some(NodeSet { node, version, users })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn read_deltas_are_read_as_they_were_written() {
        let changes = vec![
            (user("ann"), UserState::Here(Some("Ann \"the\u{1}\n cat\" Ü 🐈".into()))),
            (user("bob"), UserState::Here(None)),
            (user("日本"), UserState::Gone),
        ];
        for (base, changes) in [(Some(7), Some(changes.clone())), (None, Some(changes)), (None, None)] {
            let json = changes.as_deref().map(changes_json).unwrap_or_default();
            let word = base.map_or_else(|| "=".to_owned(), |base: u64| base.to_string());
            let payload = format!("@n1 {word} 8 {json}");
            let expected = PresenceDelta { node: NodeId::new("n1"), base, version: 8, changes };
            assert_eq!(read_delta(payload.as_bytes(), "n2"), Some(expected));
            assert_eq!(read_delta(payload.as_bytes(), "n1"), None, "one's own");
        }
        for bad in ["@", "@n", "@n 1", "@n 1 2", "@n x 2 ", "@n 1 x ", "@n 1 2 {", "@n 1 2 [1]", "@ 1 2 []", "n 1 2 []"]
        {
            assert_eq!(read_delta(bad.as_bytes(), "own"), None, "{bad}");
        }
        let delta = read_delta(br#"@n 1 2 [["two words","x"],["ann","Ann"]]"#, "own").unwrap();
        assert_eq!(delta.changes.unwrap(), [(user("ann"), UserState::Here(Some("Ann".into())))]);
    }
}
