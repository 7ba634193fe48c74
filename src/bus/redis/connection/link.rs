//! One link to Redis on a thread of the bus: it connects, logs in, detects that the connection is
//! dead, and reconnects.
//!
//! The loop contract in one sentence: *wait no longer than [`Link::timeout`], call
//! [`Link::drive`], append commands to [`Link::out`], call [`Link::flush`].* Events of the link's
//! token go to [`Link::note`] first, because sockets are edge-triggered. Each flush writes until
//! the socket blocks, so write readiness need not be remembered.

#![expect(clippy::disallowed_methods, reason = "runs on a thread of the bus, which has its own clock")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Poll, Registry, Token, Waker};
use redis::Cmd;

use super::endpoint::{Endpoint, HostPort, ResolvedAddress};
use super::error::{Backoff, Failures, LinkError};
use super::hello::{Login, RedisHello, is_pong};
use super::reply_buffer::TakeReply;
use super::resp::Value;
use super::run_id::RunId;
use super::wire::Wire;
use crate::bus::worker::Lookup;
use crate::unicode::Escaped;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkChange {
    /// The link is up, to this run of Redis.
    Up(RunId),
    Down,
}

/// Makes the links of one thread.
pub(crate) struct LinkFactory {
    registry: Registry,
    waker: Arc<Waker>,
    backoff: Backoff,
    /// What the links are used for, in the log.
    purpose: &'static str,
    login: Arc<Login>,
}

impl LinkFactory {
    pub(crate) fn new(
        login: Arc<Login>,
        purpose: &'static str,
        (poll, waker): (&Poll, &Arc<Waker>),
        backoff: Backoff,
    ) -> io::Result<Self> {
        let (registry, waker) = (poll.registry().try_clone()?, Arc::clone(waker));
        Ok(Self { registry, waker, backoff, purpose, login })
    }

    pub(crate) fn purpose(&self) -> &'static str {
        self.purpose
    }

    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// # Errors
    /// No file descriptor is left.
    pub(crate) fn link(&mut self, endpoint: Arc<dyn Endpoint>, token: Token) -> io::Result<Link> {
        let now = Instant::now();
        Ok(Link {
            endpoint,
            login: Arc::clone(&self.login),
            purpose: self.purpose,
            waker: Arc::clone(&self.waker),
            phase: LinkPhase::Waiting { until: now },
            lookup: None,
            node: None,
            wire: Wire::new(self.registry.try_clone()?, token),
            received_at: now,
            pinged_at: None,
            pings: 0,
            lost: None,
            attempts: 0,
            failures: Failures::new(self.backoff.fork()),
        })
    }
}

pub(crate) struct Link {
    endpoint: Arc<dyn Endpoint>,
    login: Arc<Login>,
    purpose: &'static str,
    waker: Arc<Waker>,
    phase: LinkPhase,
    /// A lookup outlives an attempt that has timed out, so that there is never more than one.
    lookup: Option<Lookup<ResolvedAddress>>,
    /// The node that the link leads to. A Unix socket has none.
    node: Option<HostPort>,
    wire: Wire,
    received_at: Instant,
    /// When PING was sent, if nothing has come since.
    pinged_at: Option<Instant>,
    /// How many PING are not answered yet.
    pings: u32,
    /// Why a write has failed.
    lost: Option<LinkError>,
    attempts: usize,
    failures: Failures,
}

enum LinkPhase {
    Waiting {
        until: Instant,
    },
    /// The lookup of the address is under way.
    Resolving {
        until: Instant,
    },
    Connecting {
        until: Instant,
    },
    Hello {
        until: Instant,
        hello: RedisHello,
    },
    /// `moves` is the number of moves of the endpoint at the time when the link came up.
    Up {
        since: Instant,
        moves: u64,
    },
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, LinkPhase::Up { .. })
    }

    /// For how long the link is up.
    pub(crate) fn up_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            LinkPhase::Up { since, .. } => Some(now.saturating_duration_since(since)),
            _ => None,
        }
    }

    pub(crate) fn can_send(&self) -> bool {
        self.is_up() && self.wire.out.len() < OUT_BYTES_MAX
    }

    /// Where whole commands are appended.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.wire.out
    }

    /// Records an event of the socket.
    pub(crate) fn note(&mut self, event: &Event) {
        self.wire.note(event);
    }

    pub(crate) fn timeout(&self, now: Instant) -> Duration {
        if self.is_logging_in_or_up() && self.wire.is_readable() || self.lost.is_some() {
            return Duration::ZERO;
        }
        let due = match self.phase {
            LinkPhase::Waiting { until }
            | LinkPhase::Resolving { until }
            | LinkPhase::Connecting { until }
            | LinkPhase::Hello { until, .. } => until,
            LinkPhase::Up { .. } => self.pinged_at.map_or(self.received_at + PING_AFTER, |at| at + DEAD_AFTER),
        };
        due.saturating_duration_since(now)
    }

    /// Advances as far as possible. Replies go to `take`.
    pub(crate) fn drive(&mut self, now: Instant, take: &mut TakeReply<'_>) -> Option<LinkChange> {
        let lost = self.lost.take();
        match lost.map_or_else(|| self.advance(now, take), Err) {
            Ok(change) => change,
            Err(error) => self.fail(now, error),
        }
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) {
        if self.is_logging_in_or_up()
            && let Err(error) = self.wire.flush()
        {
            self.lost = Some(error);
        }
    }

    fn is_logging_in_or_up(&self) -> bool {
        matches!(self.phase, LinkPhase::Hello { .. } | LinkPhase::Up { .. })
    }

    fn advance(&mut self, now: Instant, take: &mut TakeReply<'_>) -> Result<Option<LinkChange>, LinkError> {
        if matches!(self.phase, LinkPhase::Waiting { until } if now >= until) {
            self.resolve(now)?;
        }
        if let LinkPhase::Resolving { until } = self.phase {
            match self.lookup.as_ref().and_then(Lookup::poll) {
                Some(answer) => {
                    self.lookup = None;
                    self.connect(now, &answer?)?;
                }
                None if now >= until => return Err(LinkError::lost(format!("not found within {RESOLVE_MAX:?}"))),
                None => {}
            }
        }
        if let LinkPhase::Connecting { until } = self.phase {
            if self.wire.is_connected()? {
                debug_assert!(self.wire.out.is_empty(), "something was said before the login");
                let hello = RedisHello::write(&self.login, self.endpoint.requires_master(), &mut self.wire.out);
                self.received_at = now;
                self.phase = LinkPhase::Hello { until: now + CONNECT_MAX, hello };
            } else if now >= until {
                return Err(LinkError::lost(format!("no connection within {CONNECT_MAX:?}")));
            }
        }
        if self.is_logging_in_or_up() {
            self.read(now, take)?;
        }
        match &self.phase {
            LinkPhase::Hello { hello, .. } if hello.is_over() => {
                let run_id = hello.run_id();
                self.finish_hello(now);
                if run_id == RunId::UNKNOWN {
                    log::warn!(
                        "redis at {}: it reports no run_id; if it comes back with less than it had, only nodes that have \
                         the room open notice it",
                        self.endpoint
                    );
                }
                return Ok(Some(LinkChange::Up(run_id)));
            }
            LinkPhase::Hello { until, .. } if now >= *until => {
                return Err(LinkError::lost(format!("no answer to the login within {CONNECT_MAX:?}")));
            }
            LinkPhase::Up { moves, .. } => self.check_liveness(now, *moves)?,
            _ => {}
        }
        Ok(None)
    }

    /// Connects, or starts a lookup of the address.
    fn resolve(&mut self, now: Instant) -> Result<(), LinkError> {
        self.attempts += 1;
        if let Some(address) = self.endpoint.known_address() {
            return self.connect(now, &address);
        }
        if self.lookup.is_none() {
            let endpoint = Arc::clone(&self.endpoint);
            self.lookup = Some(Lookup::start(&self.waker, move || endpoint.resolve())?);
        }
        self.phase = LinkPhase::Resolving { until: now + RESOLVE_MAX };
        Ok(())
    }

    fn connect(&mut self, now: Instant, address: &ResolvedAddress) -> Result<(), LinkError> {
        self.node = match address {
            ResolvedAddress::Tcp { node, .. } => Some(node.clone()),
            ResolvedAddress::Unix(_) => None,
        };
        self.wire.connect(address, self.login.tls.as_ref(), self.attempts)?;
        self.phase = LinkPhase::Connecting { until: now + CONNECT_MAX };
        Ok(())
    }

    fn finish_hello(&mut self, now: Instant) {
        let moves = self.node.as_ref().map_or(0, |node| self.endpoint.link_up(node));
        self.phase = LinkPhase::Up { since: now, moves };
        self.failures.forget_message();
        match &self.node {
            Some(node) if self.endpoint.requires_master() => {
                log::info!("redis at {}: the link for {} is up, at {}", self.endpoint, self.purpose, Escaped(node));
            }
            _ => log::info!("redis at {}: the link for {} is up", self.endpoint, self.purpose),
        }
    }

    fn read(&mut self, now: Instant, take: &mut TakeReply<'_>) -> Result<(), LinkError> {
        let (phase, pings) = (&mut self.phase, &mut self.pings);
        let has_come = self.wire.read(&mut |chunk, value| match (&mut *phase, &value) {
            (LinkPhase::Hello { hello, .. }, _) => hello.take(&value),
            (_, value) if is_pong(value) => {
                *pings = pings.checked_sub(1).ok_or_else(|| LinkError::lost("redis sends an answer to no PING"))?;
                Ok(())
            }
            // It may be the answer to PING. Were it taken for that of a request, all later answers
            // would go to the wrong requests.
            (_, Value::Error(text)) if *pings > 0 => Err(LinkError::reply(text)),
            _ => take(chunk, value),
        })?;
        if has_come {
            (self.received_at, self.pinged_at) = (now, None);
        }
        Ok(())
    }

    /// Neither keepalive nor TCP_USER_TIMEOUT notices a process that is stopped. Only an answer
    /// proves that it is alive.
    fn check_liveness(&mut self, now: Instant, moves: u64) -> Result<(), LinkError> {
        if moves != self.endpoint.move_count() {
            self.endpoint.follow();
            return Err(LinkError::lost("another link has found another master"));
        }
        match self.pinged_at {
            Some(at) if now >= at + DEAD_AFTER => {
                Err(LinkError::lost(format!("no answer to PING within {DEAD_AFTER:?}")))
            }
            None if now >= self.received_at + PING_AFTER => {
                self.pinged_at = Some(now);
                self.pings += 1;
                let mut ping = Cmd::new();
                ping.arg("PING").write_packed_command(&mut self.wire.out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The owner of the link sends unanswered requests again.
    fn fail(&mut self, now: Instant, error: LinkError) -> Option<LinkChange> {
        let up_for = self.up_for(now);
        self.wire.close();
        (self.pinged_at, self.pings) = (None, 0);
        let wait = self.failures.add(now, (&*self.endpoint, self.purpose), error, up_for);
        self.phase = LinkPhase::Waiting { until: now + wait };
        up_for.map(|_| LinkChange::Down)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io::Write;
    use std::net::{Shutdown, SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, mpsc};

    use bytes::Bytes;
    use fastrand::Rng;
    use mio::Events;

    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(30), Rng::with_seed(7))
    }

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
        let mut factory = LinkFactory::new(Arc::default(), "testing", (&poll, &waker), backoff()).unwrap();
        let mut link = factory.link(Arc::clone(&endpoint) as Arc<dyn Endpoint>, Token(1)).unwrap();
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
            let mut factory = LinkFactory::new(Arc::default(), "testing", (&poll, &waker), backoff()).unwrap();
            let link = factory.link(Arc::new(Here(endpoint)), Token(1)).unwrap();
            Self { poll, link, heard: Vec::new() }
        }

        fn drive(&mut self) -> Option<LinkChange> {
            self.drive_at(Instant::now())
        }

        fn drive_at(&mut self, now: Instant) -> Option<LinkChange> {
            let Self { link, heard, .. } = self;
            let change = link.drive(now, &mut |_, value| {
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
            events.iter().for_each(|event| self.link.note(event));
        }
    }

    /// A link that is up, and the other end.
    fn linked() -> (Driven, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut driven = Driven::new(listener.local_addr().unwrap());
        driven.drive();
        let (mut redis, _) = listener.accept().unwrap();
        driven.wait(Event::is_writable);
        driven.drive();
        redis.write_all(b"+OK\r\n$8\r\n# Server\r\n+PONG\r\n").unwrap();
        let events = driven.wait(Event::is_readable);
        driven.note(&events);
        assert_eq!(driven.drive(), Some(LinkChange::Up(RunId::UNKNOWN)));
        (driven, redis)
    }

    #[test]
    fn a_refused_ping_answers_no_request() {
        for (answers, expected) in [
            (":1\r\n-NOPERM ping\r\n:2\r\n", (Some(LinkChange::Down), vec![1])),
            (":1\r\n+PONG\r\n:2\r\n", (None, vec![1, 2])),
            ("+PONG\r\n+PONG\r\n", (Some(LinkChange::Down), vec![])),
        ] {
            let (mut driven, mut redis) = linked();
            // So long after the last answer the link asks whether Redis lives.
            assert_eq!(driven.drive_at(Instant::now() + PING_AFTER), None);
            redis.write_all(answers.as_bytes()).unwrap();
            let events = driven.wait(Event::is_readable);
            driven.note(&events);
            assert_eq!((driven.drive(), driven.heard), expected, "{answers}");
        }
    }

    #[test]
    fn the_socket_is_read_when_an_event_says_so_and_then_to_its_end() {
        let (mut driven, mut redis) = linked();
        redis.write_all(b":1\r\n").unwrap();
        let events = driven.wait(Event::is_readable);
        assert_eq!((driven.drive(), &*driven.heard), (None, [].as_slice()), "nobody has said that there is something");
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (None, [1].as_slice()));
        assert!(!driven.link.wire.is_readable(), "a short read was the last");
        assert!(driven.link.timeout(Instant::now()) > Duration::ZERO);

        // The end of the stream comes with the last bytes, without an event of its own.
        redis.write_all(b":2\r\n").unwrap();
        redis.shutdown(Shutdown::Write).unwrap();
        let events = driven.wait(Event::is_read_closed);
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (Some(LinkChange::Down), [1, 2].as_slice()));
    }
}
