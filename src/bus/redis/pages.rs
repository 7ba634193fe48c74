//! Pages of history: what the hub is given of what Redis holds.

use super::commands::PendingRead;
use super::ordering::{HistorySlice, RoomPosition};
use crate::bus::message::{Page, tombstone};
use crate::id::RoomName;

/// Whether Redis has less than was known of the same epoch when the read was sent.
pub(super) fn is_behind(slice: &HistorySlice, read: &PendingRead) -> bool {
    read.reached
        .as_ref()
        .is_some_and(|(epoch, delivered)| *epoch == slice.position.epoch && slice.position.top < *delivered)
}

/// A page of at most `bytes_max`, but for its first message, with tombstones in place of deleted messages.
pub(super) fn cut(slice: HistorySlice, room: &RoomName, bytes_max: usize) -> Page {
    let HistorySlice { position: RoomPosition { epoch, top, .. }, mut complete, mut messages, .. } = slice;
    if messages.iter().any(|message| message.body.is_empty()) {
        let tombstone = tombstone(room);
        let deleted = messages.iter_mut().filter(|message| message.body.is_empty());
        deleted.for_each(|message| message.body = tombstone.clone());
    }
    let mut bytes = 0;
    let fits = messages.iter().take_while(|message| {
        bytes += message.body.len();
        bytes <= bytes_max
    });
    let count_max = fits.count().max(usize::from(bytes_max > 0));
    if count_max < messages.len() {
        messages.truncate(count_max);
        complete = false;
    }
    Page { epoch, top, messages, complete }
}
