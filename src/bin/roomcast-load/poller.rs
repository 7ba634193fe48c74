//! The poll of the load: waits for sockets and for a moment, exactly.
//!
//! The timeout of a poll is rounded up to milliseconds; an open loop would send late. A timerfd is not.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Events taken at a time, so that publishers need not wait until all sockets have been read.
const EVENTS_MAX: usize = 128;

const TIMER: Token = Token(usize::MAX - 1);

pub(crate) struct Poller {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    timer_set_for: Option<Instant>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let raw = timer.as_raw_fd();
        poll.registry().register(&mut mio::unix::SourceFd(&raw), TIMER, Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX), timer, timer_set_for: None })
    }

    pub(crate) fn register(&self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        self.poll.registry().register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(crate) fn deregister(&self, socket: &mut TcpStream) -> io::Result<()> {
        self.poll.registry().deregister(socket)
    }

    /// Waits for events, or until a moment. Give the events back with [`Poller::keep`], so that they are not allocated
    /// again.
    pub(crate) fn wait(&mut self, until: Option<Instant>) -> io::Result<Events> {
        let timeout = self.timeout(until)?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        Ok(std::mem::replace(&mut self.events, Events::with_capacity(0)))
    }

    pub(crate) fn keep(&mut self, events: Events) {
        self.events = events;
    }

    /// Whether an event is the timer's. It is registered edge-triggered: the next [`Poller::wait`] sets it again.
    pub(crate) fn is_timer(&mut self, token: Token) -> bool {
        if token == TIMER {
            self.timer_set_for = None;
        }
        token == TIMER
    }

    fn timeout(&mut self, until: Option<Instant>) -> io::Result<Option<Duration>> {
        let Some(until) = until else { return Ok(None) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(Some(Duration::ZERO));
        }
        if self.timer_set_for != Some(until) {
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.timer_set_for = Some(until);
        }
        Ok(Some(wait + Duration::from_millis(100)))
    }
}
