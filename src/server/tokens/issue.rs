//! Makes tokens, for trying a server out and for scripts.

use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::keys::Secret;
use super::sources::read_file;
use crate::error::Error;
use crate::id::UserId;
use crate::protocol::append_json;

/// What a new token says.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The user.
    #[serde(serialize_with = "serialize_user")]
    pub sub: UserId,
    /// When it expires, in Unix seconds.
    pub exp: u64,
    /// A name to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The server that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The name of its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// What the user may do in which rooms: the JSON of [`Grants`](crate::Grants).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Box<RawValue>>,
}

fn serialize_user<S: serde::Serializer>(user: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(user.as_str())
}

impl TokenRequest {
    /// A token for a user that expires at a time in Unix seconds. Everything else may be set afterwards.
    pub fn new(sub: UserId, exp: u64) -> Self {
        Self { sub, exp, name: None, aud: None, iss: None, rooms: None }
    }
}

/// Makes a token that is signed with the secret of a file by HS256, as [`TokenConfig::secret_files`](crate::TokenConfig::secret_files)
/// takes it.
///
/// # Errors
/// [`Error::Config`] if the file cannot be read, or has no secret.
pub fn issue_token(secret_file: &Path, request: &TokenRequest) -> Result<String, Error> {
    let secret = read_file(secret_file, Secret::read).map_err(Error::Config)?;
    let mut claims = Vec::new();
    append_json(&mut claims, request);
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", BASE64URL_NOPAD.encode(&claims));
    let signature = BASE64URL_NOPAD.encode(secret.sign(message.as_bytes()).as_ref());
    Ok(format!("{message}.{signature}"))
}
