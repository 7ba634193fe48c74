//! Decides by its token whose a connection is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{Request, StatusCode};
use mio::Waker;

use super::config::TokenConfig;
use super::fetch::{self, FetchSchedule};
use super::key_ring::KeyRing;
use super::keys::{KeySet, NamedKey};
use super::sources::{self, Reading, Sources};
use super::verifier::{TokenError, verify};
use crate::error::Error;
use crate::id::{KeyNumber, UserId};
use crate::net::AdmissionTicket;
use crate::server::authenticator::{Authentication, Authenticator, Identity, Refusal, TokenPolicy};
use crate::server::bearer::bearer_token;
use crate::time::Now;
use crate::unicode::Escaped;

/// Admits a connection as the user whom its token names.
///
/// The token is a JSON Web Token of at most 4 KiB in `Authorization: Bearer`, or in the list of subprotocols as
/// `roomcast.token.` and the token, beside `roomcast.v1`. `sub` is the user, `exp` must be there, `nbf` counts, and so do `aud` and
/// `iss` if [`TokenConfig`] has them; `name` is a name to show, and `rooms` are [`Grants`](crate::Grants). Clocks are compared without
/// leeway. Everything else is refused with 401.
///
/// A connection ends when the key is taken away that has verified its token. A token whose key may be new waits while the keys of
/// [`TokenConfig::jwks_url`] are fetched.
pub struct TokenAuthenticator {
    config: Arc<TokenConfig>,
    /// All keys.
    keys: KeyRing,
    /// Those that are left, if some have gone.
    keys_left: Option<Vec<KeyNumber>>,
    /// Those of them that came from files, and those that were fetched.
    of_files: KeySet,
    of_url: Vec<NamedKey>,
    sources: Sources,
    files: FileReading,
    fetches: Option<FetchSchedule>,
    /// Tokens that wait for the end of a fetch. The server bounds them, and abandons those that wait for too long.
    waiting: BTreeMap<u64, String>,
    last_ticket: u64,
}

/// Whether a thread reads the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileReading {
    Idle,
    UnderWay,
    /// It was asked to once more meanwhile.
    Again,
}

impl fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthenticator").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TokenAuthenticator {
    /// Reads the keys of files, and begins to fetch the others. `waker` is that of the [`HostLoop`](crate::HostLoop).
    ///
    /// # Errors
    /// [`Error::Config`] with the file that cannot be read or has no key, or if there is no source of keys.
    pub fn new(config: TokenConfig, waker: Arc<Waker>) -> Result<Self, Error> {
        if !config.has_keys() {
            return Err(Error::Config("tokens need a secret, a public key or a set of keys".to_owned()));
        }
        config.jwks_url.as_deref().map_or(Ok(()), fetch::check_url).map_err(Error::Config)?;
        let of_files = sources::read_files(&config).map_err(Error::Config)?;
        let config = Arc::new(config);
        let sources = Sources::new(Arc::clone(&config), waker);
        let fetches = match config.jwks_url {
            Some(_) => {
                sources.fetch()?;
                Some(FetchSchedule::begun())
            }
            None => None,
        };
        Ok(Self {
            config,
            keys: KeyRing::new(of_files.clone()),
            keys_left: None,
            of_files,
            of_url: Vec::new(),
            sources,
            files: FileReading::Idle,
            fetches,
            waiting: BTreeMap::new(),
            last_ticket: 0,
        })
    }

    fn decide(&mut self, now: Now, token: &str) -> Authentication {
        if self.fetches.as_ref().is_some_and(|fetches| fetches.is_due(now.uptime)) {
            self.begin_fetch(now);
        }
        match verify(now, token, &self.keys, &self.config) {
            Ok(identity) => Authentication::Admit(identity),
            Err(error) if self.may_be_of_a_new_key(now, &error) => {
                self.last_ticket += 1;
                self.waiting.insert(self.last_ticket, token.to_owned());
                Authentication::Later(AdmissionTicket(self.last_ticket))
            }
            Err(error) => Authentication::Refuse(self.refusal(&error)),
        }
    }

    /// Whether a token may be good once the keys have been fetched, which is then under way.
    fn may_be_of_a_new_key(&mut self, now: Now, error: &TokenError) -> bool {
        let Some(fetches) = self.fetches.as_ref().filter(|_| error.is_about_keys()) else { return false };
        if fetches.may_begin(now.uptime) {
            self.begin_fetch(now);
        }
        self.fetches.as_ref().is_some_and(FetchSchedule::is_under_way)
    }

    fn refusal(&self, error: &TokenError) -> Refusal {
        let has_all_keys = self.fetches.as_ref().is_none_or(|fetches| fetches.has_keys);
        if error.is_about_keys() && !has_all_keys {
            let message = "the keys of tokens could not be fetched; come back later";
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
        }
        Refusal::new(StatusCode::UNAUTHORIZED, error.sentence())
    }

    fn begin_fetch(&mut self, now: Now) {
        let Some(fetches) = &mut self.fetches else { return };
        match self.sources.fetch() {
            Ok(()) => fetches.begin(),
            Err(error) => {
                log::warn!("tokens: cannot fetch the keys: {error}");
                fetches.end(now.uptime, false);
            }
        }
    }

    fn begin_reading(&mut self) {
        self.files = match self.sources.read_files() {
            Ok(()) => FileReading::UnderWay,
            Err(error) => {
                log::warn!("tokens: cannot read the files with keys again: {error}");
                FileReading::Idle
            }
        };
    }

    fn take_readings(&mut self, now: Now) {
        while let Some(reading) = self.sources.poll() {
            match reading {
                Reading::Files(read) => {
                    let is_asked_again = self.files == FileReading::Again;
                    self.files = FileReading::Idle;
                    if is_asked_again {
                        self.begin_reading();
                    }
                    match read {
                        Ok(keys) => self.of_files = keys,
                        Err(problem) => log::warn!("tokens: the keys of files stay as they were: {}", Escaped(problem)),
                    }
                }
                Reading::Url(read) => {
                    if let Some(fetches) = &mut self.fetches {
                        fetches.end(now.uptime, read.is_ok());
                    }
                    match read {
                        Ok(keys) => self.of_url = keys,
                        Err(problem) => {
                            log::warn!("tokens: the keys of --jwks-url stay as they were: {}", Escaped(problem));
                        }
                    }
                }
            }
            let mut keys = self.of_files.clone();
            keys.public.extend(self.of_url.iter().cloned());
            if let Some(left) = self.keys.replace(keys) {
                self.keys_left = Some(left);
            }
            let (secrets, public) = self.keys.count();
            log::info!("tokens: {secrets} secrets and {public} public keys");
        }
    }
}

impl Authenticator for TokenAuthenticator {
    fn authenticate(&mut self, now: Now, request: &Request<()>) -> Authentication {
        match bearer_token(request.headers()) {
            Ok(Some(token)) => self.decide(now, token),
            Ok(None) => {
                let message = "a token is needed, in Authorization: Bearer or as a subprotocol roomcast.token.…";
                Authentication::Refuse(Refusal::new(StatusCode::UNAUTHORIZED, message))
            }
            Err(several) => Authentication::Refuse(several.into()),
        }
    }

    fn token_policy(&self) -> TokenPolicy {
        TokenPolicy::Needed
    }

    fn refresh(&mut self, now: Now, _user: &UserId, token: &str) -> Authentication {
        self.decide(now, token)
    }

    fn abandon(&mut self, AdmissionTicket(ticket): AdmissionTicket) {
        self.waiting.remove(&ticket);
    }

    fn poll_decision(&mut self, now: Now) -> Option<(AdmissionTicket, Result<Identity, Refusal>)> {
        self.take_readings(now);
        if self.fetches.as_ref().is_some_and(FetchSchedule::is_under_way) {
            return None;
        }
        let (ticket, token) = self.waiting.pop_first()?;
        let decision = verify(now, &token, &self.keys, &self.config).map_err(|error| self.refusal(&error));
        Some((AdmissionTicket(ticket), decision))
    }

    fn poll_keys_left(&mut self) -> Option<Vec<KeyNumber>> {
        self.keys_left.take()
    }

    fn reload(&mut self, now: Now) {
        match self.files {
            FileReading::Idle => self.begin_reading(),
            FileReading::UnderWay | FileReading::Again => self.files = FileReading::Again,
        }
        if self.fetches.as_ref().is_some_and(|fetches| !fetches.is_under_way()) {
            self.begin_fetch(now);
        }
    }
}
