//! How a server ends: it delivers what it has accepted, then closes every connection, then it has ended.

use crate::bus::ShutdownProgress;
use crate::protocol::CloseReason;
use crate::time::Now;

use super::{Server, ShutdownState};

impl Server {
    /// Begins to end: accepts nothing more, refuses publications, delivers what was accepted, closes every connection with 1001, and
    /// waits for at most `--drain-timeout` until their peers have gone, and until the bus has written what was accepted and other
    /// nodes know that this one has left. Turn on until [`Server::has_ended`].
    pub fn shutdown(&mut self) {
        if self.shutdown_state != ShutdownState::Running {
            return;
        }
        log::info!("shutting down");
        self.net.stop_listening();
        self.hub.start_draining();
        let until = self.clock.resume().uptime + self.config.timing.drain_timeout;
        self.shutdown_state = ShutdownState::Flushing { until };
    }

    /// Whether [`Server::shutdown`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown_state != ShutdownState::Running
    }

    /// Whether the shutdown is complete.
    pub fn has_ended(&self) -> bool {
        self.shutdown_state == ShutdownState::Ended
    }

    pub(super) fn advance_shutdown(&mut self, now: Now) {
        match self.shutdown_state {
            ShutdownState::Running | ShutdownState::Ended => {}
            ShutdownState::Flushing { until } => {
                if self.hub.is_flushed() || now.uptime >= until {
                    self.shutdown_state = ShutdownState::Closing { until };
                    self.advance_shutdown(now);
                }
            }
            ShutdownState::Closing { until } => {
                // In batches, so that the rest of the host's loop goes on.
                self.hub.close_some(now, self.config.hub.closes_per_turn as usize, &CloseReason::GOING_AWAY);
                // Meanwhile the bus writes what was accepted: nothing more will be.
                let bus = self.bus.shutdown(now);
                let stats = self.net.stats();
                let is_over = stats.sockets == 0 && !self.hub.has_work() && bus == ShutdownProgress::Done;
                if is_over || now.uptime >= until {
                    if bus == ShutdownProgress::Pending {
                        log::warn!("the bus was not done in time: other nodes may not know that this one has left");
                    }
                    log::info!("shut down; {} connections were cut", stats.sockets);
                    self.shutdown_state = ShutdownState::Ended;
                }
            }
        }
    }
}
