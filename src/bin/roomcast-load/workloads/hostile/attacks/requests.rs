//! Sockets that never become WebSockets.

use std::time::Duration;

use bytes::Bytes;

use crate::workloads::hostile::attack::{Attack, Move, Seat};

/// The beginning of a record of TLS: a handshake of 512 bytes.
pub(super) const TLS_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks for the page at `/` on connections that stay open.
#[derive(Debug)]
pub(super) struct PageRequests;

impl Attack for PageRequests {
    fn raw_hello(&self) -> Option<Bytes> {
        Some(Bytes::from_static(GET))
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn next(&mut self, _: Seat) -> Move {
        Move::Send(Bytes::from_static(GET))
    }
}

/// Sends these bytes and nothing more.
#[derive(Debug)]
pub(super) struct SilentSocket {
    pub(super) hello: &'static [u8],
}

impl Attack for SilentSocket {
    fn raw_hello(&self) -> Option<Bytes> {
        Some(Bytes::from_static(self.hello))
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn next(&mut self, _: Seat) -> Move {
        Move::Wait
    }
}

/// Sends a head that is too large, and goes on sending after the answer.
#[derive(Debug)]
pub(super) struct RefusedRequest {
    junk: Bytes,
}

impl Default for RefusedRequest {
    fn default() -> Self {
        Self { junk: vec![b'x'; 64 * 1024].into() }
    }
}

impl Attack for RefusedRequest {
    fn raw_hello(&self) -> Option<Bytes> {
        Some([b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", &self.junk[..20_000]].concat().into())
    }

    fn interval(&self) -> Duration {
        Duration::ZERO
    }

    fn next(&mut self, _: Seat) -> Move {
        Move::Send(self.junk.clone())
    }
}
