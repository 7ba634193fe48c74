//! How the frames in a room's log reach its live members: appended once, sent in rounds, and dropped when all have them.
//!
//! A *round* walks the live members from the last to the first, in slices. Walking downwards, `swap_remove` moves only
//! members that were served into places still to come, so none is missed; one that is served twice has nothing to be sent.
//! Nothing here knows of sockets, time or other rooms.

use crate::id::Slot;
use crate::room_log::{LogBuffer, Offset, RoomLog};

use super::index::LiveIndex;
use super::members::Members;

/// One pass over the live members.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Members below this place are still to be served.
    next: u32,
    /// Where the log ended when the round began: a served member stands there or further on.
    end: Offset,
}

/// What some sends came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sends: u32,
    pub(super) bytes: usize,
    /// Whether no member is left to be served: in this round, or of those that were asked for.
    pub(super) is_over: bool,
    /// Whether a socket refused bytes.
    pub(super) has_blocked: bool,
}

/// So many bytes that are written take about as long as a send takes besides.
const SEND_BYTES: usize = 8 * 1024;

impl Sent {
    /// How many sends of few bytes would have taken as long.
    #[inline]
    pub(super) fn small_sends(self) -> u32 {
        self.sends + (self.bytes / SEND_BYTES) as u32
    }

    /// Some more of the same room.
    pub(super) fn add(&mut self, more: Self) {
        self.sends += more.sends;
        self.bytes += more.bytes;
        self.is_over = more.is_over;
        self.has_blocked |= more.has_blocked;
    }
}

/// A frame that is appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameSize {
    /// The number of a message; presence and the like have none.
    pub(super) seq: Option<u64>,
    pub(super) bytes: usize,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Fanout {
    log: RoomLog,
    round: Option<Round>,
    /// No live member that is not blocked stands before this.
    floor: Offset,
    /// Where the `joined` stands that tells of the present epoch, while a member may still have to read it.
    epoch_began: Option<Offset>,
    /// Bytes promised to publications under way.
    reserved_bytes: usize,
}

impl Fanout {
    pub(super) fn log_bytes(&self) -> usize {
        self.log.len()
    }

    /// The bytes of memory that the log takes, used or not.
    pub(super) fn held_bytes(&self) -> usize {
        self.log.held_bytes()
    }

    /// By how many bytes [`held_bytes`](Self::held_bytes) grows at least if so many are appended.
    pub(super) fn growth(&self, bytes: usize) -> usize {
        self.log.growth(bytes)
    }

    pub(super) fn front(&self) -> Offset {
        self.log.front()
    }

    pub(super) fn tail(&self) -> Offset {
        self.log.tail()
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    /// Promises space in the log.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.reserved_bytes += bytes;
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.reserved_bytes -= bytes;
    }

    /// Bytes that no round has sent yet, and those that are promised.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.floor.behind(self.log.tail()) + self.reserved_bytes
    }

    /// Whether the log holds the message `seq`, where `delivered` is the newest.
    pub(super) fn holds(&self, seq: u64, delivered: u64) -> bool {
        let first = self.log.next_seq(self.log.front()).unwrap_or(delivered);
        (first..=delivered).contains(&seq)
    }

    /// The number of the next message that a member at `cursor` has not seen, if the log holds one.
    pub(super) fn next_seq(&self, cursor: Offset) -> Option<u64> {
        self.log.next_seq(cursor)
    }

    /// Sees to it that a frame of so many bytes finds space in the log, whose memory may [double](RoomLog::reserve) if that takes
    /// `growth_max` bytes at most. An empty log takes a buffer from `stock` if there is one.
    pub(super) fn prepare(&mut self, bytes: usize, growth_max: usize, stock: impl FnOnce() -> Option<Box<LogBuffer>>) {
        if !self.log.has_buffer()
            && let Some(buffer) = stock()
        {
            self.log.lend_buffer(buffer);
        }
        self.log.reserve(bytes, growth_max);
    }

    /// Appends what `write` writes. There is [space](Self::prepare).
    pub(super) fn append(&mut self, frame: FrameSize, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.log.len();
        match frame.seq {
            Some(seq) => self.log.append_numbered(seq, write),
            None => self.log.append(write),
        }
        let appended = self.log.len() - before;
        debug_assert!(appended == frame.bytes, "a frame of {appended} bytes was announced with {}", frame.bytes);
    }

    /// A new epoch begins with what is appended next.
    pub(super) fn begin_epoch(&mut self, has_readers: bool) {
        self.epoch_began = has_readers.then(|| self.log.tail());
    }

    /// Whether a member at `cursor` has yet to be told of the present epoch.
    pub(super) fn is_of_older_epoch(&self, cursor: Offset) -> bool {
        let front = self.log.front();
        // A member that stands right where the epoch began has not been told of it.
        self.epoch_began.is_some_and(|began| front.behind(cursor) <= front.behind(began))
    }

    /// Begins a round, unless one is under way. Says whether it did.
    pub(super) fn begin_round(&mut self, members: &Members) -> bool {
        let begins = self.round.is_none();
        if begins {
            self.round = Some(Round { next: members.live_count(), end: self.log.tail() });
        }
        begins
    }

    /// Serves the next few members of the round, until that takes as long as so many [small sends](Sent::small_sends). `send` says
    /// how many bytes of whole frames a socket took.
    #[inline]
    pub(super) fn serve(
        &mut self,
        members: &mut Members,
        small_sends_max: u32,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) -> Sent {
        let mut sent = Sent { is_over: true, ..Sent::default() };
        let tail = self.log.tail();
        let Some(round) = &mut self.round else { return sent };
        // Members may have gone since the last slice; none that is still to be served stands at or above `next`.
        round.next = round.next.min(members.live_count());
        while round.next > 0 && sent.small_sends() < small_sends_max {
            round.next -= 1;
            let at = LiveIndex(round.next);
            let Some(member) = members.live_mut(at) else { continue };
            if member.is_blocked() || member.cursor() == tail {
                continue;
            }
            let owed = self.log.read(member.cursor());
            let taken = send(member.slot(), owed);
            sent.sends += 1;
            sent.bytes += taken;
            if taken == owed.len() {
                member.advance(tail);
            } else {
                member.advance(member.cursor().forward(taken));
                members.block(at);
                sent.has_blocked = true;
            }
        }
        sent.is_over = round.next == 0;
        sent
    }

    /// Sends a blocked member what the log holds for it.
    pub(super) fn serve_blocked(
        &mut self,
        members: &mut Members,
        at: LiveIndex,
        send: &mut impl FnMut(Slot, &[u8]) -> usize,
    ) -> Sent {
        let Some(member) = members.live(at) else { return Sent { is_over: true, ..Sent::default() } };
        let owed = self.log.read(member.cursor());
        let taken = send(member.slot(), owed);
        members.advance_blocked(at, member.cursor().forward(taken));
        let is_over = taken == owed.len();
        if is_over {
            members.unblock(at);
        }
        Sent { sends: 1, bytes: taken, is_over, has_blocked: !is_over }
    }

    /// Members of the round below this place are still to be served.
    pub(super) fn round_place(&self) -> u32 {
        self.round.map_or(0, |round| round.next)
    }

    /// Whether members of the round are still to be served.
    pub(super) fn is_in_round(&self) -> bool {
        self.round.is_some_and(|round| round.next > 0)
    }

    /// All members of the round are served. Says whether more was appended since it began.
    pub(super) fn end_round(&mut self) -> bool {
        let Some(round) = self.round.take() else { return false };
        self.floor = round.end;
        self.log.tail() != round.end
    }

    /// The members that the round has not reached will not be served: they do not read the log any more.
    pub(super) fn abandon_round(&mut self) {
        (self.round, self.floor) = (None, self.log.tail());
    }

    /// Drops what no member needs any more, and gives back the buffer of an empty log.
    pub(super) fn trim(&mut self, members: &Members) -> Option<Box<LogBuffer>> {
        if self.log.is_empty() {
            return None;
        }
        if !members.has_live() {
            // A round over nobody is over: later it would take the floor back to before the front.
            self.abandon_round();
        }
        let front = self.log.front();
        let lowest = members.lowest_holds().fold(self.floor, |lowest, offset| lowest.earlier(offset, front));
        self.log.drop_front(lowest);
        if self.epoch_began.is_some_and(|began| front.behind(began) < front.behind(lowest)) {
            self.epoch_began = None;
        }
        if self.log.is_empty() { self.log.take_buffer() } else { None }
    }
}

#[cfg(test)]
mod tests;
