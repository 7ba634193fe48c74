//! What the loop is told by the thread that subscribes.

use crate::bus::redis::ordering::history::ChannelMessage;
use crate::bus::redis::presence::delta::PresenceDelta;
use crate::id::{RoomName, UserId};
use crate::protocol::TypingStatus;

/// What the loop is told, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum SubscriberEvent {
    /// From now on nothing of the room is missed.
    Subscribed(RoomName, u32),
    /// No room is subscribed any more.
    LinkLost,
    Message(RoomName, ChannelMessage),
    /// Another node has said who is present there.
    Presence(RoomName, PresenceDelta),
    /// Somebody types on another node.
    Typing(RoomName, UserId, TypingStatus),
    /// A message of the room was dropped.
    Gap(RoomName),
}
