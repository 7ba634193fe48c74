//! One connection to Redis: where it leads, how it is made, how it is lost and made again, and what comes over it.

pub(crate) mod blocking_query;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod hello;
pub(crate) mod link;
pub(crate) mod resp;
pub(crate) mod run_id;
pub(crate) mod sentinel;
pub(crate) mod stream;
