//! Why a load test could not be done.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// See the [module](self).
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("cannot start {command:?}: {source}")]
    Start { command: String, source: io::Error },
    #[error("{command:?} ended before it listened on {address} ({status}); what it said is above")]
    Ended { command: String, address: SocketAddr, status: String },
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("waited in vain for {0}")]
    Silence(String),
    #[error("{count} of our connections ended: {why}")]
    Gone { count: usize, why: String },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error(
        "{heard} of {expected} deliveries came when everybody who publishes said one thing; each member, the publisher \
         included, must receive it (are --join-template and --chat-template what this server understands?){complaint}"
    )]
    Unheard { heard: u64, expected: u64, complaint: String },
    #[error("{failed} of {of} measurements failed")]
    Failed { failed: usize, of: usize },
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for LoadError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}
