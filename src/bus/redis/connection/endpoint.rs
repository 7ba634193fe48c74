//! Where Redis is: looking up a name, or asking who knows, may block for many seconds, so that it has threads of its own, each for
//! one answer.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use mio::Waker;

use crate::inbox::{Inbox, inbox};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What a link can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedAddress {
    Unix(PathBuf),
    /// The host of the node is the one whom a certificate has to name.
    Tcp {
        node: HostPort,
        addresses: Vec<SocketAddr>,
    },
}

/// Where a link leads. It shows itself for the log.
pub(crate) trait Endpoint: fmt::Display + Send + Sync {
    /// Where that is, if nobody has to be asked.
    fn known_address(&self) -> Option<ResolvedAddress>;

    /// Finds it out. This may block.
    fn find(&self) -> io::Result<ResolvedAddress>;

    /// Whether a server there has to be asked if it is a master.
    fn requires_master(&self) -> bool {
        false
    }

    /// A link stands there; how often the endpoint has moved by now.
    fn link_up(&self, node: &HostPort) -> u64 {
        let _ = node;
        0
    }

    /// How often the endpoint has moved, as far as its links have found out: one that has arrived before the last time stands
    /// at a wrong server.
    fn move_count(&self) -> u64 {
        0
    }

    /// A link gives itself up for a move: the next look-up leads where the endpoint has moved to.
    fn follow(&self) {}
}

impl Endpoint for HostPort {
    fn known_address(&self) -> Option<ResolvedAddress> {
        let address = SocketAddr::new(self.host.parse().ok()?, self.port);
        Some(ResolvedAddress::Tcp { node: self.clone(), addresses: vec![address] })
    }

    fn find(&self) -> io::Result<ResolvedAddress> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::other(format!("{} has no address", self.host)));
        }
        Ok(ResolvedAddress::Tcp { node: self.clone(), addresses })
    }
}

/// A path of a Unix socket.
pub(crate) struct UnixPath(pub(crate) PathBuf);

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Endpoint for UnixPath {
    fn known_address(&self) -> Option<ResolvedAddress> {
        Some(ResolvedAddress::Unix(self.0.clone()))
    }

    fn find(&self) -> io::Result<ResolvedAddress> {
        Ok(ResolvedAddress::Unix(self.0.clone()))
    }
}

/// An answer under way. Dropped, it is not waited for: its thread ends when the blocking call does.
pub(crate) struct Lookup<T> {
    answer: Inbox<io::Result<T>>,
}

impl<T: Send + 'static> Lookup<T> {
    /// Has a thread find something out; `waker` is woken when it is there.
    pub(crate) fn start(waker: &Arc<Waker>, find: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<Self> {
        let (sender, answer) = inbox(1, Arc::clone(waker));
        thread::Builder::new().name("redis-lookup".to_owned()).spawn(move || {
            // Whoever has asked may be gone.
            let _ = sender.push(find());
        })?;
        Ok(Self { answer })
    }

    /// The answer, once.
    pub(crate) fn poll(&self) -> Option<io::Result<T>> {
        self.answer.pop()
    }
}
