//! The TLS session of one connection: bytes in, bytes out, no socket.

use std::fmt;
use std::sync::Arc;

use rustls::{Error, ServerConfig};

use super::channel::Channel;
use super::handshake::TlsHandshake;
use super::received::{Received, SessionEnd, Unusable};
use super::record::{APPLICATION_DATA, WIRE_RECORD_BYTES_MAX};

/// See the [module](self).
pub(in crate::net) struct Session {
    stage: Stage,
    /// What has come and is no whole record yet, or no whole message of the handshake.
    unread: Vec<u8>,
}

#[expect(clippy::large_enum_variant, reason = "the largest is the one that lasts")]
enum Stage {
    Handshake(Box<TlsHandshake>),
    Open(Channel),
    Failed,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("unread", &self.unread.len()).finish_non_exhaustive()
    }
}

impl Session {
    pub(in crate::net) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { stage: Stage::Handshake(Box::new(TlsHandshake::new(config)?)), unread: Vec::new() })
    }

    pub(in crate::net) fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Handshake(_))
    }

    /// What it holds for a handshake that is not complete.
    pub(in crate::net) fn handshake_bytes(&self) -> usize {
        match &self.stage {
            Stage::Handshake(handshake) => handshake.held_bytes(),
            Stage::Open(_) | Stage::Failed => 0,
        }
    }

    pub(in crate::net) fn unread_capacity(&self) -> usize {
        self.unread.capacity()
    }

    /// Takes bytes from the peer, which it overwrites, and appends what they say to `plaintext`.
    ///
    /// To be called no more once it has failed.
    ///
    /// **Bounds:** what is not complete stays here, up to the size of a record; beyond that the session fails.
    pub(in crate::net) fn receive(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Received {
        let mut received = Received::default();
        if self.unread.is_empty() {
            // Nearly always records come whole, and nothing has to be kept.
            let used = self.stage.receive(bytes, plaintext, &mut received);
            if used < bytes.len() && received.end.is_none() {
                self.unread.extend_from_slice(&bytes[used..]);
            }
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let used = self.stage.receive(&mut unread, plaintext, &mut received);
            if used < unread.len() && received.end.is_none() {
                unread.drain(..used);
                unread.shrink_to(2 * unread.len());
                self.unread = unread;
            }
        }
        if self.unread.len() > WIRE_RECORD_BYTES_MAX {
            // Larger records are refused by themselves; what is left are messages of the handshake in many records.
            let problem = format!("a message of a handshake exceeds {WIRE_RECORD_BYTES_MAX} bytes");
            received.end = Some(SessionEnd::Failed(Error::General(problem)));
        }
        received
    }

    /// Encrypts at most a record's plaintext; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// [`Unusable`] if it has not agreed on keys, has failed, or has encrypted as much as its keys may.
    #[inline]
    pub(in crate::net) fn encrypt(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Unusable> {
        self.channel()?.seal(APPLICATION_DATA, plaintext, out)
    }

    /// Says that nothing more is sent; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// [`Unusable`] if it has not agreed on keys, or has failed.
    pub(in crate::net) fn say_goodbye(&mut self, out: &mut [u8]) -> Result<usize, Unusable> {
        self.channel()?.say_goodbye(out)
    }

    fn channel(&mut self) -> Result<&mut Channel, Unusable> {
        match &mut self.stage {
            Stage::Open(channel) => Ok(channel),
            Stage::Handshake(_) | Stage::Failed => Err(Unusable),
        }
    }
}

impl Stage {
    /// Says how many bytes are used.
    fn receive(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>, received: &mut Received) -> usize {
        let mut used = 0;
        if let Self::Handshake(handshake) = self {
            used = handshake.receive(bytes, received);
            if received.handshake.is_some() {
                self.open(received);
            }
        }
        match self {
            Self::Open(channel) => used + channel.receive(&mut bytes[used..], plaintext, received),
            Self::Handshake(_) | Self::Failed => used,
        }
    }

    /// The handshake is complete.
    fn open(&mut self, received: &mut Received) {
        if let Self::Handshake(handshake) = std::mem::replace(self, Self::Failed) {
            match handshake.into_channel() {
                Ok(channel) => *self = Self::Open(channel),
                Err(error) => received.end = Some(SessionEnd::Failed(error)),
            }
        }
    }
}

#[cfg(test)]
impl Session {
    /// Has keys of ours make fewer records than they may.
    pub(in crate::net) fn set_records_max(&mut self, records_max: u64) {
        self.channel().expect("keys").set_records_max(records_max);
    }

    pub(super) fn records_max(&mut self) -> u64 {
        self.channel().expect("keys").records_max()
    }
}

#[cfg(test)]
mod tests;
