//! Deletions of messages: a tombstone in the history of the bus, and an announcement to all members.

use std::fmt;

use bytes::Bytes;

use crate::bus::message::{Deletion, DeletionTargets, Publication, Ticket};
use crate::error::Error;
use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, ErrorCode};
use crate::time::Now;

use super::Hub;
use super::error_reply::Refused;
use super::pending::Requester;

/// A message that is to be deleted, by its place in the history of its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRef {
    /// The room.
    pub room: RoomName,
    /// The message's number.
    pub seq: u64,
    /// The life of the history that the number belongs to. Without it, the present one is meant.
    pub epoch: Option<Epoch>,
}

/// As the log has it.
impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} in room {}", self.seq, self.room)
    }
}

impl Hub {
    /// Deletes a message on all nodes: history has a tombstone in its place, and all members are told.
    /// [`Notice::Published`](super::Notice::Published) tells the outcome, with the number of the announcement.
    ///
    /// # Errors
    /// [`Error::Command`] if the server is busy or shutting down.
    pub fn delete_for_host(&mut self, now: Now, message: &MessageRef) -> Result<Ticket, Error> {
        self.delete_message(now, (Requester::Host, Owner::HOST), message).map_err(|(_, text)| Error::Command(text))
    }

    /// As [`Hub::delete_for_host`], for a request of the HTTP API; the outcome is told by [`Hub::poll_answer`], and by no notice.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn delete_for_api(&mut self, now: Now, owner: Owner, message: &MessageRef) -> Result<Ticket, Refused> {
        self.delete_message(now, (Requester::Api, owner), message)
    }

    fn delete_message(
        &mut self,
        now: Now,
        (requester, owner): (Requester, Owner),
        message: &MessageRef,
    ) -> Result<Ticket, Refused> {
        let MessageRef { room, seq, epoch } = message;
        if *seq == 0 {
            return Err((ErrorCode::BadMessage, "seq is 0; the first message has 1".to_owned()));
        }
        let targets = DeletionTargets { epoch: epoch.clone(), seqs: [*seq].into() };
        let deletion = announced(now, owner, room, targets);
        self.pending.check_publication(&deletion.announcement)?;
        // The API tells which key has asked.
        if !matches!(requester, Requester::Api) {
            log::info!("moderation: delete {message}, asked for by the host");
        }
        Ok(self.pending.delete(requester, deletion))
    }
}

/// A deletion with its announcement.
pub(super) fn announced(now: Now, owner: Owner, room: &RoomName, targets: DeletionTargets) -> Deletion {
    let body = Bytes::from(protocol::deletion_body(room.as_str(), &targets.seqs, now.unix_ms));
    let (room, user) = (room.clone(), UserId::control());
    let announcement = Publication { room, user, owner, id: None, body, restriction: None };
    Deletion { announcement, targets }
}
