//! The errors of the caller, an operator or an embedder.
//!
//! An error of a peer becomes a close code or an `error` message ([`crate::protocol`]). A failure of
//! the world becomes a log line and a retry. Neither is an [`enum@Error`].

use std::io;

/// An error that the caller has to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of [`crate::Config`] is out of its bounds, or does not go with another one.
    #[error("{0}")]
    Config(String),
    /// The host lends fewer tokens than listeners and connections need.
    #[error("host lends {found} tokens; {needed} are needed for this number of connections")]
    Tokens {
        /// How many tokens the range of the host holds.
        found: usize,
        /// How many [`crate::Config`] asks for.
        needed: usize,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// More listeners than the server can own.
    #[error("more than {0} listeners")]
    TooManyListeners(usize),
    /// A name or text in a command is out of its bounds.
    #[error("{0}")]
    Command(String),
    /// A queue between the caller and the server is full, or the server has ended.
    #[error("{0}")]
    Inbox(#[from] crate::inbox::PushError),
    /// The system refused something that the server cannot do without.
    #[error(transparent)]
    Io(#[from] io::Error),
}
