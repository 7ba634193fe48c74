//! The bytes on a connection: whole commands go out, whole replies come in.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use mio::event::Event;
use mio::{Registry, Token};
use rustls::ClientConfig;

use super::endpoint::ResolvedAddress;
use super::error::LinkError;
use super::reply_buffer::{ReplyBuffer, TakeReply};
use super::stream::Stream;

const READ_BYTES: usize = 64 * 1024;
const READS_PER_DRIVE: usize = 4;

/// Whether the socket has bytes to read. Asking the socket costs a system call, which a thread
/// that was woken for something else need not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// A read has emptied the socket, and no event has come since.
    Empty,
    Readable,
    /// Readable, and the end or an error follows. No further event will announce it, so only the
    /// read that finds it is the last.
    Ending,
}

pub(crate) struct Wire {
    registry: Registry,
    token: Token,
    stream: Option<Stream>,
    readiness: Readiness,
    /// Whole commands. [`Wire::flush`] removes the bytes that it has written.
    pub(crate) out: Vec<u8>,
    written: usize,
    input: ReplyBuffer,
    /// The target of reads. It is zeroed once; only the bytes that a read has brought are copied
    /// out of it.
    buffer: Box<[u8]>,
}

impl Wire {
    /// A wire without a connection.
    pub(super) fn new(registry: Registry, token: Token) -> Self {
        Self {
            registry,
            token,
            stream: None,
            readiness: Readiness::Empty,
            out: Vec::new(),
            written: 0,
            input: ReplyBuffer::default(),
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Begins to connect. Each attempt takes the next one of several addresses.
    pub(super) fn connect(
        &mut self,
        address: &ResolvedAddress,
        tls: Option<&Arc<ClientConfig>>,
        attempt: usize,
    ) -> io::Result<()> {
        let mut stream = Stream::connect(address, tls, attempt)?;
        stream.register(&self.registry, self.token)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Whether the connection is established. An error if it failed.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        self.stream.as_ref().map_or(Ok(false), Stream::is_connected)
    }

    /// Records an event of the socket.
    pub(crate) fn note(&mut self, event: &Event) {
        if event.is_read_closed() || event.is_error() {
            self.readiness = Readiness::Ending;
        } else if event.is_readable() && self.readiness == Readiness::Empty {
            self.readiness = Readiness::Readable;
        }
    }

    /// Whether there may be bytes to read.
    pub(super) fn is_readable(&self) -> bool {
        self.readiness != Readiness::Empty
    }

    /// Reads what has come, within a budget, and hands out the complete replies. Returns whether
    /// any bytes have come.
    pub(super) fn read(&mut self, take: &mut TakeReply<'_>) -> Result<bool, LinkError> {
        let mut has_come = false;
        for _ in 0..READS_PER_DRIVE {
            let Some(stream) = self.stream.as_mut().filter(|_| self.readiness != Readiness::Empty) else { break };
            match stream.bytes().read(&mut self.buffer) {
                Ok(0) => return Err(LinkError::lost("redis has closed the connection")),
                Ok(bytes) => {
                    // A short read has emptied the socket, and later bytes cause an event. TLS is
                    // different: it returns one record at a time.
                    let is_short = bytes < self.buffer.len() && !matches!(stream, Stream::Tls(_));
                    if is_short && self.readiness == Readiness::Readable {
                        self.readiness = Readiness::Empty;
                    }
                    has_come = true;
                    self.input.receive(&self.buffer[..bytes], take)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readiness = Readiness::Empty;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(has_come)
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        let Some(stream) = self.stream.as_mut().map(Stream::bytes) else { return Ok(()) };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(LinkError::lost("the connection was closed")),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..self.written);
        self.written = 0;
        // TLS has a buffer of its own.
        match stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Closes the connection. Partial commands and replies are dropped.
    pub(super) fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.deregister(&self.registry);
        }
        self.out.clear();
        self.input.clear();
        (self.written, self.readiness) = (0, Readiness::Empty);
    }
}
