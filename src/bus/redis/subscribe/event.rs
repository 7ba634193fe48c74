//! Events that the subscriber thread tells the loop.

use crate::bus::message::Signal;
use crate::bus::redis::ordering::ChannelMessage;
use crate::bus::redis::presence::PresenceDelta;
use crate::id::RoomName;

/// What the loop is told, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum SubscriberEvent {
    /// From now on no message of the room is missed. The number is that of the opening.
    Subscribed(RoomName, u32),
    /// No room is subscribed any more.
    LinkLost,
    Message(RoomName, ChannelMessage),
    Presence(RoomName, PresenceDelta),
    Signal(Signal),
    /// A message of the room was dropped.
    Gap(RoomName),
}
