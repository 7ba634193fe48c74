//! The order of the messages in a room. Messages arrive by two ways, the subscription and answers
//! to queries; they become one stream without gaps.

pub(crate) mod buffer;
pub(crate) mod history;
mod query;
pub(crate) mod reassembler;
