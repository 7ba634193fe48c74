//! The sizes of records.

/// How much plaintext a record may carry (RFC 8446 section 5.1).
pub(in crate::net) const RECORD_BYTES: usize = 16 * 1024;

/// The largest record on the wire: header, plaintext, and what ciphers of TLS 1.2 may add (RFC 5246 section 6.2.3).
pub(super) const WIRE_RECORD_BYTES_MAX: usize = 5 + RECORD_BYTES + 2048;

/// How many bytes one read takes at most: a record. The least record carries a byte in 23, and costs as much as a small message.
pub(in crate::net) const READ_BYTES_MAX: usize = WIRE_RECORD_BYTES_MAX;

/// Room for a record, and for a few short ones that rustls may want to send before it.
pub(super) const SEALED_BYTES_MAX: usize = WIRE_RECORD_BYTES_MAX + 1024;
