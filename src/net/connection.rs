//! One connection: its socket, where it is in its life, and what its readiness is known to be.

use crate::deadline::Tick;
use crate::frame::FrameWalk;
use crate::id::ConnectionId;

use super::output::Output;
use super::reader::Reader;
use super::stream::Stream;

/// A connection. Idle, it owns its socket and these few words, no buffers and no parser.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// There is one only while something waits in it.
    pub(super) output: Option<Box<Output>>,
    /// When the last byte came.
    pub(super) seen: Tick,
    /// What the phase measures: its beginning, or when an open connection was pinged; the zero tick if it was not.
    pub(super) since: Tick,
    /// Since when it is owed bytes and takes none; the zero tick if it takes them.
    pub(super) blocked: Tick,
    /// Where its entry stands on the wheel; entries found elsewhere are left-overs.
    pub(super) looked_at: Tick,
    pub(super) readiness: Readiness,
    /// Whether it waits in the list of connections to be read.
    pub(super) is_queued: bool,
    /// Whether it waits in the list of connections whose own output is to be written.
    pub(super) is_dirty: bool,
}

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// The HTTP head is being read; so much of it is here.
    #[allow(clippy::box_collection, reason = "rarely there; sixteen bytes less in every connection")]
    Head(Option<Box<Vec<u8>>>),
    /// It is a WebSocket. It has a parser only in the middle of something.
    Open(Option<Box<Reader>>),
    /// It is to end.
    Closing(Goodbye),
    /// It has ended, and is freed at the end of a turn.
    Gone,
}

/// How a connection ends.
#[derive(Debug)]
pub(super) enum Goodbye {
    /// When its output is written.
    Flush,
    /// When its output is written and the peer has said Close, or hung up.
    AwaitClose(Box<FrameWalk>),
    /// When its output is written and the peer, told that nothing more comes, has hung up. To close earlier would
    /// reset the connection if the peer has sent something unread, and the output could be lost (RFC 9112 section 9.6).
    Drain,
}

/// What the system said of the socket and what was found by using it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    /// The peer will send nothing more, so that a short read is not the end of what is there.
    pub(super) read_closed: bool,
    pub(super) writable: bool,
    /// It was offered something that it did not take, and whoever offered waits to be told that it would now.
    pub(super) refused: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, generation: u32, now: Tick) -> Self {
        Self {
            stream,
            generation,
            phase: Phase::Head(None),
            output: None,
            seen: now,
            since: now,
            blocked: Tick::default(),
            looked_at: Tick::default(),
            // A new socket takes bytes; that it has some is told by an event.
            readiness: Readiness { writable: true, ..Readiness::default() },
            is_queued: false,
            is_dirty: false,
        }
    }

    pub(super) fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.generation }
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether there is something to read, from the socket or kept.
    pub(super) fn has_input(&self) -> bool {
        self.readiness.readable || matches!(&self.phase, Phase::Open(Some(reader)) if reader.is_stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // In debug builds mio remembers in every socket which poll it belongs to.
        let mio_bytes = std::mem::size_of::<Stream>() - 8;
        let bytes = std::mem::size_of::<Connection>() - mio_bytes;
        assert!(bytes <= 64, "{bytes} bytes");
    }
}
