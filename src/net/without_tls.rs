//! In place of what connections do that speak TLS: there are none without the feature `tls`.

use crate::id::Slot;

use super::Net;
use super::handler::Handler;
use super::write_buffer::WriteBuffer;

/// How many bytes one read of such a connection takes.
pub(super) const ENCRYPTED_READ_BYTES_MAX: usize = 0;

/// What a net knows of TLS.
#[derive(Debug, Default)]
pub(super) struct Tls(());

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Tls {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        Err("TLS is to be spoken, and this build has no TLS; the feature tls is needed")
    }

    pub(super) fn end(&mut self, _slot: Slot) {}

    pub(super) fn held_bytes(&self, _slot: Slot) -> usize {
        0
    }
}

impl<R> Net<R> {
    pub(super) fn take_received(&mut self, slot: Slot, bytes: &mut [u8], handler: &mut impl Handler<Route = R>) {
        self.take_bytes(slot, bytes, handler);
    }

    pub(super) fn send_encrypted(&mut self, _slot: Slot, _frames: &[u8]) -> usize {
        0
    }

    pub(super) fn begin_goodbye(&mut self, _slot: Slot) {}

    pub(super) fn write_encrypted(&mut self, _slot: Slot, _buffer: &mut WriteBuffer) -> Result<usize, ()> {
        Err(())
    }
}
