//! One connection to Redis: finding the address, the socket, the login, parsing replies, and
//! reconnecting.

pub(crate) mod blocking_query;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod hello;
pub(crate) mod link;
mod phase;
pub(crate) mod resp;
pub(crate) mod run_id;
pub(crate) mod sentinel;
pub(crate) mod stream;
