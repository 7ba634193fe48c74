//! Sockets: listeners, the slab of connections, HTTP heads, handshakes, frames in and bytes out. Knows no chat.
//!
//! A [`Net`] does nothing by itself. Events are noted by [`Net::handle_event`]; everything else happens when a turn calls for
//! it, each within a budget: [`Net::accept`], [`Net::read`], [`Net::handle_deadlines`], [`Net::flush`], [`Net::free`]. What it finds
//! it tells a [`Handler`]. The loop contract in one sentence: *note every event, then call these once a turn, and poll
//! without waiting while [`Net::has_work`].*

mod accept;
mod body;
mod closing;
mod connection;
mod http;
mod listener;
#[cfg(feature = "in-memory")]
mod memory;
mod origin;
mod output;
mod reader;
mod receive;
mod send;
mod stream;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use slab::Slab;

pub use self::http::{Answer, BodyRules, Handshake, Reply, Response, method_not_allowed};
pub use self::listener::{ListenAddress, Listener};
#[cfg(feature = "in-memory")]
pub use self::memory::taken_bytes;
pub use self::origin::OriginPolicy;
pub use self::output::Output;

use self::connection::{Connection, Flag, Phase};
use self::listener::PolledListener;
use self::reader::Reader;
use crate::config::{Config, Limits, Timing, long_list};
use crate::deadline::{LOOKS_PER_TURN, Tick, Wheel};
use crate::error::Error;
use crate::id::{ConnectionId, ConnectionSerial};
use crate::protocol::CloseReason;
use crate::time::Now;

/// The most listeners of one server; their tokens come first in its range.
pub const LISTENERS_MAX: usize = 16;

/// How many bytes one read takes at most. All connections share the buffer.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a [`Net`] finds, for whoever decides about it.
pub trait Handler {
    /// A request has come. `is_full` says that there are as many WebSockets as allowed.
    ///
    /// The peer's address is among the request's extensions, as `std::net::SocketAddr`, if it has one.
    fn on_request(&mut self, id: ConnectionId, request: &::http::Request<()>, is_full: bool) -> Answer;

    /// A request is complete of which [`Answer::ReadBody`] was said. Only a handler that says so is asked.
    fn on_body(&mut self, id: ConnectionId, request: &::http::Request<()>, body: &[u8]) -> Reply {
        let _ = (id, request, body);
        Reply::Now(Response::text(::http::StatusCode::INTERNAL_SERVER_ERROR, "nobody takes this body"))
    }

    /// The request was upgraded.
    fn on_open(&mut self, id: ConnectionId);

    /// A text message has come; an answer may be put into the connection's own output.
    fn on_text(&mut self, id: ConnectionId, text: &str, output: &mut Output) -> Verdict;

    /// A binary message has come; an answer may be put into the connection's own output.
    fn on_binary(&mut self, id: ConnectionId, bytes: &[u8], output: &mut Output) -> Verdict;

    /// All output was taken, and more would be.
    fn on_drained(&mut self, id: ConnectionId);

    /// It is owed bytes and took none for `--stall-timeout`.
    fn on_stalled(&mut self, id: ConnectionId);

    /// An open connection is closed or closing; nothing more can be sent to it.
    fn on_closed(&mut self, id: ConnectionId);
}

/// What is to become of a connection after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It is closed for this reason.
    Close(CloseReason),
}

/// Counts of what a [`Net`] holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetStats {
    /// Sockets that were accepted and not yet closed.
    pub sockets: usize,
    /// Of these, WebSockets that are not closing.
    pub open: usize,
    /// Sockets accepted.
    pub accepted: u64,
    /// Requests upgraded.
    pub upgraded: u64,
    /// Requests answered otherwise, or not at all in time.
    pub answered: u64,
    /// Times accepting paused because the system was out of something.
    pub accept_pauses: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes of torn frames that were copied to the front of an own output.
    pub partial_frame_bytes: u64,
    /// Connections closed because no answer came to a ping.
    pub heartbeat_timeouts: u64,
}

/// See the [module](self).
pub struct Net {
    limits: Limits,
    timing: Timing,
    registry: Registry,
    tokens: Range<usize>,
    listeners: Vec<PolledListener>,
    connections: Slab<Connection>,
    newest: ConnectionSerial,
    open: usize,
    tick: Tick,
    /// What every read reads into.
    buffer: Box<[u8]>,
    /// The parser that is lent to whichever connection is being read.
    lent: Option<Box<Reader>>,
    /// Empty outputs, to be used again.
    #[allow(clippy::vec_box, reason = "connections hold boxes, which go back and forth")]
    outputs: Vec<Box<Output>>,
    /// Slots with something to read, each once, in the order in which their turn comes.
    ready: VecDeque<u32>,
    /// Slots whose own output is to be written, or whose sockets were found to take bytes again.
    dirty: Vec<u32>,
    /// Slots whose connections are gone.
    gone: Vec<u32>,
    wheel: Wheel<u32>,
    accept_paused_until: Option<Tick>,
    stats: NetStats,
}

/// In the place of a slot: that accepting is to be tried again.
const ACCEPT_AGAIN: u32 = u32::MAX;

impl Net {
    /// A net without listeners, whose tokens lie in `tokens`. `config` has been checked.
    ///
    /// # Errors
    /// [`Error::Tokens`] if the range is too small for the listeners and connections of `config`.
    pub fn new(config: &Config, registry: Registry, tokens: Range<usize>) -> Result<Self, Error> {
        let limits = config.limits.clone();
        let needed = LISTENERS_MAX + limits.connections_max as usize + limits.connections_reserved as usize;
        if tokens.len() < needed {
            return Err(Error::Tokens { found: tokens.len(), needed });
        }
        Ok(Self {
            timing: config.timing.clone(),
            registry,
            tokens,
            listeners: Vec::new(),
            connections: Slab::with_capacity(long_list::<Connection>()),
            newest: ConnectionSerial::default(),
            open: 0,
            tick: Tick::default(),
            buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            lent: Some(Box::new(Reader::new(&limits))),
            outputs: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            wheel: Wheel::new(),
            accept_paused_until: None,
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

    /// Accepts nothing more: the listeners are closed, and so is who has not finished its request.
    pub fn stop_listening(&mut self) {
        self.listeners.clear();
        let mut answered = Vec::new();
        for (slot, connection) in &mut self.connections {
            match connection.phase {
                // An answer is on its way, and would be lost if the connection were reset over what came behind its request.
                Phase::Between(_) if connection.output.is_some() || connection.has_input() => {
                    answered.push(slot as u32);
                }
                Phase::Head(_) | Phase::Body(_) | Phase::Between(_) => {
                    connection.phase = Phase::Gone;
                    self.gone.push(slot as u32);
                }
                _ => {}
            }
        }
        for slot in answered {
            self.enter_closing(slot, Phase::Draining);
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
            if matches!(connection.phase, Phase::Waiting(_)) && (event.is_write_closed() || event.is_error()) {
                connection.set(Flag::Broken);
            }
            self.queue_read(slot as u32);
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.note_writable(slot as u32);
        }
    }

    /// Begins a turn: everything until the next call happens at `now`.
    pub fn begin_turn(&mut self, now: Now) {
        self.tick = Tick::of(now);
    }

    /// Whether the next poll must not wait.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty() || !self.gone.is_empty() || self.can_accept()
    }

    /// How long until [`Net::handle_deadlines`] has something to do.
    pub fn timeout(&self, now: Now) -> Option<Duration> {
        self.wheel.timeout(now)
    }

    /// Does what is due.
    pub fn handle_deadlines(&mut self, handler: &mut impl Handler) {
        for _ in 0..LOOKS_PER_TURN {
            let Some((tick, slot)) = self.wheel.pop(self.tick) else { break };
            if slot == ACCEPT_AGAIN {
                self.accept_paused_until = None;
                continue;
            }
            let is_current = |connection: &Connection| connection.looked_at == tick;
            if self.connections.get(slot as usize).is_some_and(is_current) {
                self.look_at(slot, handler);
            }
        }
    }

    /// Counts, as of now.
    pub fn stats(&self) -> NetStats {
        NetStats { sockets: self.connections.len(), open: self.open, ..self.stats }
    }

    /// The token of the connection in a slot.
    fn token(&self, slot: u32) -> Token {
        Token(self.tokens.start + LISTENERS_MAX + slot as usize)
    }

    fn queue_read(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.is(Flag::Queued) {
            connection.set(Flag::Queued);
            self.ready.push_back(slot);
        }
    }

    fn queue_flush(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.is(Flag::Dirty) {
            connection.set(Flag::Dirty);
            self.dirty.push(slot);
        }
    }

    /// Has a connection looked at in tick `at`.
    fn schedule(&mut self, slot: u32, at: Tick) {
        let at = self.wheel.insert(at, slot);
        self.connections[slot as usize].looked_at = at;
    }

    /// Has a connection looked at in tick `by` at the latest.
    fn schedule_by(&mut self, slot: u32, by: Tick) {
        if by < self.connections[slot as usize].looked_at {
            self.schedule(slot, by);
        }
    }

    fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.slot.index()).filter(|connection| connection.serial == id.serial)
    }
}

/// Why an operation on a socket did not succeed.
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
