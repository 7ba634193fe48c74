//! Notices for an embedding program: opt in, bounded, and with a count of those that it missed.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bus::message::{Outcome, Ticket};
use crate::id::{ConnectionId, RoomName, UserId};

/// Something that happened, for the host.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// A connection was welcomed.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// Its user.
        user: UserId,
    },
    /// A connection is gone.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// Its user.
        user: UserId,
    },
    /// A connection is level with a room that it joined.
    Joined {
        /// The connection.
        connection: ConnectionId,
        /// Its user.
        user: UserId,
        /// The room.
        room: RoomName,
    },
    /// A connection left a room, or was lost while in it.
    Left {
        /// The connection.
        connection: ConnectionId,
        /// Its user.
        user: UserId,
        /// The room.
        room: RoomName,
    },
    /// A chat message was delivered in a room that has members here.
    Chat {
        /// The room.
        room: RoomName,
        /// Its number.
        seq: u64,
        /// The message as members see it, as JSON; [`Notice::chat`] reads it.
        json: Bytes,
    },
    /// Messages of a room that has members here were deleted.
    Deleted {
        /// The room.
        room: RoomName,
        /// The number of the announcement, or of a deleted message that has not been delivered here.
        seq: u64,
        /// The numbers of the messages that the announcement deletes.
        deletes: Vec<u64>,
    },
    /// What became of a publication of the host.
    Published {
        /// What the command returned.
        ticket: Ticket,
        /// What became of it.
        outcome: Outcome,
    },
    /// So many notices were dropped here because the host did not collect them.
    Missed(u64),
}

/// The fields of a chat message.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ChatFields<'a> {
    /// The user that it is from.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// A name to show beside the user's.
    #[serde(default)]
    pub name: Option<String>,
    /// What was said.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
    /// Any JSON beside it.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    /// The sender's id for it.
    #[serde(default)]
    pub id: Option<String>,
    /// When it was said, in Unix milliseconds.
    pub ts: u64,
}

impl Notice {
    /// Reads the fields of a chat message. Only a host that calls it pays for that.
    pub fn chat(&self) -> Option<ChatFields<'_>> {
        let Self::Chat { json, .. } = self else { return None };
        serde_json::from_slice(json).ok()
    }
}

#[derive(Debug)]
pub(super) struct Notices {
    queue: VecDeque<Notice>,
    notices_max: usize,
    is_wanted: bool,
    missed: u64,
}

impl Notices {
    pub(super) fn new(is_wanted: bool, notices_max: usize) -> Self {
        Self { queue: VecDeque::new(), notices_max, is_wanted, missed: 0 }
    }

    /// Queues a notice, which is made only if it is wanted and there is space.
    pub(super) fn push(&mut self, make: impl FnOnce() -> Notice) {
        if !self.is_wanted {
            return;
        }
        // Once something was missed, the queue is emptied first: `Missed` stands where the gap is.
        if self.missed > 0 || self.queue.len() >= self.notices_max {
            self.missed += 1;
            return;
        }
        self.queue.push_back(make());
    }

    pub(super) fn pop(&mut self) -> Option<Notice> {
        if let Some(notice) = self.queue.pop_front() {
            return Some(notice);
        }
        let missed = std::mem::take(&mut self.missed);
        (missed > 0).then_some(Notice::Missed(missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_chat_message_are_read_from_its_json() {
        let json = br#"{"type":"chat","room":"r","userId":"zo\u00eb","text":"a\nb","data":{"n":1},"ts":7,"seq":3}"#;
        let notice = Notice::Chat { room: RoomName::new("r").unwrap(), seq: 3, json: Bytes::from_static(json) };
        let chat = notice.chat().unwrap();
        assert_eq!((&*chat.user_id, &*chat.text, chat.ts), ("zo\u{eb}", "a\nb", 7));
        assert_eq!((chat.name, chat.id, chat.data.map(RawValue::get)), (None, None, Some(r#"{"n":1}"#)));
        assert!(Notice::Missed(1).chat().is_none());
    }

    #[test]
    fn what_does_not_fit_is_counted_where_the_gap_is() {
        let mut notices = Notices::new(true, 2);
        let room = |i: u64| Notice::Published { ticket: Ticket(i), outcome: Outcome::Accepted(i) };
        for i in 0..5 {
            notices.push(|| room(i));
        }
        assert_eq!(notices.pop(), Some(room(0)));
        notices.push(|| room(5));
        assert_eq!(notices.pop(), Some(room(1)));
        assert_eq!(notices.pop(), Some(Notice::Missed(4)));
        notices.push(|| room(6));
        assert_eq!(notices.pop(), Some(room(6)));
        assert_eq!(notices.pop(), None);
    }
}
