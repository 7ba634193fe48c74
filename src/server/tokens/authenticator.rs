//! Decides by its token whose a handshake is.

use http::{Request, StatusCode};

use super::config::TokenConfig;
use super::keys::KeySet;
use super::sources;
use super::verifier::verify;
use crate::error::Error;
use crate::server::authenticator::{Authentication, Authenticator, Refusal};
use crate::server::bearer::bearer_token;
use crate::time::Now;

/// Admits a connection as the user whom its token names.
///
/// The token is a JSON Web Token of at most 4 KiB in `Authorization: Bearer`, or in the list of subprotocols as
/// `roomcast.token.` and the token, beside `roomcast.v1`. `sub` is the user, `exp` must be there, `nbf` counts, and so do `aud` and
/// `iss` if [`TokenConfig`] has them; `name` is a name to show. Clocks are compared without leeway. Everything else is refused with 401.
#[derive(Debug)]
pub struct TokenAuthenticator {
    config: TokenConfig,
    keys: KeySet,
}

impl TokenAuthenticator {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`Error::Config`] with the file that cannot be read or has no key, or if there is no source of keys.
    pub fn new(config: TokenConfig) -> Result<Self, Error> {
        if !config.has_keys() {
            return Err(Error::Config("tokens need a secret, a public key or a set of keys".to_owned()));
        }
        let keys = sources::read_files(&config).map_err(Error::Config)?;
        Ok(Self { config, keys })
    }
}

impl Authenticator for TokenAuthenticator {
    fn authenticate(&mut self, now: Now, request: &Request<()>) -> Authentication {
        let token = match bearer_token(request.headers()) {
            Ok(Some(token)) => token,
            Ok(None) => {
                return refuse("a token is needed, in Authorization: Bearer or as a subprotocol roomcast.token.…");
            }
            Err(several) => return Authentication::Refuse(several.into()),
        };
        match verify(now, token, &self.keys, &self.config) {
            Ok(identity) => Authentication::Admit(identity),
            Err(error) => refuse(error.sentence()),
        }
    }
}

fn refuse(message: impl Into<String>) -> Authentication {
    Authentication::Refuse(Refusal::new(StatusCode::UNAUTHORIZED, message))
}
