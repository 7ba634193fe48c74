//! The server: hub, net and bus joined to one thing that a host's loop drives. Only this module knows all three.

mod admission;
mod authenticator;
mod bearer;
mod builder;
mod clock;
mod dispatch;
mod gate;
mod http;
#[cfg(any(feature = "tokens", feature = "webhook"))]
mod http_client;
#[cfg(any(feature = "tokens", feature = "webhook"))]
mod json_field;
mod metrics;
mod moderation;
mod refreshes;
mod remote;
mod report;
mod shutdown;
mod stats;
#[cfg(feature = "tls")]
mod tls_identity;
#[cfg(feature = "tokens")]
mod tokens;
mod turn;
mod turn_watch;
#[cfg(feature = "webhook")]
mod webhook;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token, Waker};

pub use self::authenticator::{
    Authentication, Authenticator, Identity, OpenAuthenticator, Refusal, TokenPolicy, open_identity,
};
pub use self::builder::ServerBuilder;
use self::clock::Clock;
use self::dispatch::Dispatch;
use self::http::Routes;
pub use self::http::api::ApiStats;
use self::http::api::{ApiRoute, check_keys};
use self::metrics::{MetricsSnapshot, TurnTimes};
use self::refreshes::Refreshes;
use self::remote::Command;
pub use self::remote::Remote;
use self::report::ServerReport;
pub use self::stats::Stats;
#[cfg(feature = "tls")]
use self::tls_identity::TlsReloader;
#[cfg(feature = "tokens")]
pub use self::tokens::{TokenAuthenticator, TokenConfig, TokenRequest, issue_token};
pub use self::turn_watch::PhaseUnits;
use self::turn_watch::TurnWatch;
#[cfg(feature = "webhook")]
pub use self::webhook::{WebhookAuthenticator, WebhookStats};
use crate::bus::Bus;
use crate::bus::message::Ticket;
use crate::error::Error;
use crate::hub::{HostPublication, Hub, Notice};
use crate::id::{ConnectionId, Epoch, Unique};
use crate::inbox::{Inbox, InboxSender};
#[cfg(feature = "tls")]
use crate::net::TlsIdentity;
use crate::net::{ListenAddress, Listener, ListenerRole, Net, Opening, Preamble};
use crate::protocol::CloseReason;
use crate::settings::{ApiKey, Config, MemoryShares};
use crate::time::Now;

/// What the host, the program that polls, lends to the server.
#[derive(Debug)]
pub struct HostLoop {
    /// The registry of its poll: `poll.registry().try_clone()?`.
    pub registry: Registry,
    /// Tokens that the host does not use. The server needs [`LISTENERS_MAX`](crate::LISTENERS_MAX), and as many as
    /// `connections_max` and `connections_reserved` of [`NetLimits`](crate::settings::NetLimits) together.
    pub tokens: Range<usize>,
    /// The poll's waker; mio allows one for each poll, so the host's is shared. Its token stays the host's.
    pub waker: Arc<Waker>,
    /// Reads the time; usually [`Now::system`].
    pub clock: fn() -> Now,
    /// The seed of epochs and guest names. It must differ in every run.
    pub seed: u64,
}

/// A chat server that lives in its host's poll loop.
///
/// The loop contract in one sentence: *feed every event that it [owns](Server::owns), call [`Server::turn`] once, sleep no longer
/// than [`Server::timeout`].*
///
/// ```no_run
/// use std::sync::Arc;
/// use mio::{Events, Poll, Token, Waker};
/// use roomcast::{Config, HostLoop, Now, Server};
///
/// let mut poll = Poll::new()?;
/// let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
/// let host = HostLoop {
///     registry: poll.registry().try_clone()?,
///     tokens: 1000..1_000_000,
///     waker,
///     clock: Now::system,
///     seed: Now::system().unix_ms, // different for every run
/// };
/// let mut server = Server::builder(Config::default(), host).build()?;
/// println!("listening on {}", server.listen("127.0.0.1:0".parse()?)?);
/// let mut events = Events::with_capacity(1024);
/// while !server.has_ended() {
///     match poll.poll(&mut events, server.timeout()) {
///         // A signal, for example that of being continued after a stop.
///         Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
///         result => result?,
///     }
///     for event in &events {
///         if server.owns(event.token()) {
///             server.handle_event(event);
///         }
///     }
///     server.turn();
///     while let Some(notice) = server.poll_notice() {
///         println!("{notice:?}");
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    hub: Hub,
    net: Net<ApiRoute>,
    bus: Box<dyn Bus>,
    routes: Routes,
    authenticator: Box<dyn Authenticator>,
    #[cfg(feature = "tls")]
    tls: Option<TlsReloader>,
    refreshes: Refreshes,
    clock: Clock,
    names: Unique,
    sender: InboxSender<Command>,
    inbox: Inbox<Command>,
    config: Config,
    memory_shares: MemoryShares,
    /// The name of this node, unless the bus has another one.
    node: Epoch,
    /// When it was built.
    started: Now,
    shutdown_state: ShutdownState,
    turns: u64,
    /// Whether the last turn has left events of the bus for the next.
    is_bus_unfinished: bool,
    /// Whether it has left decisions of the authenticator.
    are_decisions_unfinished: bool,
    /// Measured only for [`Config::metrics`].
    turn_times: Option<TurnTimes>,
    watch: TurnWatch,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownState {
    Running,
    /// Nothing new is accepted. Accepted messages are answered and delivered.
    Flushing {
        until: Duration,
    },
    /// Connections are closed.
    Closing {
        until: Duration,
    },
    Ended,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("shutdown_state", &self.shutdown_state)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on a TCP address; port 0 lets the system choose one. Returns the address that it listens on.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::TooManyListeners`].
    pub fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let error = |source| Error::Listen { address: address.to_string(), source };
        let socket = Listener::bind_tcp(address).map_err(error)?;
        let bound = socket.local_addr()?;
        self.listen_on(Listener::Tcp(socket))?;
        Ok(bound)
    }

    /// Listens on the path of a Unix socket, which is removed at the end.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::TooManyListeners`].
    pub fn listen_unix(&mut self, path: &Path) -> Result<(), Error> {
        let error = |source| Error::Listen { address: format!("unix:{}", path.display()), source };
        self.listen_on(Listener::unix(path).map_err(error)?)?;
        Ok(())
    }

    /// Listens on a socket that another program has bound, systemd for example.
    ///
    /// # Errors
    /// [`Error::TooManyListeners`], or [`Error::Io`] with the error of the system.
    pub fn listen_on(&mut self, listener: Listener) -> Result<ListenAddress, Error> {
        self.net.listen(listener)
    }

    /// Listens on a socket on whose connections something else comes before the first request.
    ///
    /// # Errors
    /// As [`Server::listen_on`]; [`Error::Config`] if that is a PROXY header, and there is no
    /// [trusted proxy](Config::trusted_proxies).
    pub fn listen_after(&mut self, preamble: Preamble, listener: Listener) -> Result<ListenAddress, Error> {
        self.net.listen_with(Opening { preamble, ..Opening::default() }, listener)
    }

    /// Listens on a socket whose connections begin with something else than a request, with a TLS handshake for example.
    ///
    /// # Errors
    /// As [`Server::listen_after`]; [`Error::Config`] if TLS is to be spoken, and there is no certificate.
    pub fn listen_with(&mut self, opening: Opening, listener: Listener) -> Result<ListenAddress, Error> {
        self.net.listen_with(opening, listener)
    }

    /// Listens on a socket for operators: it answers the HTTP API, `/metrics` and the paths for health checks, and nothing else.
    /// From then on the other sockets answer neither the API nor `/metrics`. No cap by address applies to its connections.
    ///
    /// # Errors
    /// As [`Server::listen_with`].
    pub fn listen_for_admin(&mut self, opening: Opening, listener: Listener) -> Result<ListenAddress, Error> {
        let address = self.net.listen_as(ListenerRole::Admin, opening, listener)?;
        self.routes.set_admin_apart();
        Ok(address)
    }

    /// Has TLS sessions that begin from now on show another certificate. Those that are there go on.
    #[cfg(feature = "tls")]
    pub fn set_tls_identity(&mut self, identity: &TlsIdentity) {
        self.net.set_tls_identity(identity);
    }

    /// As [`Net::connect_in_memory`](crate::net::Net::connect_in_memory).
    ///
    /// # Errors
    /// [`Error::Command`] if the input of the previous connection has not been read.
    #[cfg(feature = "in-memory")]
    pub fn connect_in_memory(&mut self, input: &[u8]) -> Result<(), Error> {
        self.net.connect_in_memory(input)
    }

    /// Whether an event with this token is the server's.
    pub fn owns(&self, token: Token) -> bool {
        self.net.owns(token)
    }

    /// Takes note of an event; nothing else happens before [`Server::turn`].
    pub fn handle_event(&mut self, event: &Event) {
        self.net.handle_event(event);
    }

    /// How long the host may sleep: zero while something is unfinished, `None` if nothing can become due.
    pub fn timeout(&self) -> Option<Duration> {
        if self.net.has_work()
            || self.hub.has_work()
            || self.is_bus_unfinished
            || self.are_decisions_unfinished
            || !self.inbox.is_empty()
            || self.shutdown_state == ShutdownState::Ended
        {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now();
        let shutdown = match self.shutdown_state {
            // The shutdown was begun between two turns.
            ShutdownState::Flushing { .. } if self.is_flushed() => Some(Duration::ZERO),
            ShutdownState::Flushing { until } | ShutdownState::Closing { until } => {
                Some(until.saturating_sub(now.uptime))
            }
            ShutdownState::Running | ShutdownState::Ended => None,
        };
        let refreshes = self.refreshes.timeout(now);
        let others = [self.net.timeout(now), self.hub.timeout(now), self.bus.timeout(now), shutdown];
        others.into_iter().chain([refreshes]).flatten().min()
    }

    /// The next notice. There are none unless [`Config::notices`] is set.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.hub.poll_notice()
    }

    /// Publishes into a room in the host's name. [`Notice::Published`] tells the outcome.
    ///
    /// # Errors
    /// [`Error::Command`] if something is out of its bounds, or the server is busy or shutting down.
    pub fn publish(&mut self, publication: &HostPublication) -> Result<Ticket, Error> {
        self.hub.publish_for_host(self.clock.resume(), publication)
    }

    /// Closes a connection; a stale id closes nothing.
    pub fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.hub.close(self.clock.resume(), connection, reason);
    }

    /// Has the [authenticator](Authenticator::reload) read keys and the like again, and a thread the
    /// [files](crate::Config::tls) of the certificate. If they are no certificate, the old one stays.
    pub fn reload(&mut self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.begin();
        }
        let now = self.clock.resume();
        self.authenticator.reload(now);
    }

    /// Replaces the keys of the HTTP API, from the next request on. Without a key there is no API.
    ///
    /// # Errors
    /// [`Error::Config`] if a key cannot be used; all keys stay then.
    pub fn set_api_keys(&mut self, keys: &[ApiKey]) -> Result<(), Error> {
        check_keys(keys)?;
        self.routes.api.set_keys(keys);
        Ok(())
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote::new(self.sender.clone())
    }

    /// Counts of everything, as of now.
    pub fn stats(&self) -> Stats {
        Stats {
            hub: self.hub.stats(),
            net: self.net.stats(),
            api: self.routes.api.stats(),
            turns: self.turns,
            units_max: self.watch.units_max,
        }
    }

    /// The text of `/metrics` for a host that exports it in its own way: [`Server::stats`] as OpenMetrics
    /// text. Without [`Config::metrics`] it lacks the histogram of turns.
    pub fn metrics(&self) -> String {
        let (bus, authenticator) = (self.bus.metrics(), self.authenticator.metrics());
        MetricsSnapshot { bus, authenticator, ..self.metrics_snapshot() }.text()
    }

    fn metrics_snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            stats: self.stats(),
            bus: Vec::new(),
            authenticator: Vec::new(),
            shares: self.memory_shares,
            turn_times: self.turn_times,
        }
    }

    /// The net, the clock, and everything else as the handler of the net.
    fn dispatch(&mut self, now: Now) -> (&mut Net<ApiRoute>, &mut Clock, Dispatch<'_>) {
        let metrics = self.config.metrics.then(|| self.metrics_snapshot());
        let report = self.routes.api.is_on().then(|| ServerReport {
            node: self.node.as_str(),
            started: self.started,
            hub: self.hub.stats(),
            net: self.net.stats(),
            shares: self.memory_shares,
        });
        let dispatch = Dispatch {
            now,
            metrics,
            report,
            hub: &mut self.hub,
            routes: &mut self.routes,
            authenticator: &mut *self.authenticator,
            refreshes: &mut self.refreshes,
            names: &mut self.names,
            is_draining: self.shutdown_state != ShutdownState::Running,
            bus: &*self.bus,
            watch: &mut self.watch,
        };
        (&mut self.net, &mut self.clock, dispatch)
    }
}
