//! The shutdown: the server delivers the messages that it has accepted, closes every connection, and
//! has ended.

use crate::bus::ShutdownProgress;
use crate::protocol::CloseReason;
use crate::time::Now;

use super::{Server, ShutdownState};

impl Server {
    /// Begins the shutdown. The server accepts nothing more and refuses publications. It delivers the
    /// messages that it has accepted, and closes every connection with 1001. Then it waits until all
    /// peers have gone, the bus has written all accepted messages, and other nodes know that this one
    /// has left. All of this takes at most
    /// [`drain_timeout`](crate::settings::Timing::drain_timeout).
    ///
    /// Call [`Server::turn`] until [`Server::has_ended`].
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

    /// Whether all that was accepted is answered and delivered.
    pub(super) fn is_flushed(&self) -> bool {
        self.hub.is_flushed() && !self.is_bus_unfinished
    }

    pub(super) fn advance_shutdown(&mut self, now: Now) {
        match self.shutdown_state {
            ShutdownState::Running | ShutdownState::Ended => {}
            ShutdownState::Flushing { until } => {
                if self.is_flushed() || now.uptime >= until {
                    self.shutdown_state = ShutdownState::Closing { until };
                    self.advance_shutdown(now);
                }
            }
            ShutdownState::Closing { until } => {
                // In portions, so that the rest of the host's loop goes on.
                self.hub.close_some(now, self.config.hub.closes_per_turn as usize, &CloseReason::GOING_AWAY);
                // Meanwhile the bus writes the messages that were accepted. There will be no more.
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
