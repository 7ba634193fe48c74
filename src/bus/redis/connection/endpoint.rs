//! Where a link leads. Resolving a name, or asking sentinels, may block for many seconds, so each
//! is a [lookup](crate::bus::worker::Lookup).

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

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

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedAddress {
    Unix(PathBuf),
    /// The host of `node` is the name that a certificate must contain.
    Tcp {
        node: HostPort,
        addresses: Vec<SocketAddr>,
    },
}

/// Where a link leads. It is displayed in the log.
pub(crate) trait Endpoint: fmt::Display + Send + Sync {
    /// The address, if it is known without a lookup.
    fn known_address(&self) -> Option<ResolvedAddress>;

    /// Looks the address up. This call blocks.
    fn resolve(&self) -> io::Result<ResolvedAddress>;

    /// Whether the server has to confirm that it is a master.
    fn requires_master(&self) -> bool {
        false
    }

    /// A link to this node is up. Returns [`Endpoint::move_count`].
    fn link_up(&self, node: &HostPort) -> u64 {
        let _ = node;
        0
    }

    /// How often a link has found the endpoint at another server. A link that came up before the
    /// last move is connected to the wrong server.
    fn move_count(&self) -> u64 {
        0
    }

    /// A link gives up because the endpoint has moved. The next lookup returns the new server
    /// without asking anybody.
    fn follow(&self) {}
}

impl Endpoint for HostPort {
    fn known_address(&self) -> Option<ResolvedAddress> {
        let address = SocketAddr::new(self.host.parse().ok()?, self.port);
        Some(ResolvedAddress::Tcp { node: self.clone(), addresses: vec![address] })
    }

    fn resolve(&self) -> io::Result<ResolvedAddress> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::other(format!("{} has no address", self.host)));
        }
        Ok(ResolvedAddress::Tcp { node: self.clone(), addresses })
    }
}

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

    fn resolve(&self) -> io::Result<ResolvedAddress> {
        Ok(ResolvedAddress::Unix(self.0.clone()))
    }
}
