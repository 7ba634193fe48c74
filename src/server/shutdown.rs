//! How a server ends: what was taken is delivered, then everybody is told to go, then it is over.

use std::time::Duration;

use crate::protocol::CloseReason;
use crate::time::Now;

use super::Server;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// Nothing new is taken; what was taken is answered and delivered.
    Flushing {
        until: Duration,
    },
    /// Everybody is told to go.
    Closing {
        until: Duration,
    },
    Ended,
}

impl Server {
    /// Begins to end: accepts nothing more, refuses publications, delivers what was taken, tells everybody to come back
    /// (1001), and waits for at most `--drain-timeout` until they have gone. Turn on until [`Server::has_ended`].
    pub fn shutdown(&mut self) {
        if self.life != Life::Running {
            return;
        }
        log::info!("shutting down");
        self.net.stop_listening();
        self.hub.start_draining();
        let until = self.clock.resume().uptime + self.config.timing.drain_timeout;
        self.life = Life::Flushing { until };
    }

    /// Whether [`Server::shutdown`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.life != Life::Running
    }

    /// Whether the shutdown is complete.
    pub fn has_ended(&self) -> bool {
        self.life == Life::Ended
    }

    pub(super) fn advance_shutdown(&mut self, now: Now) {
        match self.life {
            Life::Running | Life::Ended => {}
            Life::Flushing { until } => {
                if self.hub.is_flushed() || now.uptime >= until {
                    self.life = Life::Closing { until };
                    self.advance_shutdown(now);
                }
            }
            Life::Closing { until } => {
                // In batches, so that the rest of the host's loop goes on.
                for id in self.hub.connections(self.config.limits.closes_per_turn as usize) {
                    self.hub.close(now, id, CloseReason::GOING_AWAY);
                }
                let stats = self.net.stats();
                if (stats.sockets == 0 && !self.hub.has_work()) || now.uptime >= until {
                    log::info!("shut down; {} connections were cut", stats.sockets);
                    self.life = Life::Ended;
                }
            }
        }
    }
}
