//! Many clients in one poll loop: connects them, reads them all, counts what they receive.

mod setup;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event;

use crate::client::{self, Client, ClientIndex, Counts, Disconnect, Phase, ReadMode, Received, ReceivedMarker};
use crate::destination::Destination;
use crate::error::LoadError;
use crate::marker::Tail;
use crate::poller::Poller;
use crate::tls::TlsConnector;
use crate::wire::Wire;

/// Read at a time; fits into a core's second cache.
const READ_BYTES: usize = 256 * 1024;

pub(crate) struct Crowd {
    poller: Poller,
    destination: Destination,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    received: Received,
    /// How many clients are connecting or wait for the answer to their upgrade.
    opening: usize,
    /// How often a client has connected.
    connected: u32,
    began: Instant,
}

/// How to open a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) read_mode: ReadMode,
    /// The size of the socket's receive buffer; the system's default if `None`.
    pub(crate) receive_buffer_bytes: Option<usize>,
    /// The address to connect from; on this machine one of many if `None`.
    pub(crate) source: Option<Ipv4Addr>,
    /// The user id to ask a Roomcast for.
    pub(crate) user: Option<&'static str>,
}

impl From<ReadMode> for Opening {
    fn from(read_mode: ReadMode) -> Self {
        Self { read_mode, receive_buffer_bytes: None, source: None, user: None }
    }
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr, wire: Wire) -> Result<Self, LoadError> {
        Ok(Self {
            poller: Poller::new()?,
            destination: Destination::new(address, wire),
            clients: Vec::new(),
            buffer: vec![0; Tail::BYTES_MAX + READ_BYTES],
            received: Received::default(),
            opening: 0,
            connected: 0,
            began: Instant::now(),
        })
    }

    /// Microseconds since this crowd began.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }

    pub(crate) fn counts(&self) -> Counts {
        self.received.counts
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Takes the markers that clients have read since the last call, unless they only count.
    pub(crate) fn take_markers(&mut self, into: &mut Vec<ReceivedMarker>) {
        into.clear();
        std::mem::swap(into, &mut self.received.markers);
    }

    /// Takes the messages that clients with [`ReadMode::Messages`] have read since the last call.
    pub(crate) fn take_messages(&mut self) -> Vec<(ClientIndex, String)> {
        std::mem::take(&mut self.received.messages)
    }

    /// Takes the connections that have ended since the last call.
    pub(crate) fn take_disconnects(&mut self) -> Vec<Disconnect> {
        std::mem::take(&mut self.received.disconnects)
    }

    pub(crate) fn take_error_message(&mut self) -> Option<String> {
        self.received.error_message.take()
    }

    pub(crate) fn is_open(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].phase == Phase::Open
    }

    pub(crate) fn is_closed(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].phase == Phase::Closed
    }

    pub(crate) fn close_code(&self, client: ClientIndex) -> Option<u16> {
        self.clients[client as usize].close_code
    }

    pub(crate) fn has_sent_close(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].has_sent_close
    }

    /// How many markers a client has received.
    pub(crate) fn markers_of(&self, client: ClientIndex) -> u64 {
        self.clients[client as usize].markers
    }

    pub(crate) fn set_read_mode(&mut self, client: ClientIndex, read_mode: ReadMode) {
        self.clients[client as usize].read_mode = read_mode;
    }

    pub(crate) fn room_name(&self, room: u32) -> String {
        self.destination.room_name(room)
    }

    /// The bytes that join a room.
    pub(crate) fn join_bytes(&self, room: u32) -> Vec<u8> {
        self.destination.join(room)
    }

    /// The bytes that publish a text in a room.
    pub(crate) fn chat_bytes(&self, room: u32, text: &str) -> Vec<u8> {
        self.destination.chat(room, text)
    }

    /// Begins to open one client.
    pub(crate) fn begin_open(&mut self, opening: Opening) -> Result<ClientIndex, LoadError> {
        let index = self.clients.len() as ClientIndex;
        let client = self.connect(index, opening)?;
        self.clients.push(client);
        Ok(index)
    }

    /// Begins to open a closed client again.
    pub(crate) fn begin_reopen(&mut self, client: ClientIndex, opening: Opening) -> Result<(), LoadError> {
        self.clients[client as usize] = self.connect(client, opening)?;
        Ok(())
    }

    fn connect(&mut self, index: ClientIndex, opening: Opening) -> Result<Client, LoadError> {
        self.connected = self.connected.wrapping_add(1);
        let address = self.destination.address;
        let failed = |source| LoadError::Connect { address, source };
        let source = opening.source.unwrap_or_else(|| client::source(self.connected));
        let mut socket = client::connect(address, source, opening.receive_buffer_bytes).map_err(failed)?;
        self.poller.register(&mut socket, Token(index as usize))?;
        self.opening += 1;
        let tls = self.destination.wire.tls().map(TlsConnector::connect).transpose()?;
        Ok(Client::new(socket, tls, opening.read_mode, opening.user))
    }

    /// Sends bytes on a client's connection, unless it is closed.
    pub(crate) fn send(&mut self, client: ClientIndex, bytes: &[u8]) -> Result<(), LoadError> {
        if !self.is_closed(client)
            && let Err(error) = self.clients[client as usize].send(bytes)
        {
            self.disconnect(client, &error);
        }
        Ok(())
    }

    /// Sends a Close frame; the server closes the connection.
    pub(crate) fn send_close(&mut self, client: ClientIndex) {
        if !self.is_closed(client)
            && let Err(error) = self.clients[client as usize].send_close()
        {
            self.disconnect(client, &error);
        }
    }

    /// Resets a client's connection, without a Close frame.
    pub(crate) fn cut(&mut self, client: ClientIndex) -> Result<(), LoadError> {
        let client = &mut self.clients[client as usize];
        if client.phase != Phase::Closed {
            client.phase = Phase::Closed;
            self.poller.deregister(&mut client.socket)?;
            // The socket leaves no TIME_WAIT behind, and unread bytes are lost, as when a machine dies.
            let socket = socket2::SockRef::from(&client.socket);
            socket.set_linger(Some(Duration::ZERO))?;
            socket.shutdown(std::net::Shutdown::Both).or_else(not_connected)?;
        }
        Ok(())
    }

    /// Resets all connections and forgets the clients.
    pub(crate) fn clear(&mut self) -> Result<(), LoadError> {
        for client in 0..self.clients.len() as ClientIndex {
            self.cut(client)?;
        }
        self.clients.clear();
        self.opening = 0;
        Ok(())
    }

    /// Waits for events, or until a moment, and reads the sockets that are ready.
    pub(crate) fn turn(&mut self, until: Option<Instant>) -> Result<(), LoadError> {
        let events = self.poller.wait(until)?;
        let second = self.began.elapsed().as_secs() + 1;
        for event in &events {
            if self.poller.is_timer(event.token()) {
                continue;
            }
            let index = event.token().0 as ClientIndex;
            if let Err(error) = self.handle(index, event, second) {
                self.disconnect(index, &error);
            }
        }
        self.poller.keep(events);
        Ok(())
    }

    fn handle(&mut self, index: ClientIndex, event: &Event, second: u64) -> io::Result<()> {
        let is_writable = event.is_writable();
        let ends = event.is_read_closed() || event.is_error();
        let client = &mut self.clients[index as usize];
        match client.phase {
            Phase::Closed => return Ok(()),
            Phase::Connecting if !is_writable => return Ok(()),
            Phase::Connecting => {
                if let Some(error) = client.socket.take_error()? {
                    return Err(error);
                }
                client.phase =
                    if self.destination.wire.has_handshake() { Phase::Upgrading(Vec::new()) } else { Phase::Open };
                self.opening -= usize::from(client.phase == Phase::Open);
                let wire = &self.destination.wire;
                let hello = client.user.map_or_else(|| wire.hello(), |user| wire.hello_as(user));
                client.send(&hello)?;
            }
            Phase::Upgrading(_) | Phase::Open => {
                if is_writable {
                    client.flush()?;
                }
            }
        }
        if matches!(client.read_mode, ReadMode::Nothing | ReadMode::OnDemand) && client.phase == Phase::Open {
            // It still notices a reset or a hang-up.
            return if ends { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
        self.read(index, usize::MAX, ends, second)
    }

    /// Reads up to so many bytes of a client with [`ReadMode::OnDemand`].
    pub(crate) fn read_on_demand(&mut self, index: ClientIndex, bytes: usize) {
        if self.is_open(index)
            && let Err(error) = self.read(index, bytes, false, 0)
        {
            self.disconnect(index, &error);
        }
    }

    /// Reads a client until its socket is empty, or up to so many bytes.
    fn read(&mut self, index: ClientIndex, bytes_max: usize, ends: bool, second: u64) -> io::Result<()> {
        let client = &mut self.clients[index as usize];
        let mut left = bytes_max;
        while left > 0 {
            let end = Tail::BYTES_MAX + left.min(READ_BYTES);
            let Some(bytes) = client.read(&mut self.buffer[..end])? else { break };
            left -= bytes;
            let was_opening = client.phase != Phase::Open;
            let count =
                client.receive(index, &mut self.buffer[..Tail::BYTES_MAX + bytes], second, &mut self.received)?;
            self.opening -= usize::from(was_opening && client.phase == Phase::Open);
            self.received.counts.markers += count;
            self.received.counts.bytes += bytes as u64;
            self.received.counts.reads += 1;
            if client.is_encrypted() {
                // It ends where nothing more is to be read.
                continue;
            }
            // A short read has emptied the socket. When the stream ends, one more read finds the end.
            if end < self.buffer.len() && left == 0 || bytes < READ_BYTES && !ends && bytes_max == usize::MAX {
                break;
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, index: ClientIndex, error: &io::Error) {
        let client = &mut self.clients[index as usize];
        if client.phase == Phase::Closed {
            return;
        }
        self.opening -= usize::from(client.phase != Phase::Open);
        let was_connecting = client.phase == Phase::Connecting;
        client.phase = Phase::Closed;
        // The system may have forgotten the socket already.
        let _ = self.poller.deregister(&mut client.socket);
        let _ = client.socket.shutdown(std::net::Shutdown::Both);
        let why = match client.close_code {
            Some(code) => format!("closed with code {code}"),
            None if was_connecting => format!("cannot connect to {}: {error}", self.destination.address),
            None if error.kind() == io::ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
            None => error.to_string(),
        };
        self.received.disconnects.push(Disconnect { client: index, at: Instant::now(), why });
    }
}

fn not_connected(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}
