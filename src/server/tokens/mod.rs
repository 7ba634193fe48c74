//! Identity by tokens: a connection brings a JSON Web Token (RFC 7519) that says whose it is.

mod authenticator;
mod claims;
mod config;
mod fetch;
mod issue;
mod jwks;
mod key_ring;
mod keys;
mod pem;
mod sources;
mod verifier;

pub use self::authenticator::TokenAuthenticator;
pub use self::config::TokenConfig;
pub use self::issue::{TokenRequest, issue_token};
