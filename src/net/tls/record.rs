//! The outside of records: their sizes, types and headers (RFC 8446 section 5.1, RFC 5246 section 6.2.1).

use rustls::{AlertDescription, Error, InvalidMessage};

use super::fault::Fault;

/// How much plaintext a record may carry (RFC 8446 section 5.1).
pub(in crate::net) const RECORD_BYTES: usize = 16 * 1024;

/// A type, a version and a length.
pub(super) const HEADER_BYTES: usize = 5;

/// The largest record on the wire: header, plaintext, and what ciphers of TLS 1.2 may add (RFC 5246 section 6.2.3).
pub(super) const WIRE_RECORD_BYTES_MAX: usize = HEADER_BYTES + RECORD_BYTES + 2048;

/// How many bytes one read takes at most: a record. The least record carries a byte in 23, and costs as much as a small message.
pub(in crate::net) const READ_BYTES_MAX: usize = WIRE_RECORD_BYTES_MAX;

/// Room for a record, and for a short one that changes the key before it.
pub(super) const SEALED_BYTES_MAX: usize = WIRE_RECORD_BYTES_MAX + 1024;

/// Content types (RFC 8446 appendix B.1).
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

/// The header of a record that carries `body_bytes`. Its version is that of TLS 1.2, also with TLS 1.3.
pub(super) fn header(kind: u8, body_bytes: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(body_bytes <= WIRE_RECORD_BYTES_MAX - HEADER_BYTES);
    let [high, low] = (body_bytes as u16).to_be_bytes();
    [kind, 3, 3, high, low]
}

/// Where the record ends that begins at `start`, if all of it has come.
pub(super) fn end_of_record(bytes: &[u8], start: usize) -> Option<usize> {
    let length = bytes.get(start + 3..start + HEADER_BYTES)?;
    let end = start + HEADER_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    (end <= bytes.len()).then_some(end)
}

/// Cuts the record off that `bytes` begin with, if all of it has come.
///
/// # Errors
/// No record begins like that, or it is larger than `body_bytes_max`, whether all of it has come or not.
pub(super) fn first_record(bytes: &mut [u8], body_bytes_max: usize) -> Result<Option<&mut [u8]>, Fault> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    let invalid = |problem: InvalidMessage| Err(Fault::new(AlertDescription::DecodeError, problem));
    if !(CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind) {
        return invalid(InvalidMessage::InvalidContentType);
    }
    if major != 3 {
        return invalid(InvalidMessage::UnknownProtocolVersion);
    }
    if body_bytes == 0 && kind != APPLICATION_DATA {
        return invalid(InvalidMessage::InvalidEmptyPayload);
    }
    if body_bytes > body_bytes_max {
        return Err(Fault::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
    }
    Ok(bytes.get_mut(..HEADER_BYTES + body_bytes))
}
