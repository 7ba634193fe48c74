//! TLS inside the loop, beside connections that do not know of it.
//!
//! rustls does the handshake without buffers of its own, and hands over the keys that it has agreed on; the records behind it
//! are ours. A connection that speaks TLS has a flag, and its [`Session`] lies in a table by slot: a connection without TLS is as small
//! as before, and is asked one question more before a system call. A session reads no socket and writes none:
//!
//! - **In:** what one `recv` has brought is decrypted where it lies, whole records at a time, and their plaintext goes on as
//!   what a plain socket has brought, in the same turn. Nothing that is decrypted waits anywhere. What is no whole record yet
//!   stays with the session.
//! - **Out, from a room's log:** `log[cursor..tail]` is encrypted in records of at most 16 KiB into one buffer that all share, and
//!   each is written with one system call. What the socket does not take of a record waits in the connection's write buffer
//!   as *sealed* bytes, since a record can neither be left out nor made again. While something waits there, no more plaintext is
//!   taken. What counts as taken ends at a frame, as without TLS: the rest of a frame waits as plaintext.
//! - **Out, from a write buffer:** plaintext becomes sealed bytes a record at a time, and the next one only when the socket has
//!   taken the last.
//!
//! **Bounds.** A session comes into being with the first byte from its peer. It keeps one record at most that is not complete, and
//! one that is not taken; both are charged to the owner of the connection, and so is the handshake until it has agreed on keys.
//! A step of a handshake counts as many units of the turn's reads, since it costs as much time. Until a handshake is complete,
//! the timeout of a request's head runs. Each record counts as a unit, and a new key of the peer as several. There is one
//! renegotiation, refused; early data is not accepted; sessions are resumed by tickets, for which the server stores nothing.

mod channel;
mod cipher;
mod fault;
mod handshake;
mod identity;
mod received;
mod record;
mod session;

use std::sync::Arc;

use rustls::ServerConfig;

pub use self::identity::TlsIdentity;
pub(crate) use self::identity::{certified, read_chain, read_key};
pub(super) use self::received::SessionEnd;
use self::record::SEALED_BYTES_MAX;
pub(super) use self::record::{READ_BYTES_MAX, RECORD_BYTES};
use self::session::Session;
use crate::id::Slot;

/// What a net knows of TLS.
#[derive(Debug, Default)]
pub(in crate::net) struct Tls {
    config: Option<Arc<ServerConfig>>,
    /// By slot. Connections without TLS have none, and so have those that sent nothing yet, or are ending.
    sessions: Vec<Option<Box<Session>>>,
    /// What was decrypted of the connection that is being read.
    pub(in crate::net) plaintext: Vec<u8>,
    /// The record that is on its way out.
    pub(in crate::net) record: Box<[u8]>,
}

impl Tls {
    /// Sessions that begin from now on show this certificate.
    pub(in crate::net) fn set_identity(&mut self, identity: &TlsIdentity) {
        self.config = Some(identity.config());
        if self.record.is_empty() {
            self.record = vec![0; SEALED_BYTES_MAX].into_boxed_slice();
        }
    }

    /// Whether there is a certificate.
    ///
    /// # Errors
    /// What is missing.
    pub(in crate::net) fn check(&self) -> Result<(), &'static str> {
        match self.config {
            Some(_) => Ok(()),
            None => {
                Err("TLS is to be spoken, and there is no certificate; --tls-cert FILE and --tls-key FILE are needed")
            }
        }
    }

    /// Begins the session of a connection whose first bytes have come.
    ///
    /// # Errors
    /// What rustls says.
    pub(in crate::net) fn begin(&mut self, slot: Slot) -> Result<(), rustls::Error> {
        let config = self.config.clone().ok_or_else(|| rustls::Error::General("no certificate".to_owned()))?;
        if slot.index() >= self.sessions.len() {
            self.sessions.resize_with(slot.index() + 1, || None);
        }
        self.sessions[slot.index()] = Some(Box::new(Session::new(config)?));
        Ok(())
    }

    pub(in crate::net) fn has_session(&self, slot: Slot) -> bool {
        self.sessions.get(slot.index()).is_some_and(Option::is_some)
    }

    pub(in crate::net) fn session(&mut self, slot: Slot) -> Option<&mut Session> {
        self.sessions.get_mut(slot.index())?.as_deref_mut()
    }

    /// Nothing more is encrypted or decrypted for a connection.
    pub(in crate::net) fn end(&mut self, slot: Slot) -> Option<Box<Session>> {
        self.sessions.get_mut(slot.index())?.take()
    }

    /// Memory that the session of a connection holds besides what every session needs that has agreed on keys.
    pub(in crate::net) fn held_bytes(&self, slot: Slot) -> usize {
        let Some(session) = self.sessions.get(slot.index()).and_then(Option::as_ref) else { return 0 };
        session.handshake_bytes() + session.unread_capacity()
    }

    #[cfg(test)]
    pub(in crate::net) fn sessions_are_absent(&self) -> bool {
        self.sessions.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod peers;
