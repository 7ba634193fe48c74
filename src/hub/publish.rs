//! From a client or the host to the bus, and what the bus made of it.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::bus::message::{Outcome, Publication, Ticket};
use crate::error::Error;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, Chat, ChatRequest, ErrorCode, ServerMessage};
use crate::time::Now;

use super::error_reply::{ErrorReply, Refused};
use super::index::{RoomIndex, RoomRef};
use super::notice::Notice;
use super::pending::{Asked, Requester};
use super::{Caller, Hub, Settings, shown_name};

/// A chat message of the embedding host; it needs neither connection nor membership.
#[derive(Clone, Debug)]
pub struct HostPublication {
    /// The room.
    pub room: RoomName,
    /// The user that it is from.
    pub user: UserId,
    /// A name to show beside the user's.
    pub name: Option<String>,
    /// The text, not empty.
    pub text: String,
    /// Any JSON beside it that every receiver can read: at most 64 levels deep, with numbers that fit a double, and without halves
    /// of surrogate pairs.
    pub data: Option<Box<RawValue>>,
    /// Makes it safe to publish again: 1 to 64 bytes, unique per user and room.
    pub id: Option<String>,
}

impl HostPublication {
    /// A message without a name, data and id, which may be set afterwards.
    pub fn new(room: RoomName, user: UserId, text: impl Into<String>) -> Self {
        Self { room, user, name: None, text: text.into(), data: None, id: None }
    }

    /// The publication as the bus is given it, if it is within its bounds.
    fn checked(&self, now: Now, owner: Owner, settings: &Settings) -> Result<Publication, Refused> {
        if self.text.is_empty() {
            return Err((ErrorCode::BadMessage, "text is empty; at least one byte is needed".to_owned()));
        }
        if let Some(id) = self.id.as_deref().filter(|id| !(1..=protocol::ID_BYTES_MAX).contains(&id.len())) {
            let max = protocol::ID_BYTES_MAX;
            return Err((ErrorCode::BadMessage, format!("id of {} bytes; 1 to {max} are allowed", id.len())));
        }
        check_data(self.data.as_deref(), settings.hub.data_bytes_max)?;
        let body = protocol::chat_body(&Chat {
            room: self.room.as_str(),
            user_id: self.user.as_str(),
            name: self.name.as_deref().and_then(shown_name).as_deref(),
            text: &self.text,
            data: self.data.as_deref(),
            id: self.id.as_deref(),
            ts: now.unix_ms,
        });
        let max = settings.net.message_bytes_max;
        if body.len() > max {
            return Err((ErrorCode::TooLarge, format!("message of {} bytes exceeds {max}", body.len())));
        }
        Ok(Publication {
            room: self.room.clone(),
            user: self.user.clone(),
            owner,
            id: self.id.as_deref().map(Into::into),
            body: Bytes::from(body),
            restriction: None,
        })
    }
}

impl Hub {
    pub(super) fn handle_chat(&mut self, now: Now, id: ConnectionId, chat: &ChatRequest<'_>) -> Result<(), Refused> {
        let (index, rights) = self.rooms.joined(&self.connections, id, &chat.room)?;
        self.require_say(index, rights)?;
        if self.refuse_by_slow_mode(now, (id, index), chat) {
            return Ok(());
        }
        self.pending.check_running()?;
        check_data(chat.data, self.settings.hub.data_bytes_max)?;
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let (user, owner) = (connection.user, connection.owner);
        let (name, user_id) = (self.rooms[index].name.clone(), self.users.id(user).clone());
        self.policy
            .allow_message(&Caller { connection: id, user: &user_id }, &name, &chat.text, chat.data.map(RawValue::get))
            .map_err(|message| (ErrorCode::Forbidden, message))?;
        let body = protocol::chat_body(&Chat {
            room: name.as_str(),
            user_id: user_id.as_str(),
            name: self.users.view(user).name,
            text: &chat.text,
            data: chat.data,
            id: chat.id.as_deref(),
            ts: now.unix_ms,
        });
        let message_id: Option<Box<str>> = chat.id.as_deref().map(Into::into);
        let (room, id_of_message) = (name.clone(), message_id.clone());
        let body = Bytes::from(body);
        let publication = Publication { room: name, user: user_id, owner, id: message_id, body, restriction: None };
        self.pending.check_publication(&publication)?;
        let reserved = self.reserve((index, owner), &publication.body)?;
        self.delivery_rates.charge(now, owner, self.rooms[index].members.count() as u32);
        self.note_speaker(now, index, &publication.user);
        let requester = Requester::Member { connection: id, room, id: id_of_message, reserved };
        self.pending.publish(requester, publication);
        Ok(())
    }

    /// Promises a publication the space that it will need in its room's log.
    fn reserve(&mut self, (index, owner): (RoomIndex, Owner), body: &[u8]) -> Result<(RoomRef, usize), Refused> {
        let bytes = protocol::chat_frame_bytes_max(body);
        let promised = self.rooms[index].fanout.reserved_bytes();
        self.work += self.rooms.make_log_space(index, (promised, bytes), &mut self.connections);
        if !self.rooms.has_space_to_promise(index, bytes) {
            return Err((ErrorCode::RoomBusy, "the room delivers as fast as it can; try again later".to_owned()));
        }
        if !self.rooms.has_space_for(owner, bytes) {
            let message =
                "all rooms deliver as fast as they can, and much of the user or address is on its way; try again later";
            return Err((ErrorCode::RoomBusy, message.to_owned()));
        }
        self.rooms.promise_space((index, owner), bytes);
        self.scheduler.limit_delays(&mut self.rooms, index);
        Ok((self.rooms.reference(index), bytes))
    }

    /// Publishes for the host; what became of it is told by [`Notice::Published`].
    ///
    /// # Errors
    /// [`Error::Command`] if something is out of its bounds, or the server is busy or shutting down.
    pub fn publish_for_host(&mut self, now: Now, publication: &HostPublication) -> Result<Ticket, Error> {
        let published = self.publish_checked(now, (Requester::Host, Owner::HOST), publication);
        published.map_err(|(_, message)| Error::Command(message))
    }

    /// Publishes for a request of the HTTP API; what became of it is told by [`Hub::poll_answer`], and by no notice.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn publish_for_api(
        &mut self,
        now: Now,
        owner: Owner,
        publication: &HostPublication,
    ) -> Result<Ticket, Refused> {
        self.publish_checked(now, (Requester::Api, owner), publication)
    }

    /// The next answer to a request of the HTTP API.
    pub fn poll_answer(&mut self) -> Option<(Ticket, Outcome)> {
        self.pending.poll_api_answer()
    }

    fn publish_checked(
        &mut self,
        now: Now,
        (requester, owner): (Requester, Owner),
        publication: &HostPublication,
    ) -> Result<Ticket, Refused> {
        self.pending.check_running()?;
        let publication = publication.checked(now, owner, &self.settings)?;
        self.pending.check_publication_from_outside(&publication)?;
        Ok(self.pending.publish(requester, publication))
    }

    pub(super) fn handle_published(&mut self, now: Now, ticket: Ticket, outcome: Outcome) {
        let requester = match self.pending.take(ticket) {
            Some(Asked::Publication(requester) | Asked::Restriction(requester)) => requester,
            Some(Asked::PurgeStep(purge)) => return self.handle_purge_step(now, purge, &outcome),
            Some(Asked::Page(_) | Asked::History(_) | Asked::PurgePage(_) | Asked::Position) | None => return,
        };
        match requester {
            Requester::Member { connection, room, id, reserved } => {
                self.forgive_speaker(now, connection, (&room, &outcome));
                self.tell_outcome(connection, &room, id.as_deref(), &outcome);
                self.release(now, reserved);
            }
            Requester::Host => self.out.notices.push(|| Notice::Published { ticket, outcome }),
            Requester::Api => self.pending.answer_api(ticket, outcome),
        }
    }

    /// Space that was promised is not needed any more.
    fn release(&mut self, now: Now, (room, bytes): (RoomRef, usize)) {
        let Some(index) = self.rooms.find(room) else { return };
        self.rooms.release_promise(index, bytes);
        self.finish_level_leavers(now, room);
        if let Some(index) = self.rooms.find(room) {
            self.forget_if_unused(index);
        }
    }

    fn tell_outcome(&mut self, connection: ConnectionId, name: &RoomName, id: Option<&str>, outcome: &Outcome) {
        let (seq, duplicate) = match *outcome {
            Outcome::Accepted(seq) => {
                // The bus has delivered the copy in the epoch that holds. A sender that reads the log with the copy is sure to
                // see that. One that is catching up may leave, or its join may fail, before the copy comes; then the
                // acknowledgement is all that it gets.
                let room = self.rooms.read_by(&self.connections, connection, name.as_str());
                if room.is_some_and(|room| room.holds(seq)) {
                    return;
                }
                (seq, false)
            }
            Outcome::AcceptedUnseen(seq) => (seq, false),
            Outcome::Duplicate(seq) => (seq, true),
            Outcome::Refused(refusal) => {
                let reply = ErrorReply::new(refusal.code(), refusal.message);
                return self.out.error(&mut self.connections, connection, reply.about(Some(name.as_str()), id));
            }
        };
        // The sender will not see the copy.
        if let Some(id) = id {
            let ack = ServerMessage::Ack { room: name.as_str(), id, seq, duplicate };
            self.out.say(&mut self.connections, connection, &ack);
        }
    }
}

fn check_data(data: Option<&RawValue>, max: usize) -> Result<(), Refused> {
    let found = data.map_or(0, |data| data.get().len());
    if found > max {
        return Err((ErrorCode::TooLarge, format!("data of {found} bytes exceeds {max}")));
    }
    let checked = data.map_or(Ok(()), |data| protocol::check_data(data.get()));
    checked.map_err(|message| (ErrorCode::BadMessage, message))
}
