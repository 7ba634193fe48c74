//! The TLS session of one connection: bytes in, bytes out, no socket.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, HandshakeKind};

use super::record::WIRE_RECORD_BYTES_MAX;

/// See the [module](self).
pub(in crate::net) struct Session {
    connection: UnbufferedServerConnection,
    /// What has come and is no whole record yet, or no whole message of a handshake. rustls remembers places in it, so it is
    /// shown again with every call.
    unread: Vec<u8>,
}

/// What the bytes that were received came to, besides plaintext.
#[derive(Debug, Default)]
pub(in crate::net) struct Received {
    /// What rustls answers: a part of the handshake, an alert.
    pub(in crate::net) answer: Vec<u8>,
    /// How many records carried plaintext.
    pub(in crate::net) records: u32,
    pub(in crate::net) end: Option<SessionEnd>,
}

/// Why nothing more can be received.
#[derive(Debug)]
pub(in crate::net) enum SessionEnd {
    /// The peer has said that it sends nothing more.
    Told,
    Failed(Error),
}

/// A session that can encrypt nothing, which is not to happen before its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Unusable;

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("unread", &self.unread.len()).finish_non_exhaustive()
    }
}

impl Session {
    pub(in crate::net) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { connection: UnbufferedServerConnection::new(config)?, unread: Vec::new() })
    }

    pub(in crate::net) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(in crate::net) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(in crate::net) fn unread_capacity(&self) -> usize {
        self.unread.capacity()
    }

    /// Takes bytes from the peer, which it overwrites, and appends what they say to `plaintext`.
    ///
    /// To be called no more once it has told of an [`SessionEnd`].
    ///
    /// **Bounds:** what is not complete stays here, up to the size of a record; beyond that the session fails.
    pub(in crate::net) fn receive(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Received {
        let mut received = Received::default();
        if self.unread.is_empty() {
            // Nearly always records come whole, and nothing has to be kept.
            let used = self.process(bytes, plaintext, &mut received);
            if used < bytes.len() && received.end.is_none() {
                self.unread.extend_from_slice(&bytes[used..]);
            }
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let used = self.process(&mut unread, plaintext, &mut received);
            if used < unread.len() && received.end.is_none() {
                unread.drain(..used);
                unread.shrink_to(2 * unread.len());
                self.unread = unread;
            }
        }
        if self.unread.len() > WIRE_RECORD_BYTES_MAX {
            // rustls refuses such records by itself; what is left are messages of a handshake in many records.
            let problem = format!("a message of a handshake exceeds {WIRE_RECORD_BYTES_MAX} bytes");
            received.end = Some(SessionEnd::Failed(Error::General(problem)));
        }
        received
    }

    /// Says how many bytes are used.
    fn process(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>, received: &mut Received) -> usize {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut bytes[used..]);
            let end = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        received.records += 1;
                        plaintext.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    append(data, &mut received.answer);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // It goes out with the write buffer, in order.
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => return used + discard,
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(SessionEnd::Told),
                Ok(_) => Some(SessionEnd::Failed(Error::General("a state that is not expected".to_owned()))),
                Err(error) => Some(SessionEnd::Failed(error)),
            };
            used += discard;
            if end.is_some() {
                self.take_alerts(&mut bytes[used..], &mut received.answer);
                received.end = end;
                return used;
            }
        }
    }

    /// A failed session has still to tell its peer why.
    fn take_alerts(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(bytes);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
            append(data, answer);
        }
    }

    /// Encrypts at most a record's plaintext; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// [`Unusable`] if it has failed, or has encrypted as much as its keys may.
    pub(in crate::net) fn encrypt(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Unusable> {
        self.write(out, |traffic, out| traffic.encrypt(plaintext, out).map_err(|_| Unusable))
    }

    /// Says that nothing more is sent; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// [`Unusable`] if it has failed, or has not agreed on keys.
    pub(in crate::net) fn say_goodbye(&mut self, out: &mut [u8]) -> Result<usize, Unusable> {
        self.write(out, |traffic, out| traffic.queue_close_notify(out).map_err(|_| Unusable))
    }

    fn write(
        &mut self,
        out: &mut [u8],
        write: impl FnOnce(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, Unusable>,
    ) -> Result<usize, Unusable> {
        let mut written = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.unread);
            debug_assert_eq!(discard, 0, "all that could be read has been read");
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return write(&mut traffic, &mut out[written..]).map(|bytes| written + bytes);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    written += data.encode(&mut out[written..]).map_err(|_| Unusable)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return Err(Unusable),
            }
        }
    }
}

type WriteTraffic<'c> = rustls::unbuffered::WriteTraffic<'c, ServerConnectionData>;

fn append(mut data: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let before = out.len();
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return };
    out.resize(before + needed.required_size, 0);
    // It has said how much it needs.
    let _ = data.encode(&mut out[before..]);
}

#[cfg(test)]
mod tests;
