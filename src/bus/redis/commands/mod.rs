//! The thread that asks Redis: requests of the loop, pipelined to the pool as calls of scripts.

pub(crate) mod call;
pub(crate) mod names;
pub(crate) mod packer;
pub(crate) mod paused_slots;
pub(crate) mod pipeline;
pub(crate) mod presence;
pub(crate) mod publish_script;
pub(crate) mod request;
pub(crate) mod script;
pub(crate) mod thread;
