//! The floor: no server at all. A bare sender writes what it was sent to every socket of a room, and does nothing else
//! that a server does. Whoever is as fast as this is as fast as the system calls are.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use roomcast::frame::Head;

/// The same slices as the server's, so that the rule of coalescing is the same.
const SLICE_SENDS: usize = 64;

/// How long a batch may wait to be full.
const PATIENCE: Duration = Duration::from_millis(50);

const LISTENER: Token = Token(usize::MAX - 1);

struct Peer {
    socket: TcpStream,
    room: Option<u32>,
    received: Vec<u8>,
    /// What its socket has not taken; while there is something, nothing else is sent to it.
    unsent: Vec<u8>,
}

#[derive(Default)]
struct Room {
    /// Frames that not all members have, one behind the other.
    log: Vec<u8>,
    /// Members, and how much of `log` each has been sent.
    members: Vec<(usize, usize)>,
    /// How many members are still to be served in the running round.
    left: usize,
    /// How far the log reached when the round began.
    round_end: usize,
    /// How many frames wait for the batch to be full, and where the last full one ends.
    frames: usize,
    full_end: usize,
}

struct Sender {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Peer>,
    rooms: Vec<Room>,
    /// Frames of a write; as many as there are if `None`.
    batch: Option<usize>,
    buffer: Vec<u8>,
}

/// Sends for ever.
pub(crate) fn run(address: SocketAddr, batch: Option<usize>) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::from_std(listener(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sender = Sender { poll, listener, peers: Vec::new(), rooms: Vec::new(), batch, buffer: vec![0; 64 * 1024] };
    let mut events = Events::with_capacity(1024);
    let mut readable = Vec::new();
    loop {
        let is_busy = sender.rooms.iter().any(|room| room.is_busy(batch));
        sender.poll.poll(&mut events, Some(if is_busy { Duration::ZERO } else { PATIENCE }))?;
        if !is_busy && events.is_empty() {
            sender.rooms.iter_mut().for_each(|room| room.full_end = room.log.len());
        }
        for event in &events {
            if event.token() == LISTENER {
                sender.accept()?;
                continue;
            }
            let index = event.token().0;
            if event.is_writable() {
                sender.peers[index].flush();
            }
            if event.is_readable() {
                readable.push(index);
            }
        }
        for index in readable.drain(..) {
            sender.read(index);
        }
        let mut sends = 0;
        for room in &mut sender.rooms {
            if room.is_busy(batch) && sends < SLICE_SENDS {
                sends += room.serve(&mut sender.peers, batch, SLICE_SENDS - sends);
            }
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

impl Sender {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let interests = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(self.peers.len()), interests)?;
            self.peers.push(Peer { socket, room: None, received: Vec::new(), unsent: Vec::new() });
        }
    }

    fn read(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        // One read, as a server's: short of the buffer it has emptied the socket. Whoever has gone is not missed.
        let Ok(bytes) = peer.socket.read(&mut self.buffer) else { return };
        peer.received.extend_from_slice(&self.buffer[..bytes]);
        let Some(room) = peer.room else {
            let Some(number) = peer.received.first_chunk() else { return };
            let room = u32::from_le_bytes(*number);
            peer.room = Some(room);
            peer.received.drain(..4);
            if self.rooms.len() <= room as usize {
                self.rooms.resize_with(room as usize + 1, Room::default);
            }
            let room = &mut self.rooms[room as usize];
            room.members.push((index, room.log.len()));
            return;
        };
        let room = &mut self.rooms[room as usize];
        let mut end = 0;
        while let Some(head) = Head::parse(&peer.received[end..]) {
            let next = end + head.header_bytes + head.payload_bytes as usize;
            if next > peer.received.len() {
                break;
            }
            end = next;
            room.frames += 1;
            if self.batch.is_some_and(|batch| room.frames % batch == 0) {
                room.full_end = room.log.len() + end;
            }
        }
        room.log.extend_from_slice(&peer.received[..end]);
        peer.received.drain(..end);
    }
}

impl Room {
    /// How far members are served at present.
    fn end(&self, batch: Option<usize>) -> usize {
        if batch.is_some() { self.full_end } else { self.log.len() }
    }

    fn is_busy(&self, batch: Option<usize>) -> bool {
        self.left > 0 || self.end(batch) > self.round_end
    }

    /// Sends to the next members of a round; says how many times.
    fn serve(&mut self, peers: &mut [Peer], batch: Option<usize>, sends_max: usize) -> usize {
        let end = self.end(batch);
        if self.left == 0 {
            (self.left, self.round_end) = (self.members.len(), end);
        }
        let mut sends = 0;
        while self.left > 0 && sends < sends_max {
            self.left -= 1;
            let (peer, cursor) = &mut self.members[self.left];
            let owed = &self.log[*cursor..end];
            let frame_bytes = Head::parse(owed).map_or(0, |head| head.header_bytes + head.payload_bytes as usize);
            // All texts of a run are of one length, and so are its frames.
            let write_bytes = batch.map_or(owed.len(), |batch| batch * frame_bytes);
            for part in owed.chunks(write_bytes.max(1)) {
                peers[*peer].send(part);
                sends += 1;
            }
            *cursor = end;
        }
        if self.left == 0 && self.members.iter().all(|(_, cursor)| *cursor == self.log.len()) {
            self.log.clear();
            self.members.iter_mut().for_each(|(_, cursor)| *cursor = 0);
            (self.round_end, self.full_end) = (0, 0);
        } else if self.left == 0 && self.round_end > 1 << 16 {
            let base = self.round_end;
            self.log.drain(..base);
            self.members.iter_mut().for_each(|(_, cursor)| *cursor -= base);
            self.full_end -= base.min(self.full_end);
            self.round_end = 0;
        }
        sends
    }
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        if !self.unsent.is_empty() {
            return self.unsent.extend_from_slice(bytes);
        }
        match self.socket.write(bytes) {
            Ok(sent) => self.unsent.extend_from_slice(&bytes[sent..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
            // It has gone; nobody waits for it.
            Err(_) => {}
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }
}
