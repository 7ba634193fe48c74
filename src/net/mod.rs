//! Sockets: listeners, the slab of connections, HTTP heads, handshakes, frames in and bytes out. Knows no chat.
//!
//! A [`Net`] does nothing by itself. Events are noted by [`Net::handle_event`]; everything else happens when a turn calls for
//! it, each within a budget: [`Net::accept`], [`Net::read`], [`Net::handle_deadlines`], [`Net::flush`], [`Net::free`]. What it finds
//! it tells a [`Handler`]. The loop contract in one sentence: *note every event, then call these once a turn, and poll
//! without waiting while [`Net::has_work`].*

mod accept;
mod admission;
mod body;
mod closing;
mod connection;
mod handler;
mod http;
mod listener;
#[cfg(feature = "in-memory")]
pub(crate) mod memory;
mod phase;
mod reader;
mod receive;
mod send;
mod stats;
mod transport;
mod write_buffer;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use slab::Slab;

pub use self::handler::{AdmissionTicket, BodyDecision, BodyRules, Capacity, Handler, HeadDecision, Verdict};
pub use self::http::{Handshake, Response, method_not_allowed};
pub use self::listener::{ListenAddress, Listener};
pub use self::stats::NetStats;
pub use self::write_buffer::WriteBuffer;

use self::connection::{Connection, Flag};
use self::listener::PolledListener;
use self::reader::Reader;
use crate::error::Error;
use crate::id::ConnectionId;
pub use crate::id::{ConnectionSerial, Slot};
use crate::memory::long_list;
use crate::settings::{Config, NetLimits, Timing};
use crate::time::Now;
use crate::timer_wheel::{LOOKS_PER_TURN, Tick, Wheel};

/// How many listeners one server may have; their tokens come first in its range.
pub const LISTENERS_MAX: usize = 16;

/// How many bytes one read takes at most. All connections share the buffer.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How far a net has come in ending what is not a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Running,
    /// The slots below `next_slot` have been looked at.
    Draining {
        next_slot: usize,
    },
    Drained,
}

/// See the [module](self). `R` is the [route](Handler::Route) of its handler.
pub struct Net<R> {
    limits: NetLimits,
    timing: Timing,
    registry: Registry,
    tokens: Range<usize>,
    listeners: Vec<PolledListener>,
    connections: Slab<Connection<R>>,
    newest: ConnectionSerial,
    open: usize,
    tick: Tick,
    /// What every read reads into.
    buffer: Box<[u8]>,
    /// The parser that is lent to whichever connection is being read.
    lent: Option<Box<Reader>>,
    /// Empty write buffers, to be used again.
    #[allow(clippy::vec_box, reason = "connections hold boxes, which go back and forth")]
    spare_buffers: Vec<Box<WriteBuffer>>,
    /// Slots with something to read, each once, in the order in which they are read.
    ready: VecDeque<Slot>,
    /// Slots whose write buffer is to be written, or whose sockets were found to take bytes again.
    dirty: Vec<Slot>,
    /// Slots whose connections are gone.
    gone: Vec<Slot>,
    wheel: Wheel<Slot>,
    accept_paused_until: Option<Tick>,
    /// The handshakes that wait for a decision.
    parked: HashMap<AdmissionTicket, ConnectionId>,
    drain: Drain,
    stats: NetStats,
}

/// In the place of a slot: that accepting is to be tried again.
const ACCEPT_AGAIN: Slot = Slot(u32::MAX);

impl<R> Net<R> {
    /// A net without listeners, whose tokens lie in `tokens`. `config` has been checked.
    ///
    /// # Errors
    /// [`Error::Tokens`] if the range is too small for the listeners and connections of `config`.
    pub fn new(config: &Config, registry: Registry, tokens: Range<usize>) -> Result<Self, Error> {
        let limits = config.net.clone();
        let needed = LISTENERS_MAX + limits.connections_max as usize + limits.connections_reserved as usize;
        if tokens.len() < needed {
            return Err(Error::Tokens { found: tokens.len(), needed });
        }
        Ok(Self {
            timing: config.timing.clone(),
            registry,
            tokens,
            listeners: Vec::new(),
            connections: Slab::with_capacity(long_list::<Connection<R>>()),
            newest: ConnectionSerial::default(),
            open: 0,
            tick: Tick::FIRST,
            buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            lent: Some(Box::new(Reader::new(&limits))),
            spare_buffers: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            wheel: Wheel::new(),
            accept_paused_until: None,
            parked: HashMap::new(),
            drain: Drain::Running,
            stats: NetStats::default(),
            limits,
        })
    }

    /// Accepts connections from a listener from now on; says where it listens.
    ///
    /// # Errors
    /// [`Error::TooManyListeners`], or what the system says.
    pub fn listen(&mut self, listener: Listener) -> Result<ListenAddress, Error> {
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(Error::TooManyListeners(LISTENERS_MAX));
        }
        let token = Token(self.tokens.start + self.listeners.len());
        let listener = PolledListener::new(listener, &self.registry, token)?;
        let address = listener.address().clone();
        self.listeners.push(listener);
        Ok(address)
    }

    /// Accepts nothing more, and ends what is not a WebSocket in the next turns: requests that are not complete are cut, handshakes
    /// that wait for a decision are answered 503, and requests that wait for an answer are the last on their connection.
    pub fn stop_listening(&mut self) {
        self.listeners.clear();
        if self.drain == Drain::Running {
            self.drain = Drain::Draining { next_slot: 0 };
        }
    }

    /// Whether an event with this token is ours.
    pub fn owns(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// Notes an event. Nothing is read or written yet.
    pub fn handle_event(&mut self, event: &Event) {
        let index = event.token().0 - self.tokens.start;
        if index < LISTENERS_MAX {
            if let Some(listener) = self.listeners.get_mut(index) {
                listener.is_ready = true;
            }
            return;
        }
        let slot = index - LISTENERS_MAX;
        // An event may come late, for a connection that is freed already.
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let is_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_end {
            connection.set(Flag::Readable);
            if is_end {
                connection.set(Flag::ReadClosed);
            }
            // It is not read, so nothing else would tell that the peer takes no answer any more.
            if connection.is_waiting() && (event.is_write_closed() || event.is_error()) {
                connection.set(Flag::Broken);
            }
            self.queue_read(Slot(slot as u32));
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.note_writable(Slot(slot as u32));
        }
    }

    /// Begins a turn: everything until the next call happens at `now`.
    pub fn begin_turn(&mut self, now: Now) {
        self.tick = Tick::of(now);
    }

    /// Whether the next poll must not wait.
    pub fn has_work(&self) -> bool {
        let has_slots = !self.ready.is_empty() || !self.dirty.is_empty() || !self.gone.is_empty();
        has_slots || self.can_accept() || matches!(self.drain, Drain::Draining { .. })
    }

    /// How long until [`Net::handle_deadlines`] has something to do.
    pub fn timeout(&self, now: Now) -> Option<Duration> {
        self.wheel.timeout(now)
    }

    /// Does what is due, and goes on with a drain.
    pub fn handle_deadlines(&mut self, handler: &mut impl Handler<Route = R>) {
        self.advance_drain(handler);
        for _ in 0..LOOKS_PER_TURN {
            let Some((tick, slot)) = self.wheel.pop(self.tick) else { break };
            if slot == ACCEPT_AGAIN {
                self.accept_paused_until = None;
                continue;
            }
            let is_current = |connection: &Connection<R>| connection.timer_at == tick;
            if self.connections.get(slot.index()).is_some_and(is_current) {
                self.check_timers(slot, handler);
            }
        }
    }

    /// Counts, as of now.
    pub fn stats(&self) -> NetStats {
        NetStats {
            sockets: self.connections.len(),
            open: self.open,
            admissions_pending: self.parked.len(),
            ..self.stats
        }
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::Running
    }

    /// Whether another WebSocket is allowed. A parked handshake has its place already, so that it can be admitted.
    fn capacity(&self) -> Capacity {
        let taken = self.open + self.parked.len();
        if taken >= self.limits.connections_max as usize { Capacity::Full } else { Capacity::Available }
    }

    /// The token of the connection in a slot.
    fn token(&self, slot: Slot) -> Token {
        Token(self.tokens.start + LISTENERS_MAX + slot.index())
    }

    fn queue_read(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Queued) {
            connection.set(Flag::Queued);
            self.ready.push_back(slot);
        }
    }

    fn queue_flush(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Dirty) {
            connection.set(Flag::Dirty);
            self.dirty.push(slot);
        }
    }

    /// Has a connection looked at in tick `at`.
    fn schedule(&mut self, slot: Slot, at: Tick) {
        let at = self.wheel.insert(at, slot);
        self.connections[slot.index()].timer_at = at;
    }

    /// Has a connection looked at in tick `by` at the latest.
    fn schedule_by(&mut self, slot: Slot, by: Tick) {
        if by < self.connections[slot.index()].timer_at {
            self.schedule(slot, by);
        }
    }

    fn find(&self, id: ConnectionId) -> Option<&Connection<R>> {
        self.connections.get(id.slot.index()).filter(|connection| connection.serial == id.serial)
    }
}

/// Why an operation on a transport did not succeed.
enum Trouble {
    WouldBlock,
    Interrupted,
    Broken,
}

fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::WouldBlock => Trouble::WouldBlock,
        io::ErrorKind::Interrupted => Trouble::Interrupted,
        _ => Trouble::Broken,
    }
}
