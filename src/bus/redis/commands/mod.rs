//! The thread that sends requests to Redis: calls of scripts, pipelined over one link to each
//! master.

mod names;
mod packer;
mod paused_slots;
mod pipeline;
mod presence;
mod publish_script;
mod request;
mod restrictions;
mod script;
mod signal;
mod thread;

pub(crate) use self::names::KeyNames;
pub(crate) use self::packer::Packer;
pub(crate) use self::pipeline::PipelineContext;
pub(crate) use self::presence::{is_presence, read_delta};
pub use self::publish_script::PublishScript;
pub(crate) use self::request::{
    Numbering, PendingPublication, PendingRead, Request, Response, RightsPlace, RoomRequest, read_channel_message,
};
pub(crate) use self::restrictions::{RestrictionsRead, RestrictionsSlice};
pub(crate) use self::script::ChannelKind;
pub(crate) use self::signal::read_signal;
pub(crate) use self::thread::CommandThread;
