//! Where a certificate lies.

use std::path::PathBuf;

/// The files of a certificate, which are read at the start, and again on a [reload](crate::Server::reload).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then those that lead from it towards the root.
    pub certificate: PathBuf,
    /// PEM: the key of the certificate, without a passphrase.
    pub key: PathBuf,
}
