//! Opens many clients, has them join rooms, and waits until the server is done with that.

use std::time::{Duration, Instant};

use super::{Crowd, Opening};
use crate::client::ClientIndex;
use crate::error::LoadError;

/// Connections that are opened at the same time; below any listener's backlog.
const OPENING_MAX: usize = 128;

/// How long opening or joining may take without any progress.
const PATIENCE: Duration = Duration::from_secs(20);

impl Crowd {
    /// Opens clients, a bounded number at a time, and waits until all are open.
    pub(crate) fn open(&mut self, count: usize, opening: impl Into<Opening>) -> Result<Vec<ClientIndex>, LoadError> {
        let opening = opening.into();
        let mut indices = Vec::with_capacity(count);
        let mut deadline = Instant::now() + PATIENCE;
        while indices.len() < count || self.opening > 0 {
            while indices.len() < count && self.opening < OPENING_MAX {
                indices.push(self.begin_open(opening)?);
            }
            let before = self.opening;
            self.turn(Some(deadline))?;
            self.check_all_connected()?;
            if self.opening != before {
                deadline = Instant::now() + PATIENCE;
            } else if Instant::now() >= deadline {
                return Err(LoadError::Timeout("a connection to be opened".to_owned()));
            }
        }
        Ok(indices)
    }

    /// Joins rooms, and waits until the server has nothing more to answer.
    pub(crate) fn join(&mut self, clients: &[ClientIndex], room: impl Fn(usize) -> u32) -> Result<(), LoadError> {
        for (nth, client) in clients.iter().enumerate() {
            let join = self.join_bytes(room(nth));
            self.send(*client, &join)?;
            if nth % 64 == 63 {
                self.turn(Some(Instant::now()))?;
            }
        }
        self.wait_until_quiet(Duration::from_millis(150))
    }

    /// Waits until nothing has been received for some time.
    pub(crate) fn wait_until_quiet(&mut self, quiet: Duration) -> Result<(), LoadError> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let until = Instant::now() + quiet;
            let before = self.received.counts.reads;
            while Instant::now() < until {
                self.turn(Some(until))?;
            }
            self.check_all_connected()?;
            if self.received.counts.reads == before {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(LoadError::Timeout("the server to come to rest".to_owned()));
            }
        }
    }

    /// # Errors
    /// If a connection has ended.
    pub(crate) fn check_all_connected(&mut self) -> Result<(), LoadError> {
        match self.received.disconnects.first() {
            Some(disconnect) => {
                Err(LoadError::Disconnected { count: self.received.disconnects.len(), why: disconnect.why.clone() })
            }
            None => Ok(()),
        }
    }
}
