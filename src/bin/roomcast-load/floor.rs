//! The floor: a bare sender that passes frames on to every socket of a room, and does nothing else that a server does.
//! A server that is as fast spends nothing beside its system calls.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use roomcast::internals::frame::Head;

/// Slices as the server's, so that messages coalesce in the same way. The clock is read after each stride.
const SLICE_SENDS: usize = 64;
const STRIDE_SENDS: usize = 8;
const SLICE_TIME: Duration = Duration::from_micros(300);

/// The maximum time that a batch waits to be full.
const PATIENCE: Duration = Duration::from_millis(50);

const LISTENER: Token = Token(usize::MAX - 1);

struct Peer {
    socket: TcpStream,
    room: Option<u32>,
    received: Vec<u8>,
    /// Bytes that its socket has not taken. Until they are sent, further ones are put behind them.
    unsent: Vec<u8>,
}

#[derive(Default)]
struct Room {
    /// Frames that some member has not been sent.
    log: Vec<u8>,
    /// Peers, and how much of `log` each has been sent.
    members: Vec<(usize, usize)>,
    /// How many members are still to be served in the running round.
    left: usize,
    /// How far the log reached when the round began.
    round_end: usize,
    is_queued: bool,
    /// All frames so far.
    frames: usize,
    /// Where the last full batch ends in `log`.
    full_end: usize,
}

struct Sender {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Peer>,
    rooms: Vec<Room>,
    /// Rooms with something to send, each once, in the order of their turns.
    dirty: VecDeque<u32>,
    /// Frames per write; all that there are if `None`.
    batch: Option<usize>,
    buffer: Vec<u8>,
}

/// Runs until the process is killed.
pub(crate) fn run(address: SocketAddr, batch: Option<usize>) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::from_std(listener(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sender = Sender {
        poll,
        listener,
        peers: Vec::new(),
        rooms: Vec::new(),
        dirty: VecDeque::new(),
        batch,
        buffer: vec![0; 64 * 1024],
    };
    let mut events = Events::with_capacity(1024);
    let mut readable = Vec::new();
    loop {
        let is_idle = sender.dirty.is_empty();
        sender.poll.poll(&mut events, Some(if is_idle { PATIENCE } else { Duration::ZERO }))?;
        if is_idle && events.is_empty() {
            sender.fill_batches();
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
        sender.flush();
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

    /// Ends the wait for full batches.
    fn fill_batches(&mut self) {
        for index in 0..self.rooms.len() {
            self.rooms[index].full_end = self.rooms[index].log.len();
            self.note(index as u32);
        }
    }

    /// Puts a room into the queue if there is something to send.
    fn note(&mut self, index: u32) {
        let room = &mut self.rooms[index as usize];
        if !room.is_queued && room.is_busy(self.batch) {
            room.is_queued = true;
            self.dirty.push_back(index);
        }
    }

    /// The sends of one turn.
    fn flush(&mut self) {
        let (mut left, mut unwatched, mut began) = (SLICE_SENDS, 0, None::<Instant>);
        let mut is_late = false;
        while left > 0 && !is_late {
            let Some(index) = self.dirty.pop_front() else { break };
            let room = &mut self.rooms[index as usize];
            room.is_queued = false;
            let mut is_over = false;
            while left > 0 && !is_late && !is_over {
                let sends = room.serve(&mut self.peers, self.batch, left.min(STRIDE_SENDS));
                left = left.saturating_sub(sends);
                is_over = room.left == 0;
                unwatched += sends;
                if unwatched >= STRIDE_SENDS {
                    unwatched = 0;
                    is_late = began.get_or_insert_with(Instant::now).elapsed() >= SLICE_TIME;
                }
            }
            self.note(index);
        }
    }

    fn read(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        // One read a turn, as the server does. A peer that has closed needs no reaction.
        let Ok(bytes) = peer.socket.read(&mut self.buffer) else { return };
        peer.received.extend_from_slice(&self.buffer[..bytes]);
        let Some(index) = peer.room else {
            let Some(number) = peer.received.first_chunk() else { return };
            let room = u32::from_le_bytes(*number);
            peer.room = Some(room);
            peer.received.drain(..4);
            if self.rooms.len() <= room as usize {
                self.rooms.resize_with(room as usize + 1, Room::default);
            }
            let room = &mut self.rooms[room as usize];
            room.members.push((client, room.log.len()));
            return;
        };
        let room = &mut self.rooms[index as usize];
        let mut end = 0;
        while let Some(head) = Head::parse(&peer.received[end..]) {
            let next = end + head.header_bytes + head.payload_bytes as usize;
            if next > peer.received.len() {
                break;
            }
            end = next;
            room.frames += 1;
            if self.batch.is_some_and(|batch| room.frames.is_multiple_of(batch)) {
                room.full_end = room.log.len() + end;
            }
        }
        room.log.extend_from_slice(&peer.received[..end]);
        peer.received.drain(..end);
        self.note(index);
    }
}

impl Room {
    /// The offset in `log` up to which members are served.
    fn end(&self, batch: Option<usize>) -> usize {
        if batch.is_some() { self.full_end } else { self.log.len() }
    }

    fn is_busy(&self, batch: Option<usize>) -> bool {
        self.left > 0 || self.end(batch) > self.round_end
    }

    /// Sends to the next members of a round; returns the number of sends.
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
            // The peer has closed.
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
