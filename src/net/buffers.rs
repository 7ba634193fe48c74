//! What connections are lent while they need it: the buffer for input, a parser, and write buffers.

use crate::settings::NetLimits;

use super::reader::Reader;
use super::write_buffer::WriteBuffer;

/// How many bytes one read takes at most. All connections share the buffer.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How many empty write buffers are kept to be used again, and how large one may be to be kept.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 4 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Buffers {
    /// What every read reads into.
    pub(super) input: Box<[u8]>,
    /// The parser that is lent to whichever connection is being read.
    reader: Option<Box<Reader>>,
    /// Empty write buffers, to be used again.
    #[expect(clippy::vec_box, reason = "connections hold boxes, which go back and forth")]
    spare: Vec<Box<WriteBuffer>>,
}

impl Buffers {
    pub(super) fn new(limits: &NetLimits) -> Self {
        let input = vec![0; READ_BYTES_MAX].into_boxed_slice();
        Self { input, reader: Some(Box::new(Reader::new(limits))), spare: Vec::new() }
    }

    pub(super) fn lend_reader(&mut self, limits: &NetLimits) -> Box<Reader> {
        self.reader.take().unwrap_or_else(|| Box::new(Reader::new(limits)))
    }

    /// Takes back a parser that its connection can do without.
    pub(super) fn keep_reader(&mut self, mut reader: Box<Reader>) {
        if reader.is_lendable() && self.reader.is_none() {
            reader.renew();
            self.reader = Some(reader);
        }
    }

    pub(super) fn lend_write_buffer(&mut self) -> Box<WriteBuffer> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a write buffer that is empty.
    pub(super) fn keep_write_buffer(&mut self, buffer: Box<WriteBuffer>) {
        if self.spare.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }
}
