//! From a token to the user whom it names.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims;
use super::config::TokenConfig;
use super::key_ring::{KeyError, KeyRing};
use super::keys::Algorithm;
use crate::server::authenticator::Identity;
use crate::server::json_field::present;
use crate::time::Now;

/// The longest token, in bytes. It must fit into the head of a request beside everything else.
pub(super) const TOKEN_BYTES_MAX: usize = 4096;

/// The fields of a header that count here (RFC 7515 section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    /// Extensions that must be understood. None is.
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// No key is for its algorithm.
    NoKey(Algorithm),
    /// No key has the name that the token gives for its own.
    UnknownKid,
    /// A sentence that says so, without anything of the token.
    Invalid(String),
}

impl TokenError {
    /// What the peer is told.
    pub(super) fn sentence(&self) -> String {
        let reason = match self {
            Self::NoKey(algorithm) => &format!("no key is for {}", algorithm.name()),
            Self::UnknownKid => "no key has its kid",
            Self::Invalid(reason) => reason,
        };
        format!("the token is not accepted: {reason}")
    }

    /// Whether it may be accepted once there are other public keys.
    pub(super) fn is_about_keys(&self) -> bool {
        match self {
            Self::NoKey(algorithm) => algorithm.has_public_keys(),
            Self::UnknownKid => true,
            Self::Invalid(_) => false,
        }
    }
}

fn invalid(reason: impl Into<String>) -> TokenError {
    TokenError::Invalid(reason.into())
}

/// Verifies a token in its compact form (RFC 7515 section 7.1), and checks what it says.
///
/// # Errors
/// The first reason for which it is not accepted.
pub(super) fn verify(now: Now, token: &str, keys: &KeyRing, config: &TokenConfig) -> Result<Identity, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(invalid(format!("it has {} bytes; {TOKEN_BYTES_MAX} are allowed", token.len())));
    }
    let malformed = || invalid("it is not three parts of base64url with dots between them");
    let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| malformed());
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    let (algorithm, kid) = read_header(&header)?;
    let key = keys.verify(algorithm, kid.as_deref(), message.as_bytes(), &signature).map_err(|error| match error {
        KeyError::Algorithm => TokenError::NoKey(algorithm),
        KeyError::UnknownKid => TokenError::UnknownKid,
        KeyError::Signature => invalid("its signature is wrong"),
    })?;
    let identity = claims::identity(now, &payload, config).map_err(invalid)?;
    Ok(Identity { key: Some(key), ..identity })
}

fn read_header(header: &[u8]) -> Result<(Algorithm, Option<String>), TokenError> {
    let header: Option<Header> = header.starts_with(b"{").then(|| serde_json::from_slice(header).ok()).flatten();
    let Header { alg, kid, crit } = header.ok_or_else(|| invalid("its header cannot be read"))?;
    if crit.is_some() {
        return Err(invalid("its header has extensions (crit); none is known"));
    }
    let algorithm = Algorithm::named(&alg)
        .ok_or_else(|| invalid("its alg is none of HS256, HS384, HS512, RS256, ES256 and EdDSA"))?;
    Ok((algorithm, kid))
}

#[cfg(test)]
mod tests;
