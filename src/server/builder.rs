//! How a server is put together.

use std::fmt;

use super::authenticator::{Authenticator, OpenAuthenticator};
use super::clock::Clock;
use super::http::Routes;
use super::metrics::TurnTimes;
use super::{HostLoop, Server, ShutdownState};
use crate::bus::{Bus, LocalBus};
use crate::error::Error;
use crate::hub::{Hub, OpenPolicy, Policy};
use crate::id::Unique;
use crate::inbox::inbox;
use crate::net::Net;
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
    /// Decides whose connections are. Without it everybody is admitted as the user that they say they are.
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Box::new(authenticator);
        self
    }

    /// Decides what users may do. Without it they may do everything.
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// Numbers and keeps messages, and passes them between nodes. Without it history is kept in memory, for one node.
    pub fn bus(mut self, bus: impl Bus + 'static) -> Self {
        self.bus = Some(Box::new(bus));
        self
    }

    /// Builds the server.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Tokens`].
    pub fn build(self) -> Result<Server, Error> {
        let Self { config, host, authenticator, policy, bus } = self;
        config.check()?;
        let bus = bus.unwrap_or_else(|| Box::new(LocalBus::new(&config, host.seed)));
        let (sender, inbox) = inbox(config.hub.inbox_messages_max, host.waker);
        let mut hub = Hub::new(&config, policy);
        if bus.status().shares_presence {
            hub.share_presence();
        }
        Ok(Server {
            hub,
            net: Net::new(&config, host.registry, host.tokens)?,
            bus,
            routes: Routes::new(&config)?,
            authenticator,
            clock: Clock::new(host.clock),
            names: Unique::new(host.seed ^ 1),
            sender,
            inbox,
            turn_times: config.metrics.then(TurnTimes::default),
            config,
            shutdown_state: ShutdownState::Running,
            turns: 0,
        })
    }
}

impl Server {
    /// Begins to put a server together: one node, history in memory, everything allowed unless the builder is told otherwise.
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
