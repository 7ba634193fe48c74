//! The JSON of deletions: the announcement that messages are deleted, and the tombstone in place of each.
//!
//! Both are entries of a room's history with a number, and counted like a `chat`. A tombstone has the number of the message, and an
//! announcement one of its own, so that a client that was away learns of it as of any message.

use serde::{Deserialize, Serialize};

use super::{Text, append_json};

/// The most messages that one announcement deletes.
pub(crate) const DELETIONS_MAX: usize = 64;

/// Entries of both kinds begin like this, and no message does.
pub(crate) const DELETED_HEAD: &str = r#"{"type":"deleted""#;

#[derive(Serialize)]
#[serde(tag = "type", rename = "deleted")]
struct DeletedBody<'a> {
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletes: Option<&'a [u64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
}

/// What takes the place of a deleted message, as [`chat_body`](super::chat_body) makes it of one that is there.
pub(crate) fn tombstone_body(room: &str) -> Vec<u8> {
    body_of(&DeletedBody { room, deletes: None, ts: None })
}

/// What members are told: that the messages with these numbers are deleted. The time comes last, as in a message.
pub(crate) fn deletion_body(room: &str, deletes: &[u64], ts: u64) -> Vec<u8> {
    body_of(&DeletedBody { room, deletes: Some(deletes), ts: Some(ts) })
}

fn body_of(deleted: &DeletedBody<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    append_json(&mut body, deleted);
    body.pop();
    // What is spare would stay in history.
    body.shrink_to_fit();
    body
}

/// Whether a body is an announcement or a tombstone, and no message.
pub(crate) fn is_deletion(body: &[u8]) -> bool {
    body.starts_with(DELETED_HEAD.as_bytes())
}

/// The numbers that a body deletes: none if it is no announcement.
pub(crate) fn read_deletes(body: &[u8]) -> Vec<u64> {
    #[derive(Deserialize)]
    struct Deletes {
        #[serde(default)]
        deletes: Vec<u64>,
    }
    if !is_deletion(body) {
        return Vec::new();
    }
    serde_json::from_slice(&[body, b"}"].concat()).map(|Deletes { deletes }| deletes).unwrap_or_default()
}

/// Whether a body is a message of this user.
pub(crate) fn is_said_by(body: &[u8], user: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Speaker<'a> {
        #[serde(borrow)]
        user_id: Option<Text<'a>>,
    }
    let json = [body, b"}"].concat();
    let speaker = serde_json::from_slice::<Speaker<'_>>(&json);
    speaker.is_ok_and(|speaker| speaker.user_id.as_deref() == Some(user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Chat, chat_body};

    #[test]
    fn entries_are_told_apart_and_read() {
        let chat =
            |user_id, text| chat_body(&Chat { room: "a", user_id, name: None, text, data: None, id: None, ts: 1 });
        let (told, tombstone) = (deletion_body("a", &[5, 7], 9), tombstone_body("a"));
        assert_eq!(told, br#"{"type":"deleted","room":"a","deletes":[5,7],"ts":9"#);
        assert_eq!(tombstone, br#"{"type":"deleted","room":"a""#);
        let ann = chat("ann", r#"{"type":"deleted","userId":"bob""#);
        assert_eq!([&told, &tombstone, &ann].map(|body| is_deletion(body)), [true, true, false]);
        assert_eq!([&told, &tombstone, &ann].map(|body| read_deletes(body)), [vec![5, 7], vec![], vec![]]);
        assert_eq!(["ann", "bob", "a"].map(|user| is_said_by(&ann, user)), [true, false, false]);
        assert!(!is_said_by(&tombstone, "ann") && !is_said_by(b"", ""));
        assert!(is_said_by(&chat("\u{fc}\"", "x"), "\u{fc}\""));
    }
}
