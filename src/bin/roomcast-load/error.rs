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
    #[error("waited in vain for {0}")]
    Silence(String),
    #[error("{count} of our connections ended: {why}")]
    Gone { count: usize, why: String },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for LoadError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}
