//! The thread that listens to the channels of rooms.

pub(crate) mod channels;
pub(crate) mod event;
pub(crate) mod subscriptions;
pub(crate) mod thread;
