//! Pages of older messages.

use serde::Serialize;

use super::{append_chat_json, append_json};
use crate::frame;

/// The most messages of a page.
pub(crate) const HISTORY_LIMIT_MAX: u32 = 100;

/// Checks how many messages somebody wants.
///
/// # Errors
/// A sentence with the fault and the allowed values.
pub(crate) fn check_history_limit(limit: u32) -> Result<u32, String> {
    match limit {
        1..=HISTORY_LIMIT_MAX => Ok(limit),
        _ => Err(format!("limit is {limit}; 1 to {HISTORY_LIMIT_MAX} are allowed")),
    }
}

/// The answer to `history`, but for its messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryMessage<'a> {
    pub(crate) room: &'a str,
    pub(crate) epoch: &'a str,
    /// Whether there are older messages.
    pub(crate) more: bool,
    pub(crate) id: Option<&'a str>,
}

#[derive(Serialize)]
struct Head<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    room: &'a str,
    epoch: &'a str,
}

#[derive(Serialize)]
struct Tail<'a> {
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl HistoryMessage<'_> {
    /// Appends the answer with its messages, bodies and numbers, as one text frame.
    pub(crate) fn append_frame<'m>(&self, out: &mut Vec<u8>, messages: impl Iterator<Item = (&'m [u8], u64)>) {
        let Self { room, epoch, more, id } = *self;
        let (head, tail) = (Head { kind: "history", room, epoch }, Tail { more, id });
        frame::append_text(out, |out| append_page(out, &head, messages, &tail));
    }
}

/// Appends an object with the fields of `head`, the `messages` as they are sent in `chat`, and the fields of `tail`. Neither may be
/// without fields.
pub(crate) fn append_page<'m>(
    out: &mut Vec<u8>,
    head: &impl Serialize,
    messages: impl Iterator<Item = (&'m [u8], u64)>,
    tail: &impl Serialize,
) {
    append_json(out, head);
    out.pop();
    out.extend_from_slice(br#","messages":["#);
    for (nth, (body, seq)) in messages.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        append_chat_json(out, body, seq);
    }
    out.push(b']');
    let start = out.len();
    append_json(out, tail);
    out[start] = b',';
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_page_is_one_object_with_all_messages() {
        let bodies: [(&[u8], u64); 2] = [(br#"{"type":"chat","text":"a""#, 7), (br#"{"type":"chat","text":"b""#, 8)];
        let payload = |messages: &[(&'static [u8], u64)], id| {
            let mut out = Vec::new();
            let message = HistoryMessage { room: "lobby", epoch: "e", more: true, id };
            message.append_frame(&mut out, messages.iter().copied());
            let head = frame::Head::parse(&out).unwrap();
            assert_eq!(head.header_bytes + head.payload_bytes as usize, out.len());
            serde_json::from_slice::<Value>(&out[head.header_bytes..]).unwrap()
        };
        let none = json!({"type": "history", "room": "lobby", "epoch": "e", "messages": [], "more": true});
        assert_eq!(payload(&[], None), none);
        let messages = json!([{"type": "chat", "text": "a", "seq": 7}, {"type": "chat", "text": "b", "seq": 8}]);
        let two = json!({
            "type": "history", "room": "lobby", "epoch": "e", "messages": messages, "more": true, "id": "\"h\"",
        });
        assert_eq!(payload(&bodies, Some("\"h\"")), two);
    }
}
