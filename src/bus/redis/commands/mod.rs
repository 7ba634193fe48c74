//! The thread that sends requests to Redis: calls of scripts, pipelined over one link to each
//! master.

pub(crate) mod names;
pub(crate) mod packer;
pub(crate) mod paused_slots;
pub(crate) mod pipeline;
pub(crate) mod presence;
pub(crate) mod publish_script;
pub(crate) mod request;
pub(crate) mod script;
pub(crate) mod signal;
pub(crate) mod thread;
