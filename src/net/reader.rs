//! The parser of a connection's frames, lent: between two messages no connection needs one of its own.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use crate::frame::FrameTracker;
use crate::protocol::CloseReason;
use crate::settings::NetLimits;
use crate::unicode::Escaped;

use super::write_buffer::WriteBuffer;

/// What a parser reads ahead. Larger reads copy less for large messages and more for small ones.
const READ_BYTES: usize = 512;

/// A parser that met a frame larger than this is not lent on: its buffer never shrinks.
const LENT_FRAME_BYTES_MAX: u64 = 64 * 1024;

/// A tungstenite parser, and what it does not tell about itself.
///
/// It serves the connection that is being read, and stays with it only while that is in the middle of a message:
/// thousands of idle connections share one.
#[derive(Debug)]
pub(super) struct Reader {
    context: WebSocketContext,
    tracker: FrameTracker,
    /// What the parser's buffer has grown to. It never shrinks.
    buffer_bytes: usize,
    /// How many of the next bytes of input the parser may read: so far the tracker has followed the stream.
    followed: usize,
    /// What was read from the socket and not yet by the parser, because it was stopped.
    unread: Unread,
    is_stopped: bool,
}

/// Input that a parser has yet to read: what it has read of it stays in front until all is read, so that going on many
/// times moves no bytes.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    read: usize,
}

impl Unread {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), read: 0 }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// All but the last `left` bytes are read.
    pub(super) fn leave(mut self, left: usize) -> Self {
        self.read = self.bytes.len() - left;
        if left == 0 { Self::default() } else { self }
    }
}

/// What a parser found.
#[derive(Debug)]
pub(super) enum Found {
    /// A message.
    Message(Message),
    /// All input is used up that it may read.
    NeedsInput,
    /// Both sides have said Close.
    Closed,
    /// The peer broke the protocol.
    Misbehaved(CloseReason),
}

/// The stream that tungstenite reads from and writes to: the bytes at hand, and the connection's write buffer.
struct Adapter<'a, 'input> {
    input: &'a mut &'input [u8],
    answers: &'a mut WriteBuffer,
}

impl Read for Adapter<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Adapter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reader {
    pub(super) fn new(limits: &NetLimits) -> Self {
        // With a write buffer of 0 every frame that tungstenite makes goes to the adapter at once, so that frames
        // encoded elsewhere can be put between them.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.message_bytes_max));
        Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            tracker: FrameTracker::checking_text(),
            buffer_bytes: READ_BYTES,
            followed: 0,
            unread: Unread::default(),
            is_stopped: false,
        }
    }

    /// Lets the parser read so many more frames of `input`, once it has read what it may. Says how many there are.
    ///
    /// tungstenite goes on until a message is complete, however many fragments that has; only less input stops it earlier.
    pub(super) fn follow(&mut self, input: &[u8], frames_max: u32) -> u32 {
        if self.followed > 0 {
            return 0;
        }
        let (bytes, frames) = self.tracker.advance_frames(input, frames_max);
        self.followed = bytes;
        self.note_largest();
        frames
    }

    /// The parser reserves space for a whole frame behind what it has read ahead; a frame that is too large it refuses first.
    fn note_largest(&mut self) {
        let largest = usize::try_from(self.tracker.largest()).unwrap_or(usize::MAX);
        let max = self.context.get_config().max_frame_size.unwrap_or(usize::MAX);
        let needed = largest.min(max).saturating_add(READ_BYTES);
        if largest > READ_BYTES && needed > self.buffer_bytes {
            self.buffer_bytes = needed.max(2 * self.buffer_bytes);
        }
    }

    /// Memory that it takes, with what it has of an incomplete message. tungstenite does not tell, so it is worked out as
    /// tungstenite allocates; a test compares it with the allocator's count.
    pub(super) fn bytes(&self) -> usize {
        let message = usize::try_from(self.tracker.message_capacity()).unwrap_or(usize::MAX);
        size_of::<Self>() + self.buffer_bytes + self.unread.bytes.capacity() + message
    }

    /// The next message in what it may read of `input`; answers that the protocol wants at once go to `answers`.
    pub(super) fn next(&mut self, input: &mut &[u8], answers: &mut WriteBuffer, limits: &NetLimits) -> Found {
        if self.tracker.fragments() > limits.fragments_max() {
            return Found::Misbehaved(CloseReason::TOO_BIG);
        }
        let (mut followed, rest) = input.split_at(self.followed);
        let result = self.context.read(&mut Adapter { input: &mut followed, answers });
        *input = &input[input.len() - rest.len() - followed.len()..];
        self.followed = followed.len();
        match result {
            Ok(message) => Found::Message(message),
            // Only the text of the frame that is being received is checked before the parser does: all before it is read.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => match self.tracker.has_bad_text() {
                true => Found::Misbehaved(CloseReason::NOT_UTF8),
                false => Found::NeedsInput,
            },
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Found::Closed,
            Err(error) => {
                log::debug!("peer misbehaved: {}", Escaped(&error));
                Found::Misbehaved(match error {
                    Error::Capacity(_) => CloseReason::TOO_BIG,
                    Error::Utf8(_) => CloseReason::NOT_UTF8,
                    _ => CloseReason::PROTOCOL,
                })
            }
        }
    }

    /// Stops before all input is read; the rest is kept.
    pub(super) fn stop(&mut self, unread: Unread) {
        self.unread = unread;
        self.is_stopped = true;
    }

    /// Goes on after a stop: gives what is to be read before anything else.
    pub(super) fn resume(&mut self) -> Unread {
        self.is_stopped = false;
        std::mem::take(&mut self.unread)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether the connection can do without it until more bytes come.
    pub(super) fn is_free(&self) -> bool {
        self.tracker.at_rest() && !self.is_stopped && self.context.can_write()
    }

    /// Whether another connection may have it, being free.
    pub(super) fn is_lendable(&self) -> bool {
        self.tracker.largest() <= LENT_FRAME_BYTES_MAX
    }

    /// Makes it ready for another connection.
    pub(super) fn renew(&mut self) {
        self.tracker = FrameTracker::checking_text();
    }

    /// Gives up parsing and only follows the headers, to see the peer's Close.
    pub(super) fn into_tracker(mut self) -> FrameTracker {
        self.tracker.ignore_text();
        self.tracker.advance(self.unread.as_slice().get(self.followed..).unwrap_or_default());
        self.tracker
    }
}
