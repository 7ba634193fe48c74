//! Replies that are not complete yet. However long a reply is and by however small parts it comes, each of its
//! bytes is copied and looked at a few times.

use bytes::Bytes;

use super::error::LinkError;
use super::resp::{self, Measure, Value};
use crate::steps;

/// Takes a reply, with the buffer in which it lies.
pub(crate) type TakeReply<'a> = dyn FnMut(&Bytes, Value<'_>) -> Result<(), LinkError> + 'a;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ReplyBuffer {
    /// The beginning of one reply.
    bytes: Vec<u8>,
    /// How far that reply has been measured.
    measure: Measure,
}

impl ReplyBuffer {
    /// Takes what a read has brought, and hands out the replies that are complete.
    pub(super) fn receive(&mut self, received: &[u8], take: &mut TakeReply<'_>) -> Result<(), LinkError> {
        self.append(received);
        let Some(first_bytes) = self.measure.advance(&self.bytes).map_err(malformed)? else { return Ok(()) };
        let chunk = Bytes::from(std::mem::take(self).into_bytes());
        let mut at = 0;
        let mut next = resp::measured(&chunk[..first_bytes]).map_err(malformed)?.map(|value| (value, first_bytes));
        while let Some((value, used)) = next {
            at += used;
            take(&chunk, value)?;
            next = resp::parse(&chunk[at..]).map_err(malformed)?;
        }
        // Of the last read alone: what came before it was of the reply that is complete now.
        self.append(&chunk[at..]);
        Ok(())
    }

    /// Forgets what has come.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(bytes.len());
        } else if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // It doubles, so that all its moves together copy less than twice what it has in the end.
            self.bytes.reserve(bytes.len());
            steps::note(self.bytes.len() as u64);
        }
        steps::note(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// The bodies of messages keep all of it alive, so it is made no larger than its content.
    fn into_bytes(mut self) -> Vec<u8> {
        if self.bytes.capacity() > self.bytes.len() {
            steps::note(self.bytes.len() as u64);
            self.bytes.shrink_to_fit();
        }
        self.bytes
    }
}

fn malformed(error: resp::Malformed) -> LinkError {
    LinkError::lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives a stream by parts of so many bytes. Says how many replies there were, and how many steps that took.
    fn receive(stream: &[u8], part_bytes: usize) -> (usize, u64) {
        let (mut buffer, mut replies) = (ReplyBuffer::default(), 0);
        steps::take();
        for part in stream.chunks(part_bytes) {
            let take = &mut |chunk: &Bytes, value: Value<'_>| {
                assert!(chunk.len() <= stream.len());
                replies += usize::from(value != Value::Nil);
                Ok(())
            };
            buffer.receive(part, take).unwrap();
        }
        assert!(buffer.bytes.is_empty());
        (replies, steps::take())
    }

    #[test]
    fn a_huge_reply_costs_as_much_as_its_bytes_by_whatever_parts_it_comes() {
        const ELEMENTS: usize = 100_000;
        let bulk = [b"$4000000\r\n".as_slice(), &vec![b'x'; 4_000_000], b"\r\n"].concat();
        let array = [format!("*{ELEMENTS}\r\n").into_bytes(), b"$5\r\nhello\r\n".repeat(ELEMENTS)].concat();
        let nested =
            [b"*1\r\n".repeat(1000), format!("*{ELEMENTS}\r\n").into_bytes(), b":7\r\n".repeat(ELEMENTS)].concat();
        for (what, reply) in [("a string", bulk), ("an array", array), ("nested arrays", nested)] {
            for part_bytes in [500, 4096, 64 * 1024] {
                let (replies, steps) = receive(&reply, part_bytes);
                let (bytes, parts) = (reply.len() as u64, (reply.len() / part_bytes + 1) as u64);
                assert_eq!(replies, 1, "{what}");
                // Copied when they come, up to twice when the buffer grows and once when it shrinks; each element is measured and
                // parsed, and each part looks once more where the last one has stopped.
                let max = 4 * bytes + parts + 3 * ELEMENTS as u64 + 4000;
                assert!(
                    steps <= max,
                    "{steps} steps for {what} of {bytes} bytes in parts of {part_bytes}; {max} expected"
                );
            }
        }
    }

    #[test]
    fn replies_are_the_same_wherever_they_are_cut() {
        let stream = b"+OK\r\n*2\r\n$5\r\nhe\r\no\r\n*1\r\n:42\r\n$-1\r\n:12345678\r\n*0\r\n-ERR no\r\n";
        for part_bytes in 1..=stream.len() {
            let (mut buffer, mut found) = (ReplyBuffer::default(), Vec::new());
            for part in stream.chunks(part_bytes) {
                buffer
                    .receive(part, &mut |_, value| {
                        found.push(match value {
                            Value::Array(items) => format!("{:?}", items.map(|item| item.number()).collect::<Vec<_>>()),
                            value => format!("{value:?}"),
                        });
                        Ok(())
                    })
                    .unwrap();
            }
            let expected = ["Status([79, 75])", "[None, None]", "Nil", "Integer(12345678)", "[]"];
            assert_eq!(found[..5], expected, "in parts of {part_bytes}");
            assert_eq!((found.len(), buffer.bytes.len()), (6, 0));
        }
    }
}
