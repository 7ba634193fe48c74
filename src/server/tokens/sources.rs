//! Reads the keys from where they lie: at the start, and again on threads that end when they have done so.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use mio::Waker;

use super::config::{SOURCE_BYTES_MAX, TokenConfig};
use super::keys::{KeySet, NamedKey, Secret};
use super::{fetch, jwks, pem};
use crate::inbox::{Inbox, InboxSender, inbox};

/// What a thread has read.
pub(super) enum Reading {
    Files(Result<KeySet, String>),
    Url(Result<Vec<NamedKey>, String>),
}

/// Has threads read, and takes what they have read. The caller has no more than one of each kind under way.
pub(super) struct Sources {
    config: Arc<TokenConfig>,
    sender: InboxSender<Reading>,
    inbox: Inbox<Reading>,
}

impl Sources {
    pub(super) fn new(config: Arc<TokenConfig>, waker: Arc<Waker>) -> Self {
        let (sender, inbox) = inbox(2, waker);
        Self { config, sender, inbox }
    }

    /// Begins to read the files. A file may lie where reading takes long, or for ever, so the loop does not wait for it.
    pub(super) fn read_files(&self) -> io::Result<()> {
        self.start(|config| Reading::Files(read_files(config)))
    }

    /// Begins to fetch the keys from the URL.
    pub(super) fn fetch(&self) -> io::Result<()> {
        self.start(|config| Reading::Url(fetch::fetch_keys(config.jwks_url.as_deref().unwrap_or_default())))
    }

    fn start(&self, read: fn(&TokenConfig) -> Reading) -> io::Result<()> {
        let (config, sender) = (Arc::clone(&self.config), self.sender.clone());
        let read = move || {
            // There is room for what is under way; without a server nobody wants it.
            let _ = sender.push(read(&config));
        };
        thread::Builder::new().name("roomcast-keys".to_owned()).spawn(read).map(drop)
    }

    /// What has been read meanwhile.
    pub(super) fn poll(&self) -> Option<Reading> {
        if self.inbox.is_empty() {
            return None;
        }
        self.inbox.begin_drain();
        self.inbox.pop()
    }
}

/// Reads the keys of all files.
///
/// # Errors
/// The first file that cannot be read or has no key, and why.
pub(super) fn read_files(config: &TokenConfig) -> Result<KeySet, String> {
    let mut keys = KeySet::default();
    for path in &config.secret_files {
        keys.secrets.push(read_file(path, Secret::read)?);
    }
    for path in &config.key_files {
        let read = read_file(path, pem::read_keys)?;
        keys.public.extend(read.into_iter().map(|key| NamedKey { kid: None, key }));
    }
    if let Some(path) = &config.jwks_file {
        keys.public.extend(read_file(path, jwks::read_keys)?);
    }
    Ok(keys)
}

pub(super) fn read_file<T>(path: &Path, read: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SOURCE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(format!("{name}: more than {SOURCE_BYTES_MAX} bytes"));
    }
    read(&bytes).map_err(|problem| format!("{name}: {problem}"))
}
