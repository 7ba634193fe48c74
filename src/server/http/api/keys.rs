//! The keys that the server knows: digests in place of secrets, the names that the log has for them, and what they may do.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use super::answer::refuse;
use crate::net::Response;
use crate::settings::{ApiKey, KeyLimits};

/// So many digits of its digest tell a key without a label from others in the log.
const FINGERPRINT_BYTES: usize = 4;

/// A key, without its secret.
#[derive(Debug)]
pub(in crate::server) struct KnownKey {
    pub(super) digest: [u8; 32],
    /// What the log calls it.
    pub(super) name: String,
    pub(super) limits: KeyLimits,
}

impl From<&ApiKey> for KnownKey {
    fn from(key: &ApiKey) -> Self {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let fingerprint = || digest[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: key.label().map_or_else(fingerprint, str::to_owned), limits: key.limits().clone(), digest }
    }
}

/// See the [module](self). The time that it takes to compare digests tells nothing about a key: nobody can look for keys whose
/// digests agree a little more.
pub(super) struct Keys(Vec<Arc<KnownKey>>);

impl Keys {
    pub(super) fn new(keys: &[ApiKey]) -> Self {
        Self(keys.iter().map(|key| Arc::new(key.into())).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that a request has.
    ///
    /// # Errors
    /// The answer to a request without one of the keys.
    pub(super) fn find(&self, headers: &HeaderMap) -> Result<&Arc<KnownKey>, Response> {
        let refuse = |reason| refuse(StatusCode::UNAUTHORIZED, reason).with("WWW-Authenticate", "Bearer");
        let credentials = headers.get(AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
        let credentials = credentials.ok_or_else(|| refuse("no Authorization; Bearer and a key are needed"))?;
        let scheme_bytes = credentials.iter().position(|byte| *byte == b' ').unwrap_or(credentials.len());
        let (scheme, key) = credentials.split_at(scheme_bytes);
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            return Err(refuse("Authorization of another kind; Bearer and a key are needed"));
        }
        let digest: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        let found = self.0.iter().find(|key| key.digest == digest);
        found.ok_or_else(|| refuse("the key is none of this server's"))
    }
}
