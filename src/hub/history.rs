//! Older messages in pages: for members that look back, and for the HTTP API.

use crate::bus::message::{BusRefusal, Page, ReadFrom, Ticket};
use crate::id::{ConnectionId, RoomName};
use crate::owner::Owner;
use crate::protocol::{ErrorCode, HistoryMessage, HistoryRequest};
use crate::rights::Right;
use crate::time::Now;

use super::Hub;
use super::error_reply::{ErrorReply, Refused, require};

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

impl Hub {
    pub(super) fn handle_history(&mut self, id: ConnectionId, request: &HistoryRequest<'_>) -> Result<(), Refused> {
        let (index, rights) = self.rooms.joined(&self.connections, id, &request.room)?;
        require(rights, Right::History, &request.room)?;
        let bytes_max = self.settings.net.page_bytes_max();
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let owner = connection.owner;
        self.pending.check_look_back(owner)?;
        if connection.awaits_history() {
            let message = "a page of history is under way; one at a time is allowed".to_owned();
            return Err((ErrorCode::RateLimited, message));
        }
        let queued = connection.queued_bytes();
        if queued > bytes_max {
            let message = format!("{queued} bytes have to be read first; a page is sent behind at most {bytes_max}");
            return Err((ErrorCode::RateLimited, message));
        }
        connection.await_history();
        let room = self.rooms[index].name.clone();
        let question = HistoryQuestion { room: room.clone(), before: request.before, limit: request.limit };
        let reader = HistoryReader::Member { connection: id, room, id: request.id.as_deref().map(Into::into) };
        self.pending.look_back((reader, owner), question, bytes_max);
        Ok(())
    }

    /// Reads older messages for a request of the HTTP API; the page comes by [`Hub::poll_page`].
    pub(crate) fn read_history_for_api(&mut self, owner: Owner, question: HistoryQuestion) -> Result<Ticket, Refused> {
        self.pending.check_look_back(owner)?;
        let bytes_max = self.settings.net.page_bytes_max();
        Ok(self.pending.look_back((HistoryReader::Api, owner), question, bytes_max))
    }

    /// The next page that the HTTP API has asked for.
    pub(crate) fn poll_page(&mut self) -> Option<(Ticket, Result<Page, BusRefusal>)> {
        self.pending.poll_api_page()
    }

    /// The bus has answered a read of older messages.
    pub(super) fn answer_history(
        &mut self,
        now: Now,
        (ticket, reader): (Ticket, HistoryReader),
        page: Result<Page, BusRefusal>,
    ) {
        let HistoryReader::Member { connection: id, room, id: message_id } = reader else {
            return self.pending.answer_api_page(ticket, page);
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.stop_awaiting_history();
        let owner = connection.owner;
        let page = page.map_err(|refusal| (refusal.code(), refusal.message.to_owned())).and_then(|page| {
            // It may have left, or lost the right, since it asked.
            let (_, rights) = self.rooms.joined(&self.connections, id, room.as_str())?;
            require(rights, Right::History, room.as_str()).map(|()| page)
        });
        match page {
            Ok(page) => {
                self.delivery_rates.charge(now, owner, page.messages.len() as u32);
                self.write_history(id, &room, message_id.as_deref(), &page);
            }
            Err((code, reason)) => {
                let reply = ErrorReply::new(code, &reason).about(Some(room.as_str()), message_id.as_deref());
                self.out.error(&mut self.connections, id, reply);
            }
        }
    }

    fn write_history(&mut self, id: ConnectionId, room: &RoomName, message_id: Option<&str>, page: &Page) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let message =
            HistoryMessage { room: room.as_str(), epoch: page.epoch.as_str(), more: !page.complete, id: message_id };
        self.out.outbox.history(id, connection, &message, page.bodies());
    }
}
