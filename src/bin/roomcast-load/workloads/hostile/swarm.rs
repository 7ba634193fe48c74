//! The hostile connections: opens them, has them move when it is their time, and reads them, by turns.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::Token;

use super::attack::{Attack, Move, Reads, Seat};
use super::intruder::Intruder;
use super::pair;
use crate::client::{self, Phase};
use crate::error::LoadError;
use crate::hostile_flags::UserNames;
use crate::poller::Poller;
use crate::wire::Wire;

/// How long a turn may read connections and have others move.
const PORTION: Duration = Duration::from_micros(300);

/// How long the swarm sleeps at most when no connection has anything to do, so that each moves on time.
const REST: Duration = Duration::from_micros(250);

/// Seats that are looked at in a portion.
const SEATS_AT_A_TIME: usize = 256;

/// Connections that are being opened at the same time.
const OPENING_MAX: u32 = 128;

const READ_BYTES: usize = 32 * 1024;

/// Of connections that do not read all: the server is to hold what they do not take.
const SMALL_RECEIVE_BUFFER_BYTES: usize = 4096;

/// Where the connections go, and who they say that they are.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) wire: Wire,
    /// How many addresses they come from.
    pub(super) addresses: u32,
    pub(super) names: UserNames,
}

/// A place for a connection.
struct Place {
    /// When another connection may be opened, if there is none.
    free_from: Instant,
    intruder: Option<Intruder>,
}

pub(super) struct Swarm {
    origin: Origin,
    attack: Box<dyn Attack>,
    poller: Poller,
    places: Vec<Place>,
    /// The place that is looked at next.
    cursor: usize,
    /// Places whose sockets are ready.
    ready: VecDeque<usize>,
    buffer: Vec<u8>,
    is_active: bool,
    opening: u32,
    tally: Tally,
}

/// What the connections have come to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// WebSockets that are open; connected sockets if the attack wants none.
    pub(super) open: u32,
    pub(super) open_max: u32,
    pub(super) sent_bytes: u64,
    /// Connections that failed before they were open.
    pub(super) turned_away: u32,
    /// Open connections that the server has ended.
    pub(super) closed_by_server: u32,
}

impl Swarm {
    pub(super) fn new(origin: Origin, attack: Box<dyn Attack>, count: u32) -> Result<Self, LoadError> {
        let free_from = Instant::now();
        Ok(Self {
            origin,
            attack,
            poller: Poller::new()?,
            places: (0..count).map(|_| Place { free_from, intruder: None }).collect(),
            cursor: 0,
            ready: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            is_active: false,
            opening: 0,
            tally: Tally::default(),
        })
    }

    pub(super) fn begin(&mut self) {
        self.is_active = true;
    }

    /// All connections end at once.
    pub(super) fn leave(&mut self) {
        self.is_active = false;
        self.ready.clear();
        self.places.drain(..).filter_map(|place| place.intruder).for_each(Intruder::reset);
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Attacks until the phase is over, if the attack has begun.
    pub(super) fn run(&mut self, is_over: &AtomicBool) -> Result<(), LoadError> {
        let mut was_busy = true;
        while self.is_active && !is_over.load(Ordering::Relaxed) {
            let rest = if was_busy { Duration::ZERO } else { REST };
            self.take_events(Instant::now() + rest)?;
            was_busy = self.step()?;
        }
        Ok(())
    }

    /// Does a portion of work; returns whether there was any.
    fn step(&mut self) -> Result<bool, LoadError> {
        let end = Instant::now() + PORTION;
        let mut was_busy = false;
        while let Some(nth) = self.ready.pop_front() {
            was_busy = true;
            if self.serve(nth).is_err() {
                self.close(nth);
            }
            // The rest of the portion is for those that are to move.
            if Instant::now() >= end - PORTION / 2 {
                break;
            }
        }
        for _ in 0..SEATS_AT_A_TIME.min(self.places.len()) {
            let nth = self.cursor;
            self.cursor = (nth + 1) % self.places.len();
            let now = Instant::now();
            was_busy |= self.look_at(nth, now)?;
            if now >= end {
                break;
            }
        }
        Ok(was_busy)
    }

    fn take_events(&mut self, until: Instant) -> Result<(), LoadError> {
        let events = self.poller.wait(Some(until))?;
        for event in &events {
            if self.poller.is_timer(event.token()) {
                continue;
            }
            let nth = event.token().0;
            let Some(intruder) = &mut self.places[nth].intruder else { continue };
            if intruder.phase == Phase::Connecting && !event.is_writable() {
                continue;
            }
            if event.is_read_closed() || event.is_error() {
                intruder.note_end();
            }
            if !std::mem::replace(&mut intruder.is_queued, true) {
                self.ready.push_back(nth);
            }
        }
        self.poller.keep(events);
        Ok(())
    }

    /// Goes on with a connection whose socket is ready.
    fn serve(&mut self, nth: usize) -> io::Result<()> {
        let Some(intruder) = &mut self.places[nth].intruder else { return Ok(()) };
        if !std::mem::replace(&mut intruder.is_queued, false) {
            // Another connection has taken the place since.
            return Ok(());
        }
        if intruder.phase == Phase::Connecting {
            let (hello, phase) = match self.attack.raw_hello() {
                Some(hello) => (hello, Phase::Open),
                None => (self.origin.hello(nth as u32), Phase::Upgrading(Vec::new())),
            };
            self.tally.sent_bytes += intruder.connected(hello, phase)?;
        }
        self.tally.sent_bytes += intruder.flush()?;
        intruder.read(self.attack.reads(), &mut self.buffer)?;
        if intruder.has_more() {
            intruder.is_queued = true;
            self.ready.push_back(nth);
        }
        if !intruder.is_counted && intruder.phase == Phase::Open {
            intruder.is_counted = true;
            self.opening -= 1;
            self.tally.open += 1;
            self.tally.open_max = self.tally.open_max.max(self.tally.open);
        }
        Ok(())
    }

    /// Opens a connection or has it move, if it is time; returns whether it was.
    fn look_at(&mut self, nth: usize, now: Instant) -> Result<bool, LoadError> {
        let place = &mut self.places[nth];
        match &mut place.intruder {
            None if now < place.free_from || self.opening >= OPENING_MAX => return Ok(false),
            None => self.open(nth, now)?,
            Some(intruder) if !intruder.may_move(now) => return Ok(false),
            Some(_) => {
                if self.make_move(nth, now).is_err() {
                    self.close(nth);
                }
            }
        }
        Ok(true)
    }

    fn open(&mut self, nth: usize, now: Instant) -> Result<(), LoadError> {
        let receive_buffer_bytes = (self.attack.reads() != Reads::All).then_some(SMALL_RECEIVE_BUFFER_BYTES);
        let Origin { address, addresses, .. } = self.origin;
        let source = Ipv4Addr::new(127, 0, 0, (2 + nth as u32 % addresses) as u8);
        let failed = |source| LoadError::Connect { address, source };
        let mut socket = client::connect(address, source, receive_buffer_bytes).map_err(failed)?;
        self.poller.register(&mut socket, Token(nth))?;
        self.opening += 1;
        self.places[nth].intruder = Some(Intruder::new(socket, now));
        Ok(())
    }

    fn make_move(&mut self, nth: usize, now: Instant) -> io::Result<()> {
        let Some(intruder) = &mut self.places[nth].intruder else { return Ok(()) };
        if let Reads::Trickle(bytes) = self.attack.reads() {
            intruder.trickle(bytes, &mut self.buffer)?;
        }
        let seat = Seat { nth: nth as u32, moves: intruder.moves };
        intruder.moves += 1;
        intruder.next_move = now + self.attack.interval();
        match self.attack.next(seat) {
            Move::Send(bytes) => self.tally.sent_bytes += intruder.send(bytes)?,
            Move::Wait => {}
            Move::HangUp => {
                self.tally.open -= 1;
                let place = &mut self.places[nth];
                place.free_from = now + self.attack.absence();
                place.intruder.take().into_iter().for_each(Intruder::reset);
            }
        }
        Ok(())
    }

    /// The server has ended a connection, or refused it.
    fn close(&mut self, nth: usize) {
        let place = &mut self.places[nth];
        let Some(intruder) = place.intruder.take() else { return };
        if intruder.is_counted {
            self.tally.open -= 1;
            self.tally.closed_by_server += 1;
        } else {
            self.opening -= 1;
            self.tally.turned_away += 1;
        }
        place.free_from = Instant::now() + self.attack.absence().max(Duration::from_millis(100));
        intruder.reset();
    }
}

impl Origin {
    /// The request for an upgrade of a place.
    fn hello(&self, nth: u32) -> Bytes {
        let hello = match self.names {
            UserNames::Guests => self.wire.hello(),
            UserNames::Invented => self.wire.hello_as(&format!("mallory-{nth}")),
            UserNames::Borrowed => self.wire.hello_as(pair::USERS[nth as usize % pair::USERS.len()]),
        };
        hello.into()
    }
}
