//! Taking connections in, up to the cap, and pausing when the system is out of something.

use std::io;

use crate::budget::{WorkBudget, WorkLimits};
#[cfg(feature = "in-memory")]
use crate::error::Error;
use crate::id::Slot;
use crate::time::Now;

use super::addresses::AddressIndex;
use super::connection::{Connection, Flag};
use super::handler::Handler;
use super::listener::{AcceptTrouble, ListenerRole, Opening, Preamble, Security, accept_trouble};
#[cfg(feature = "in-memory")]
use super::memory;
use super::phase::Phase;
use super::transport::Transport;
use super::{ACCEPT_AGAIN, Net, RETRY_LISTENERS};

impl<R> Net<R> {
    /// Whether a connection may be waiting that there is room for.
    pub(super) fn can_accept(&self) -> bool {
        self.listeners.may_have_waiting() && (self.has_place() || self.can_reclaim())
    }

    fn has_place(&self) -> bool {
        let max = self.limits.connections_max as usize + self.limits.connections_reserved as usize;
        self.connections.len() < max
    }

    /// Accepts up to the turn's budget. What is left waits in the listeners, which stay ready. `clock` tells the time while that
    /// takes it. Says how many that were.
    pub fn accept(&mut self, clock: &mut dyn FnMut() -> Now, handler: &mut impl Handler<Route = R>) -> u32 {
        let limits = WorkLimits { units: self.limits.accepts_per_turn, ..self.limits.phase() };
        let mut budget = WorkBudget::new(limits, clock).with_costly_units();
        // Round robin, so that a flood on one address does not shut out another.
        while budget.has_left() && self.has_place() && self.listeners.may_have_waiting() {
            // Operators come first, or a flood could take every place that becomes free.
            for role in [ListenerRole::Admin, ListenerRole::Public] {
                for index in 0..self.listeners.polled.len() {
                    let listener = &self.listeners.polled[index];
                    if listener.role == role && listener.is_ready && self.has_place() && budget.has_left() {
                        self.accept_one(index);
                        budget.spend(1);
                    }
                }
            }
        }
        let accepted = budget.spent();
        if !self.has_place() && self.listeners.may_have_waiting() {
            self.reclaim(handler);
        }
        accepted
    }

    fn accept_one(&mut self, index: usize) {
        let listener = &mut self.listeners.polled[index];
        match listener.accept() {
            Ok((transport, peer)) => {
                listener.failures = 0;
                let (opening, role) = (listener.opening, listener.role);
                if opening.preamble == Preamble::ProxyHeader && !self.caps.proxies.contains(peer.map(|peer| peer.ip()))
                {
                    return log::debug!("{peer:?} is no trusted proxy, and is closed");
                }
                // What is refused is closed before anything is spent on it.
                let charged = if role == ListenerRole::Admin { Ok(None) } else { self.charge_peer(peer) };
                if let Ok(address) = charged {
                    self.insert(transport, (role, opening), address);
                }
            }
            Err(error) => match accept_trouble(&error) {
                AcceptTrouble::NoneWaits => (listener.is_ready, listener.failures) = (false, 0),
                AcceptTrouble::Broken => self.rest_listener(index, &error),
                AcceptTrouble::One => log::debug!("a connection was lost before it was accepted: {error}"),
                AcceptTrouble::Exhausted => {
                    let pause = self.timing.accept_pause;
                    log::warn!("cannot accept connections: {error}; trying again in {pause:?}");
                    self.stats.accept_pauses += 1;
                    self.timers.wheel.insert(self.timers.tick.after(pause), ACCEPT_AGAIN);
                    self.listeners.are_paused = true;
                }
            },
        }
    }

    /// Leaves a listener alone for a while that does not work.
    fn rest_listener(&mut self, index: usize, error: &io::Error) {
        let pause = self.timing.accept_pause;
        let listener = &mut self.listeners.polled[index];
        listener.is_ready = false;
        listener.failures = listener.failures.saturating_add(1);
        // It may go on for ever: the pauses between two lines of the log double.
        if listener.failures.is_power_of_two() {
            log::warn!("cannot accept connections at {}: {error}; trying again every {pause:?}", listener.address());
        }
        self.stats.accept_pauses += 1;
        if !self.listeners.are_to_be_retried {
            self.listeners.are_to_be_retried = true;
            self.timers.wheel.insert(self.timers.tick.after(pause), RETRY_LISTENERS);
        }
    }

    pub(super) fn insert(
        &mut self,
        mut transport: Transport,
        (role, opening): (ListenerRole, Opening),
        address: Option<AddressIndex>,
    ) {
        self.newest = self.newest.next();
        self.stats.accepted += 1;
        let slot = Slot(self.connections.vacant_key() as u32);
        if let Some(address) = address {
            self.caps.charge(slot, address);
        }
        if let Err(error) = transport.register(&self.polling.registry, self.polling.token(slot)) {
            log::warn!("cannot poll a new connection: {error}");
            return self.caps.release(slot);
        }
        let timer_at = self.timers.wheel.insert(self.timers.tick.after(self.timing.handshake_timeout), slot);
        let mut connection = Connection::new(transport, self.newest, self.timers.tick, timer_at);
        if opening.security == Security::Tls {
            connection.set(Flag::Encrypted);
        }
        if role == ListenerRole::Admin {
            connection.set(Flag::Admin);
        }
        connection.phase = match opening.preamble {
            Preamble::None => connection.before_request(),
            Preamble::ProxyHeader => Phase::ProxyHeader(None),
        };
        let id = connection.id(slot);
        self.connections.insert(connection);
        if self.connections.len() > self.limits.connections_max as usize {
            self.insert_spare(id);
        }
    }

    /// Connects a peer that says `input`, a request and frames, and nothing more. One at a time: a turn has to read it before
    /// the next one comes.
    ///
    /// # Errors
    /// [`Error::Command`] if the last peer's input has not been read.
    #[cfg(feature = "in-memory")]
    pub fn connect_in_memory(&mut self, input: &[u8]) -> Result<(), Error> {
        memory::set_input(input)?;
        let slot = self.connections.vacant_key();
        self.insert(Transport::Memory, Default::default(), None);
        self.connections[slot].set(Flag::Readable);
        self.queue_read(Slot(slot as u32));
        Ok(())
    }
}
