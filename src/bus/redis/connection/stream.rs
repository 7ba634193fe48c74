//! A non-blocking socket to Redis: TCP, TCP with TLS, or Unix.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::event::{Event, Source};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};

use super::endpoint::ResolvedAddress;

/// When the kernel gives up on a peer that acknowledges nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// Whether the socket has bytes to read. Asking the socket costs a system call, which a thread
/// that was woken for something else need not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// A read has emptied the socket, and no event has come since.
    Empty,
    Readable,
    /// Readable, and the end or an error follows. No further event will announce it, so only the
    /// read that finds it is the last.
    Ending,
}

impl Readiness {
    /// Records an event of the socket.
    pub(crate) fn note(&mut self, event: &Event) {
        if event.is_read_closed() || event.is_error() {
            *self = Self::Ending;
        } else if event.is_readable() && *self == Self::Empty {
            *self = Self::Readable;
        }
    }

    /// Records that a read returned `bytes` of at most `most`. A short read has emptied the
    /// socket, and later bytes cause an event. TLS is different: it returns one record at a time.
    pub(crate) fn read(&mut self, stream: &Stream, bytes: usize, most: usize) {
        if *self == Self::Readable && bytes < most && !matches!(stream, Stream::Tls(_)) {
            *self = Self::Empty;
        }
    }
}

impl Stream {
    /// Begins to connect. Each attempt takes the next one of several addresses.
    pub(crate) fn connect(
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

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // The socket is closed right after this, which also ends the registration.
        let _ = self.source().deregister(registry);
    }

    /// Whether the connection is established. An error if it failed.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
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

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
            Self::Unix(stream) => stream,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}
