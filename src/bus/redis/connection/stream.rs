//! A non-blocking socket to Redis: TCP, TCP with TLS, or Unix.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};

use super::endpoint::ResolvedAddress;

/// When the kernel gives up on a peer that acknowledges nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect. Each attempt takes the next one of several addresses.
    pub(super) fn connect(
        address: &ResolvedAddress,
        tls: Option<&Arc<ClientConfig>>,
        attempt: usize,
    ) -> io::Result<Self> {
        let (node, addresses) = match address {
            ResolvedAddress::Unix(path) => return UnixStream::connect(path).map(Self::Unix),
            ResolvedAddress::Tcp { node, addresses } => (node, addresses),
        };
        let address = addresses.get(attempt % addresses.len().max(1));
        let address = address.ok_or_else(|| io::Error::other(format!("{} has no address", node.host)))?;
        let stream = TcpStream::connect(*address)?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15));
        socket.set_tcp_keepalive(&keepalive.with_interval(Duration::from_secs(5)))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let Some(tls) = tls else { return Ok(Self::Tcp(stream)) };
        let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // The socket is closed right after this, which also ends the registration.
        let _ = self.source().deregister(registry);
    }

    /// Whether the connection is established. An error if it failed.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let tcp = match self {
            Self::Unix(_) => return Ok(true),
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        };
        if let Some(error) = tcp.take_error()? {
            return Err(error);
        }
        match tcp.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where bytes are read from and written to.
    pub(super) fn bytes(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &mut **stream,
            Self::Unix(stream) => stream,
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
            Self::Unix(stream) => stream,
        }
    }
}
