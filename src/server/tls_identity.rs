//! Reads the certificates: at the start, and again on threads that end when they have done so.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use mio::Waker;

use crate::error::Error;
use crate::inbox::{Inbox, InboxSender, inbox};
use crate::net::TlsIdentity;
use crate::net::tls::{certified, read_chain, read_key};
use crate::settings::TlsFiles;

/// A longer file is refused.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Has a thread read the files, and takes what it has read. There is one at a time.
pub(super) struct TlsReloader {
    files: Vec<TlsFiles>,
    sender: InboxSender<Result<TlsIdentity, String>>,
    inbox: Inbox<Result<TlsIdentity, String>>,
    state: ReloadState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadState {
    Idle,
    UnderWay,
    /// It was asked to once more meanwhile.
    Again,
}

impl TlsReloader {
    pub(super) fn new(files: Vec<TlsFiles>, waker: Arc<Waker>) -> Self {
        let (sender, inbox) = inbox(1, waker);
        Self { files, sender, inbox, state: ReloadState::Idle }
    }

    /// Begins to read the files again. They may lie where reading takes long, or for ever, so the loop does not wait for it.
    pub(super) fn begin(&mut self) {
        if self.state != ReloadState::Idle {
            self.state = ReloadState::Again;
            return;
        }
        match self.start() {
            Ok(()) => self.state = ReloadState::UnderWay,
            Err(error) => log::error!("cannot read the certificates again, the old ones stay: {error}"),
        }
    }

    fn start(&self) -> io::Result<()> {
        let (files, sender) = (self.files.clone(), self.sender.clone());
        let read = move || {
            // There is room for what is under way; without a server nobody wants it.
            let _ = sender.push(read(&files));
        };
        thread::Builder::new().name("roomcast-tls".to_owned()).spawn(read).map(drop)
    }

    /// The identity that has been read meanwhile. The log has why there is none.
    pub(super) fn poll(&mut self) -> Option<TlsIdentity> {
        if self.inbox.is_empty() {
            return None;
        }
        self.inbox.begin_drain();
        let read = self.inbox.pop()?;
        let is_asked_again = self.state == ReloadState::Again;
        self.state = ReloadState::Idle;
        if is_asked_again {
            self.begin();
        }
        match read {
            Ok(identity) => {
                for TlsFiles { certificate, .. } in &self.files {
                    log::info!("new TLS sessions show the certificate of {}", certificate.display());
                }
                Some(identity)
            }
            Err(problem) => {
                log::error!("all old certificates stay: {problem}");
                None
            }
        }
    }
}

/// Reads an identity from its files, all of them or none.
///
/// # Errors
/// [`Error::Config`] with the file, and with what was found in it.
pub(super) fn read_identity(files: &[TlsFiles]) -> Result<TlsIdentity, Error> {
    read(files).map_err(Error::Config)
}

fn read(files: &[TlsFiles]) -> Result<TlsIdentity, String> {
    let read = |TlsFiles { certificate, key }: &TlsFiles| {
        let chain = read_file("--tls-cert", certificate, read_chain)?;
        let read_key = read_file("--tls-key", key, read_key)?;
        let (certificate, key) = (certificate.display(), key.display());
        certified(chain, read_key).map_err(|problem| format!("--tls-cert {certificate} and --tls-key {key}: {problem}"))
    };
    TlsIdentity::new(files.iter().map(read).collect::<Result<_, _>>()?)
}

fn read_file<T>(flag: &str, path: &Path, read: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{flag} {name}: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{flag} {name}: more than {FILE_BYTES_MAX} bytes"));
    }
    read(&bytes).map_err(|problem| format!("{flag} {name}: {problem}"))
}
