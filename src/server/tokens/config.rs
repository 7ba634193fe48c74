//! Where the keys of tokens come from, and which tokens are for this server.

use std::path::PathBuf;

/// A longer file or answer with keys is refused: sets of keys have a few KiB.
pub(super) const SOURCE_BYTES_MAX: u64 = 256 * 1024;

/// The settings of a [`TokenAuthenticator`](crate::TokenAuthenticator). A token is accepted if any of the keys has signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenConfig {
    /// Files with a secret each, of at least 32 bytes, for HS256, HS384 and HS512. A line break at the end does not belong to the secret.
    pub secret_files: Vec<PathBuf>,
    /// PEM files with public keys, for RS256, ES256 and EdDSA (Ed25519).
    pub key_files: Vec<PathBuf>,
    /// A file with a JSON Web Key Set, of which the keys for RS256, ES256 and EdDSA are used.
    pub jwks_file: Option<PathBuf>,
    /// A URL of such a set. It is fetched at the start, when a token names a key that is not known (once a minute at most), when it is
    /// ten minutes old, and on a [reload](crate::Server::reload).
    pub jwks_url: Option<String>,
    /// What `aud` must be or contain. Without it, `aud` is not looked at.
    pub audience: Option<String>,
    /// What `iss` must be. Without it, `iss` is not looked at.
    pub issuer: Option<String>,
}

impl TokenConfig {
    /// Whether there is any source of keys.
    pub fn has_keys(&self) -> bool {
        !self.secret_files.is_empty()
            || !self.key_files.is_empty()
            || self.jwks_file.is_some()
            || self.jwks_url.is_some()
    }
}
