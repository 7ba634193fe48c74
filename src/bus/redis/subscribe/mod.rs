//! The thread that receives what other nodes publish.

pub(crate) mod channels;
pub(crate) mod event;
pub(crate) mod subscriptions;
pub(crate) mod thread;
