//! Sockets: listeners, the slab of connections, HTTP heads, handshakes, frames in and bytes out. Knows no chat.
//!
//! A [`Net`] does nothing by itself. Events are noted by [`Net::handle_event`]; everything else happens when a turn calls for
//! it, each within a budget: [`Net::accept`], [`Net::read`], [`Net::handle_deadlines`], [`Net::flush`], [`Net::free`]. What it finds
//! it tells a [`Handler`]. The loop contract in one sentence: *note every event, then call these once a turn, and poll
//! without waiting while [`Net::has_work`].*

mod accept;
mod account;
mod addresses;
mod admission;
mod body;
mod buffers;
mod caps;
mod charging;
mod closing;
mod connection;
#[cfg_attr(not(feature = "tls"), path = "without_tls.rs")]
mod encrypted;
mod forwarded;
mod handler;
mod held;
mod http;
mod listener;
#[cfg(feature = "in-memory")]
pub(crate) mod memory;
mod parked;
mod phase;
mod polling;
mod proxy_header;
mod queues;
mod reader;
mod receive;
mod send;
mod spares;
mod stats;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod transport;
mod write_buffer;

use std::io;
use std::ops::Range;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use slab::Slab;

pub use self::handler::{AdmissionTicket, BodyDecision, BodyRules, Capacity, Handler, HeadDecision, Verdict};
pub use self::http::{Handshake, Response, method_not_allowed};
pub use self::listener::{ListenAddress, Listener, ListenerRole, Opening, Preamble, Security};
pub use self::parked::ParkedSource;
pub use self::polling::LISTENERS_MAX;
pub use self::stats::NetStats;
#[cfg(feature = "tls")]
pub use self::tls::TlsIdentity;
pub use self::write_buffer::WriteBuffer;

use self::account::Account;
use self::buffers::Buffers;
use self::caps::Caps;
use self::connection::{Connection, Flag};
use self::encrypted::Tls;
use self::listener::{Listeners, PolledListener};
use self::parked::ParkedHandshakes;
use self::polling::{Polled, Polling};
use self::queues::{Queues, Waiting};
use crate::budget::WorkBudget;
use crate::error::Error;
use crate::id::ConnectionId;
pub use crate::id::{ConnectionSerial, Slot};
use crate::memory::long_list;
use crate::owner::{Owner, Owners};
use crate::settings::{Config, NetLimits, Timing};
use crate::time::Now;
use crate::timer_wheel::{LOOKS_PER_TURN, Tick, Wheel};

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

/// The time of the turn, and which connections are looked at when.
struct Timers {
    now: Duration,
    tick: Tick,
    wheel: Wheel<Slot>,
}

/// See the [module](self). `R` is the [route](Handler::Route) of its handler.
pub struct Net<R> {
    limits: NetLimits,
    timing: Timing,
    polling: Polling,
    listeners: Listeners,
    connections: Slab<Connection<R>>,
    newest: ConnectionSerial,
    timers: Timers,
    buffers: Buffers,
    queues: Queues,
    parked: ParkedHandshakes,
    caps: Caps,
    account: Account,
    tls: Tls,
    drain: Drain,
    /// Units of work done for the connection that is being read.
    work: u32,
    stats: NetStats,
}

/// In the place of a slot: that accepting is to be tried again.
const ACCEPT_AGAIN: Slot = Slot(u32::MAX);

/// In the place of a slot: that listeners which do not work are to be tried again.
const RETRY_LISTENERS: Slot = Slot(u32::MAX - 1);

impl<R> Net<R> {
    /// A net without listeners, whose tokens lie in `tokens`. `config` has been checked. `seed` is different for every run.
    ///
    /// # Errors
    /// [`Error::Tokens`] if the range is too small for the listeners and connections of `config`.
    pub fn new(config: &Config, registry: Registry, tokens: Range<usize>, seed: u64) -> Result<Self, Error> {
        let limits = config.net.clone();
        let needed = LISTENERS_MAX + limits.connections_max as usize + limits.connections_reserved as usize;
        if tokens.len() < needed {
            return Err(Error::Tokens { found: tokens.len(), needed });
        }
        Ok(Self {
            timing: config.timing.clone(),
            polling: Polling::new(registry, tokens),
            listeners: Listeners::default(),
            connections: Slab::with_capacity(long_list::<Connection<R>>(needed - LISTENERS_MAX)),
            newest: ConnectionSerial::default(),
            timers: Timers { now: Duration::ZERO, tick: Tick::FIRST, wheel: Wheel::new() },
            buffers: Buffers::new(&limits),
            queues: Queues::default(),
            parked: ParkedHandshakes::new(limits.admissions_pending_max),
            caps: Caps::new(config, Owners::new(seed)),
            account: Account::new(config.memory_shares().buffers),
            tls: Tls::default(),
            drain: Drain::Running,
            work: 0,
            stats: NetStats::default(),
            limits,
        })
    }

    /// Accepts connections from a listener from now on; says where it listens.
    ///
    /// # Errors
    /// [`Error::TooManyListeners`], or what the system says.
    pub fn listen(&mut self, listener: Listener) -> Result<ListenAddress, Error> {
        self.listen_with(Opening::default(), listener)
    }

    /// As [`Net::listen`], for connections that begin with something else than a request.
    ///
    /// # Errors
    /// [`Error::TooManyListeners`], [`Error::Config`] if a proxy is to tell where connections come from and none is trusted, or
    /// if TLS is asked for and there is no certificate, or what the system says.
    pub fn listen_with(&mut self, opening: Opening, listener: Listener) -> Result<ListenAddress, Error> {
        self.listen_as(ListenerRole::Public, opening, listener)
    }

    /// As [`Net::listen_with`], for a listener that may be for operators.
    ///
    /// # Errors
    /// As [`Net::listen_with`].
    pub fn listen_as(
        &mut self,
        role: ListenerRole,
        opening: Opening,
        listener: Listener,
    ) -> Result<ListenAddress, Error> {
        if opening.preamble == Preamble::ProxyHeader && self.caps.proxies.is_empty() {
            let reason = "PROXY headers are to be read, and no proxy is trusted; --trusted-proxy CIDR is needed";
            return Err(Error::Config(reason.to_owned()));
        }
        if opening.security == Security::Tls {
            self.tls.check().map_err(|reason| Error::Config(reason.to_owned()))?;
        }
        if self.listeners.polled.len() >= LISTENERS_MAX {
            return Err(Error::TooManyListeners(LISTENERS_MAX));
        }
        let token = self.polling.listener_token(self.listeners.polled.len());
        let listener = PolledListener::new(listener, (role, opening), &self.polling.registry, token)?;
        let address = listener.address().clone();
        self.listeners.polled.push(listener);
        Ok(address)
    }

    /// Accepts nothing more, and ends what is not a WebSocket in the next turns: requests that are not complete are cut, handshakes
    /// that wait for a decision are answered 503, and requests that wait for an answer are the last on their connection.
    pub fn stop_listening(&mut self) {
        self.listeners.polled.clear();
        if self.drain == Drain::Running {
            self.drain = Drain::Draining { next_slot: 0 };
        }
    }

    /// Whether an event with this token is ours.
    pub fn owns(&self, token: Token) -> bool {
        self.polling.owns(token)
    }

    /// Notes an event. Nothing is read or written yet.
    pub fn handle_event(&mut self, event: &Event) {
        let slot = match self.polling.polled(event.token()) {
            Polled::Connection(slot) => slot,
            Polled::Listener(index) => {
                if let Some(listener) = self.listeners.polled.get_mut(index) {
                    listener.is_ready = true;
                }
                return;
            }
        };
        // An event may come late, for a connection that is freed already.
        let Some(connection) = self.connections.get_mut(slot.index()) else { return };
        let is_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_end {
            connection.set(Flag::Readable);
            if is_end {
                connection.set(Flag::ReadClosed);
            }
            // It is not read, so nothing else would tell that the peer takes no answer any more.
            if (connection.is_waiting() || connection.has_ignored_enough())
                && (event.is_write_closed() || event.is_error())
            {
                connection.set(Flag::Broken);
            }
            self.queue_read(slot);
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.note_writable(slot);
        }
    }

    /// Begins a turn: everything until the next call happens at `now`.
    pub fn begin_turn(&mut self, now: Now) {
        self.timers.now = now.uptime;
        self.timers.tick = Tick::of(now);
        self.caps.addresses.begin_turn(now.uptime);
    }

    /// Whether the next poll must not wait.
    pub fn has_work(&self) -> bool {
        !self.queues.is_empty()
            || self.can_accept()
            || self.account.has_surplus()
            || matches!(self.drain, Drain::Draining { .. })
    }

    /// How long until [`Net::handle_deadlines`] has something to do.
    pub fn timeout(&self, now: Now) -> Option<Duration> {
        self.timers.wheel.timeout(now)
    }

    /// Does what is due, and goes on with a drain, up to the turn's budget. `clock` tells the time while that takes it, after
    /// every few units. Says how many units of work it was.
    pub fn handle_deadlines(&mut self, clock: &mut dyn FnMut() -> Now, handler: &mut impl Handler<Route = R>) -> u32 {
        let mut budget = WorkBudget::new(self.limits.phase(), clock);
        self.advance_drain(handler);
        for _ in 0..LOOKS_PER_TURN {
            if !budget.has_left() {
                break;
            }
            let Some((tick, slot)) = self.timers.wheel.pop(self.timers.tick) else { break };
            match slot {
                ACCEPT_AGAIN => self.listeners.are_paused = false,
                RETRY_LISTENERS => self.listeners.retry_broken(),
                slot => {
                    let is_current = |connection: &Connection<R>| connection.timer_at == tick;
                    if self.connections.get(slot.index()).is_some_and(is_current) {
                        self.check_timers(slot, handler);
                    }
                }
            }
            budget.spend(1 + handler.take_work());
        }
        budget.spent()
    }

    /// Counts, as of now.
    pub fn stats(&self) -> NetStats {
        NetStats {
            sockets: self.connections.len(),
            admissions_pending: self.parked.len(),
            buffer_bytes: self.account.bytes(),
            ..self.stats
        }
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::Running
    }

    /// Whether another WebSocket is allowed. A parked handshake has its place already, so that it can be admitted.
    fn capacity(&self) -> Capacity {
        let taken = self.stats.open + self.parked.len();
        if taken >= self.limits.connections_max as usize { Capacity::Full } else { Capacity::Available }
    }

    fn queue_read(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Queued) {
            connection.set(Flag::Queued);
            self.queues.ready.push(slot);
        }
    }

    /// The work of a turn begins for connections that wait in a queue, by their addresses; those without an address are in one line.
    /// Says how many wait.
    fn begin_work(&mut self, queue: impl FnOnce(&mut Queues) -> &mut Waiting) -> usize {
        let Self { queues, caps, .. } = self;
        queue(queues).begin(|slot| caps.owner(slot).unwrap_or(Owner::OTHERS))
    }

    fn queue_flush(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.index()];
        if !connection.is(Flag::Dirty) {
            connection.set(Flag::Dirty);
            self.queues.dirty.push(slot);
        }
    }

    /// Has a connection looked at in tick `at`.
    fn schedule(&mut self, slot: Slot, at: Tick) {
        let at = self.timers.wheel.insert(at, slot);
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
