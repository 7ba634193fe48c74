//! A room's log: encoded frames in the order in which all members see them. It is read from any
//! frame boundary and dropped from the front.

use std::collections::VecDeque;

/// A position in a log: counts the bytes ever appended, modulo 2^32.
///
/// A log holds at most a gibibyte, so positions that are compared are never further apart than that,
/// and the wrap cannot be mistaken. Four bytes instead of eight halve the size of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(u32);

impl Offset {
    /// How many bytes `self` lies behind `later`.
    pub fn behind(self, later: Offset) -> usize {
        later.0.wrapping_sub(self.0) as usize
    }

    /// The position `bytes` further on.
    pub fn forward(self, bytes: usize) -> Offset {
        Offset(self.0.wrapping_add(bytes as u32))
    }

    /// Of two positions in the same log, the one nearer to the front, which is at `front`.
    pub fn earlier(self, other: Offset, front: Offset) -> Offset {
        if front.behind(self) <= front.behind(other) { self } else { other }
    }
}

/// The fan-out window of one room.
///
/// Frames lie one behind the other in one piece of memory, so that a member is sent all that it is
/// owed as one slice, in one system call. An empty log owns no memory: [`RoomLog::append`] is handed a buffer from the caller's stock, and
/// [`RoomLog::take_buffer`] gives it back.
#[derive(Debug, Default)]
pub struct RoomLog {
    /// Boxed, because most rooms are quiet and own none.
    buffer: Option<Box<LogBuffer>>,
    /// Position of the first byte still held.
    front: Offset,
}

/// The memory of a log that is not empty. It is lent to one log after the other.
#[derive(Debug, Default)]
pub struct LogBuffer {
    bytes: Vec<u8>,
    /// Index in `bytes` of the first byte still held.
    start: usize,
    /// The begin of each message that has a sequence number. The numbers are consecutive.
    marks: VecDeque<Offset>,
    /// The number of the message at the first mark, or of the next one to come.
    first_seq: u64,
}

impl LogBuffer {
    /// The bytes of memory that it holds, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.marks.capacity() * size_of::<Offset>()
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn drop_front(&mut self, front: Offset, to: Offset) {
        let distance = front.behind(to);
        while self.marks.front().is_some_and(|mark| front.behind(*mark) < distance) {
            self.marks.pop_front();
            self.first_seq += 1;
        }
        self.start += distance;
        if self.start >= self.bytes.len() - self.start {
            let kept = self.len();
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(kept);
            self.start = 0;
        }
    }
}

impl RoomLog {
    /// The position of the oldest byte held.
    pub fn front(&self) -> Offset {
        self.front
    }

    /// The position at which the next byte will be appended.
    pub fn tail(&self) -> Offset {
        self.front.forward(self.len())
    }

    /// How many bytes are held.
    pub fn len(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has been lent a buffer.
    pub fn has_buffer(&self) -> bool {
        self.buffer.is_some()
    }

    /// Appends what `write` writes, about `bytes`, as a frame without a number.
    pub fn append(&mut self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let buffer = self.buffer.get_or_insert_default();
        // Reserved beforehand, because a first frame that grew piece by piece would take twice the memory.
        buffer.bytes.reserve(bytes);
        write(&mut buffer.bytes);
    }

    /// Appends what `write` writes, about `bytes`, as the message numbered `seq`.
    ///
    /// The numbers of a log are consecutive. After a jump the log no longer knows the numbers of what was before.
    pub fn append_numbered(&mut self, seq: u64, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.tail();
        let buffer = self.buffer.get_or_insert_default();
        if buffer.first_seq + buffer.marks.len() as u64 != seq {
            buffer.marks.clear();
        }
        if buffer.marks.is_empty() {
            buffer.first_seq = seq;
        }
        buffer.marks.push_back(tail);
        self.append(bytes, write);
    }

    /// All frames from `from` on; `from` is a frame boundary between front and tail.
    #[inline]
    pub fn read(&self, from: Offset) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.bytes[buffer.start + self.front.behind(from)..],
            None => &[],
        }
    }

    /// The number of the first numbered message at or behind `from`, if the log holds one.
    pub fn next_seq(&self, from: Offset) -> Option<u64> {
        let buffer = self.buffer.as_ref()?;
        let distance = self.front.behind(from);
        let index = buffer.marks.partition_point(|mark| self.front.behind(*mark) < distance);
        (index < buffer.marks.len()).then(|| buffer.first_seq + index as u64)
    }

    /// Forgets everything before `to`, a position between front and tail.
    ///
    /// Amortised, every byte is moved at most once: memory is closed up only when at least half of it is free.
    pub fn drop_front(&mut self, to: Offset) {
        debug_assert!(self.front.behind(to) <= self.len(), "position outside the log");
        if let Some(buffer) = &mut self.buffer {
            buffer.drop_front(self.front, to);
        }
        self.front = to;
    }

    /// Lends the empty log a buffer of the caller's stock.
    pub fn lend_buffer(&mut self, buffer: Box<LogBuffer>) {
        debug_assert!(self.buffer.is_none() && buffer.len() == 0);
        self.buffer = Some(buffer);
    }

    /// Takes the memory out of an empty log, if it has any.
    pub fn take_buffer(&mut self) -> Option<Box<LogBuffer>> {
        debug_assert!(self.is_empty());
        let mut buffer = self.buffer.take()?;
        buffer.start = 0;
        buffer.marks.clear();
        buffer.bytes.clear();
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &mut RoomLog, seq: u64, bytes: &[u8]) {
        log.append_numbered(seq, bytes.len(), |out| out.extend_from_slice(bytes));
    }

    #[test]
    fn every_reader_sees_what_was_appended_behind_it() {
        // All ways to append ten frames of 1 to 10 bytes and to drop the front at any frame boundary in between.
        for drop_at in 0..10 {
            let mut log = RoomLog { front: Offset(u32::MAX - 20), ..RoomLog::default() };
            let mut boundaries = vec![log.tail()];
            let mut model = Vec::new();
            for i in 0..10_u8 {
                let frame = vec![i; usize::from(i) + 1];
                push(&mut log, 100 + u64::from(i), &frame);
                model.push(frame);
                boundaries.push(log.tail());
                if i == drop_at {
                    log.drop_front(boundaries[usize::from(drop_at / 2)]);
                }
            }
            for (i, from) in boundaries.iter().enumerate().skip(usize::from(drop_at / 2)) {
                assert_eq!(log.read(*from), model[i..].concat(), "from {i}, dropped at {drop_at}");
                assert_eq!(log.next_seq(*from), (i < 10).then_some(100 + i as u64));
            }
        }
    }

    #[test]
    fn unnumbered_frames_are_passed_over() {
        let mut log = RoomLog::default();
        log.append(1, |out| out.push(b'p'));
        let after_presence = log.tail();
        push(&mut log, 5, b"m");
        log.append(1, |out| out.push(b'p'));
        let behind = log.tail();
        assert_eq!(log.next_seq(log.front()), Some(5));
        assert_eq!(log.next_seq(after_presence), Some(5));
        assert_eq!(log.next_seq(behind), None);
        push(&mut log, 6, b"m");
        assert_eq!(log.next_seq(behind), Some(6));
    }

    #[test]
    fn a_dropped_log_gives_its_memory_back() {
        let mut log = RoomLog::default();
        push(&mut log, 1, b"abc");
        log.drop_front(log.tail());
        let buffer = log.take_buffer().unwrap();
        assert!(buffer.capacity() >= 3 && !log.has_buffer());
        assert_eq!(log.tail().behind(log.tail()), 0);
        log.lend_buffer(buffer);
        push(&mut log, 2, b"def");
        assert_eq!(log.read(log.front()), b"def");
        assert_eq!(log.next_seq(log.front()), Some(2));
    }

    #[test]
    fn memory_stays_in_proportion_to_what_is_held() {
        let mut log = RoomLog::default();
        for seq in 1..10_000 {
            push(&mut log, seq, &[7; 100]);
            if log.len() > 1000 {
                log.drop_front(log.front().forward(100));
            }
        }
        let capacity = log.buffer.unwrap().bytes.capacity();
        assert!(capacity <= 4096, "{capacity} bytes");
    }
}
