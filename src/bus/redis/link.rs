//! One connection to Redis on a thread of the bus: connecting, logging in, reading, writing, noticing that it is dead, and
//! connecting again.
//!
//! The loop contract in one sentence: *wait no longer than [`Link::timeout`], call [`Link::drive`], put what is to be said into
//! [`Link::out`], call [`Link::flush`].* Sockets are edge-triggered; since every drive reads and every flush writes until
//! the socket blocks, no event has to be remembered.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Registry, Token};
use redis::Cmd;

use super::resp::{self, Value};
use super::stream::Stream;
use super::target::Target;

/// How long connecting, and then logging in, may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Silence after which Redis is asked whether it lives, and after which it is taken for dead.
const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(2);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A link that stood for so long was not a failure.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// How often the same reason is logged again.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What may wait to be written; beyond it [`Link::can_send`] says no.
const OUT_BYTES_MAX: usize = 1024 * 1024;

const READ_BYTES: usize = 64 * 1024;
const READS_PER_DRIVE: usize = 4;

/// Why a link is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    words: String,
    /// Whether somebody has to mend the settings.
    is_refusal: bool,
}

impl Fault {
    pub(super) fn lost(words: impl Into<String>) -> Self {
        Self { words: words.into(), is_refusal: false }
    }

    /// From an error reply.
    pub(super) fn reply(text: &[u8]) -> Self {
        let words = String::from_utf8_lossy(text);
        // A server that does not know a command repeats its arguments, and those of AUTH are not for the log.
        let words = words.split(", with args").next().unwrap_or_default().to_owned();
        let is_refusal = ["NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index"]
            .iter()
            .any(|prefix| words.starts_with(prefix));
        Self { words, is_refusal }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::lost(error.to_string())
    }
}

/// What has become of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

enum Phase {
    Waiting { until: Instant },
    Connecting { stream: Stream, until: Instant },
    Greeting { stream: Stream, until: Instant, replies: usize },
    Up { stream: Stream, since: Instant },
}

/// See the [module](self).
pub(super) struct Link {
    target: Arc<Target>,
    /// What it is for, in the log.
    purpose: &'static str,
    registry: Registry,
    token: Token,
    phase: Phase,
    /// Whole commands. Those written are taken off by [`Link::flush`].
    pub(super) out: Vec<u8>,
    written: usize,
    /// The beginning of a reply that is not complete.
    input: Vec<u8>,
    /// What a read goes into first: zeroed once, and what is kept of a read is no larger than what it brought.
    buffer: Box<[u8]>,
    has_more: bool,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    lost: Option<Fault>,
    attempts: usize,
    failures: u32,
    chance: u64,
    logged: Option<(Fault, Instant)>,
}

impl Link {
    pub(super) fn new(target: Arc<Target>, purpose: &'static str, registry: Registry, token: Token, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            target,
            purpose,
            registry,
            token,
            phase: Phase::Waiting { until: now },
            out: Vec::new(),
            written: 0,
            input: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            has_more: false,
            heard_at: now,
            pinged_at: None,
            lost: None,
            attempts: 0,
            failures: 0,
            chance: seed | 1,
            logged: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    pub(super) fn can_send(&self) -> bool {
        self.is_up() && self.out.len() < OUT_BYTES_MAX
    }

    pub(super) fn timeout(&self, now: Instant) -> Duration {
        if self.has_more || self.lost.is_some() {
            return Duration::ZERO;
        }
        let due = match &self.phase {
            Phase::Waiting { until } | Phase::Connecting { until, .. } | Phase::Greeting { until, .. } => *until,
            Phase::Up { .. } => match self.pinged_at {
                Some(at) => at + DEAD_AFTER,
                None => self.heard_at + PING_AFTER,
            },
        };
        due.saturating_duration_since(now)
    }

    /// Goes on as far as possible, and hands every reply to `each`, with the bytes in which it lies.
    pub(super) fn drive(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>,
    ) -> Option<Change> {
        let lost = self.lost.take();
        match lost.map_or_else(|| self.advance(now, each), Err) {
            Ok(change) => change,
            Err(fault) => self.fail(now, fault),
        }
    }

    /// Writes what is to be written, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        let (Phase::Greeting { stream, .. } | Phase::Up { stream, .. }) = &mut self.phase else { return };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => {
                    self.lost = Some(Fault::lost("the connection was closed"));
                    return;
                }
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.lost = Some(error.into());
                    return;
                }
            }
        }
        self.out.drain(..self.written);
        self.written = 0;
        // TLS keeps bytes of its own.
        if let Err(error) = stream.flush()
            && error.kind() != ErrorKind::WouldBlock
        {
            self.lost = Some(error.into());
        }
    }

    fn advance(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>,
    ) -> Result<Option<Change>, Fault> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Waiting { until: now }) {
            Phase::Waiting { until } if now < until => Phase::Waiting { until },
            Phase::Waiting { .. } => {
                self.attempts += 1;
                let mut stream = Stream::connect(&self.target, self.attempts)?;
                stream.register(&self.registry, self.token)?;
                // Looking up the name may have taken its time.
                Phase::Connecting { stream, until: Instant::now() + CONNECT_MAX }
            }
            phase => phase,
        };
        if let Phase::Connecting { stream, until } = &self.phase {
            if !stream.is_connected()? {
                if now >= *until {
                    return Err(Fault::lost(format!("no connection within {CONNECT_MAX:?}")));
                }
                return Ok(None);
            }
            self.greet(now);
        }
        self.read(now, each)?;
        match &self.phase {
            Phase::Greeting { replies: 0, .. } => {
                if let Phase::Greeting { stream, .. } =
                    std::mem::replace(&mut self.phase, Phase::Waiting { until: now })
                {
                    self.phase = Phase::Up { stream, since: now };
                }
                self.logged = None;
                log::info!("redis at {}: the link for {} is up", self.target, self.purpose);
                return Ok(Some(Change::Up));
            }
            Phase::Greeting { until, .. } if now >= *until => {
                return Err(Fault::lost(format!("no answer to the login within {CONNECT_MAX:?}")));
            }
            Phase::Up { .. } => self.look_alive(now)?,
            _ => {}
        }
        Ok(None)
    }

    /// Logs in, in one write. PING is the last: while Redis loads its data, it alone is refused.
    fn greet(&mut self, now: Instant) {
        let Phase::Connecting { stream, .. } = std::mem::replace(&mut self.phase, Phase::Waiting { until: now }) else {
            return;
        };
        let before = self.out.len();
        let mut replies = 2;
        let mut command = Cmd::new();
        if let Some(password) = &self.target.password {
            command.arg("AUTH").arg(self.target.username.as_ref()).arg(password).write_packed_command(&mut self.out);
            replies += 1;
        }
        if self.target.database != 0 {
            command.clear();
            command.arg("SELECT").arg(self.target.database).write_packed_command(&mut self.out);
            replies += 1;
        }
        command.clear();
        command.arg("CLIENT").arg("SETNAME").arg("roomcast").write_packed_command(&mut self.out);
        command.clear();
        command.arg("PING").write_packed_command(&mut self.out);
        debug_assert!(before == 0, "something was said before the login");
        self.heard_at = now;
        self.phase = Phase::Greeting { stream, until: now + CONNECT_MAX, replies };
    }

    fn read(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.has_more = false;
        for _ in 0..READS_PER_DRIVE {
            let (Phase::Greeting { stream, .. } | Phase::Up { stream, .. }) = &mut self.phase else { return Ok(()) };
            match stream.read(&mut self.buffer) {
                Ok(0) => return Err(Fault::lost("redis has closed the connection")),
                Ok(bytes) => {
                    // Bodies of messages keep the whole chunk, so it is no larger than what it holds.
                    self.input.reserve_exact(bytes);
                    self.input.extend_from_slice(&self.buffer[..bytes]);
                    self.heard_at = now;
                    self.pinged_at = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            self.hand_out(each)?;
        }
        self.has_more = true;
        Ok(())
    }

    /// Hands out the complete replies; what is left begins the next input.
    fn hand_out(&mut self, each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let chunk = Bytes::from(std::mem::take(&mut self.input));
        let mut at = 0;
        while let Some((value, used)) = resp::parse(&chunk[at..]).map_err(|error| Fault::lost(error.to_string()))? {
            at += used;
            match &mut self.phase {
                Phase::Greeting { replies, .. } => {
                    *replies = replies.saturating_sub(1);
                    match value {
                        // Whoever may not set a name may still do the rest.
                        Value::Error(text) if !text.starts_with(b"NOPERM") => return Err(Fault::reply(text)),
                        _ => {}
                    }
                }
                _ if is_pong(&value) => {}
                _ => each(&chunk, value)?,
            }
        }
        self.input.extend_from_slice(&chunk[at..]);
        Ok(())
    }

    /// Neither keepalive nor TCP_USER_TIMEOUT notices a process that is stopped: only an answer proves life.
    fn look_alive(&mut self, now: Instant) -> Result<(), Fault> {
        match self.pinged_at {
            Some(at) if now >= at + DEAD_AFTER => Err(Fault::lost(format!("no answer to PING within {DEAD_AFTER:?}"))),
            None if now >= self.heard_at + PING_AFTER => {
                self.pinged_at = Some(now);
                let mut ping = Cmd::new();
                ping.arg("PING").write_packed_command(&mut self.out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fail(&mut self, now: Instant, fault: Fault) -> Option<Change> {
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting { until: now });
        let was_up = match &phase {
            Phase::Up { since, .. } => Some(*since),
            _ => None,
        };
        if let Phase::Connecting { mut stream, .. }
        | Phase::Greeting { mut stream, .. }
        | Phase::Up { mut stream, .. } = phase
        {
            stream.deregister(&self.registry);
        }
        // What was torn stays torn; what was not answered its owner says again.
        self.out.clear();
        self.input = Vec::new();
        (self.written, self.pinged_at, self.has_more) = (0, None, false);
        if was_up.is_some_and(|since| now >= since + STABLE_AFTER) {
            self.failures = 0;
        }
        self.phase = Phase::Waiting { until: now + self.backoff() };
        self.failures += 1;
        self.tell(now, fault, was_up.is_some());
        was_up.map(|_| Change::Down)
    }

    /// Full jitter: nodes that lost the same Redis do not come back in step.
    fn backoff(&mut self) -> Duration {
        let most = (BACKOFF_MIN * (1 << self.failures.min(10))).min(BACKOFF_MAX);
        // Xorshift (Marsaglia 2003).
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        most.mul_f64((self.chance >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn tell(&mut self, now: Instant, fault: Fault, was_up: bool) {
        let is_known = self.logged.as_ref().is_some_and(|(known, at)| *known == fault && now < *at + LOG_AGAIN_AFTER);
        if is_known {
            return;
        }
        let Self { target, purpose, .. } = self;
        let words = &fault.words;
        if fault.is_refusal {
            log::error!(
                "redis at {target} refuses the link for {purpose}: {words}; check user, password and database of --redis, \
                 and the user's ACL"
            );
        } else if was_up {
            log::warn!("redis at {target}: the link for {purpose} is lost: {words}; connecting again");
        } else {
            log::warn!("redis at {target}: no link for {purpose}: {words}; trying again");
        }
        self.logged = Some((fault, now));
    }
}

fn is_pong(value: &Value<'_>) -> bool {
    match value {
        Value::Status(text) => *text == b"PONG",
        // As an answer of a link that subscribes.
        Value::Array(items) => items.clone().next() == Some(Value::Bulk(b"pong")),
        _ => false,
    }
}
