//! The flags about tokens, and the command that makes one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use roomcast::{Grants, TokenConfig, TokenRequest, UserId, issue_token};
use serde_json::value::RawValue;

/// Where the keys of tokens come from. With any of them, every connection needs a token.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub(super) struct TokenFlags {
    /// A file with a secret of at least 32 bytes that the issuer of tokens shares with the server (HS256, HS384, HS512); repeat
    /// the flag to replace secrets one by one. With this, `--token-key-file`, `--jwks-file` or `--jwks-url` every connection needs a token;
    /// without them and without `--auth-url` everybody is believed to be whom they say.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TOKEN_SECRET_FILE", value_delimiter = ',')]
    token_secret_file: Vec<PathBuf>,

    /// A PEM file with public keys of the issuer of tokens (RS256, ES256, EdDSA); repeat the flag for more.
    #[arg(long, value_name = "FILE", env = "ROOMCAST_TOKEN_KEY_FILE", value_delimiter = ',')]
    token_key_file: Vec<PathBuf>,

    /// A JSON Web Key Set with public keys of the issuer of tokens (RS256, ES256, EdDSA).
    #[arg(long, value_name = "FILE", env = "ROOMCAST_JWKS_FILE")]
    jwks_file: Option<PathBuf>,

    /// The URL of such a set; https, unless the issuer runs on this machine. It is fetched at the start, for a token of a key that is
    /// not known (once a minute at most), every ten minutes, and on SIGHUP.
    #[arg(long, value_name = "URL", env = "ROOMCAST_JWKS_URL")]
    jwks_url: Option<String>,

    /// What `aud` of a token must be or contain. Without it, `aud` is not looked at.
    #[arg(long, value_name = "TEXT", env = "ROOMCAST_TOKEN_AUDIENCE")]
    token_audience: Option<String>,

    /// What `iss` of a token must be. Without it, `iss` is not looked at.
    #[arg(long, value_name = "TEXT", env = "ROOMCAST_TOKEN_ISSUER")]
    token_issuer: Option<String>,
}

impl TokenFlags {
    /// The settings of the authenticator, if there are any keys.
    pub(super) fn config(&self) -> Option<TokenConfig> {
        let config = TokenConfig {
            secret_files: self.token_secret_file.clone(),
            key_files: self.token_key_file.clone(),
            jwks_file: self.jwks_file.clone(),
            jwks_url: self.jwks_url.clone(),
            audience: self.token_audience.clone(),
            issuer: self.token_issuer.clone(),
        };
        config.has_keys().then_some(config)
    }
}

/// What the program does in place of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Prints a token that a server with the same --token-secret-file accepts.
    Token(NewToken),
}

/// What a new token says.
#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// The file with the secret.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,

    /// The user.
    #[arg(long, value_name = "USER")]
    sub: String,

    /// For how long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,

    /// A name to show.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// The audience (aud).
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,

    /// The issuer (iss).
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,

    /// What the user may do in which rooms, as --default-rooms.
    #[arg(long, value_name = "JSON")]
    rooms: Option<String>,
}

impl NewToken {
    /// Makes the token.
    pub(crate) fn issue(self) -> Result<String, Box<dyn std::error::Error>> {
        let user = UserId::new(&self.sub).map_err(|error| format!("--sub: {error}"))?;
        let expires = SystemTime::now().checked_add(self.ttl).ok_or("--ttl: longer than time itself")?;
        let mut request = TokenRequest::new(user, expires.duration_since(UNIX_EPOCH)?.as_secs());
        (request.name, request.aud, request.iss) = (self.name, self.audience, self.issuer);
        if let Some(rooms) = self.rooms {
            rooms.parse::<Grants>().map_err(|error| format!("--rooms: {error}"))?;
            request.rooms = Some(RawValue::from_string(rooms)?);
        }
        Ok(issue_token(&self.secret_file, &request)?)
    }
}
