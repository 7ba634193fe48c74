//! Sockets that are listened on, the options that accepted sockets inherit from them, and the errors of accepting.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::transport::Transport;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How much a socket takes beyond what the network takes. Without this bound the kernel hides megabytes of a slow
/// reader's lag, and the server would learn too late that it must fall back.
const NOTSENT_LOWAT_BYTES: u32 = 64 * 1024;

/// A socket to accept connections from, made here or handed over by systemd or an embedder.
#[derive(Debug)]
pub enum Listener {
    /// TCP over IPv4 or IPv6.
    Tcp(std::net::TcpListener),
    /// A Unix domain socket that somebody else has bound: its file stays when the server ends.
    Unix(std::os::unix::net::UnixListener),
    /// A Unix domain socket that [`Listener::unix`] has bound: its file is removed when the server ends.
    BoundUnix(std::os::unix::net::UnixListener),
}

/// What comes first on the connections of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preamble {
    /// A request, or a TLS handshake.
    #[default]
    None,
    /// A header of the PROXY protocol, version 1 or 2, in which a [trusted](crate::Config::trusted_proxies) proxy tells where the
    /// connection comes from. Connections of other peers are closed, and so are those that begin with anything else.
    ProxyHeader,
}

/// Whether the connections of a listener are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// They are not.
    #[default]
    Plain,
    /// By TLS, with the certificate that the server has been given. It needs the feature `tls`.
    Tls,
}

/// For whom a listener is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerRole {
    /// For everybody.
    #[default]
    Public,
    /// For operators and back-ends: no cap by address applies. A request of such a connection has this role among its
    /// extensions; those of other connections have none.
    Admin,
}

/// How the connections of a listener begin: the preamble comes first, then a TLS handshake, then the first request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// What comes first.
    pub preamble: Preamble,
    /// Whether everything behind that is encrypted.
    pub security: Security,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and the port that was given by the system if 0 was asked for.
    Tcp(SocketAddr),
    /// A path, or none for an unnamed or abstract socket.
    Unix(Option<PathBuf>),
}

impl ListenAddress {
    /// The address as a URL where it has one: `http://` or, with TLS, `https://`.
    pub fn url(&self, security: Security) -> String {
        match (self, security) {
            (ListenAddress::Tcp(address), Security::Tls) => format!("https://{address}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            ListenAddress::Unix(None) => f.write_str("unix:(unnamed)"),
        }
    }
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// # Errors
    /// What the system says, for example that the address is in use.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::bind_tcp(address).map(Self::Tcp)
    }

    pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted server takes its port again although connections of the old one are still in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Listens on a path. A socket file on which no program listens any more is replaced, and the new one is removed at the end.
    ///
    /// # Errors
    /// What the system says, for example that a program listens there or that the path exists and is not a socket.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket && StdUnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        Ok(Self::BoundUnix(socket.into()))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            Listener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Listener::Unix(listener) | Listener::BoundUnix(listener) => {
                ListenAddress::Unix(listener.local_addr()?.as_pathname().map(Path::to_path_buf))
            }
        })
    }
}

/// A listener that is polled.
#[derive(Debug)]
pub(super) struct PolledListener {
    socket: PolledSocket,
    address: ListenAddress,
    /// Whether the socket's file was made here, and is to be removed.
    has_own_file: bool,
    pub(super) opening: Opening,
    pub(super) role: ListenerRole,
    /// Whether connections may be waiting: an edge was seen and accepting has not come to its end since.
    pub(super) is_ready: bool,
    /// How often accepting has failed in a row although the system is out of nothing.
    pub(super) failures: u32,
}

#[derive(Debug)]
enum PolledSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The sockets that connections are accepted from.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub(super) polled: Vec<PolledListener>,
    /// Whether accepting pauses, because the system was out of something.
    pub(super) are_paused: bool,
    /// Whether those that do not work are going to be tried again.
    pub(super) are_to_be_retried: bool,
}

impl Listeners {
    /// Whether a connection may be waiting that can be accepted now.
    pub(super) fn may_have_waiting(&self) -> bool {
        !self.are_paused && self.polled.iter().any(|listener| listener.is_ready)
    }

    /// Tries those again that do not work.
    pub(super) fn retry_broken(&mut self) {
        self.are_to_be_retried = false;
        self.polled.iter_mut().for_each(|listener| listener.is_ready |= listener.failures > 0);
    }
}

impl PolledListener {
    pub(super) fn new(
        listener: Listener,
        (role, opening): (ListenerRole, Opening),
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let address = listener.address()?;
        let has_own_file = matches!(listener, Listener::BoundUnix(_));
        let mut socket = match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let socket = SockRef::from(&listener);
                // Accepted sockets inherit both on Linux, which saves two system calls an accept.
                socket.set_tcp_nodelay(true)?;
                #[cfg(any(target_os = "linux", target_os = "android"))]
                socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
                PolledSocket::Tcp(TcpListener::from_std(listener))
            }
            Listener::Unix(listener) | Listener::BoundUnix(listener) => {
                listener.set_nonblocking(true)?;
                PolledSocket::Unix(UnixListener::from_std(listener))
            }
        };
        match &mut socket {
            PolledSocket::Tcp(listener) => listener.register(registry, token, Interest::READABLE)?,
            PolledSocket::Unix(listener) => listener.register(registry, token, Interest::READABLE)?,
        }
        Ok(Self { socket, address, opening, role, has_own_file, is_ready: true, failures: 0 })
    }

    pub(super) fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Accepts a connection; a peer over TCP has an address.
    pub(super) fn accept(&self) -> io::Result<(Transport, Option<SocketAddr>)> {
        match &self.socket {
            PolledSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                #[cfg(not(any(target_os = "linux", target_os = "android")))]
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), Some(peer)))
            }
            PolledSocket::Unix(listener) => Ok((listener.accept()?.0.into(), None)),
        }
    }
}

impl Drop for PolledListener {
    fn drop(&mut self) {
        if let ListenAddress::Unix(Some(path)) = &self.address
            && self.has_own_file
        {
            // A path without a listener would only confuse; that it is gone already does not matter.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What an error of `accept` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptTrouble {
    /// No connection waits.
    NoneWaits,
    /// It concerned one connection only; go on.
    One,
    /// The system is out of something; a failed accept gives no second edge, so try again after a pause.
    Exhausted,
    /// The listener does not work, and may never again; try again after a pause, and go on with the others.
    Broken,
}

pub(super) fn accept_trouble(error: &io::Error) -> AcceptTrouble {
    if error.kind() == io::ErrorKind::WouldBlock {
        return AcceptTrouble::NoneWaits;
    }
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    // accept(2): Linux passes pending network errors of the new socket on; they are to be treated like EAGAIN. Not EOPNOTSUPP,
    // which is that of a socket that cannot accept at all.
    let network =
        [Errno::NETDOWN, Errno::PROTO, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::HOSTUNREACH, Errno::NETUNREACH];
    match Errno::from_io_error(error) {
        Some(errno) if exhausted.contains(&errno) => AcceptTrouble::Exhausted,
        Some(errno) if network.contains(&errno) => AcceptTrouble::One,
        Some(Errno::CONNABORTED | Errno::INTR) => AcceptTrouble::One,
        _ => AcceptTrouble::Broken,
    }
}
