//! One socket of the load: its state, what it does with the bytes that it reads, and the bytes it has still to write.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use roomcast::internals::frame::{Head, PING};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use crate::marker::{self, Marker, Tail};
use crate::wire;

/// Names a client within its crowd.
pub(crate) type ClientIndex = u32;

/// A client's use of the bytes that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Counts the markers: the cheapest.
    Count,
    /// Parses every marker.
    Markers,
    /// Parses frames and keeps the messages.
    Messages,
    /// Reads nothing; its socket fills up.
    Nothing,
    /// As [`ReadMode::Messages`], but only when told to, and only as many bytes as it is told.
    OnDemand,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    /// Waits for the end of the answer's head, and has this part of it.
    Upgrading(Vec<u8>),
    Open,
    Closed,
}

/// A marker that a client has read, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedMarker {
    pub(crate) client: ClientIndex,
    pub(crate) marker: Marker,
    pub(crate) at: Instant,
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct Disconnect {
    pub(crate) client: ClientIndex,
    pub(crate) at: Instant,
    pub(crate) why: String,
}

/// Totals of all clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) markers: u64,
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
}

impl Counts {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            markers: self.markers - earlier.markers,
            bytes: self.bytes - earlier.bytes,
            reads: self.reads - earlier.reads,
        }
    }
}

/// All that the clients have received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) counts: Counts,
    pub(crate) markers: Vec<ReceivedMarker>,
    pub(crate) messages: Vec<(ClientIndex, String)>,
    pub(crate) disconnects: Vec<Disconnect>,
    /// The first error message of the server that a client read with [`ReadMode::Markers`].
    pub(crate) error_message: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    pub(crate) phase: Phase,
    pub(crate) read_mode: ReadMode,
    /// The user id to ask a Roomcast for.
    pub(crate) user: Option<&'static str>,
    pub(crate) markers: u64,
    pub(crate) close_code: Option<u16>,
    pub(crate) has_sent_close: bool,
    tail: Tail,
    partial: Vec<u8>,
    unsent: Vec<u8>,
    ponged_second: u64,
}

/// The address from which the client of a number connects to a server on this machine: one of many, so that ports do not
/// run out.
pub(crate) fn source(number: u32) -> Ipv4Addr {
    const CLIENTS_PER_ADDRESS: u32 = 4000;
    // All of 127.0.0.0/8 is this machine; from .2 on no other program is likely to listen.
    Ipv4Addr::new(127, 0, 0, (2 + number / CLIENTS_PER_ADDRESS % 200) as u8)
}

/// Begins to connect; to a server on this machine from `source`.
pub(crate) fn connect(to: SocketAddr, source: Ipv4Addr, receive_buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let IpAddr::V4(address) = to.ip()
        && address.is_loopback()
    {
        // The system chooses the port when it knows the other end. Otherwise it would look for a port that no socket
        // uses at all, which takes longer the more sockets there are.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Client {
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<Box<ClientConnection>>,
        read_mode: ReadMode,
        user: Option<&'static str>,
    ) -> Self {
        Self {
            socket,
            tls,
            phase: Phase::Connecting,
            read_mode,
            user,
            markers: 0,
            close_code: None,
            has_sent_close: false,
            tail: Tail::default(),
            partial: Vec::new(),
            unsent: Vec::new(),
            ponged_second: 0,
        }
    }

    /// Whether it speaks TLS, so that a short read does not mean that the socket is empty.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends bytes, now or when the socket takes them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            // Bytes that cannot be written yet wait in there.
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
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

    /// Sends a Close frame, once.
    pub(crate) fn send_close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.has_sent_close, true) { Ok(()) } else { self.send(&wire::close()) }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once into `buffer`, behind the space for the tail of the last read. `None` if the socket is empty; the end
    /// of the stream is an error.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let buffer = &mut buffer[Tail::BYTES_MAX..];
        let read = if self.is_encrypted() { self.read_encrypted(buffer) } else { self.socket.read(buffer) };
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until there is plaintext; the handshake goes on meanwhile.
    fn read_encrypted(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(tls) = &mut self.tls {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            tls.read_tls(&mut self.socket)?;
            let processed = tls.process_new_packets();
            self.flush()?;
            processed.map_err(io::Error::other)?;
        }
        Ok(0)
    }

    /// Handles the bytes of a read by the client's read mode; returns the number of markers. `buffer` ends with these
    /// bytes, behind the space for the tail.
    pub(crate) fn receive(
        &mut self,
        index: ClientIndex,
        buffer: &mut [u8],
        second: u64,
        received: &mut Received,
    ) -> io::Result<u64> {
        let read = &buffer[Tail::BYTES_MAX..];
        if let Phase::Upgrading(head) = &mut self.phase {
            head.extend_from_slice(read);
            let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else { return Ok(0) };
            if !head.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(String::from_utf8_lossy(head).replace("\r\n", " / ")));
            }
            let rest = head.split_off(end + 4);
            self.phase = Phase::Open;
            buffer[Tail::BYTES_MAX..][..rest.len()].copy_from_slice(&rest);
            return self.receive(index, &mut buffer[..Tail::BYTES_MAX + rest.len()], second, received);
        }
        if matches!(self.read_mode, ReadMode::Messages | ReadMode::OnDemand) {
            return self.receive_messages(index, read, received);
        }
        // Walking the frames for pings would cost too much. Any byte that may begin a ping is answered, at most once a
        // second; a pong without a ping is allowed (RFC 6455 section 5.5.3).
        if self.ponged_second != second && memchr::memchr(PING[0], read).is_some() {
            self.ponged_second = second;
            self.send(&wire::pong(&[]))?;
        }
        let begin = Tail::BYTES_MAX - self.tail.bytes().len();
        buffer[begin..Tail::BYTES_MAX].copy_from_slice(self.tail.bytes());
        let read = &buffer[begin..];
        let mut count = 0;
        if self.read_mode == ReadMode::Count {
            count = marker::count(read, &mut self.tail);
        } else {
            let at = Instant::now();
            marker::find(read, &mut self.tail, |marker| {
                received.markers.push(ReceivedMarker { client: index, marker, at });
                count += 1;
            });
            if received.error_message.is_none()
                && count == 0
                && let Some(at) = memchr::memmem::find(read, br#"{"type":"error""#)
            {
                // Up to the next frame's header, which is no text.
                let text = String::from_utf8_lossy(&read[at..]);
                let is_text = |c: &char| *c != char::REPLACEMENT_CHARACTER && !c.is_control();
                received.error_message = Some(text.chars().take_while(is_text).collect());
            }
        }
        self.markers += count;
        Ok(count)
    }

    fn receive_messages(&mut self, index: ClientIndex, read: &[u8], received: &mut Received) -> io::Result<u64> {
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
                        received.markers.push(ReceivedMarker { client: index, marker, at });
                        count += 1;
                    });
                    received.messages.push((index, String::from_utf8_lossy(&payload).into_owned()));
                }
                8 => {
                    // A Close without a code means 1005 (RFC 6455 section 7.1.5).
                    self.close_code = Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
                    self.send_close()?;
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
