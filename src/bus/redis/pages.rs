//! Pages of history: when what Redis has told may be shown, and what the hub is given of it.

use super::RedisBus;
use super::commands::PendingRead;
use super::ordering::HistorySlice;
use super::room::Room;
use crate::bus::message::{BusEvent, BusRefusal};
use crate::id::RoomName;

impl RedisBus {
    /// Whether a page may not be shown yet: nobody has confirmed its epoch in the present run of
    /// Redis, or this node has not compared it with what it delivered.
    pub(super) fn is_doubtful(&self, name: &RoomName, slice: &HistorySlice) -> bool {
        let run_id = self.rooms.get(name).and_then(|room| room.reassembler.run_id());
        !slice.is_confirmed || run_id.is_some_and(|run_id| run_id != slice.position.run_id)
    }

    /// Redis has lost messages since the read was sent, or may have. To read again at once would
    /// show the same. The query that is sent instead confirms or ends the epoch, and the read is
    /// repeated after a while.
    pub(super) fn postpone_read(&mut self, read: PendingRead, slice: HistorySlice) {
        let name = read.room.clone();
        let Some(room) = self.rooms.get_mut(&name).filter(|room| read.opening == Some(room.opening)) else {
            if read.from.is_backwards() {
                // Nothing here can be compared. Another node confirms the epoch soon, or a later read renews it.
                let page = Err(BusRefusal::unavailable("redis has restarted; try again later"));
                return self.events.push_back(BusEvent::Page { ticket: read.ticket, page });
            }
            return self.take_page(&read, slice);
        };
        room.reads.push(read);
        self.with_reassembler(&name, |reassembler, _| reassembler.check_position());
        self.watch_room(&name);
    }

    /// Whether a page for members that look back was read before a deletion of which they may have been told. A member that catches up
    /// is told of it after the page.
    pub(super) fn is_before_deletion(&self, read: &PendingRead, slice: &HistorySlice) -> bool {
        let room = self.rooms.get(&read.room).filter(|room| read.opening == Some(room.opening));
        let is_known = |room: &&Room| room.reassembler.epoch() == Some(&slice.position.epoch);
        read.from.is_backwards() && room.filter(is_known).is_some_and(|room| slice.position.top < room.last_deletion)
    }

    pub(super) fn repeat_read(&mut self, read: PendingRead) {
        if self.now.uptime < read.since + self.hold {
            return self.send_read(read);
        }
        let page = Err(BusRefusal::busy("messages are being deleted; try again later"));
        self.events.push_back(BusEvent::Page { ticket: read.ticket, page });
    }

    pub(super) fn take_page(&mut self, read: &PendingRead, slice: HistorySlice) {
        let PendingRead { ticket, room: ref name, from, bytes_max, opening, .. } = *read;
        let position = slice.position.clone();
        let mut page = slice.into_page(name, from, bytes_max);
        let Some(room) = self.rooms.get(name).filter(|room| opening == Some(room.opening)) else {
            // The hub has closed the room, or never opened it.
            return self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
        };
        if !room.reassembler.is_known() {
            // The hub learns the position of the room from the page, so the page comes first.
            self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
            return self.with_reassembler(name, |reassembler, steps| reassembler.observe(position, steps));
        }
        self.with_reassembler(name, |reassembler, steps| reassembler.observe(position, steps));
        let delivered = self.rooms.get(name).map_or(0, |room| room.reassembler.delivered());
        if page.top < delivered {
            // The page is older than the messages that have arrived since.
            page.top = delivered;
            page.complete &= bytes_max == 0 || from.is_backwards();
        }
        self.events.push_back(BusEvent::Page { ticket, page: Ok(page) });
    }
}

/// Whether Redis has less than was known of the same epoch when the read was sent.
pub(super) fn is_behind(slice: &HistorySlice, read: &PendingRead) -> bool {
    read.reached
        .as_ref()
        .is_some_and(|(epoch, delivered)| *epoch == slice.position.epoch && slice.position.top < *delivered)
}
