//! The results of a session: of bytes that have come, and of bytes that are to go out.

use rustls::{Error, HandshakeKind};

/// What the bytes that were received came to, besides plaintext.
#[derive(Debug, Default)]
pub(in crate::net) struct Received {
    /// What is to be sent in answer: a part of the handshake, an alert.
    pub(in crate::net) answer: Vec<u8>,
    /// The handshake that is complete with these bytes.
    pub(in crate::net) handshake: Option<HandshakeKind>,
    /// What they count, besides what as many bytes do: one for each record behind the handshake, and more for a new key.
    pub(in crate::net) units: u32,
    pub(in crate::net) end: Option<SessionEnd>,
}

/// Why nothing more can be received.
#[derive(Debug)]
pub(in crate::net) enum SessionEnd {
    /// The peer has said that it sends nothing more.
    Told,
    Failed(Error),
}

/// A session that can encrypt nothing: it has not agreed on keys, has failed, or has encrypted as much as its keys may.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Unusable;
