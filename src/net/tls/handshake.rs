//! The handshake of a session, which rustls does without buffers of its own.

use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, ProtocolVersion, ServerConfig};

use super::channel::Channel;
use super::received::{Received, SessionEnd};
use super::record::end_of_record;

/// A handshake that is not complete.
pub(super) struct TlsHandshake {
    connection: UnbufferedServerConnection,
    /// How many bytes rustls has been shown whose records are whole. It remembers places in them until their messages are, too.
    shown: usize,
}

impl TlsHandshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { connection: UnbufferedServerConnection::new(config)?, shown: 0 })
    }

    /// What it takes: its parts, and what rustls remembers. A test compares it with the allocator's count.
    pub(super) fn held_bytes(&self) -> usize {
        match self.connection.protocol_version() {
            None => 3072,
            Some(ProtocolVersion::TLSv1_3) => 4900,
            Some(_) => 3680,
        }
    }

    /// Shows rustls what has come, from the first byte that it has not used; says how many bytes it has used now.
    ///
    /// It is shown a record at a time, so that it sees none behind the last one of the handshake: what it would make of such
    /// a record could not be handed over with the keys.
    pub(super) fn receive(&mut self, bytes: &mut [u8], received: &mut Received) -> usize {
        let mut used = 0;
        loop {
            let whole = end_of_record(bytes, self.shown);
            let end = whole.unwrap_or(bytes.len());
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut bytes[used..end]);
            used += discard;
            let ended = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    append(data, &mut received.answer);
                    continue;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // It goes out with the write buffer, in order.
                    data.done();
                    continue;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => None,
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(SessionEnd::Told),
                Ok(_) => Some(SessionEnd::Failed(Error::General("a state that is not expected".to_owned()))),
                Err(error) => Some(SessionEnd::Failed(error)),
            };
            if ended.is_some() {
                self.take_alerts(&mut bytes[used..end], &mut received.answer);
                received.end = ended;
                return used;
            }
            match whole {
                Some(end) if self.connection.is_handshaking() => self.shown = end,
                _ => break,
            }
        }
        // They are not shown again.
        self.shown = self.shown.saturating_sub(used);
        if !self.connection.is_handshaking() {
            received.handshake = self.connection.handshake_kind();
        }
        used
    }

    /// A handshake that has failed has still to tell the peer why.
    fn take_alerts(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(bytes);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
            append(data, answer);
        }
    }

    /// Takes the keys that a complete handshake has agreed on.
    ///
    /// # Errors
    /// It is not complete, or the configuration does not allow it.
    pub(super) fn into_channel(self) -> Result<Channel, Error> {
        let (secrets, connection) = self.connection.dangerous_into_kernel_connection()?;
        Channel::new(secrets, connection)
    }
}

fn append(mut data: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let before = out.len();
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return };
    out.resize(before + needed.required_size, 0);
    // It has said how much it needs.
    let _ = data.encode(&mut out[before..]);
}
