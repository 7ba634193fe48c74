//! The flags about TLS.

use std::path::PathBuf;

use clap::Args;
use roomcast::settings::TlsFiles;

/// The certificate of addresses with `tls:` in front.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsFlags {
    /// A PEM file with the certificate that `--listen tls:ADDRESS` shows: the server's own first, then those that lead from it
    /// towards the root. It goes together with `--tls-key`. SIGHUP has both files read again.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// A PEM file with the key of that certificate, without a passphrase.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl TlsFlags {
    /// The files, if they were given.
    pub(super) fn files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { certificate, key })
    }
}
