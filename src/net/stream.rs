//! A connected socket of either family.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

#[cfg(feature = "in-memory")]
use super::memory::Socket;
#[cfg(not(feature = "in-memory"))]
use mio::net::UnixStream as Socket;

/// A non-blocking stream socket: nothing but its descriptor.
///
/// It is kept as a Unix socket whatever it is, since reading, writing and polling are the same system calls for every
/// stream socket; to remember the family would double it.
#[derive(Debug)]
pub(super) struct Stream(pub(super) Socket);

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        UnixStream::from(OwnedFd::from(stream)).into()
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        #[allow(clippy::useless_conversion, reason = "not with the transport in memory")]
        Self(stream.into())
    }
}

impl Stream {
    #[inline]
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    #[inline]
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    /// Says that nothing more will be written. An error means that the peer is gone already.
    pub(super) fn shutdown_write(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.0).peer_addr().ok()?.as_socket()
    }

    /// Registers for what is to wake the loop; epoll is used edge-triggered.
    ///
    /// For room to write it is woken only while bytes are refused: a new TCP socket has an edge of writability at once, and
    /// a Unix socket whenever its peer has read something, so that every delivery would wake the loop again.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.0.register(registry, token, Interest::READABLE)
    }

    /// It has refused bytes: sees to it that an event tells when it takes some, also if it does by now.
    pub(super) fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.0.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// It takes bytes again: no event is to tell so any more.
    pub(super) fn unwatch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.0.reregister(registry, token, Interest::READABLE)
    }
}
