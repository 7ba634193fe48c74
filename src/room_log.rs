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
/// owed as one slice, in one system call. An empty log owns no memory: [`RoomLog::lend_buffer`] gives it a buffer from the caller's
/// stock, and [`RoomLog::take_buffer`] takes it back.
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

/// A log gives memory back when it owns so many bytes beside eight times those that it holds.
///
/// A log that slides owns up to four times as much: half of its bytes may be dropped ones, and its memory doubles. So it never
/// gives back memory that it will need again.
const SPARE_BYTES: usize = 1024;

/// The marks that a list of them begins with.
const FIRST_MARKS: usize = 4;

impl LogBuffer {
    /// The bytes of memory that it takes, used or not.
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.marks.capacity() * size_of::<Offset>()
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// By how many bytes its memory has to grow for so many more.
    fn shortage(&self, bytes: usize) -> usize {
        (self.bytes.len() + bytes).saturating_sub(self.bytes.capacity())
    }

    /// Gives back memory if it is far more than what is held needs. Amortised, each byte that was dropped pays for a part of one that
    /// is moved.
    fn give_back(&mut self) {
        let kept = self.len();
        if self.bytes.capacity() > 8 * kept + SPARE_BYTES {
            self.close_up();
            self.bytes.shrink_to(2 * kept);
        }
        if self.marks.capacity() > 8 * self.marks.len() + SPARE_BYTES / size_of::<Offset>() {
            self.marks.shrink_to(2 * self.marks.len());
        }
    }

    /// Moves what is held to the front of the memory.
    fn close_up(&mut self) {
        let kept = self.len();
        self.bytes.copy_within(self.start.., 0);
        self.bytes.truncate(kept);
        self.start = 0;
    }

    fn drop_front(&mut self, front: Offset, to: Offset) {
        let distance = front.behind(to);
        while self.marks.front().is_some_and(|mark| front.behind(*mark) < distance) {
            self.marks.pop_front();
            self.first_seq += 1;
        }
        self.start += distance;
        if self.start >= self.bytes.len() - self.start {
            self.close_up();
        }
        // The whole memory of an empty log goes on to another one.
        if !self.bytes.is_empty() {
            self.give_back();
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

    /// The bytes of memory that it takes, used or not.
    pub fn held_bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.held_bytes())
    }

    /// By how many bytes [`held_bytes`](Self::held_bytes) grows at least if a message of so many bytes is appended.
    pub fn growth(&self, bytes: usize) -> usize {
        let Some(buffer) = &self.buffer else {
            return size_of::<LogBuffer>() + bytes + FIRST_MARKS * size_of::<Offset>();
        };
        let marks = if buffer.marks.len() < buffer.marks.capacity() { 0 } else { buffer.marks.len().max(FIRST_MARKS) };
        buffer.shortage(bytes) + marks * size_of::<Offset>()
    }

    /// Sees to it that so many more bytes find space. Memory that has to grow doubles if that takes `growth_max` bytes at most, so
    /// that it seldom grows.
    ///
    /// A first frame that grew piece by piece would take twice the memory.
    pub fn reserve(&mut self, bytes: usize, growth_max: usize) {
        let held = &mut self.buffer.get_or_insert_default().bytes;
        let spare = held.capacity() - held.len();
        if spare < bytes {
            let growth = held.capacity().min(growth_max).max(bytes - spare);
            held.reserve_exact(spare + growth);
        }
    }

    /// Whether it has been lent a buffer.
    pub fn has_buffer(&self) -> bool {
        self.buffer.is_some()
    }

    /// Appends what `write` writes as a frame without a number. There is [space](Self::reserve).
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.buffer.get_or_insert_default().bytes);
    }

    /// Appends what `write` writes as the message numbered `seq`. There is [space](Self::reserve).
    ///
    /// The numbers of a log are consecutive. After a jump the log no longer knows the numbers of what was before.
    pub fn append_numbered(&mut self, seq: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.tail();
        let buffer = self.buffer.get_or_insert_default();
        if buffer.first_seq + buffer.marks.len() as u64 != seq {
            buffer.marks.clear();
        }
        if buffer.marks.is_empty() {
            buffer.first_seq = seq;
        }
        buffer.marks.push_back(tail);
        self.append(write);
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
        log.reserve(bytes.len(), usize::MAX);
        log.append_numbered(seq, |out| out.extend_from_slice(bytes));
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
        log.append(|out| out.push(b'p'));
        let after_presence = log.tail();
        push(&mut log, 5, b"m");
        log.append(|out| out.push(b'p'));
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
        assert!(buffer.held_bytes() >= 3 && !log.has_buffer());
        assert_eq!(log.tail().behind(log.tail()), 0);
        log.lend_buffer(buffer);
        push(&mut log, 2, b"def");
        assert_eq!(log.read(log.front()), b"def");
        assert_eq!(log.next_seq(log.front()), Some(2));
    }

    /// Appends frames, and drops the oldest ones beyond `kept` bytes. Says how often memory grew or shrank.
    fn slide(log: &mut RoomLog, seqs: std::ops::Range<u64>, kept: usize) -> u32 {
        let (mut changes, mut held) = (0, log.held_bytes());
        for seq in seqs {
            push(log, seq, &[7; 100]);
            while log.len() > kept {
                log.drop_front(log.front().forward(100));
            }
            changes += u32::from(log.held_bytes() != held);
            held = log.held_bytes();
        }
        changes
    }

    #[test]
    fn a_log_that_slides_neither_grows_nor_shrinks_once_it_is_warm() {
        for kept in [100, 200, 1000, 1700, 10_000, 33_300] {
            let mut log = RoomLog::default();
            slide(&mut log, 1..5000, kept);
            assert_eq!(slide(&mut log, 5000..20_000, kept), 0, "{kept} bytes are kept");
        }
    }

    #[test]
    fn a_log_that_was_long_gives_memory_back_while_it_holds_a_frame() {
        let mut log = RoomLog::default();
        slide(&mut log, 1..10_000, usize::MAX);
        assert!(log.held_bytes() > 1_000_000);
        log.drop_front(log.front().forward(log.len() - 100));
        assert!((100..3000).contains(&log.held_bytes()), "{} bytes", log.held_bytes());
        assert_eq!((log.read(log.front()), log.next_seq(log.front())), (&[7; 100][..], Some(9999)));
        let changes = slide(&mut log, 10_000..20_000, usize::MAX);
        assert!(changes < 40, "memory grew {changes} times");
    }

    #[test]
    fn the_buffer_of_a_log_that_was_emptied_is_as_large_as_before() {
        let mut log = RoomLog::default();
        slide(&mut log, 1..100, usize::MAX);
        let held = log.held_bytes();
        assert!(held > 10_000);
        log.drop_front(log.tail());
        let buffer = log.take_buffer().unwrap();
        assert_eq!(buffer.held_bytes(), held);
        log.lend_buffer(buffer);
        assert_eq!(slide(&mut log, 100..199, usize::MAX), 0, "it has been lent enough");
    }

    #[test]
    fn a_log_takes_no_more_than_was_foreseen_where_it_may_not_double() {
        let mut log = RoomLog::default();
        for seq in 1..1000 {
            let (before, foreseen) = (log.held_bytes(), log.growth(100));
            log.reserve(100, 0);
            log.append_numbered(seq, |out| out.extend([7; 100]));
            assert_eq!(log.held_bytes() - before, foreseen, "at frame {seq}");
        }
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
