//! A violation of the protocol by a peer.

use rustls::{AlertDescription, Error};

/// Ends a session, and tells the peer why.
#[derive(Debug)]
pub(super) struct Fault {
    /// None if it is the peer that has told why.
    pub(super) alert: Option<AlertDescription>,
    pub(super) error: Error,
}

impl Fault {
    pub(super) fn new(alert: AlertDescription, error: impl Into<Error>) -> Self {
        Self { alert: Some(alert), error: error.into() }
    }

    pub(super) fn unexpected(error: impl Into<Error>) -> Self {
        Self::new(AlertDescription::UnexpectedMessage, error)
    }
}
