//! The order of the messages in a room. Messages arrive by two ways, the subscription and answers
//! to queries; they become one stream without gaps.

mod buffer;
mod history;
mod query;
mod reassembler;

pub(crate) use self::history::{
    ChannelMessage, HistoryQuery, HistorySlice, OrderingStep, RoomPosition, fingerprint_of,
};
pub(crate) use self::reassembler::Reassembler;
