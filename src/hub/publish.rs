//! From a client or the host to the bus, and what the bus made of it.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::bus::message::{BusRequest, Outcome, Publication, Ticket};
use crate::error::Error;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::protocol::{self, Chat, ClientMessage, ErrorCode, ServerMessage, TypingStatus};
use crate::time::Now;

use super::connection::Place;
use super::notice::Notice;
use super::room::RoomRef;
use super::{Caller, Complaint, Hub, Refused};

/// What the bus has been asked and has not answered.
#[derive(Debug)]
pub(super) enum Pending {
    /// A message that a connection, or the host, has said.
    Publication {
        connection: Option<ConnectionId>,
        name: RoomName,
        id: Option<Box<str>>,
        /// Where so many bytes are promised.
        reserved: Option<(RoomRef, usize)>,
    },
    /// A page for a member that catches up.
    Read { connection: ConnectionId, room: RoomRef, bytes_max: usize },
    /// Where the order of the host's commands stands.
    Moderation,
}

/// Commands whose answers are not notices. They count among the publications under way, so these bound both.
#[derive(Debug, Default)]
pub(super) struct Apart {
    asked: HashSet<Ticket>,
    answers: VecDeque<(Ticket, Outcome)>,
}

/// A chat message of the embedding host; it needs neither connection nor membership.
#[derive(Clone, Debug)]
pub struct HostPublication {
    /// The room.
    pub room: RoomName,
    /// The user that it is from.
    pub user: UserId,
    /// A name to show beside the user's.
    pub name: Option<String>,
    /// Not empty.
    pub text: String,
    /// Any JSON beside it.
    pub data: Option<Box<RawValue>>,
    /// Makes it safe to publish again: 1 to 64 bytes, unique per user and room.
    pub id: Option<String>,
}

impl HostPublication {
    /// A message without a name, data and id, which may be set afterwards.
    pub fn new(room: RoomName, user: UserId, text: impl Into<String>) -> Self {
        Self { room, user, name: None, text: text.into(), data: None, id: None }
    }
}

impl Hub {
    pub(super) fn handle_chat(
        &mut self,
        now: Now,
        id: ConnectionId,
        message: &ClientMessage<'_>,
    ) -> Result<(), Refused> {
        let index = self.joined_room(id, message)?;
        if self.is_draining {
            return Err((ErrorCode::ShuttingDown, "the server is shutting down".to_owned()));
        }
        let text = message.text.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err((ErrorCode::BadMessage, "chat without text; at least one byte is needed".to_owned()));
        }
        self.check_data(message.data)?;
        let user = self.connections.member(id.slot).user;
        let (name, user_id) = (self.rooms[index as usize].name.clone(), self.users.id(user).clone());
        self.policy
            .allow_message(&Caller { connection: id, user: &user_id }, &name, text, message.data.map(RawValue::get))
            .map_err(|words| (ErrorCode::Forbidden, words))?;
        let chat = Chat {
            room: name.as_str(),
            user_id: user_id.as_str(),
            name: self.users.view(user).name,
            text,
            data: message.data,
            id: message.id.as_deref(),
            ts: now.unix_ms,
        };
        let body = protocol::chat_body(&chat);
        let reserved = self.reserve(index, &body)?;
        let message_id: Option<Box<str>> = message.id.as_deref().map(Into::into);
        let ticket = self.ticket(Pending::Publication {
            connection: Some(id),
            name: name.clone(),
            id: message_id.clone(),
            reserved: Some(reserved),
        });
        self.publish(ticket, name, user_id, message_id, body);
        Ok(())
    }

    /// Promises a publication the space that it will need in its room's log.
    fn reserve(&mut self, index: u32, body: &[u8]) -> Result<(RoomRef, usize), Refused> {
        if self.publications_pending >= self.limits.publications_pending_max {
            let words = format!("{} messages wait already; try again later", self.publications_pending);
            return Err((ErrorCode::ServerBusy, words));
        }
        let bytes = protocol::chat_frame_bytes_max(body);
        let promised = self.rooms[index as usize].reserved_bytes;
        if !self.make_room_from_laggards(index, promised + bytes) {
            return Err((ErrorCode::RoomBusy, "the room delivers as fast as it can; try again later".to_owned()));
        }
        self.rooms[index as usize].reserved_bytes += bytes;
        self.limit_batch_delays(index);
        Ok((self.room_ref(index), bytes))
    }

    fn publish(&mut self, ticket: Ticket, room: RoomName, user: UserId, id: Option<Box<str>>, body: Vec<u8>) {
        self.publications_pending += 1;
        self.requests.push_back(BusRequest::Publish {
            ticket,
            publication: Publication { room, user, id, body: Bytes::from(body) },
        });
    }

    /// Publishes for the host; what became of it is told by [`Notice::Published`].
    ///
    /// # Errors
    /// [`Error::Command`] if something is out of its bounds, or the server is busy or shutting down.
    pub fn publish_for_host(&mut self, now: Now, publication: &HostPublication) -> Result<Ticket, Error> {
        self.publish_for_request(now, publication).map_err(|(_, words)| Error::Command(words))
    }

    /// What becomes of a command of the host is told by [`Hub::poll_answer`], and by no notice: somebody else has asked for it.
    pub fn answer_apart(&mut self, ticket: Ticket) {
        self.apart.asked.insert(ticket);
    }

    /// The next answer to a command that is [answered apart](Hub::answer_apart).
    pub fn poll_answer(&mut self) -> Option<(Ticket, Outcome)> {
        self.apart.answers.pop_front()
    }

    fn check_data(&self, data: Option<&RawValue>) -> Result<(), Refused> {
        let (found, most) = (data.map_or(0, |data| data.get().len()), self.limits.data_bytes_max);
        if found > most {
            return Err((ErrorCode::TooLarge, format!("data of {found} bytes exceeds {most}")));
        }
        Ok(())
    }

    /// Whether a publication of the host would be taken now.
    pub(super) fn check_can_publish(&self) -> Result<(), Refused> {
        if self.is_draining {
            return Err((ErrorCode::ShuttingDown, "the server is shutting down".to_owned()));
        }
        if self.publications_pending >= self.limits.publications_pending_max {
            let words = format!("{} publications wait already", self.publications_pending);
            return Err((ErrorCode::ServerBusy, words));
        }
        Ok(())
    }

    /// As [`Hub::publish_for_host`], for who passes a refusal on.
    ///
    /// # Errors
    /// The code of the protocol, and what was found and what is allowed.
    pub fn publish_for_request(&mut self, now: Now, publication: &HostPublication) -> Result<Ticket, Refused> {
        self.check_can_publish()?;
        if publication.text.is_empty() {
            return Err((ErrorCode::BadMessage, "text is empty; at least one byte is needed".to_owned()));
        }
        if let Some(id) = publication.id.as_deref().filter(|id| !(1..=protocol::ID_BYTES_MAX).contains(&id.len())) {
            let most = protocol::ID_BYTES_MAX;
            return Err((ErrorCode::BadMessage, format!("id of {} bytes; 1 to {most} are allowed", id.len())));
        }
        self.check_data(publication.data.as_deref())?;
        let chat = Chat {
            room: publication.room.as_str(),
            user_id: publication.user.as_str(),
            name: publication.name.as_deref().map(|name| super::truncate_chars(name, 64)),
            text: &publication.text,
            data: publication.data.as_deref(),
            id: publication.id.as_deref(),
            ts: now.unix_ms,
        };
        let body = protocol::chat_body(&chat);
        let most = self.limits.message_bytes_max;
        if body.len() > most {
            return Err((ErrorCode::TooLarge, format!("message of {} bytes exceeds {most}", body.len())));
        }
        let id: Option<Box<str>> = publication.id.as_deref().map(Into::into);
        let ticket = self.ticket(Pending::Publication {
            connection: None,
            name: publication.room.clone(),
            id: id.clone(),
            reserved: None,
        });
        self.publish(ticket, publication.room.clone(), publication.user.clone(), id, body);
        Ok(ticket)
    }

    pub(super) fn handle_published(&mut self, now: Now, ticket: Ticket, outcome: Outcome) {
        let Some(Pending::Publication { connection, name, id, reserved }) = self.pending.remove(&ticket) else {
            return;
        };
        self.publications_pending -= 1;
        match connection {
            Some(connection) => self.tell_outcome(connection, &name, id.as_deref(), &outcome),
            None if self.apart.asked.remove(&ticket) => self.apart.answers.push_back((ticket, outcome)),
            None => self.notices.push(|| Notice::Published { ticket, outcome }),
        }
        if let Some((room, bytes)) = reserved
            && self.find_room(room).is_some()
        {
            self.rooms[room.index as usize].reserved_bytes -= bytes;
            self.finish_leaving(now, room.index);
            self.forget_if_unused(room.index);
        }
    }

    fn tell_outcome(&mut self, connection: ConnectionId, name: &RoomName, id: Option<&str>, outcome: &Outcome) {
        match *outcome {
            Outcome::Accepted(seq) if !self.is_sure_to_see(connection, name, seq) => {
                self.acknowledge(connection, name, id, seq, false);
            }
            Outcome::Accepted(_) => {}
            Outcome::AcceptedUnseen(seq) => self.acknowledge(connection, name, id, seq, false),
            Outcome::Duplicate(seq) => self.acknowledge(connection, name, id, seq, true),
            Outcome::Refused(words) => {
                let complaint = Complaint::new(ErrorCode::Unavailable, words);
                self.error(connection, &complaint.about(Some(name.as_str()), id));
            }
        }
    }

    /// Tells a sender who will not see the copy.
    fn acknowledge(&mut self, to: ConnectionId, room: &RoomName, id: Option<&str>, seq: u64, duplicate: bool) {
        if let Some(id) = id {
            self.say(to, &ServerMessage::Ack { room: room.as_str(), id, seq, duplicate });
        }
    }

    /// Whether a sender's copy is in the log that it reads already. Otherwise it may leave, or its join may fail,
    /// before the copy comes; then the acknowledgement is all that it gets.
    fn is_sure_to_see(&self, id: ConnectionId, name: &RoomName, seq: u64) -> bool {
        let index = self.room_named(name.as_str());
        let Some((index, connection)) = index.zip(self.connections.get(id)) else { return false };
        let room = &self.rooms[index as usize];
        // A number that is not in the log may be one of an epoch that the bus has yet to tell of.
        let is_in_log = room.delivered().is_some_and(|delivered| {
            let first = room.log.next_seq(room.log.front()).unwrap_or(delivered);
            (first..=delivered).contains(&seq)
        });
        is_in_log && matches!(connection.place_in(index), Some(Place::Live(_)))
    }

    pub(super) fn handle_typing(
        &mut self,
        now: Now,
        id: ConnectionId,
        message: &ClientMessage<'_>,
    ) -> Result<(), Refused> {
        let index = self.joined_room(id, message)?;
        let status = match message.status.as_deref() {
            Some("start") => TypingStatus::Start,
            Some("stop") => TypingStatus::Stop,
            other => {
                let found: String = other.unwrap_or_default().chars().take(32).collect();
                let words = format!("status {found:?}; \"start\" and \"stop\" are allowed");
                return Err((ErrorCode::BadMessage, words));
            }
        };
        let user = self.users.id(self.connections.member(id.slot).user).clone();
        if self.append_typing(now, index, &user, status) && self.shares_presence {
            let room = self.rooms[index as usize].name.clone();
            self.requests.push_back(BusRequest::Typing { room, user, status });
        }
        Ok(())
    }

    /// A user types in a room on another node.
    pub(super) fn handle_typing_elsewhere(&mut self, now: Now, room: &RoomName, user: &UserId, status: TypingStatus) {
        if let Some(index) = self.room_named(room.as_str()) {
            self.append_typing(now, index, user, status);
        }
    }

    /// Typing is the first to be shed; says whether it was worth its place.
    fn append_typing(&mut self, now: Now, index: u32, user: &UserId, status: TypingStatus) -> bool {
        let room = &self.rooms[index as usize];
        if room.big || room.log.len() > self.limits.log_bytes_max / 4 {
            return false;
        }
        self.append_event(now, index, |out, room, _| {
            let message = ServerMessage::Typing { room: room.name.as_str(), user_id: user.as_str(), status };
            message.append_frame(out);
        });
        true
    }
}
