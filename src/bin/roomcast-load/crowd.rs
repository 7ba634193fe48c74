//! Many clients in one poll loop: opens them, reads them all, counts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::client::{self, Client, ClientIndex, Ear, Heard, HeardMarker, Phase};
use crate::error::LoadError;
use crate::marker::Tail;
use crate::timer::Timer;
use crate::wire::Wire;

/// Read at a time; fits into a core's second cache.
const READ_BYTES: usize = 256 * 1024;

/// Connections that are opened at the same time; below any listener's backlog.
const OPENING_MAX: usize = 128;

/// Events taken at a time, so that publishers need not wait until everybody has been read.
const EVENTS_MAX: usize = 128;

const TIMER: Token = Token(usize::MAX - 1);

/// How long opening, joining and the like may take without any progress.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all clients together have received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) markers: u64,
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
}

/// A client whose connection ended.
#[derive(Debug)]
pub(crate) struct Farewell {
    pub(crate) client: ClientIndex,
    pub(crate) at: Instant,
    pub(crate) why: String,
}

/// See the [module](self).
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    timer: Timer,
    address: SocketAddr,
    wire: Wire,
    /// A prefix of room names that no other run uses.
    prefix: String,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    heard: Heard,
    farewells: Vec<Farewell>,
    counts: Counts,
    opening: usize,
    connected: u32,
    began: Instant,
}

/// Whom to open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) ear: Ear,
    /// What the system may keep for it unread; its own choice if `None`.
    pub(crate) receive_buffer_bytes: Option<usize>,
}

impl From<Ear> for Opening {
    fn from(ear: Ear) -> Self {
        Self { ear, receive_buffer_bytes: None }
    }
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr, wire: Wire) -> Result<Self, LoadError> {
        use std::hash::{BuildHasher, RandomState};
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            timer,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            address,
            wire,
            prefix: format!("load-{:08x}", RandomState::new().hash_one(address) as u32),
            clients: Vec::new(),
            buffer: vec![0; Tail::BYTES_MAX + READ_BYTES],
            heard: Heard::default(),
            farewells: Vec::new(),
            counts: Counts::default(),
            opening: 0,
            connected: 0,
            began: Instant::now(),
        })
    }

    /// Microseconds of this run.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Takes the markers that clients with [`Ear::Markers`] or better have read since it was last asked.
    pub(crate) fn take_markers(&mut self, into: &mut Vec<HeardMarker>) {
        into.clear();
        std::mem::swap(into, &mut self.heard.markers);
    }

    /// Takes the messages that clients with [`Ear::Messages`] have read since it was last asked.
    pub(crate) fn take_messages(&mut self) -> Vec<(ClientIndex, String)> {
        std::mem::take(&mut self.heard.messages)
    }

    /// Takes whose connections have ended since it was last asked.
    pub(crate) fn take_farewells(&mut self) -> Vec<Farewell> {
        std::mem::take(&mut self.farewells)
    }

    /// The first complaint of the server that a publisher read.
    pub(crate) fn take_complaint(&mut self) -> Option<String> {
        self.heard.complaint.take()
    }

    pub(crate) fn is_open(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].phase == Phase::Open
    }

    pub(crate) fn is_gone(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].phase == Phase::Gone
    }

    pub(crate) fn close_code(&self, client: ClientIndex) -> Option<u16> {
        self.clients[client as usize].close_code
    }

    pub(crate) fn has_said_goodbye(&self, client: ClientIndex) -> bool {
        self.clients[client as usize].has_said_goodbye
    }

    /// How many markers a client has received.
    pub(crate) fn markers_of(&self, client: ClientIndex) -> u64 {
        self.clients[client as usize].markers
    }

    pub(crate) fn set_ear(&mut self, client: ClientIndex, ear: Ear) {
        self.clients[client as usize].ear = ear;
    }

    pub(crate) fn room_name(&self, room: u32) -> String {
        format!("{}-{room:06}", self.prefix)
    }

    /// What joins a room.
    pub(crate) fn join_bytes(&self, room: u32) -> Vec<u8> {
        self.wire.join(room, &self.room_name(room))
    }

    /// What says a text in a room.
    pub(crate) fn chat_bytes(&self, room: u32, text: &str) -> Vec<u8> {
        self.wire.chat(&self.room_name(room), text)
    }

    /// Begins to open a client.
    pub(crate) fn begin_open(&mut self, opening: Opening) -> Result<ClientIndex, LoadError> {
        let index = self.clients.len() as ClientIndex;
        let client = self.connect(index, opening)?;
        self.clients.push(client);
        Ok(index)
    }

    /// Begins to open a client again that is gone.
    pub(crate) fn begin_reopen(&mut self, client: ClientIndex, opening: Opening) -> Result<(), LoadError> {
        self.clients[client as usize] = self.connect(client, opening)?;
        Ok(())
    }

    fn connect(&mut self, index: ClientIndex, opening: Opening) -> Result<Client, LoadError> {
        self.connected = self.connected.wrapping_add(1);
        let failed = |source| LoadError::Connect { address: self.address, source };
        let mut socket = client::connect(self.address, self.connected, opening.receive_buffer_bytes).map_err(failed)?;
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(index as usize), interests)?;
        self.opening += 1;
        Ok(Client::new(socket, opening.ear))
    }

    /// Opens clients, a bounded number at a time, and waits until all are open.
    pub(crate) fn open(&mut self, count: usize, opening: impl Into<Opening>) -> Result<Vec<ClientIndex>, LoadError> {
        let opening = opening.into();
        let mut indices = Vec::with_capacity(count);
        let mut deadline = Instant::now() + PATIENCE;
        while indices.len() < count || self.opening > 0 {
            while indices.len() < count && self.opening < OPENING_MAX {
                indices.push(self.begin_open(opening)?);
            }
            let before = self.opening;
            self.turn(Some(deadline))?;
            self.expect_nobody_gone()?;
            if self.opening != before {
                deadline = Instant::now() + PATIENCE;
            } else if Instant::now() >= deadline {
                return Err(LoadError::Silence("a connection to be opened".to_owned()));
            }
        }
        Ok(indices)
    }

    /// Has clients join rooms, and waits until nothing more comes of it.
    pub(crate) fn join(&mut self, clients: &[ClientIndex], room: impl Fn(usize) -> u32) -> Result<(), LoadError> {
        for (nth, client) in clients.iter().enumerate() {
            let join = self.join_bytes(room(nth));
            self.say(*client, &join)?;
            if nth % 64 == 63 {
                self.turn(Some(Instant::now()))?;
            }
        }
        self.settle(Duration::from_millis(150))
    }

    /// Waits until nothing was received for a while.
    pub(crate) fn settle(&mut self, quiet: Duration) -> Result<(), LoadError> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let until = Instant::now() + quiet;
            let before = self.counts.reads;
            while Instant::now() < until {
                self.turn(Some(until))?;
            }
            self.expect_nobody_gone()?;
            if self.counts.reads == before {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(LoadError::Silence("the server to come to rest".to_owned()));
            }
        }
    }

    /// # Errors
    /// If somebody's connection has ended.
    pub(crate) fn expect_nobody_gone(&mut self) -> Result<(), LoadError> {
        match self.farewells.first() {
            Some(farewell) => Err(LoadError::Gone { count: self.farewells.len(), why: farewell.why.clone() }),
            None => Ok(()),
        }
    }

    /// Sends bytes on a client's connection, if it is still there.
    pub(crate) fn say(&mut self, client: ClientIndex, bytes: &[u8]) -> Result<(), LoadError> {
        if !self.is_gone(client)
            && let Err(error) = self.clients[client as usize].send(bytes)
        {
            self.part(client, &error);
        }
        Ok(())
    }

    /// Says goodbye on a client's connection; the server closes it.
    pub(crate) fn say_goodbye(&mut self, client: ClientIndex) {
        if !self.is_gone(client)
            && let Err(error) = self.clients[client as usize].say_goodbye()
        {
            self.part(client, &error);
        }
    }

    /// Ends a client's connection at once, without a goodbye.
    pub(crate) fn cut(&mut self, client: ClientIndex) -> Result<(), LoadError> {
        let client = &mut self.clients[client as usize];
        if client.phase != Phase::Gone {
            client.phase = Phase::Gone;
            self.poll.registry().deregister(&mut client.socket)?;
            // Nothing waits in TIME_WAIT, and what was unread is lost, as when a machine goes.
            let socket = socket2::SockRef::from(&client.socket);
            socket.set_linger(Some(Duration::ZERO))?;
            socket.shutdown(std::net::Shutdown::Both).or_else(not_connected)?;
        }
        Ok(())
    }

    /// Forgets all clients and ends their connections.
    pub(crate) fn clear(&mut self) -> Result<(), LoadError> {
        for client in 0..self.clients.len() as ClientIndex {
            self.cut(client)?;
        }
        self.clients.clear();
        self.opening = 0;
        Ok(())
    }

    /// Waits until something happens, or until then, and reads what has come.
    pub(crate) fn turn(&mut self, until: Option<Instant>) -> Result<(), LoadError> {
        let timeout = self.timer.timeout(until)?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        let second = self.began.elapsed().as_secs() + 1;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == TIMER {
                self.timer.clear();
                continue;
            }
            let index = event.token().0 as ClientIndex;
            let ends = event.is_read_closed() || event.is_error();
            if let Err(error) = self.handle(index, event.is_writable(), ends, second) {
                self.part(index, &error);
            }
        }
        self.events = events;
        Ok(())
    }

    fn handle(&mut self, index: ClientIndex, is_writable: bool, ends: bool, second: u64) -> io::Result<()> {
        let client = &mut self.clients[index as usize];
        match client.phase {
            Phase::Gone => return Ok(()),
            Phase::Connecting if !is_writable => return Ok(()),
            Phase::Connecting => {
                if let Some(error) = client.socket.take_error()? {
                    return Err(error);
                }
                client.phase = if self.wire.has_handshake() { Phase::Upgrading(Vec::new()) } else { Phase::Open };
                self.opening -= usize::from(client.phase == Phase::Open);
                client.send(&self.wire.hello())?;
            }
            Phase::Upgrading(_) | Phase::Open => {
                if is_writable {
                    client.flush()?;
                }
            }
        }
        if matches!(client.ear, Ear::Deaf | Ear::Slow) && client.phase == Phase::Open {
            // A reset or a hang-up is noticed nevertheless.
            return if ends { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
        self.read(index, usize::MAX, ends, second)
    }

    /// Has a client with [`Ear::Slow`] read as many bytes.
    pub(crate) fn read_slowly(&mut self, index: ClientIndex, bytes: usize) {
        if self.is_open(index)
            && let Err(error) = self.read(index, bytes, false, 0)
        {
            self.part(index, &error);
        }
    }

    /// Reads a client until there is nothing more, or as many bytes.
    fn read(&mut self, index: ClientIndex, bytes_max: usize, ends: bool, second: u64) -> io::Result<()> {
        let client = &mut self.clients[index as usize];
        let mut left = bytes_max;
        while left > 0 {
            let most = Tail::BYTES_MAX + left.min(READ_BYTES);
            let Some(bytes) = client.read(&mut self.buffer[..most])? else { break };
            left -= bytes;
            let was_opening = client.phase != Phase::Open;
            let count = client.hear(index, &mut self.buffer, bytes, second, &mut self.heard)?;
            self.opening -= usize::from(was_opening && client.phase == Phase::Open);
            self.counts.markers += count;
            self.counts.bytes += bytes as u64;
            self.counts.reads += 1;
            // A short read means that there was no more, unless the end is near.
            if most < self.buffer.len() && left == 0 || bytes < READ_BYTES && !ends && bytes_max == usize::MAX {
                break;
            }
        }
        Ok(())
    }

    fn part(&mut self, index: ClientIndex, error: &io::Error) {
        let client = &mut self.clients[index as usize];
        if client.phase == Phase::Gone {
            return;
        }
        self.opening -= usize::from(client.phase != Phase::Open);
        let was_connecting = client.phase == Phase::Connecting;
        client.phase = Phase::Gone;
        // It is registered; that the system knows better changes nothing.
        let _ = self.poll.registry().deregister(&mut client.socket);
        let _ = client.socket.shutdown(std::net::Shutdown::Both);
        let why = match client.close_code {
            Some(code) => format!("closed with code {code}"),
            None if was_connecting => format!("cannot connect to {}: {error}", self.address),
            None if error.kind() == io::ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
            None => error.to_string(),
        };
        self.farewells.push(Farewell { client: index, at: Instant::now(), why });
    }
}

fn not_connected(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}
