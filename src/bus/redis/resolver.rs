//! Where Redis is: looking up a name, or asking who knows, may block for many seconds, so that it has threads of its own, each for
//! one answer.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use mio::Waker;

use super::target::Node;
use crate::inbox::{Inbox, inbox};

/// What a link can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Unix(PathBuf),
    /// The host of the node is the one whom a certificate has to name.
    Tcp {
        node: Node,
        addresses: Vec<SocketAddr>,
    },
}

/// Where a link leads. It shows itself for the log.
pub(super) trait Place: fmt::Display + Send + Sync {
    /// Where that is, if nobody has to be asked.
    fn at_once(&self) -> Option<Spot>;

    /// Finds it out. This may block.
    fn find(&self) -> io::Result<Spot>;

    /// Whether a server there has to be asked if it is a master.
    fn is_of_master(&self) -> bool {
        false
    }

    /// A link stands there; how often the place has moved by now.
    fn arrive(&self, node: &Node) -> u64 {
        let _ = node;
        0
    }

    /// How often the place has moved, as far as its links have found out: one that has arrived before the last time stands
    /// at a wrong server.
    fn moves(&self) -> u64 {
        0
    }

    /// A link gives itself up for a move: the next look-up leads where the place has moved to.
    fn follow(&self) {}
}

impl Place for Node {
    fn at_once(&self) -> Option<Spot> {
        let address = SocketAddr::new(self.host.parse().ok()?, self.port);
        Some(Spot::Tcp { node: self.clone(), addresses: vec![address] })
    }

    fn find(&self) -> io::Result<Spot> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::other(format!("{} has no address", self.host)));
        }
        Ok(Spot::Tcp { node: self.clone(), addresses })
    }
}

/// A path of a Unix socket.
pub(super) struct UnixPlace(pub(super) PathBuf);

impl fmt::Display for UnixPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Place for UnixPlace {
    fn at_once(&self) -> Option<Spot> {
        Some(Spot::Unix(self.0.clone()))
    }

    fn find(&self) -> io::Result<Spot> {
        Ok(Spot::Unix(self.0.clone()))
    }
}

/// An answer under way. Dropped, it is not waited for: its thread ends when the blocking call does.
pub(super) struct Lookup<T> {
    answer: Inbox<io::Result<T>>,
}

impl<T: Send + 'static> Lookup<T> {
    /// Has a thread find something out; `waker` is woken when it is there.
    pub(super) fn start(waker: &Arc<Waker>, find: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<Self> {
        let (sender, answer) = inbox(1, Arc::clone(waker));
        thread::Builder::new().name("redis-lookup".to_owned()).spawn(move || {
            // Whoever has asked may be gone.
            let _ = sender.push(find());
        })?;
        Ok(Self { answer })
    }

    /// The answer, once.
    pub(super) fn poll(&self) -> Option<io::Result<T>> {
        self.answer.pop()
    }
}
