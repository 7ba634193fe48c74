//! One connection: its socket, where it is in its life, and what is known of its readiness.

use crate::deadline::Tick;
use crate::frame::FrameWalk;
use crate::id::{ConnectionId, ConnectionSerial, Slot};

use super::body::{Unanswered, Unfinished};
use super::output::Output;
use super::reader::Reader;
use super::stream::Stream;

/// A connection. Idle, it owns its socket and these few words, no buffers and no parser.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) serial: ConnectionSerial,
    pub(super) phase: Phase,
    /// There is one only while something waits in it.
    pub(super) output: Option<Box<Output>>,
    /// Of an open connection, when the last byte came; of any other, when its phase began.
    pub(super) since: Tick,
    /// Since when it is owed bytes and takes none; the zero tick if it takes them.
    pub(super) blocked: Tick,
    /// Where its entry stands on the wheel; entries found elsewhere are left-overs.
    pub(super) looked_at: Tick,
    flags: u8,
}

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// The HTTP head is being read; so much of it is here.
    #[allow(clippy::box_collection, reason = "rarely there; sixteen bytes less in every connection")]
    Head(Option<Box<Vec<u8>>>),
    /// The body of a request is being read.
    Body(Box<Unfinished>),
    /// A request is complete, and its answer is still to come. Nothing is read meanwhile.
    Waiting(Box<Unanswered>),
    /// A request was answered, another may follow. So much of that is here already, and is looked at when the answer is written.
    #[allow(clippy::box_collection, reason = "as above")]
    Between(Option<Box<Vec<u8>>>),
    /// It is a WebSocket. It has a parser only in the middle of something. It was pinged in the tick `pinged`, the zero
    /// tick if nothing is to be answered.
    Open { reader: Option<Box<Reader>>, pinged: Tick },
    /// It is to end when its output is written.
    Flushing,
    /// It is to end when its output is written and the peer has said Close, or hung up.
    AwaitingClose(Box<FrameWalk>),
    /// It is to end when its output is written and the peer, told that nothing more comes, has hung up. To close earlier
    /// would reset the connection if the peer has sent something unread, and the output could be lost (RFC 9112 section
    /// 9.6).
    Draining,
    /// It has ended, and is freed at the end of a turn.
    Gone,
}

/// What the system said of the socket, what was found by using it, and in which lists it waits: bits of one byte.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flag {
    Readable = 1,
    /// The peer will send nothing more, so that a short read is not the end of what is there.
    ReadClosed = 2,
    Writable = 4,
    /// It was offered something that it did not take, and whoever offered waits to be told that it would now.
    Refused = 8,
    /// It waits in the list of connections to be read.
    Queued = 16,
    /// It waits in the list of connections whose own output is to be written.
    Dirty = 32,
    /// A write has failed: nothing is written any more, and when all that has come is read it ends.
    Broken = 64,
}

impl Connection {
    pub(super) fn new(stream: Stream, serial: ConnectionSerial, now: Tick) -> Self {
        Self {
            stream,
            serial,
            phase: Phase::Head(None),
            output: None,
            since: now,
            blocked: Tick::default(),
            looked_at: Tick::default(),
            // A new socket takes bytes; that it has some is told by an event.
            flags: Flag::Writable as u8,
        }
    }

    pub(super) fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot: Slot(slot), serial: self.serial }
    }

    #[inline]
    pub(super) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u8;
    }

    #[inline]
    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u8);
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
    }

    /// It was upgraded; the heartbeat begins.
    pub(super) fn open(&mut self, now: Tick) {
        self.phase = Phase::Open { reader: None, pinged: Tick::default() };
        self.since = now;
    }

    /// Leaves a parser with it that is in the middle of something.
    pub(super) fn keep_reader(&mut self, kept: Box<Reader>) {
        if let Phase::Open { reader, .. } = &mut self.phase {
            *reader = Some(kept);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether there is something to read, from the socket or kept.
    pub(super) fn has_input(&self) -> bool {
        self.is(Flag::Readable)
            || matches!(&self.phase, Phase::Open { reader: Some(reader), .. } if reader.is_stopped())
            || matches!(&self.phase, Phase::Between(Some(_)))
    }

    /// Whether it is not read before it has taken more of its output: who does not take answers is not asked for more questions.
    pub(super) fn must_take_first(&self, output_bytes_max: usize) -> bool {
        match self.phase {
            Phase::Open { .. } => self.output_bytes() > output_bytes_max / 2,
            Phase::Between(_) => self.output.is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // In debug builds mio remembers in every socket which poll it belongs to; otherwise it is four bytes. A second
        // variant, for vacant slots, needs no room of its own.
        let bytes = std::mem::size_of::<Option<Connection>>() - std::mem::size_of::<Stream>();
        assert!(bytes <= 48, "{bytes} bytes");
    }
}
