//! One socket of the load: how far it is, what it makes of what it reads, what it has still to write.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use mio::net::TcpStream;
use roomcast::internals::frame::Head;
use socket2::{Domain, Protocol, Socket, Type};

use crate::marker::{self, Marker, Tail};
use crate::wire;

/// Names a client within its crowd.
pub(crate) type ClientIndex = u32;

/// What a client makes of what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ear {
    /// Counts the markers: the cheapest.
    Counts,
    /// Reads every marker.
    Markers,
    /// Takes the stream apart into messages.
    Messages,
    /// Reads nothing; its socket fills up.
    Deaf,
    /// As [`Ear::Messages`], but only when it is told to, and as many bytes as it is told.
    Slow,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// Waits for the end of the answer's head, of which so much is there.
    Upgrading(Vec<u8>),
    Open,
    Gone,
}

/// A marker that a client has read, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeardMarker {
    pub(crate) client: ClientIndex,
    pub(crate) marker: Marker,
    pub(crate) at: Instant,
}

/// What reading brought.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) markers: Vec<HeardMarker>,
    pub(super) messages: Vec<(ClientIndex, String)>,
    pub(super) complaint: Option<String>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    pub(super) ear: Ear,
    pub(super) markers: u64,
    pub(super) close_code: Option<u16>,
    tail: Tail,
    partial: Vec<u8>,
    unsent: Vec<u8>,
    ponged_second: u64,
    pub(super) has_said_goodbye: bool,
}

/// Begins to connect, from an address of its own if the server is on this machine, so that ports do not run out.
pub(super) fn connect(to: SocketAddr, number: u32, receive_buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    const CLIENTS_PER_ADDRESS: u32 = 4000;
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let IpAddr::V4(address) = to.ip()
        && address.is_loopback()
        && cfg!(target_os = "linux")
    {
        // Every address of 127.0.0.0/8 is this machine; from .2 on nobody else is likely to listen.
        let nth = 2 + number / CLIENTS_PER_ADDRESS % 200;
        // The port is chosen when the other end is known; otherwise the system looks for one that nobody uses at all, which
        // takes longer the more there are.
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, nth as u8), 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Client {
    pub(super) fn new(socket: TcpStream, ear: Ear) -> Self {
        Self {
            socket,
            phase: Phase::Connecting,
            ear,
            markers: 0,
            close_code: None,
            tail: Tail::default(),
            partial: Vec::new(),
            unsent: Vec::new(),
            ponged_second: 0,
            has_said_goodbye: false,
        }
    }

    /// Sends bytes, now or when the socket takes them.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        match self.socket.write(bytes) {
            Ok(sent) => self.unsent.extend_from_slice(&bytes[sent..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says Close, once.
    pub(super) fn say_goodbye(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.has_said_goodbye, true) { Ok(()) } else { self.send(&wire::close()) }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once into `buffer`, behind space for what the last read left over. `None` if there is nothing; the end of
    /// the stream is an error.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.read(&mut buffer[Tail::BYTES_MAX..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes of the `bytes` that a read put into `buffer` what its ear is for; says how many markers there were.
    pub(super) fn hear(
        &mut self,
        index: ClientIndex,
        buffer: &mut [u8],
        bytes: usize,
        second: u64,
        heard: &mut Heard,
    ) -> io::Result<u64> {
        if let Phase::Upgrading(head) = &mut self.phase {
            head.extend_from_slice(&buffer[Tail::BYTES_MAX..][..bytes]);
            let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else { return Ok(0) };
            if !head.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(String::from_utf8_lossy(head).replace("\r\n", " / ")));
            }
            let rest = head.split_off(end + 4);
            self.phase = Phase::Open;
            buffer[Tail::BYTES_MAX..][..rest.len()].copy_from_slice(&rest);
            return self.hear(index, buffer, rest.len(), second, heard);
        }
        if matches!(self.ear, Ear::Messages | Ear::Slow) {
            return self.hear_messages(index, &buffer[Tail::BYTES_MAX..][..bytes], heard);
        }
        let read = &buffer[Tail::BYTES_MAX..][..bytes];
        // A ping is not looked for frame by frame: whatever might be one is answered, at most once a second. A pong
        // that nobody asked for is allowed (RFC 6455 section 5.5.3).
        if self.ponged_second != second && memchr::memchr(roomcast::internals::frame::PING[0], read).is_some() {
            self.ponged_second = second;
            self.send(&wire::pong(&[]))?;
        }
        let begin = Tail::BYTES_MAX - self.tail.bytes().len();
        buffer[begin..Tail::BYTES_MAX].copy_from_slice(self.tail.bytes());
        let read = &buffer[begin..Tail::BYTES_MAX + bytes];
        let mut count = 0;
        if self.ear == Ear::Counts {
            count = marker::count(read, &mut self.tail);
        } else {
            let at = Instant::now();
            marker::find(read, &mut self.tail, |marker| {
                heard.markers.push(HeardMarker { client: index, marker, at });
                count += 1;
            });
            if heard.complaint.is_none()
                && count == 0
                && let Some(at) = memchr::memmem::find(read, br#"{"type":"error""#)
            {
                // Up to the next frame's header, which is no text.
                let words = String::from_utf8_lossy(&read[at..]);
                let is_text = |c: &char| *c != char::REPLACEMENT_CHARACTER && !c.is_control();
                heard.complaint = Some(words.chars().take_while(is_text).collect());
            }
        }
        self.markers += count;
        Ok(count)
    }

    fn hear_messages(&mut self, index: ClientIndex, read: &[u8], heard: &mut Heard) -> io::Result<u64> {
        self.partial.extend_from_slice(read);
        let at = Instant::now();
        let mut count = 0;
        let mut end = 0;
        while let Some(head) = Head::parse(&self.partial[end..]) {
            let begin = end + head.header_bytes;
            let Some(payload) = self.partial.get(begin..begin + head.payload_bytes as usize) else { break };
            let payload = payload.to_vec();
            end = begin + payload.len();
            match head.opcode {
                1 => {
                    marker::find(&payload, &mut Tail::default(), |marker| {
                        heard.markers.push(HeardMarker { client: index, marker, at });
                        count += 1;
                    });
                    heard.messages.push((index, String::from_utf8_lossy(&payload).into_owned()));
                }
                8 => {
                    // Without a code it means 1005 (RFC 6455 section 7.1.5).
                    self.close_code = Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
                    self.say_goodbye()?;
                }
                9 => self.send(&wire::pong(&payload))?,
                _ => {}
            }
        }
        self.partial.drain(..end);
        self.markers += count;
        Ok(count)
    }
}
