//! Why a load test, or a part of it, failed.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("cannot start {command:?}: {source}")]
    Start { command: String, source: io::Error },
    #[error("{command:?} ended before it listened on {address} ({status}); its own messages are above")]
    ExitedEarly { command: String, address: SocketAddr, status: String },
    #[error(transparent)]
    Name(#[from] roomcast::NameError),
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The thing that was awaited.
    #[error("waited in vain for {0}")]
    Timeout(String),
    #[error("{count} of our connections ended: {why}")]
    Disconnected { count: usize, why: String },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error(
        "{received} of {expected} deliveries came when each publisher sent one message; every member, the publisher \
         included, must receive it (do --join-template and --chat-template fit this server?){answer}"
    )]
    Undelivered { received: u64, expected: u64, answer: String },
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
