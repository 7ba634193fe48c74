//! A connection's socket as the hub sees it: own output first, then whole frames, the last of which may be torn.

use roomcast::ConnectionId;
use roomcast::internals::frame::{self, Head};

/// The server's end of a connection, and the bytes that the other end has received.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    own: Vec<u8>,
    /// How many bytes the socket takes before it refuses.
    space: usize,
    /// Whether the hub has to be told when own output is empty and the socket takes bytes.
    is_awaited: bool,
    received: Vec<u8>,
    read: usize,
    pub(crate) torn: u64,
}

impl Link {
    pub(crate) fn new(id: ConnectionId) -> Self {
        let (own, received) = (Vec::new(), Vec::new());
        Self { id, own, space: usize::MAX, is_awaited: false, received, read: 0, torn: 0 }
    }

    pub(crate) fn own_bytes(&self) -> usize {
        self.own.len()
    }

    /// Whether something waits for the socket to take it.
    pub(crate) fn is_owed(&self) -> bool {
        self.space == 0 && self.is_awaited
    }

    pub(crate) fn set_space(&mut self, bytes: usize) {
        self.space = bytes;
    }

    pub(crate) fn push_own(&mut self, frames: &[u8]) {
        self.own.extend_from_slice(frames);
        self.is_awaited = true;
    }

    /// Writes own output as far as the socket takes it; says whether the hub is to be told that it is drained.
    #[must_use]
    pub(crate) fn pump(&mut self) -> bool {
        let taken = self.own.len().min(self.space);
        self.write(taken, None);
        self.own.is_empty() && self.space > 0 && std::mem::take(&mut self.is_awaited)
    }

    /// Takes whole frames; the rest of one that was torn goes to the front of own output, which is empty then.
    pub(crate) fn send(&mut self, frames: &[u8]) -> usize {
        if !self.own.is_empty() {
            let taken = self.own.len().min(self.space);
            self.write(taken, None);
        }
        if !self.own.is_empty() {
            self.is_awaited = true;
            return 0;
        }
        let taken = frames.len().min(self.space);
        self.write(taken, Some(frames));
        if taken == frames.len() {
            return taken;
        }
        self.is_awaited = true;
        let boundary = frame::boundary_after(frames, taken);
        self.torn += u64::from(boundary > taken);
        self.own.extend_from_slice(&frames[taken..boundary]);
        boundary
    }

    fn write(&mut self, taken: usize, frames: Option<&[u8]>) {
        match frames {
            Some(frames) => self.received.extend_from_slice(&frames[..taken]),
            None => self.received.extend(self.own.drain(..taken)),
        }
        if self.space != usize::MAX {
            self.space -= taken;
        }
    }

    /// Bytes received that no whole frame has been made of yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.received[self.read..]
    }

    /// The next whole frame that the other end has received.
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        let unread = self.unread();
        let head = Head::parse(unread)?;
        let bytes = head.header_bytes + head.payload_bytes as usize;
        let frame = unread.get(..bytes)?.to_vec();
        self.read += bytes;
        if self.read == self.received.len() {
            self.received.clear();
            self.read = 0;
        }
        Some(frame)
    }
}

/// The payload of a frame as every server-to-client text must be: unmasked, unfragmented, UTF-8.
pub(crate) fn text_payload(frame: &[u8]) -> Result<&str, String> {
    let head = Head::parse(frame).expect("whole frames have a head");
    if frame[0] != 0x81 || frame[1] & 0x80 != 0 {
        return Err(format!("frame begins with {:02x} {:02x}, not an unmasked whole text", frame[0], frame[1]));
    }
    std::str::from_utf8(&frame[head.header_bytes..]).map_err(|error| format!("frame is not UTF-8: {error}"))
}
