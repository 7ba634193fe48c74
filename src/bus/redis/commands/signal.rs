//! Signals on a room's channel: `@<node> signal <kind> <user> <body>`.

use std::fmt::Write;

use crate::bus::message::Signal;
use crate::id::{RoomName, UserId};
use crate::protocol::SignalKind;

/// Stands in the place of a presence delta's base, so that the two are told apart.
const SIGNAL: &str = "signal";

/// Writes a signal of this node.
pub(super) fn write_signal(text: &mut String, node: &str, signal: &Signal) {
    text.clear();
    let Signal { user, kind, body, .. } = signal;
    let _ = write!(text, "@{node} {SIGNAL} {} {user} {body}", kind.as_str());
}

/// Reads a signal of another node than `own`, of a kind that this version knows.
pub(crate) fn read_signal(room: &RoomName, payload: &[u8], own: &str) -> Option<Signal> {
    let mut words = std::str::from_utf8(payload).ok()?.strip_prefix('@')?.splitn(5, ' ');
    words.next().filter(|node| *node != own)?;
    words.next().filter(|word| *word == SIGNAL)?;
    let kind = SignalKind::read(words.next()?)?;
    let user = UserId::new(words.next()?).ok()?;
    Some(Signal { room: room.clone(), user, kind, body: words.next()?.to_owned().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::redis::commands::presence::read_delta;

    #[test]
    fn a_signal_is_read_as_it_was_written_and_is_no_delta() {
        let room = RoomName::new("lobby").unwrap();
        let user = UserId::new("ann").unwrap();
        let signal = Signal { room: room.clone(), user, kind: SignalKind::Typing, body: "start, or so".into() };
        let mut text = String::new();
        write_signal(&mut text, "n1", &signal);
        assert_eq!(text, "@n1 signal typing ann start, or so");
        assert_eq!(read_signal(&room, text.as_bytes(), "n2"), Some(signal));
        assert_eq!(read_signal(&room, text.as_bytes(), "n1"), None, "one's own");
        assert_eq!(read_delta(text.as_bytes(), "n2"), None);
        for bad in ["@n1 signal", "@n1 signal typing", "@n1 signal typing ann", "@n1 signal dance ann x", "@n1 1 2 []"]
        {
            assert_eq!(read_signal(&room, bad.as_bytes(), "n2"), None, "{bad}");
        }
    }
}
