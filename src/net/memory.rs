//! Connections without sockets, to measure how many a machine with more descriptors than this one could hold.
//!
//! A peer here says what it has to say all at once and takes whatever it is sent, so that it needs no memory of its own: what
//! remains is what the server keeps of a connection.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::Net;
use super::connection::Flag;
use super::stream::Stream;
use crate::error::Error;

thread_local! {
    /// What the peer that was connected last has still to say.
    static UNREAD: RefCell<io::Cursor<Vec<u8>>> = RefCell::default();
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// A socket, or none: as large as a socket, so that what is measured is what there is.
#[derive(Debug)]
pub(super) struct Socket(Option<UnixStream>);

impl From<UnixStream> for Socket {
    fn from(socket: UnixStream) -> Self {
        Self(Some(socket))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Asked only for a peer's address, which standard input has not.
        self.0.as_ref().map_or(rustix::stdio::stdin(), AsFd::as_fd)
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(mut socket) = self.0.as_ref() {
            return socket.read(buffer);
        }
        match UNREAD.with_borrow_mut(|unread| unread.read(buffer))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut socket) = self.0.as_ref() {
            return socket.write(bytes);
        }
        TAKEN.set(TAKEN.get() + bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |socket| socket.shutdown(how))
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |socket| socket.register(registry, token, interests))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |socket| socket.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |socket| socket.deregister(registry))
    }
}

/// How many bytes peers of this thread have taken.
pub fn taken_bytes() -> u64 {
    TAKEN.get()
}

impl Net {
    /// Connects a peer that says `input`, a request and frames, and nothing more. One at a time: a turn has to read it before the
    /// next one comes.
    ///
    /// # Errors
    /// [`Error::Command`] if the last one's input has not been read.
    pub fn connect_in_memory(&mut self, input: &[u8]) -> Result<(), Error> {
        let is_read = |unread: &io::Cursor<Vec<u8>>| unread.position() == unread.get_ref().len() as u64;
        if !UNREAD.with_borrow(is_read) {
            return Err(Error::Command("the last peer's input has not been read yet".to_owned()));
        }
        UNREAD.with_borrow_mut(|unread| {
            unread.set_position(0);
            unread.get_mut().clear();
            unread.get_mut().extend_from_slice(input);
        });
        let slot = self.connections.vacant_key();
        self.insert(Stream(Socket(None)));
        self.connections[slot].set(Flag::Readable);
        self.queue_read(slot as u32);
        Ok(())
    }
}
