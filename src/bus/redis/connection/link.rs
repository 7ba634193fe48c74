//! One connection to Redis on a thread of the bus: it connects, logs in, reads and writes,
//! detects that the connection is dead, and reconnects.
//!
//! The loop contract in one sentence: *wait no longer than [`Link::timeout`], call
//! [`Link::drive`], append commands to [`Link::out`], call [`Link::flush`].* Events of the link's
//! token go to [`Link::readiness`] first, because sockets are edge-triggered. Each flush writes
//! until the socket blocks, so write readiness need not be remembered.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use mio::{Registry, Token, Waker};
use redis::Cmd;

use super::endpoint::{Endpoint, HostPort, Lookup, ResolvedAddress};
use super::error::{Backoff, FailureKind, FailureLog, LinkError};
use super::hello::{Login, RedisHello};
use super::phase::LinkPhase;
use super::resp::Value;
use super::run_id::RunId;
use super::stream::{Readiness, Stream};
use crate::bus::redis::connection::resp;

/// How long looking up the address may take.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// How long connecting may take, and then logging in.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Redis is sent PING after this much silence, and the link is given up when PING is not answered
/// in time.
const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Bytes that may wait to be written. Beyond it, [`Link::can_send`] returns false.
const OUT_BYTES_MAX: usize = 1024 * 1024;

const READ_BYTES: usize = 64 * 1024;
const READS_PER_DRIVE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkChange {
    Up,
    Down,
}

/// What a link needs from its thread.
pub(crate) struct LinkContext {
    pub(crate) registry: Registry,
    pub(crate) token: Token,
    pub(crate) waker: Arc<Waker>,
    pub(crate) random: Rng,
}

/// See the [module](self).
pub(crate) struct Link {
    endpoint: Arc<dyn Endpoint>,
    login: Arc<Login>,
    /// What the link is used for, in the log.
    purpose: &'static str,
    context: LinkContext,
    phase: LinkPhase,
    /// A lookup outlives an attempt that has timed out, so that there is never more than one.
    lookup: Option<Lookup<ResolvedAddress>>,
    /// The node that the link leads to. A Unix socket has none.
    node: Option<HostPort>,
    /// Whole commands. [`Link::flush`] removes the bytes that it has written.
    pub(crate) out: Vec<u8>,
    written: usize,
    /// The beginning of an incomplete reply.
    input: Vec<u8>,
    /// The target of reads. It is zeroed once; only the bytes that a read has brought are copied
    /// out of it.
    buffer: Box<[u8]>,
    pub(crate) readiness: Readiness,
    received_at: Instant,
    pinged_at: Option<Instant>,
    lost: Option<LinkError>,
    attempts: usize,
    backoff: Backoff,
    failures: FailureLog,
}

impl Link {
    pub(crate) fn new(
        endpoint: Arc<dyn Endpoint>,
        login: Arc<Login>,
        purpose: &'static str,
        context: LinkContext,
    ) -> Self {
        let now = Instant::now();
        Self {
            endpoint,
            login,
            purpose,
            phase: LinkPhase::Waiting { until: now },
            lookup: None,
            node: None,
            out: Vec::new(),
            written: 0,
            input: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            readiness: Readiness::Empty,
            received_at: now,
            pinged_at: None,
            lost: None,
            attempts: 0,
            backoff: Backoff::new(context.random.clone()),
            failures: FailureLog::default(),
            context,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, LinkPhase::Up { .. })
    }

    /// The run of the Redis process that the link is connected to, and since when it is up.
    pub(crate) fn run(&self) -> Option<(RunId, Instant)> {
        match self.phase {
            LinkPhase::Up { run_id, since, .. } => Some((run_id, since)),
            _ => None,
        }
    }

    pub(crate) fn can_send(&self) -> bool {
        self.is_up() && self.out.len() < OUT_BYTES_MAX
    }

    pub(crate) fn timeout(&self, now: Instant) -> Duration {
        let is_reading = matches!(self.phase, LinkPhase::Hello { .. } | LinkPhase::Up { .. });
        if is_reading && self.readiness != Readiness::Empty || self.lost.is_some() {
            return Duration::ZERO;
        }
        let due = self.phase.deadline().unwrap_or_else(|| match self.pinged_at {
            Some(at) => at + DEAD_AFTER,
            None => self.received_at + PING_AFTER,
        });
        due.saturating_duration_since(now)
    }

    /// Advances as far as possible. Each reply goes to `each`, together with the buffer in which
    /// it lies.
    pub(crate) fn drive(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), LinkError>,
    ) -> Option<LinkChange> {
        let lost = self.lost.take();
        match lost.map_or_else(|| self.advance(now, each), Err) {
            Ok(change) => change,
            Err(error) => self.fail(now, error),
        }
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) {
        let (LinkPhase::Hello { stream, .. } | LinkPhase::Up { stream, .. }) = &mut self.phase else { return };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => {
                    self.lost = Some(LinkError::lost("the connection was closed"));
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
        // TLS has a buffer of its own.
        if let Err(error) = stream.flush()
            && error.kind() != ErrorKind::WouldBlock
        {
            self.lost = Some(error.into());
        }
    }

    fn advance(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), LinkError>,
    ) -> Result<Option<LinkChange>, LinkError> {
        self.phase = match std::mem::replace(&mut self.phase, LinkPhase::Waiting { until: now }) {
            LinkPhase::Waiting { until } if now < until => LinkPhase::Waiting { until },
            LinkPhase::Waiting { .. } => self.resolve(now)?,
            phase => phase,
        };
        if let LinkPhase::Resolving { until } = self.phase {
            self.phase = match self.lookup.as_ref().and_then(Lookup::poll) {
                Some(answer) => {
                    self.lookup = None;
                    self.connect(now, &answer?)?
                }
                None if now >= until => return Err(LinkError::lost(format!("not found within {RESOLVE_MAX:?}"))),
                None => return Ok(None),
            };
        }
        if let LinkPhase::Connecting { stream, until } = &self.phase {
            if !stream.is_connected()? {
                if now >= *until {
                    return Err(LinkError::lost(format!("no connection within {CONNECT_MAX:?}")));
                }
                return Ok(None);
            }
            self.send_hello(now);
        }
        self.read(now, each)?;
        match &self.phase {
            LinkPhase::Hello { hello, .. } if hello.is_over() => {
                self.finish_hello(now);
                return Ok(Some(LinkChange::Up));
            }
            LinkPhase::Hello { until, .. } if now >= *until => {
                return Err(LinkError::lost(format!("no answer to the login within {CONNECT_MAX:?}")));
            }
            LinkPhase::Up { .. } => self.check_liveness(now)?,
            _ => {}
        }
        Ok(None)
    }

    /// Connects, or starts a lookup of the address.
    fn resolve(&mut self, now: Instant) -> Result<LinkPhase, LinkError> {
        self.attempts += 1;
        if let Some(address) = self.endpoint.known_address() {
            return self.connect(now, &address);
        }
        if self.lookup.is_none() {
            let endpoint = Arc::clone(&self.endpoint);
            self.lookup = Some(Lookup::start(&self.context.waker, move || endpoint.resolve())?);
        }
        Ok(LinkPhase::Resolving { until: now + RESOLVE_MAX })
    }

    fn connect(&mut self, now: Instant, address: &ResolvedAddress) -> Result<LinkPhase, LinkError> {
        self.node = match address {
            ResolvedAddress::Tcp { node, .. } => Some(node.clone()),
            ResolvedAddress::Unix(_) => None,
        };
        let mut stream = Stream::connect(address, self.login.tls.as_ref(), self.attempts)?;
        stream.register(&self.context.registry, self.context.token)?;
        Ok(LinkPhase::Connecting { stream, until: now + CONNECT_MAX })
    }

    fn send_hello(&mut self, now: Instant) {
        let LinkPhase::Connecting { stream, .. } =
            std::mem::replace(&mut self.phase, LinkPhase::Waiting { until: now })
        else {
            return;
        };
        debug_assert!(self.out.is_empty(), "something was said before the login");
        let hello = RedisHello::write(&self.login, self.endpoint.requires_master(), &mut self.out);
        self.received_at = now;
        self.phase = LinkPhase::Hello { stream, until: now + CONNECT_MAX, hello };
    }

    fn finish_hello(&mut self, now: Instant) {
        let moves = self.node.as_ref().map_or(0, |node| self.endpoint.link_up(node));
        if let LinkPhase::Hello { stream, hello, .. } =
            std::mem::replace(&mut self.phase, LinkPhase::Waiting { until: now })
        {
            self.phase = LinkPhase::Up { stream, since: now, moves, run_id: hello.run_id() };
        }
        self.failures = FailureLog::default();
        match &self.node {
            Some(node) if self.endpoint.requires_master() => {
                log::info!("redis at {}: the link for {} is up, at {node}", self.endpoint, self.purpose);
            }
            _ => log::info!("redis at {}: the link for {} is up", self.endpoint, self.purpose),
        }
    }

    fn read(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        for _ in 0..READS_PER_DRIVE {
            let (LinkPhase::Hello { stream, .. } | LinkPhase::Up { stream, .. }) = &mut self.phase else {
                return Ok(());
            };
            if self.readiness == Readiness::Empty {
                break;
            }
            match stream.read(&mut self.buffer) {
                Ok(0) => return Err(LinkError::lost("redis has closed the connection")),
                Ok(bytes) => {
                    self.readiness.read(stream, bytes, self.buffer.len());
                    // Message bodies keep the whole buffer alive, so it is made no larger than
                    // its content.
                    self.input.reserve_exact(bytes);
                    self.input.extend_from_slice(&self.buffer[..bytes]);
                    self.received_at = now;
                    self.pinged_at = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readiness = Readiness::Empty;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            self.dispatch_replies(each)?;
        }
        Ok(())
    }

    /// Hands out the complete replies. The rest becomes the beginning of the next input.
    fn dispatch_replies(
        &mut self,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let chunk = Bytes::from(std::mem::take(&mut self.input));
        let mut at = 0;
        while let Some((value, used)) = resp::parse(&chunk[at..]).map_err(|error| LinkError::lost(error.to_string()))? {
            at += used;
            match &mut self.phase {
                LinkPhase::Hello { hello, .. } => hello.take(&value)?,
                _ if is_pong(&value) => {}
                _ => each(&chunk, value)?,
            }
        }
        self.input.extend_from_slice(&chunk[at..]);
        Ok(())
    }

    /// Neither keepalive nor TCP_USER_TIMEOUT notices a process that is stopped. Only an answer
    /// proves that it is alive.
    fn check_liveness(&mut self, now: Instant) -> Result<(), LinkError> {
        if matches!(self.phase, LinkPhase::Up { moves, .. } if moves != self.endpoint.move_count()) {
            self.endpoint.follow();
            return Err(LinkError::lost("another link has found another master"));
        }
        match self.pinged_at {
            Some(at) if now >= at + DEAD_AFTER => {
                Err(LinkError::lost(format!("no answer to PING within {DEAD_AFTER:?}")))
            }
            None if now >= self.received_at + PING_AFTER => {
                self.pinged_at = Some(now);
                let mut ping = Cmd::new();
                ping.arg("PING").write_packed_command(&mut self.out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fail(&mut self, now: Instant, error: LinkError) -> Option<LinkChange> {
        let phase = std::mem::replace(&mut self.phase, LinkPhase::Waiting { until: now });
        let was_up = match &phase {
            LinkPhase::Up { since, .. } => Some(*since),
            _ => None,
        };
        if let LinkPhase::Connecting { mut stream, .. }
        | LinkPhase::Hello { mut stream, .. }
        | LinkPhase::Up { mut stream, .. } = phase
        {
            stream.deregister(&self.context.registry);
        }
        // Partial commands and replies are dropped. The owner of the link sends unanswered
        // requests again.
        self.out.clear();
        self.input = Vec::new();
        (self.written, self.pinged_at, self.readiness) = (0, None, Readiness::Empty);
        let stood = was_up.map(|since| now.saturating_duration_since(since));
        self.phase = LinkPhase::Waiting { until: now + self.backoff.next(stood) };
        let kind = if was_up.is_some() { FailureKind::ClusterInfo } else { FailureKind::Attempt };
        self.failures.log(now, (&*self.endpoint, self.purpose), error, kind);
        was_up.map(|_| LinkChange::Down)
    }
}

fn is_pong(value: &Value<'_>) -> bool {
    match value {
        Value::Status(text) => *text == b"PONG",
        // On a link that subscribes, PING is answered by an array.
        Value::Array(items) => items.clone().next() == Some(Value::Bulk(b"pong")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::net::{Shutdown, SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, mpsc};

    use mio::event::Event;
    use mio::{Events, Poll};

    use super::*;

    /// An endpoint whose address the test supplies later.
    struct Slow {
        asked: AtomicUsize,
        told: Mutex<mpsc::Receiver<ResolvedAddress>>,
    }

    impl fmt::Display for Slow {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("somewhere")
        }
    }

    impl Endpoint for Slow {
        fn known_address(&self) -> Option<ResolvedAddress> {
            None
        }

        fn resolve(&self) -> io::Result<ResolvedAddress> {
            self.asked.fetch_add(1, SeqCst);
            self.told.lock().unwrap().recv().map_err(io::Error::other)
        }
    }

    #[test]
    fn a_place_that_is_not_found_holds_up_nobody_and_is_looked_for_once() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (tell, told) = mpsc::channel();
        let endpoint = Arc::new(Slow { asked: AtomicUsize::new(0), told: Mutex::new(told) });
        let context = LinkContext {
            registry: poll.registry().try_clone().unwrap(),
            token: Token(1),
            waker,
            random: Rng::with_seed(7),
        };
        let mut link = Link::new(Arc::clone(&endpoint) as Arc<dyn Endpoint>, Arc::default(), "testing", context);
        let mut nothing = |_: &Bytes, _: Value<'_>| Ok(());
        let mut now = Instant::now();
        for _ in 0..10 {
            assert_eq!(link.drive(now, &mut nothing), None);
            assert!(matches!(link.phase, LinkPhase::Resolving { .. }));
            now += link.timeout(now);
            // The lookup has timed out; the link waits and tries again.
            assert_eq!(link.drive(now, &mut nothing), None);
            assert!(matches!(link.phase, LinkPhase::Waiting { .. }));
            now += link.timeout(now);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![listener.local_addr().unwrap()];
        link.drive(now, &mut nothing);
        let node = HostPort { host: "somewhere".to_owned(), port: addresses[0].port() };
        tell.send(ResolvedAddress::Tcp { node, addresses }).unwrap();
        // The waker announces the result.
        poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(60))).unwrap();
        link.drive(now, &mut nothing);
        assert!(!matches!(link.phase, LinkPhase::Resolving { .. } | LinkPhase::Waiting { .. }));
        assert_eq!(endpoint.asked.load(SeqCst), 1);
        listener.accept().unwrap();
    }

    /// An endpoint with a known address.
    struct Here(SocketAddr);

    impl fmt::Display for Here {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Endpoint for Here {
        fn known_address(&self) -> Option<ResolvedAddress> {
            let node = HostPort { host: self.0.ip().to_string(), port: self.0.port() };
            Some(ResolvedAddress::Tcp { node, addresses: vec![self.0] })
        }

        fn resolve(&self) -> io::Result<ResolvedAddress> {
            unreachable!("it is known at once")
        }
    }

    /// A link driven by the test, and the numbers that it has received.
    struct Driven {
        poll: Poll,
        link: Link,
        heard: Vec<i64>,
    }

    impl Driven {
        fn new(endpoint: SocketAddr) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let context = LinkContext {
                registry: poll.registry().try_clone().unwrap(),
                token: Token(1),
                waker,
                random: Rng::with_seed(7),
            };
            let link = Link::new(Arc::new(Here(endpoint)), Arc::default(), "testing", context);
            Self { poll, link, heard: Vec::new() }
        }

        fn drive(&mut self) -> Option<LinkChange> {
            let Self { link, heard, .. } = self;
            let change = link.drive(Instant::now(), &mut |_, value| {
                let Value::Integer(number) = value else { panic!("{value:?}") };
                heard.push(number);
                Ok(())
            });
            link.flush();
            change
        }

        /// Collects events up to one that is wanted, without driving the link.
        fn wait(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
            let mut found = Vec::new();
            while !found.iter().any(&wanted) {
                let mut events = Events::with_capacity(8);
                self.poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
                assert!(!events.is_empty(), "in time");
                found.extend(events.iter().cloned());
            }
            found
        }

        fn note(&mut self, events: &[Event]) {
            events.iter().for_each(|event| self.link.readiness.note(event));
        }
    }

    #[test]
    fn the_socket_is_read_when_an_event_says_so_and_then_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut driven = Driven::new(listener.local_addr().unwrap());
        driven.drive();
        let (mut redis, _) = listener.accept().unwrap();
        driven.wait(Event::is_writable);
        driven.drive();
        redis.write_all(b"+OK\r\n$8\r\n# Server\r\n+PONG\r\n").unwrap();
        let events = driven.wait(Event::is_readable);
        driven.note(&events);
        assert_eq!(driven.drive(), Some(LinkChange::Up));

        redis.write_all(b":1\r\n").unwrap();
        let events = driven.wait(Event::is_readable);
        assert_eq!((driven.drive(), &*driven.heard), (None, [].as_slice()), "nobody has said that there is something");
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (None, [1].as_slice()));
        assert_eq!(driven.link.readiness, Readiness::Empty, "a short read was the last");
        assert!(driven.link.timeout(Instant::now()) > Duration::ZERO);

        // The end of the stream comes with the last bytes, without an event of its own.
        redis.write_all(b":2\r\n").unwrap();
        redis.shutdown(Shutdown::Write).unwrap();
        let events = driven.wait(Event::is_read_closed);
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (Some(LinkChange::Down), [1, 2].as_slice()));
    }
}
