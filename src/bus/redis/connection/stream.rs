//! A non-blocking socket to Redis: TCP, TCP with TLS, or Unix.

use super::endpoint::ResolvedAddress;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::event::{Event, Source};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};

/// When the kernel gives up on a peer that acknowledges nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// Whether there is something to read. To ask the socket would cost a system call, which a thread that was woken for something
/// else would make before it says what it was woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nothing has come since a read has emptied the socket.
    Empty,
    Readable,
    /// The same, and behind it the end or an error: no other event will tell of it, so only a read that finds it is the last.
    Ending,
}

impl Readiness {
    /// Takes note of an event of the socket.
    pub(crate) fn note(&mut self, event: &Event) {
        if event.is_read_closed() || event.is_error() {
            *self = Self::Ending;
        } else if event.is_readable() && *self == Self::Empty {
            *self = Self::Readable;
        }
    }

    /// A read has brought so many bytes of so many that it could have. If it is short the socket is empty, and what comes
    /// later is another event; but TLS hands out one record at a time, whatever else it has.
    pub(crate) fn read(&mut self, stream: &Stream, bytes: usize, most: usize) {
        if *self == Self::Readable && bytes < most && !matches!(stream, Stream::Tls(_)) {
            *self = Self::Empty;
        }
    }
}

impl Stream {
    /// Begins to connect; of several addresses each attempt takes the next.
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
        // It is closed right after, which does the same.
        let _ = self.source().deregister(registry);
    }

    /// Whether the connection stands; an error if it cannot be made.
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
