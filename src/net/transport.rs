//! What a connection's bytes travel over.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

#[cfg(feature = "in-memory")]
use super::memory;

/// What a connection's bytes travel over.
///
/// It is as large as a descriptor: a variant without fields takes the value that no descriptor has. The state of a
/// transport that needs more lies with the rare state of its connection, never in here, since every connection has one.
#[derive(Debug)]
pub(super) enum Transport {
    /// A stream socket of either family.
    ///
    /// It is kept as a Unix socket, because reading, writing and polling are the same system calls for every stream
    /// socket; to remember the family would double its size.
    Plain(UnixStream),
    /// A peer within this process.
    #[cfg(feature = "in-memory")]
    Memory,
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(UnixStream::from(OwnedFd::from(stream)))
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Self::Plain(stream)
    }
}

impl Transport {
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "in-memory")]
            Self::Memory => memory::read(buffer),
        }
    }

    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "in-memory")]
            Self::Memory => Ok(memory::write(bytes)),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown_write(&mut self) {
        match self {
            // An error means that the peer is gone already.
            Self::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            #[cfg(feature = "in-memory")]
            Self::Memory => {}
        }
    }

    /// The peer's address, if it has one.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(socket) => SockRef::from(socket).peer_addr().ok()?.as_socket(),
            #[cfg(feature = "in-memory")]
            Self::Memory => None,
        }
    }

    /// The file of the listener, if it is a Unix socket that has one.
    pub(super) fn listener_file(&self) -> Option<PathBuf> {
        match self {
            Self::Plain(socket) => SockRef::from(socket).local_addr().ok()?.as_pathname().map(Path::to_owned),
            #[cfg(feature = "in-memory")]
            Self::Memory => None,
        }
    }

    /// Registers for what is to wake the loop; epoll is used edge-triggered.
    ///
    /// For room to write it is woken only while bytes are refused: a new TCP socket has an edge of writability at once, and
    /// a Unix socket whenever its peer has read something, so that every delivery would wake the loop again.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.register(registry, token, Interest::READABLE),
            #[cfg(feature = "in-memory")]
            Self::Memory => Ok(()),
        }
    }

    /// The transport has refused bytes: an event is to tell when it takes some, even if it does so by now.
    pub(super) fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// The transport takes bytes again: no event is to tell so any more.
    pub(super) fn unwatch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.reregister(registry, token, Interest::READABLE)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.reregister(registry, token, interest),
            #[cfg(feature = "in-memory")]
            Self::Memory => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_variant_without_fields_is_free() {
        // With `in-memory`, as tests are run, there is one.
        assert_eq!(size_of::<Transport>(), size_of::<UnixStream>());
    }
}
