//! How a server is put together.

use std::fmt;
#[cfg(feature = "tls")]
use std::sync::Arc;

use super::authenticator::{Authenticator, OpenAuthenticator};
use super::clock::{self, Clock};
use super::http::Routes;
use super::http::api::check_keys;
use super::metrics::TurnTimes;
use super::refreshes::Refreshes;
#[cfg(feature = "tls")]
use super::tls_identity::{TlsReloader, read_identity};
use super::turn_watch::{TurnWatch, WatchClocks};
use super::{HostLoop, Server, ShutdownState};
use crate::bus::{Bus, LocalBus};
use crate::error::Error;
use crate::hub::{Hub, OpenPolicy, Policy};
use crate::id::Unique;
use crate::inbox::inbox;
use crate::net::Net;
use crate::owner::Owners;
use crate::settings::Config;

/// The parts of a server before it is built; see [`Server::builder`].
#[must_use = "a builder does nothing before it is built"]
pub struct ServerBuilder {
    config: Config,
    host: HostLoop,
    authenticator: Box<dyn Authenticator>,
    policy: Box<dyn Policy>,
    bus: Option<Box<dyn Bus>>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("config", &self.config).field("host", &self.host).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Sets the part that decides about handshakes. The default is [`OpenAuthenticator`].
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Box::new(authenticator);
        self
    }

    /// As [`ServerBuilder::authenticator`], for one that was chosen while the program runs.
    pub fn boxed_authenticator(mut self, authenticator: Box<dyn Authenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Sets the part that decides what users may do. The default, [`OpenPolicy`], allows everything.
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// Sets the part that numbers, keeps and delivers messages. The default is [`LocalBus`], which
    /// keeps history in memory and serves one node.
    pub fn bus(mut self, bus: impl Bus + 'static) -> Self {
        self.bus = Some(Box::new(bus));
        self
    }

    /// Builds the server.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting does not fit, and [`Error::Tokens`] if the host lends too few.
    pub fn build(self) -> Result<Server, Error> {
        let Self { config, host, authenticator, policy, bus } = self;
        config.check()?;
        check_keys(&config.api_keys)?;
        let bus = bus.unwrap_or_else(|| Box::new(LocalBus::new(&config, host.seed)));
        #[cfg(feature = "tls")]
        let tls = (!config.tls.is_empty()).then(|| TlsReloader::new(config.tls.clone(), Arc::clone(&host.waker)));
        let (sender, inbox) = inbox(config.hub.inbox_messages_max, host.waker);
        let mut hub = Hub::new(&config, policy);
        if bus.status().shares_presence {
            hub.share_presence();
        }
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "there is no certificate"))]
        let mut net = Net::new(&config, host.registry, host.tokens, host.seed)?;
        #[cfg(feature = "tls")]
        if tls.is_some() {
            net.set_tls_identity(&read_identity(&config.tls)?);
        }
        let mut server = Server {
            hub,
            net,
            bus,
            routes: Routes::new(&config, Owners::new(host.seed), authenticator.token_policy())?,
            authenticator,
            #[cfg(feature = "tls")]
            tls,
            refreshes: Refreshes::new(config.net.admissions_pending_max, config.timing.admission_timeout),
            started: (host.clock)(),
            node: Unique::new(host.seed ^ 4).epoch(),
            clock: Clock::new(host.clock),
            names: Unique::new(host.seed ^ 1),
            sender,
            inbox,
            turn_times: config.metrics.then(TurnTimes::default),
            memory_shares: config.memory_shares(),
            watch: TurnWatch::new(WatchClocks { coarse: clock::coarse_time, processor: clock::processor_time }),
            config,
            shutdown_state: ShutdownState::Running,
            turns: 0,
            is_bus_unfinished: false,
            are_decisions_unfinished: false,
        };
        server.ask_for_bans();
        Ok(server)
    }
}

impl Server {
    /// Begins a server of one node, with history in memory and everything allowed. The builder has
    /// methods to change that.
    pub fn builder(config: Config, host: HostLoop) -> ServerBuilder {
        ServerBuilder {
            config,
            host,
            authenticator: Box::new(OpenAuthenticator),
            policy: Box::new(OpenPolicy),
            bus: None,
        }
    }
}
