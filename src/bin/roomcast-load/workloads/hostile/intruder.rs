//! One hostile connection: its socket, what it has still to send, when it moves next.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use mio::net::TcpStream;

use super::attack::Reads;
use crate::client::Phase;

#[expect(clippy::struct_excessive_bools, reason = "each is asked by itself")]
pub(super) struct Intruder {
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    pub(super) moves: u32,
    pub(super) next_move: Instant,
    /// Whether it waits in the queue of those whose sockets are ready.
    pub(super) is_queued: bool,
    /// Whether it counts as open.
    pub(super) is_counted: bool,
    unsent: Bytes,
    /// Whether the server has ended the stream; for those that do not read.
    ends: bool,
    /// The last read filled the buffer, so there may be more.
    has_more: bool,
}

impl Intruder {
    pub(super) fn new(socket: TcpStream, next_move: Instant) -> Self {
        Self {
            socket,
            phase: Phase::Connecting,
            moves: 0,
            next_move,
            is_queued: false,
            is_counted: false,
            unsent: Bytes::new(),
            ends: false,
            has_more: false,
        }
    }

    pub(super) fn may_move(&self, now: Instant) -> bool {
        self.phase == Phase::Open && self.unsent.is_empty() && now >= self.next_move
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    pub(super) fn note_end(&mut self) {
        self.ends = true;
    }

    /// The socket is connected, and sends what comes first.
    pub(super) fn connected(&mut self, hello: Bytes, phase: Phase) -> io::Result<u64> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        self.phase = phase;
        self.send(hello)
    }

    /// Sends bytes, now or when the socket takes them; returns how many it took now.
    pub(super) fn send(&mut self, bytes: Bytes) -> io::Result<u64> {
        self.unsent = bytes;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<u64> {
        let before = self.unsent.len();
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => self.unsent.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok((before - self.unsent.len()) as u64)
    }

    /// Reads once, as the attack reads; the end of the stream is an error.
    pub(super) fn read(&mut self, reads: Reads, buffer: &mut [u8]) -> io::Result<()> {
        self.has_more = false;
        if self.phase == Phase::Open && reads != Reads::All {
            return if self.ends { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
        let Some(bytes) = self.read_once(buffer)? else { return Ok(()) };
        self.has_more = bytes == buffer.len();
        if let Phase::Upgrading(head) = &mut self.phase {
            head.extend_from_slice(&buffer[..bytes]);
            if memchr::memmem::find(head, b"\r\n\r\n").is_some() {
                if !head.starts_with(b"HTTP/1.1 101") {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                self.phase = Phase::Open;
            }
        }
        Ok(())
    }

    /// Reads a few bytes.
    pub(super) fn trickle(&mut self, bytes: usize, buffer: &mut [u8]) -> io::Result<()> {
        self.read_once(&mut buffer[..bytes]).map(drop)
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the connection with a reset, which leaves no TIME_WAIT behind.
    pub(super) fn reset(self) {
        // If it fails, the system ends the connection all the same.
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}
