//! WebSocket frames (RFC 6455 section 5.2) as bytes. A frame for many receivers is encoded once, and
//! frame boundaries are found in both directions.

use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use crate::text_check::TextCheck;

/// An unmasked ping without payload.
pub const PING: [u8; 2] = [0x89, 0];

/// Whether a frame carries text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// UTF-8 text, opcode 1.
    Text,
    /// Bytes, opcode 2.
    Binary,
}

/// The most bytes that the header of an unmasked frame has.
const HEADER_BYTES_MAX: usize = 10;

/// Appends the header of an unmasked, unfragmented frame with a payload of `payload_bytes`.
pub fn append_header(out: &mut Vec<u8>, payload: Payload, payload_bytes: usize) {
    let (header, header_bytes) = header(payload, payload_bytes);
    out.extend_from_slice(&header[..header_bytes]);
}

#[expect(clippy::expect_used, reason = "ten bytes hold any header")]
fn header(payload: Payload, payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let opcode = OpCode::Data(match payload {
        Payload::Text => Data::Text,
        Payload::Binary => Data::Binary,
    });
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut bytes = [0; HEADER_BYTES_MAX];
    let mut rest = &mut bytes[..];
    header.format(payload_bytes as u64, &mut rest).expect("ten bytes hold any header");
    let used = HEADER_BYTES_MAX - rest.len();
    (bytes, used)
}

/// Appends a text frame whose payload `write` writes. Its length need not be known beforehand.
pub(crate) fn append_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // Room for the header of a frame of 126 bytes to 64 KiB; the payload of any other size is moved once.
    const GUESS: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; GUESS]);
    write(out);
    let (header, header_bytes) = header(Payload::Text, out.len() - start - GUESS);
    if header_bytes == GUESS {
        out[start..start + GUESS].copy_from_slice(&header[..GUESS]);
    } else {
        out.splice(start..start + GUESS, header[..header_bytes].iter().copied());
    }
}

/// Appends a Close frame with the code and the sentence of a [`CloseReason`](crate::protocol::CloseReason).
#[expect(clippy::expect_used, reason = "writing into memory does not fail")]
pub(crate) fn append_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    debug_assert!(reason.len() <= 123);
    let close = CloseFrame { code: code.into(), reason: reason.into() };
    Frame::close(Some(close)).format(out).expect("writing into memory does not fail");
}

/// The bytes of an unmasked frame with a payload of `payload_bytes`, header included.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    payload_bytes
        + match payload_bytes {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        }
}

/// The header of a frame, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The four bits of the opcode.
    pub opcode: u8,
    /// Whether it is the last fragment of its message.
    pub is_final: bool,
    /// Bytes of the header, mask included.
    pub header_bytes: usize,
    /// Bytes of the payload as announced, not checked against any bound.
    pub payload_bytes: u64,
    /// Whether it has a bit that no extension was agreed on for.
    pub has_reserved_bits: bool,
    /// What the payload is masked with.
    pub mask: Option<[u8; 4]>,
}

impl Head {
    /// Whether this is a Close frame.
    pub fn is_close(&self) -> bool {
        self.opcode == 8
    }

    /// Whether this is a data frame or a continuation of one.
    pub fn is_data(&self) -> bool {
        self.opcode < 8
    }

    /// Reads the header at the beginning of `bytes`; `None` if it is not all there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let [first, second] = *bytes.first_chunk()?;
        let (length_bytes, payload_bytes) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(*bytes[2..].first_chunk()?))),
            127 => (8, u64::from_be_bytes(*bytes[2..].first_chunk()?)),
            short => (0, u64::from(short)),
        };
        let unmasked_bytes = 2 + length_bytes;
        let mask = if second & 0x80 == 0 { None } else { Some(*bytes.get(unmasked_bytes..)?.first_chunk()?) };
        let header_bytes = unmasked_bytes + if mask.is_some() { 4 } else { 0 };
        Some(Head {
            opcode: first & 0x0f,
            is_final: first & 0x80 != 0,
            header_bytes,
            payload_bytes,
            has_reserved_bits: first & 0x70 != 0,
            mask,
        })
    }
}

/// The first frame boundary at or behind byte `position` of `frames`, which are whole frames encoded here.
#[expect(clippy::expect_used, reason = "frames encoded here are whole")]
pub fn boundary_after(frames: &[u8], position: usize) -> usize {
    let mut boundary = 0;
    while boundary < position {
        let head = Head::parse(&frames[boundary..]).expect("frames encoded here are whole");
        boundary += head.header_bytes + head.payload_bytes as usize;
    }
    boundary
}

/// Follows the frame headers of a byte stream, and knows whether the stream is in the middle of a
/// message. The stream may be cut anywhere.
///
/// tungstenite does not tell whether a parser is between two messages. The tracker does, for about 15 ns a message. It looks
/// at payloads only if it [checks text](FrameTracker::checking_text), and then only at those of frames that are cut or that
/// are fragments: the parser checks all others in the same turn.
#[derive(Debug, Default)]
pub(crate) struct FrameTracker {
    header: [u8; 14],
    header_bytes: u8,
    payload_left: u64,
    fragments: u32,
    largest: u64,
    closed: bool,
    message: FragmentedMessage,
    text: Option<TextCheck>,
}

/// The fragments of a message that is not complete, as a parser collects them.
#[derive(Debug, Default)]
struct FragmentedMessage {
    bytes: u64,
    /// What a list has that grew to them one fragment at a time.
    capacity: u64,
    /// The fragment that is being received.
    next_bytes: u64,
    is_last: bool,
}

impl FragmentedMessage {
    /// A data frame begins, which may be a fragment.
    fn begin(&mut self, head: &Head, is_fragment: bool) {
        self.next_bytes = if is_fragment { head.payload_bytes } else { 0 };
        self.is_last = head.is_final;
    }

    /// A frame is complete.
    fn end_frame(&mut self) {
        if self.is_last {
            *self = Self::default();
            return;
        }
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut self.next_bytes));
        if self.bytes > self.capacity {
            self.capacity = self.bytes.max(self.capacity.saturating_mul(2));
        }
    }
}

impl FrameTracker {
    /// One that also looks at text that is not complete.
    pub(crate) fn checking_text() -> Self {
        Self { text: Some(TextCheck::default()), ..Self::default() }
    }

    /// From now on it looks at headers alone.
    pub(crate) fn ignore_text(&mut self) {
        self.text = None;
    }

    /// Whether text has come that is not UTF-8, in a frame that is not complete.
    pub(crate) fn has_bad_text(&self) -> bool {
        self.text.as_ref().is_some_and(TextCheck::is_bad)
    }

    /// Follows the next bytes of the stream.
    pub(crate) fn advance(&mut self, input: &[u8]) {
        self.advance_frames(input, u32::MAX);
    }

    /// Follows the next bytes of the stream, up to the end of so many frames that begin in them. Says how many bytes and
    /// frames that were; what follows a Close frame counts as part of it.
    pub(crate) fn advance_frames(&mut self, input: &[u8], frames_max: u32) -> (usize, u32) {
        let (mut rest, mut frames) = (input, 0);
        while !rest.is_empty() && !self.closed {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(rest.len() as u64);
                self.payload_left -= skipped;
                if let Some(text) = &mut self.text
                    && (self.payload_left > 0 || !self.message.is_last)
                {
                    text.check(&rest[..skipped as usize]);
                }
                rest = &rest[skipped as usize..];
                if self.payload_left == 0 {
                    self.message.end_frame();
                }
                continue;
            }
            if frames == frames_max {
                return (input.len() - rest.len(), frames);
            }
            let Some((head, used)) = self.take_header(rest) else { break };
            frames += 1;
            rest = &rest[used..];
            self.payload_left = head.payload_bytes;
            self.largest = self.largest.max(head.payload_bytes);
            self.closed = head.is_close();
            if let Some(text) = &mut self.text {
                // The parser refuses frames without a mask or with reserved bits, for a reason of their own.
                text.begin(head.opcode, head.mask.filter(|_| !head.has_reserved_bits));
                if head.is_data() && head.is_final {
                    text.begin_last();
                }
            }
            if head.is_data() {
                self.message.begin(&head, !head.is_final || self.fragments > 0);
                self.fragments = if head.is_final { 0 } else { self.fragments.saturating_add(1) };
            }
            if self.payload_left == 0 {
                self.message.end_frame();
            }
        }
        (input.len(), frames)
    }

    /// Completes a header from the bytes that were kept and `input`, or keeps `input` too. Returns how
    /// many bytes of `input` belong to the header.
    fn take_header(&mut self, input: &[u8]) -> Option<(Head, usize)> {
        if self.header_bytes == 0
            && let Some(head) = Head::parse(input)
        {
            return Some((head, head.header_bytes));
        }
        let kept = usize::from(self.header_bytes);
        let added = input.len().min(self.header.len() - kept);
        self.header[kept..kept + added].copy_from_slice(&input[..added]);
        let Some(head) = Head::parse(&self.header[..kept + added]) else {
            self.header_bytes = (kept + added) as u8;
            return None;
        };
        self.header_bytes = 0;
        Some((head, head.header_bytes - kept))
    }

    /// Whether the stream stands between two messages.
    pub(crate) fn at_rest(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0 && self.fragments == 0
    }

    /// How many fragments of an incomplete message have come.
    pub(crate) fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Memory that the fragments of an incomplete message take which have come.
    pub(crate) fn message_capacity(&self) -> u64 {
        self.message.capacity
    }

    /// The largest payload announced so far.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Whether a Close frame has begun. Bytes behind its header are ignored.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append_text(&mut out, |out| out.extend_from_slice(payload));
        out
    }

    #[test]
    fn encoded_frames_are_what_tungstenite_encodes() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; size];
            let mut expected = Vec::new();
            Frame::message(payload.clone(), OpCode::Data(Data::Text), true).format(&mut expected).unwrap();
            assert_eq!(text(&payload), expected, "{size}");
            assert_eq!(frame_bytes(size), expected.len());
        }
    }

    #[test]
    fn boundaries_are_found() {
        let frames = [text(b""), text(b"abc"), text(&[b'x'; 200]), text(&[b'x'; 70_000])];
        let all = frames.concat();
        let mut ends = vec![0];
        for frame in &frames {
            ends.push(ends.last().unwrap() + frame.len());
        }
        for position in 0..=all.len() {
            let expected = *ends.iter().find(|end| **end >= position).unwrap();
            assert_eq!(boundary_after(&all, position), expected);
        }
    }

    #[test]
    fn a_tracker_is_at_rest_exactly_between_messages() {
        // A whole text, a text in two fragments with a ping between, and a large one; masked as a client's.
        let frame = |first: u8, payload: usize| {
            let mut bytes = vec![first];
            match payload {
                0..=125 => bytes.push(0x80 | payload as u8),
                _ => {
                    bytes.push(0x80 | 126);
                    bytes.extend((payload as u16).to_be_bytes());
                }
            }
            bytes.extend([1, 2, 3, 4]);
            bytes.resize(bytes.len() + payload, 0xff);
            bytes
        };
        let frames = [frame(0x81, 5), frame(0x01, 3), frame(0x89, 2), frame(0x80, 0), frame(0x82, 300)];
        let all = frames.concat();
        let mut rests = vec![0];
        let mut end = 0;
        for (i, frame) in frames.iter().enumerate() {
            end += frame.len();
            if ![1, 2].contains(&i) {
                rests.push(end);
            }
        }
        // Every way to cut the stream into two.
        for cut in 0..=all.len() {
            let mut tracker = FrameTracker::default();
            tracker.advance(&all[..cut]);
            assert_eq!(tracker.at_rest(), rests.contains(&cut), "at {cut}");
            tracker.advance(&all[cut..]);
            assert!(tracker.at_rest() && !tracker.closed(), "cut at {cut}");
            assert_eq!(tracker.largest(), 300);
        }
        // Byte by byte.
        let mut tracker = FrameTracker::default();
        for (i, byte) in all.iter().enumerate() {
            tracker.advance(&[*byte]);
            assert_eq!(tracker.at_rest(), rests.contains(&(i + 1)), "after {i}");
        }
    }

    #[test]
    fn a_tracker_stops_behind_the_last_frame_that_it_may_follow() {
        let frames = [text(b"abc"), text(b""), text(&[b'x'; 300])];
        let all = frames.concat();
        let mut tracker = FrameTracker::default();
        assert_eq!(tracker.advance_frames(&all, 2), (frames[0].len() + frames[1].len(), 2));
        // The third is cut in its payload, the fourth in its header.
        assert_eq!(tracker.advance_frames(&frames[2][..100], 1), (100, 1));
        let rest = [&frames[2][100..], &all].concat();
        assert_eq!(tracker.advance_frames(&rest, 0), (frames[2].len() - 100, 0));
        assert_eq!(tracker.advance_frames(&all[..1], 1), (1, 0));
        assert_eq!(tracker.advance_frames(&all[1..], 1), (frames[0].len() - 1, 1));
        assert_eq!(tracker.advance_frames(&[0x88, 0x80, 1, 2, 3, 4, 9, 9, 9], 5), (9, 1));
    }

    #[test]
    fn a_tracker_knows_what_a_parser_has_of_a_message() {
        let capacity = |frames: &[(u8, usize)], missing: usize| {
            let bytes = frames.iter().flat_map(|(first, payload)| {
                let header = [*first, 126, (payload >> 8) as u8, *payload as u8];
                [&header[..], &vec![b'x'; *payload]].concat()
            });
            let bytes: Vec<u8> = bytes.collect();
            let mut tracker = FrameTracker::default();
            bytes[..bytes.len() - missing].chunks(7).for_each(|chunk| tracker.advance(chunk));
            tracker.message_capacity()
        };
        assert_eq!(capacity(&[(0x81, 500)], 1), 0, "a message of one frame is in the parser's buffer");
        assert_eq!(capacity(&[(0x01, 500)], 1), 0);
        assert_eq!(capacity(&[(0x01, 500)], 0), 500);
        assert_eq!(capacity(&[(0x01, 500), (0, 10)], 0), 1000);
        assert_eq!(capacity(&[(0x01, 500), (0x89, 10), (0, 10), (0, 900)], 1), 1000);
        assert_eq!(capacity(&[(0x01, 500), (0x89, 10), (0, 10), (0, 900)], 0), 2000);
        assert_eq!(capacity(&[(0x01, 500), (0x80, 900)], 1), 500);
        assert_eq!(capacity(&[(0x01, 500), (0x80, 900)], 0), 0);
        assert_eq!(capacity(&[(0x01, 500), (0x80, 0), (0x81, 5), (0x01, 7)], 0), 7);
    }

    #[test]
    fn a_tracker_ends_at_close() {
        let mut tracker = FrameTracker::default();
        tracker.advance(&[0x88, 0x80, 1, 2, 3, 4, 0xff, 0xff, 0xff]);
        assert!(tracker.closed());
    }
}
