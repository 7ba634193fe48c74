//! One connection to Redis: finding the address, the socket, the login, parsing replies, and
//! reconnecting.

pub(crate) mod blocking_query;
mod endpoint;
mod error;
mod hello;
mod link;
mod reply_buffer;
pub(crate) mod resp;
mod run_id;
mod sentinel;
mod stream;
mod wire;

#[cfg(test)]
pub(crate) use self::endpoint::ResolvedAddress;
pub(crate) use self::endpoint::{Endpoint, HostPort, UnixPath};
pub(crate) use self::error::{Backoff, LinkError};
pub(crate) use self::hello::Login;
pub(crate) use self::link::{Link, LinkChange, LinkFactory};
pub(crate) use self::resp::Value;
pub(crate) use self::run_id::RunId;
pub(crate) use self::sentinel::Sentinels;
