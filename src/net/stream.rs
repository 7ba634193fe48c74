//! A connected socket of either family.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// A non-blocking stream socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "in-memory")]
    Memory(super::memory::Peer),
}

impl Stream {
    #[inline]
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
            #[cfg(feature = "in-memory")]
            Stream::Memory(peer) => peer.read(buffer),
        }
    }

    #[inline]
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(bytes),
            Stream::Unix(stream) => (&*stream).write(bytes),
            #[cfg(feature = "in-memory")]
            Stream::Memory(peer) => peer.write(bytes),
        }
    }

    /// Says that nothing more will be written. An error means that the peer is gone already.
    pub(super) fn shutdown_write(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "in-memory")]
            Stream::Memory(_) => Ok(()),
        };
    }

    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Unix(_) => None,
            #[cfg(feature = "in-memory")]
            Stream::Memory(_) => None,
        }
    }

    /// Registers once and for all for both directions: epoll is used edge-triggered, so this costs no wake-ups.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, both),
            Stream::Unix(stream) => stream.register(registry, token, both),
            #[cfg(feature = "in-memory")]
            Stream::Memory(_) => Ok(()),
        }
    }
}
