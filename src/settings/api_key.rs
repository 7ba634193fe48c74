//! The keys of the HTTP API.

use std::fmt;

use crate::error::Error;

/// The least length of an [`ApiKey`] in bytes.
pub const API_KEY_BYTES_MIN: usize = 16;

/// A secret that a back-end shares with the server, of at least [`API_KEY_BYTES_MIN`] bytes. It is never logged, and no
/// message contains it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes any text. [`Config::check`](super::Config::check) checks whether it can be used.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Checks keys, which have numbers in errors.
    ///
    /// # Errors
    /// [`Error::Config`] with the first that cannot be used.
    pub(crate) fn check_all(keys: &[Self]) -> Result<(), Error> {
        keys.iter().enumerate().try_for_each(|(index, key)| key.check(index + 1))
    }

    /// Keys are used without escaping in a header field, and in the comma-separated list of an
    /// environment variable.
    fn check(&self, number: usize) -> Result<(), Error> {
        if self.0.len() < API_KEY_BYTES_MIN {
            let words = format!("api-key {number} has {} bytes; at least {API_KEY_BYTES_MIN} are needed", self.0.len());
            return Err(Error::Config(words));
        }
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            let words = format!(
                "api-key {number} has other characters than ASCII letters, digits and punctuation without commas"
            );
            return Err(Error::Config(words));
        }
        Ok(())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}
