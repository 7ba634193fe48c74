//! The flags about TLS.

use std::path::PathBuf;

use clap::Args;
use roomcast::settings::TlsFiles;

/// The certificates of addresses with `tls:` in front.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsFlags {
    /// A PEM file with the certificate that `--listen tls:ADDRESS` shows: the server's own first, then those that lead from it
    /// towards the root. It goes together with `--tls-key`. Repeat both for more: a client is shown the first that is good for the
    /// name that it asks for, or else the first of all. SIGHUP has all files read again.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TLS_CERT", value_delimiter = ',', requires = "tls_key")]
    tls_cert: Vec<PathBuf>,

    /// A PEM file with the key of that certificate, without a passphrase. The first belongs to the first `--tls-cert`, and so on.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TLS_KEY", value_delimiter = ',', requires = "tls_cert")]
    tls_key: Vec<PathBuf>,
}

impl TlsFlags {
    /// The files.
    ///
    /// # Errors
    /// A certificate has no key, or a key no certificate.
    pub(super) fn files(&self) -> Result<Vec<TlsFiles>, String> {
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        if certificates != keys {
            let problem = format!(
                "--tls-cert names {certificates} files and --tls-key names {keys}; each certificate needs its key, in the same order"
            );
            return Err(problem);
        }
        let pairs = self.tls_cert.iter().zip(&self.tls_key);
        Ok(pairs.map(|(certificate, key)| TlsFiles { certificate: certificate.clone(), key: key.clone() }).collect())
    }
}
