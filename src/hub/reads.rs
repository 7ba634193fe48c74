//! Reads of history that wait for the bus: pages for members that catch up, and older messages for those that look back.
//!
//! The two kinds take turns, and within each the owners. So a crowd that looks back delays a member that resumes by a page at a time,
//! and a crowd that resumes does not keep others from looking back.

use crate::bus::message::{BusRequest, ReadFrom};
use crate::fair_queue::FairQueue;
use crate::id::{ConnectionId, RoomName};
use crate::owner::Owner;

/// Pages for members that catch up that the bus is asked for at the same time. Publications of others wait for so many at most.
const CATCH_UPS_AT_ONCE: u32 = 16;

/// The same of older messages.
const LOOKS_BACK_AT_ONCE: u32 = 8;

/// The purpose of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// A member catches up.
    CatchUp,
    /// A member or a back-end looks at older messages.
    LookBack,
}

impl ReadKind {
    fn other(self) -> Self {
        match self {
            Self::CatchUp => Self::LookBack,
            Self::LookBack => Self::CatchUp,
        }
    }
}

/// The source of a request for older messages.
#[derive(Debug)]
pub(super) enum HistoryReader {
    /// A member. It has one page under way.
    Member {
        connection: ConnectionId,
        room: RoomName,
        /// The id of its message.
        id: Option<Box<str>>,
    },
    /// A request of the HTTP API.
    Api,
}

/// Which messages are wanted.
#[derive(Clone, Debug)]
pub(crate) struct HistoryQuestion {
    pub(crate) room: RoomName,
    /// Those with lower numbers; without it, the newest.
    pub(crate) before: Option<u64>,
    /// How many at most.
    pub(crate) limit: u32,
}

impl HistoryQuestion {
    pub(super) fn read_from(&self) -> ReadFrom {
        ReadFrom::Before { seq: self.before, count: self.limit }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reads {
    catch_ups: ReadQueue,
    looks_back: ReadQueue,
    /// The kind whose turn it is.
    next: ReadKind,
}

#[derive(Debug)]
struct ReadQueue {
    waiting: FairQueue<BusRequest>,
    /// Reads that the bus has been given and has not answered.
    under_way: u32,
    under_way_max: u32,
}

impl Reads {
    pub(super) fn new() -> Self {
        Self {
            catch_ups: ReadQueue::new(CATCH_UPS_AT_ONCE),
            looks_back: ReadQueue::new(LOOKS_BACK_AT_ONCE),
            next: ReadKind::CatchUp,
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.catch_ups.waiting.is_empty() && self.looks_back.waiting.is_empty()
    }

    /// Whether [`Reads::poll`] has something.
    pub(super) fn has_next(&self) -> bool {
        self.catch_ups.has_next() || self.looks_back.has_next()
    }

    pub(super) fn push(&mut self, kind: ReadKind, owner: Owner, read: BusRequest) {
        self.queue_mut(kind).waiting.push(owner, read);
    }

    /// The next read for the bus.
    pub(super) fn poll(&mut self) -> Option<BusRequest> {
        for kind in [self.next, self.next.other()] {
            if let Some(read) = self.queue_mut(kind).pop() {
                self.next = kind.other();
                return Some(read);
            }
        }
        None
    }

    /// A read of this kind is answered.
    pub(super) fn end(&mut self, kind: ReadKind) {
        self.queue_mut(kind).under_way -= 1;
    }

    fn queue_mut(&mut self, kind: ReadKind) -> &mut ReadQueue {
        match kind {
            ReadKind::CatchUp => &mut self.catch_ups,
            ReadKind::LookBack => &mut self.looks_back,
        }
    }
}

impl ReadQueue {
    fn new(under_way_max: u32) -> Self {
        Self { waiting: FairQueue::default(), under_way: 0, under_way_max }
    }

    fn has_next(&self) -> bool {
        self.under_way < self.under_way_max && !self.waiting.is_empty()
    }

    fn pop(&mut self) -> Option<BusRequest> {
        if self.under_way >= self.under_way_max {
            return None;
        }
        let (read, _) = self.waiting.pop()?;
        self.waiting.charge(1);
        self.under_way += 1;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::message::Ticket;
    use crate::owner::Owners;

    fn owner(number: u8) -> Owner {
        Owners::new(1).api_key(&[number; 32])
    }

    fn read(number: u64) -> BusRequest {
        let room = RoomName::new("r").unwrap();
        BusRequest::Read { ticket: Ticket(number), room, from: ReadFrom::Newest(1), bytes_max: 1 }
    }

    fn polled(reads: &mut Reads) -> Vec<u64> {
        std::iter::from_fn(|| match reads.poll()? {
            BusRequest::Read { ticket, .. } => Some(ticket.0),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn the_kinds_take_turns_and_within_each_the_owners() {
        let mut reads = Reads::new();
        for number in 0..6 {
            reads.push(ReadKind::LookBack, owner(1), read(number));
        }
        reads.push(ReadKind::LookBack, owner(2), read(10));
        for number in 20..23 {
            reads.push(ReadKind::CatchUp, owner(1), read(number));
        }
        assert_eq!(polled(&mut reads), [20, 0, 21, 10, 22, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_kind_has_so_many_under_way_and_does_not_take_the_places_of_the_other() {
        let mut reads = Reads::new();
        for number in 0..100 {
            reads.push(ReadKind::LookBack, owner(1), read(number));
        }
        assert_eq!(polled(&mut reads).len(), LOOKS_BACK_AT_ONCE as usize);
        assert!(!reads.has_next() && !reads.is_empty());
        for number in 100..200 {
            reads.push(ReadKind::CatchUp, owner(1), read(number));
        }
        assert!(reads.has_next());
        assert_eq!(polled(&mut reads).len(), CATCH_UPS_AT_ONCE as usize);
        reads.end(ReadKind::LookBack);
        assert_eq!(polled(&mut reads), [u64::from(LOOKS_BACK_AT_ONCE)]);
    }
}
