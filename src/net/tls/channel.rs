//! The part of a session that comes after its handshake: what records say, and when keys are changed.
//!
//! rustls agrees on the keys and derives the next ones; records are made and opened by our own [`Cipher`]s. A session of rustls
//! would take three times the memory, and copy what it encrypts twice into memory that is allocated for it.

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage, PeerMisbehaved,
    ProtocolVersion, SupportedCipherSuite,
};

use super::cipher::{Cipher, Content};
use super::fault::Fault;
use super::received::{Received, SessionEnd, Unusable};
use super::record::{ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, RECORD_BYTES, first_record};

/// The units of a new key of the peer: it takes some microseconds to derive.
const KEY_UNITS: u32 = 16;

/// Room for a record with an alert.
const ALERT_RECORD_BYTES_MAX: usize = 64;

/// The beginning of a message that says that its sender has a new key (RFC 8446 section 4.6.3). A byte follows that says
/// whether it asks for the same.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const NOT_REQUESTED: u8 = 0;
const REQUESTED: u8 = 1;

const CLIENT_HELLO: u8 = 1;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Keys for both directions.
pub(super) struct Channel {
    sealing: Cipher,
    /// The number of the record before which our key is changed: because it may make no more, or because the peer has asked.
    key_change_at: u64,
    /// How many records a key of ours may make.
    records_max: u64,
    opening: Cipher,
    /// Derives the next keys, with TLS 1.3. That is seldom, so it lies elsewhere.
    secrets: Option<Box<KernelConnection<ServerConnectionData>>>,
    tolerance: Tolerance,
    /// How many bytes of [`KEY_UPDATE`] have come in records before.
    key_update_bytes: u8,
    /// The peer has said that it sends nothing more.
    is_told: bool,
}

/// The useless things that a peer may still do; as many as rustls allows.
struct Tolerance {
    /// Records in a row that carry nothing.
    empty_records: u8,
    /// New keys without a word in between.
    key_updates: u8,
    warnings: u8,
    renegotiations: u8,
}

impl Tolerance {
    const EMPTY_RECORDS: u8 = 32;
    const KEY_UPDATES: u8 = 32;

    fn new() -> Self {
        Self { empty_records: Self::EMPTY_RECORDS, key_updates: Self::KEY_UPDATES, warnings: 4, renegotiations: 1 }
    }
}

/// Takes one of what is left.
fn take(left: &mut u8, otherwise: PeerMisbehaved) -> Result<(), Fault> {
    *left = left.checked_sub(1).ok_or_else(|| Fault::unexpected(otherwise))?;
    Ok(())
}

impl Channel {
    /// # Errors
    /// The cipher is not known, which does not happen with those of [`rustls::crypto::ring`].
    pub(super) fn new(
        secrets: ExtractedSecrets,
        connection: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, Error> {
        let version = connection.protocol_version();
        let records_max = match connection.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        let mut channel = Self {
            sealing: Cipher::new(version, secrets.tx)?,
            key_change_at: 0,
            records_max,
            opening: Cipher::new(version, secrets.rx)?,
            secrets: (version == ProtocolVersion::TLSv1_3).then(|| Box::new(connection)),
            tolerance: Tolerance::new(),
            key_update_bytes: 0,
            is_told: false,
        };
        channel.plan_key_change();
        Ok(channel)
    }

    /// The last record of a key tells of the next one.
    fn plan_key_change(&mut self) {
        self.key_change_at = self.records_max - u64::from(self.secrets.is_some());
    }

    /// Makes a record, and before it another one if our key is to be changed; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// [`Unusable`] if the key may make no more records and cannot be changed, or if `out` is too short.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8], out: &mut [u8]) -> Result<usize, Unusable> {
        if self.sealing.records() < self.key_change_at {
            return self.sealing.seal(kind, content, out);
        }
        let start = match kind {
            // It is sent even then, since nearly always it is the last record.
            ALERT => 0,
            _ => self.change_key(out)?,
        };
        Ok(start + self.sealing.seal(kind, content, &mut out[start..])?)
    }

    /// Tells the peer of a new key, and takes it (RFC 8446 sections 4.6.3 and 5.5). Of the peer none is asked: it knows how
    /// many records it has made itself.
    #[cold]
    fn change_key(&mut self, out: &mut [u8]) -> Result<usize, Unusable> {
        let secrets = self.secrets.as_mut().ok_or(Unusable)?;
        let [a, b, c, d] = KEY_UPDATE;
        let bytes = self.sealing.seal(HANDSHAKE, &[a, b, c, d, NOT_REQUESTED], out)?;
        let next = secrets.update_tx_secret().and_then(|secrets| Cipher::new(ProtocolVersion::TLSv1_3, secrets));
        self.sealing = next.map_err(|_| Unusable)?;
        self.plan_key_change();
        Ok(bytes)
    }

    /// Says that nothing more is sent; says how many bytes of `out` that takes.
    ///
    /// # Errors
    /// `out` is too short.
    pub(super) fn say_goodbye(&mut self, out: &mut [u8]) -> Result<usize, Unusable> {
        self.seal(ALERT, &[WARNING, AlertDescription::CloseNotify.into()], out)
    }

    /// Takes the whole records that `bytes` begin with, which it overwrites, and appends what they say to `plaintext`. Says how many
    /// bytes that are.
    pub(super) fn receive(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>, received: &mut Received) -> usize {
        // How much padding and tags may add depends on the version (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
        let body_bytes_max = RECORD_BYTES + if self.secrets.is_some() { 256 } else { 2048 };
        let mut used = 0;
        while !self.is_told {
            let taken = match first_record(&mut bytes[used..], body_bytes_max) {
                Ok(None) => return used,
                Ok(Some(record)) => {
                    used += record.len();
                    received.units += 1;
                    self.take_record(record, plaintext, received)
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = taken {
                if let Some(alert) = fault.alert {
                    self.answer(&[FATAL, alert.into()], received);
                }
                received.end = Some(SessionEnd::Failed(fault.error));
                return used;
            }
        }
        // The rest is to be ignored (RFC 8446 section 6.1).
        received.end = Some(SessionEnd::Told);
        bytes.len()
    }

    /// Sends an alert.
    fn answer(&mut self, alert: &[u8], received: &mut Received) {
        let mut out = [0; ALERT_RECORD_BYTES_MAX];
        if let Ok(bytes) = self.seal(ALERT, alert, &mut out) {
            received.answer.extend_from_slice(&out[..bytes]);
        }
    }

    fn take_record(
        &mut self,
        record: &mut [u8],
        plaintext: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<(), Fault> {
        match record[0] {
            // TLS 1.3 has it within a handshake, TLS 1.2 before new keys; it is never encrypted.
            CHANGE_CIPHER_SPEC => return Err(Fault::unexpected(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec)),
            // It hides the type of all others.
            kind if self.secrets.is_some() && kind != APPLICATION_DATA => return Err(inappropriate(kind)),
            _ => {}
        }
        let content = self.opening.open(record)?;
        if self.key_update_bytes > 0 && content.kind != HANDSHAKE {
            // Section 5.1: a message in several records is interrupted by nothing.
            return Err(Fault::unexpected(PeerMisbehaved::MessageInterleavedWithHandshakeMessage));
        }
        match content {
            Content { kind: APPLICATION_DATA, bytes: [] } => {
                take(&mut self.tolerance.empty_records, PeerMisbehaved::TooManyEmptyFragments)
            }
            Content { kind: APPLICATION_DATA, bytes } => {
                self.tolerance.empty_records = Tolerance::EMPTY_RECORDS;
                self.tolerance.key_updates = Tolerance::KEY_UPDATES;
                plaintext.extend_from_slice(bytes);
                Ok(())
            }
            Content { kind: ALERT, bytes } => self.take_alert(bytes),
            Content { kind: HANDSHAKE, bytes } if self.secrets.is_some() => self.take_key_update(bytes, received),
            Content { kind: HANDSHAKE, bytes } => self.take_hello(bytes, received),
            Content { kind, .. } => Err(inappropriate(kind)),
        }
    }

    /// Section 6, and RFC 5246 section 7.2.
    fn take_alert(&mut self, alert: &[u8]) -> Result<(), Fault> {
        let [level, description] = *alert else {
            let invalid = InvalidMessage::TrailingData("AlertMessagePayload");
            return Err(Fault::new(AlertDescription::DecodeError, invalid));
        };
        let description = AlertDescription::from(description);
        let told = Error::AlertReceived(description);
        match (level, description) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => {
                self.is_told = true;
                Ok(())
            }
            (FATAL, _) => Err(Fault { alert: None, error: told }),
            // TLS 1.3 has no other warnings; some send this one before they say that they send nothing more.
            (WARNING, description) if self.secrets.is_none() || description == AlertDescription::UserCanceled => {
                take(&mut self.tolerance.warnings, PeerMisbehaved::TooManyWarningAlertsReceived)
            }
            (WARNING, _) => Err(Fault::new(AlertDescription::DecodeError, told)),
            _ => Err(Fault::new(AlertDescription::IllegalParameter, told)),
        }
    }

    /// With TLS 1.3 there is one message of a handshake that clients may send later: they have a new key. It may come in
    /// several records, and nothing may follow it in its own (section 5.1).
    fn take_key_update(&mut self, message: &[u8], received: &mut Received) -> Result<(), Fault> {
        let invalid = |alert| Fault::new(alert, InvalidMessage::InvalidKeyUpdate);
        if message.is_empty() {
            return Err(Fault::unexpected(InvalidMessage::InvalidEmptyPayload));
        }
        for (at, byte) in message.iter().enumerate() {
            match (KEY_UPDATE.get(usize::from(self.key_update_bytes)), *byte) {
                (Some(expected), byte) if *expected == byte => self.key_update_bytes += 1,
                (Some(24), kind) => return Err(inappropriate_message(kind, HandshakeType::KeyUpdate)),
                (Some(_), _) => return Err(invalid(AlertDescription::DecodeError)),
                (None, NOT_REQUESTED | REQUESTED) if at + 1 < message.len() => {
                    return Err(Fault::unexpected(PeerMisbehaved::KeyEpochWithPendingFragment));
                }
                (None, NOT_REQUESTED) => self.open_with_next_key(received)?,
                (None, REQUESTED) => {
                    self.open_with_next_key(received)?;
                    // However often it asks, it is answered once, before something is said to it.
                    self.key_change_at = 0;
                }
                (None, _) => return Err(invalid(AlertDescription::IllegalParameter)),
            }
        }
        Ok(())
    }

    fn open_with_next_key(&mut self, received: &mut Received) -> Result<(), Fault> {
        self.key_update_bytes = 0;
        received.units += KEY_UNITS;
        take(&mut self.tolerance.key_updates, PeerMisbehaved::TooManyKeyUpdateRequests)?;
        let Some(secrets) = &mut self.secrets else { return Ok(()) };
        let next = secrets.update_rx_secret().and_then(|secrets| Cipher::new(ProtocolVersion::TLSv1_3, secrets));
        self.opening = next.map_err(|error| Fault::new(AlertDescription::InternalError, error))?;
        Ok(())
    }

    /// With TLS 1.2 clients may ask for another handshake, which is refused once (RFC 5246 section 7.2.2).
    fn take_hello(&mut self, message: &[u8], received: &mut Received) -> Result<(), Fault> {
        match *message {
            [CLIENT_HELLO, a, b, c, ref hello @ ..] if u32::from_be_bytes([0, a, b, c]) as usize == hello.len() => {
                take(&mut self.tolerance.renegotiations, PeerMisbehaved::TooManyRenegotiationRequests)?;
                self.answer(&[WARNING, AlertDescription::NoRenegotiation.into()], received);
                Ok(())
            }
            [kind, ..] => Err(inappropriate_message(kind, HandshakeType::ClientHello)),
            [] => Err(Fault::unexpected(InvalidMessage::InvalidEmptyPayload)),
        }
    }
}

/// A record whose type may not come now.
fn inappropriate(kind: u8) -> Fault {
    let (expect_types, got_type) = (vec![ContentType::ApplicationData], ContentType::from(kind));
    Fault::unexpected(Error::InappropriateMessage { expect_types, got_type })
}

/// A message of a handshake that may not come now.
fn inappropriate_message(kind: u8, expected: HandshakeType) -> Fault {
    let (expect_types, got_type) = (vec![expected], HandshakeType::from(kind));
    Fault::unexpected(Error::InappropriateHandshakeMessage { expect_types, got_type })
}

#[cfg(test)]
impl Channel {
    pub(super) fn set_records_max(&mut self, records_max: u64) {
        self.records_max = records_max;
        self.plan_key_change();
    }

    pub(super) fn records_max(&self) -> u64 {
        self.records_max
    }
}

#[cfg(test)]
mod tests;
