//! One connection to Redis on a thread of the bus: connecting, logging in, reading, writing, noticing that it is dead, and
//! connecting again.
//!
//! The loop contract in one sentence: *wait no longer than [`Link::timeout`], call [`Link::drive`], put what is to be said into
//! [`Link::out`], call [`Link::flush`].* Events of its token go to [`Link::readiness`] first: sockets are edge-triggered. Since
//! every flush writes until the socket blocks, nothing has to be remembered of room to write.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use mio::{Registry, Token, Waker};
use redis::Cmd;

use super::fault::{Backoff, Complaints, Fault, Loss};
use super::greeting::Greeting;
use super::resolver::{Lookup, Place, Spot};
use super::resp::{self, Value};
use super::run_id::RunId;
use super::stream::{Readiness, Stream};
use super::target::{Login, Node};

/// How long it may take to find out where Redis is.
const FIND_MAX: Duration = Duration::from_secs(5);

/// How long connecting, and then logging in, may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Silence after which Redis is asked whether it lives, and after which it is taken for dead.
const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// What may wait to be written; beyond it [`Link::can_send`] says no.
const OUT_BYTES_MAX: usize = 1024 * 1024;

const READ_BYTES: usize = 64 * 1024;
const READS_PER_DRIVE: usize = 4;

/// What has become of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

enum Phase {
    Waiting {
        until: Instant,
    },
    /// [`Link::lookup`] is under way.
    Finding {
        until: Instant,
    },
    Connecting {
        stream: Stream,
        until: Instant,
    },
    Greeting {
        stream: Stream,
        until: Instant,
        greeting: Greeting,
    },
    /// `moves` is [`Place::moves`] when it arrived.
    Up {
        stream: Stream,
        since: Instant,
        moves: u64,
        run_id: RunId,
    },
}

/// What a link needs of the thread on which it lives.
pub(super) struct Berth {
    pub(super) registry: Registry,
    pub(super) token: Token,
    pub(super) waker: Arc<Waker>,
    pub(super) random: Rng,
}

/// See the [module](self).
pub(super) struct Link {
    place: Arc<dyn Place>,
    login: Arc<Login>,
    /// What it is for, in the log.
    purpose: &'static str,
    berth: Berth,
    phase: Phase,
    /// It outlives an attempt that it was too slow for, so that there is never more than one.
    lookup: Option<Lookup<Spot>>,
    /// Whither it connects or has connected; a Unix socket has none.
    node: Option<Node>,
    /// Whole commands. Those written are taken off by [`Link::flush`].
    pub(super) out: Vec<u8>,
    written: usize,
    /// The beginning of a reply that is not complete.
    input: Vec<u8>,
    /// What a read goes into first: zeroed once, and what is kept of a read is no larger than what it brought.
    buffer: Box<[u8]>,
    pub(super) readiness: Readiness,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    lost: Option<Fault>,
    attempts: usize,
    backoff: Backoff,
    complaints: Complaints,
}

impl Link {
    pub(super) fn new(place: Arc<dyn Place>, login: Arc<Login>, purpose: &'static str, berth: Berth) -> Self {
        let now = Instant::now();
        Self {
            place,
            login,
            purpose,
            phase: Phase::Waiting { until: now },
            lookup: None,
            node: None,
            out: Vec::new(),
            written: 0,
            input: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            readiness: Readiness::Empty,
            heard_at: now,
            pinged_at: None,
            lost: None,
            attempts: 0,
            backoff: Backoff::new(berth.random.clone()),
            complaints: Complaints::default(),
            berth,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Which life of Redis it is connected to, and since when.
    pub(super) fn run(&self) -> Option<(RunId, Instant)> {
        match self.phase {
            Phase::Up { run_id, since, .. } => Some((run_id, since)),
            _ => None,
        }
    }

    pub(super) fn can_send(&self) -> bool {
        self.is_up() && self.out.len() < OUT_BYTES_MAX
    }

    pub(super) fn timeout(&self, now: Instant) -> Duration {
        let is_reading = matches!(self.phase, Phase::Greeting { .. } | Phase::Up { .. });
        if is_reading && self.readiness != Readiness::Empty || self.lost.is_some() {
            return Duration::ZERO;
        }
        let due = match &self.phase {
            Phase::Waiting { until }
            | Phase::Finding { until }
            | Phase::Connecting { until, .. }
            | Phase::Greeting { until, .. } => *until,
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
            Phase::Waiting { .. } => self.find(now)?,
            phase => phase,
        };
        if let Phase::Finding { until } = self.phase {
            self.phase = match self.lookup.as_ref().and_then(Lookup::poll) {
                Some(answer) => {
                    self.lookup = None;
                    self.connect(now, &answer?)?
                }
                None if now >= until => return Err(Fault::lost(format!("not found within {FIND_MAX:?}"))),
                None => return Ok(None),
            };
        }
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
            Phase::Greeting { greeting, .. } if greeting.is_over() => {
                self.arrive(now);
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

    /// Connects, or has a thread find out whereto.
    fn find(&mut self, now: Instant) -> Result<Phase, Fault> {
        self.attempts += 1;
        if let Some(spot) = self.place.at_once() {
            return self.connect(now, &spot);
        }
        if self.lookup.is_none() {
            let place = Arc::clone(&self.place);
            self.lookup = Some(Lookup::start(&self.berth.waker, move || place.find())?);
        }
        Ok(Phase::Finding { until: now + FIND_MAX })
    }

    fn connect(&mut self, now: Instant, spot: &Spot) -> Result<Phase, Fault> {
        self.node = match spot {
            Spot::Tcp { node, .. } => Some(node.clone()),
            Spot::Unix(_) => None,
        };
        let mut stream = Stream::connect(spot, self.login.tls.as_ref(), self.attempts)?;
        stream.register(&self.berth.registry, self.berth.token)?;
        Ok(Phase::Connecting { stream, until: now + CONNECT_MAX })
    }

    fn greet(&mut self, now: Instant) {
        let Phase::Connecting { stream, .. } = std::mem::replace(&mut self.phase, Phase::Waiting { until: now }) else {
            return;
        };
        debug_assert!(self.out.is_empty(), "something was said before the login");
        let greeting = Greeting::write(&self.login, self.place.is_of_master(), &mut self.out);
        self.heard_at = now;
        self.phase = Phase::Greeting { stream, until: now + CONNECT_MAX, greeting };
    }

    fn arrive(&mut self, now: Instant) {
        let moves = self.node.as_ref().map_or(0, |node| self.place.arrive(node));
        if let Phase::Greeting { stream, greeting, .. } =
            std::mem::replace(&mut self.phase, Phase::Waiting { until: now })
        {
            self.phase = Phase::Up { stream, since: now, moves, run_id: greeting.run_id() };
        }
        self.complaints = Complaints::default();
        match &self.node {
            Some(node) if self.place.is_of_master() => {
                log::info!("redis at {}: the link for {} is up, at {node}", self.place, self.purpose);
            }
            _ => log::info!("redis at {}: the link for {} is up", self.place, self.purpose),
        }
    }

    fn read(
        &mut self,
        now: Instant,
        each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for _ in 0..READS_PER_DRIVE {
            let (Phase::Greeting { stream, .. } | Phase::Up { stream, .. }) = &mut self.phase else { return Ok(()) };
            if self.readiness == Readiness::Empty {
                break;
            }
            match stream.read(&mut self.buffer) {
                Ok(0) => return Err(Fault::lost("redis has closed the connection")),
                Ok(bytes) => {
                    self.readiness.read(stream, bytes, self.buffer.len());
                    // Bodies of messages keep the whole chunk, so it is no larger than what it holds.
                    self.input.reserve_exact(bytes);
                    self.input.extend_from_slice(&self.buffer[..bytes]);
                    self.heard_at = now;
                    self.pinged_at = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readiness = Readiness::Empty;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            self.hand_out(each)?;
        }
        Ok(())
    }

    /// Hands out the complete replies; what is left begins the next input.
    fn hand_out(&mut self, each: &mut dyn FnMut(&Bytes, Value<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let chunk = Bytes::from(std::mem::take(&mut self.input));
        let mut at = 0;
        while let Some((value, used)) = resp::parse(&chunk[at..]).map_err(|error| Fault::lost(error.to_string()))? {
            at += used;
            match &mut self.phase {
                Phase::Greeting { greeting, .. } => greeting.take(&value)?,
                _ if is_pong(&value) => {}
                _ => each(&chunk, value)?,
            }
        }
        self.input.extend_from_slice(&chunk[at..]);
        Ok(())
    }

    /// Neither keepalive nor TCP_USER_TIMEOUT notices a process that is stopped: only an answer proves life.
    fn look_alive(&mut self, now: Instant) -> Result<(), Fault> {
        if matches!(self.phase, Phase::Up { moves, .. } if moves != self.place.moves()) {
            self.place.follow();
            return Err(Fault::lost("another link has found another master"));
        }
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
            stream.deregister(&self.berth.registry);
        }
        // What was torn stays torn; what was not answered its owner says again.
        self.out.clear();
        self.input = Vec::new();
        (self.written, self.pinged_at, self.readiness) = (0, None, Readiness::Empty);
        let stood = was_up.map(|since| now.saturating_duration_since(since));
        self.phase = Phase::Waiting { until: now + self.backoff.next(stood) };
        let loss = if was_up.is_some() { Loss::Standing } else { Loss::Attempt };
        self.complaints.tell(now, (&*self.place, self.purpose), fault, loss);
        was_up.map(|_| Change::Down)
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

    /// A place that is not found before the test says where it is.
    struct Slow {
        asked: AtomicUsize,
        told: Mutex<mpsc::Receiver<Spot>>,
    }

    impl fmt::Display for Slow {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("somewhere")
        }
    }

    impl Place for Slow {
        fn at_once(&self) -> Option<Spot> {
            None
        }

        fn find(&self) -> io::Result<Spot> {
            self.asked.fetch_add(1, SeqCst);
            self.told.lock().unwrap().recv().map_err(io::Error::other)
        }
    }

    #[test]
    fn a_place_that_is_not_found_holds_up_nobody_and_is_looked_for_once() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (tell, told) = mpsc::channel();
        let place = Arc::new(Slow { asked: AtomicUsize::new(0), told: Mutex::new(told) });
        let berth =
            Berth { registry: poll.registry().try_clone().unwrap(), token: Token(1), waker, random: Rng::with_seed(7) };
        let mut link = Link::new(Arc::clone(&place) as Arc<dyn Place>, Arc::default(), "testing", berth);
        let mut nothing = |_: &Bytes, _: Value<'_>| Ok(());
        let mut now = Instant::now();
        for _ in 0..10 {
            assert_eq!(link.drive(now, &mut nothing), None);
            assert!(matches!(link.phase, Phase::Finding { .. }));
            now += link.timeout(now);
            // Too late; it waits, and tries again.
            assert_eq!(link.drive(now, &mut nothing), None);
            assert!(matches!(link.phase, Phase::Waiting { .. }));
            now += link.timeout(now);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![listener.local_addr().unwrap()];
        link.drive(now, &mut nothing);
        let node = Node { host: "somewhere".to_owned(), port: addresses[0].port() };
        tell.send(Spot::Tcp { node, addresses }).unwrap();
        // The waker brings the answer.
        poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(60))).unwrap();
        link.drive(now, &mut nothing);
        assert!(!matches!(link.phase, Phase::Finding { .. } | Phase::Waiting { .. }));
        assert_eq!(place.asked.load(SeqCst), 1);
        listener.accept().unwrap();
    }

    /// A place that is known.
    struct Here(SocketAddr);

    impl fmt::Display for Here {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Place for Here {
        fn at_once(&self) -> Option<Spot> {
            let node = Node { host: self.0.ip().to_string(), port: self.0.port() };
            Some(Spot::Tcp { node, addresses: vec![self.0] })
        }

        fn find(&self) -> io::Result<Spot> {
            unreachable!("it is known at once")
        }
    }

    /// A link that may be driven without a thread, and what it hears.
    struct Driven {
        poll: Poll,
        link: Link,
        heard: Vec<i64>,
    }

    impl Driven {
        fn new(place: SocketAddr) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let berth = Berth {
                registry: poll.registry().try_clone().unwrap(),
                token: Token(1),
                waker,
                random: Rng::with_seed(7),
            };
            let link = Link::new(Arc::new(Here(place)), Arc::default(), "testing", berth);
            Self { poll, link, heard: Vec::new() }
        }

        fn drive(&mut self) -> Option<Change> {
            let Self { link, heard, .. } = self;
            let change = link.drive(Instant::now(), &mut |_, value| {
                let Value::Integer(number) = value else { panic!("{value:?}") };
                heard.push(number);
                Ok(())
            });
            link.flush();
            change
        }

        /// The events up to one that is wanted, without driving the link.
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
        assert_eq!(driven.drive(), Some(Change::Up));

        redis.write_all(b":1\r\n").unwrap();
        let events = driven.wait(Event::is_readable);
        assert_eq!((driven.drive(), &*driven.heard), (None, [].as_slice()), "nobody has said that there is something");
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (None, [1].as_slice()));
        assert_eq!(driven.link.readiness, Readiness::Empty, "a short read was the last");
        assert!(driven.link.timeout(Instant::now()) > Duration::ZERO);

        // The end comes with the last bytes, and no event comes behind it.
        redis.write_all(b":2\r\n").unwrap();
        redis.shutdown(Shutdown::Write).unwrap();
        let events = driven.wait(Event::is_read_closed);
        driven.note(&events);
        assert_eq!((driven.drive(), &*driven.heard), (Some(Change::Down), [1, 2].as_slice()));
    }
}
