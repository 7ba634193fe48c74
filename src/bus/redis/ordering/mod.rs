//! The order of one room: what came out of Redis by two ways, made into one stream without gaps.

pub(crate) mod buffer;
pub(crate) mod history;
pub(crate) mod reassembler;
