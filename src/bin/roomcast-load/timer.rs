//! Waking a poll at a moment, exactly: its own timeout is rounded up to milliseconds.

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

#[cfg(target_os = "linux")]
pub(crate) struct Timer {
    descriptor: rustix::fd::OwnedFd,
    set_for: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl Timer {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let raw = descriptor.as_raw_fd();
        registry.register(&mut mio::unix::SourceFd(&raw), token, mio::Interest::READABLE)?;
        Ok(Self { descriptor, set_for: None })
    }

    /// What to give to the poll so that it returns no later than then.
    pub(crate) fn timeout(&mut self, until: Option<Instant>) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let Some(until) = until else { return Ok(None) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(Some(Duration::ZERO));
        }
        if self.set_for != Some(until) {
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
            self.set_for = Some(until);
        }
        Ok(Some(wait + Duration::from_millis(100)))
    }

    /// It rang.
    pub(crate) fn clear(&mut self) {
        // Registered edge-triggered; setting it again is what makes it ring again.
        self.set_for = None;
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(crate) fn new(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Self)
    }

    /// What to give to the poll so that it returns no later than then; the last millisecond is spent awake.
    pub(crate) fn timeout(&mut self, until: Option<Instant>) -> io::Result<Option<Duration>> {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        Ok(wait.map(|wait| wait.saturating_sub(Duration::from_millis(1))))
    }

    pub(crate) fn clear(&mut self) {}
}
