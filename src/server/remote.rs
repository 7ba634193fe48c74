//! A handle to the server for other threads.

use std::fmt;

use crate::error::Error;
use crate::hub::{HostPublication, MessageRef, Moderation};
use crate::id::{ConnectionId, RoomName, UserId};
use crate::inbox::InboxSender;
use crate::net::AdmissionTicket;
use crate::protocol::CloseReason;
use crate::restrictions::{Restriction, RestrictionTarget};
use crate::settings::ApiKey;

use super::authenticator::{Identity, Refusal};
use super::http::api::check_keys;
use super::stats::Stats;

/// A command of another thread.
pub(super) enum Command {
    Publish(HostPublication),
    Moderate(Moderation),
    Delete(MessageRef),
    Close(ConnectionId, CloseReason),
    Admit(AdmissionTicket, Result<Identity, Refusal>),
    ApiKeys(Vec<ApiKey>),
    Stats(Box<dyn FnOnce(Stats) + Send>),
    Shutdown,
}

/// A handle that other threads may clone and use; see [`Server::remote`](super::Server::remote).
///
/// Commands wait in a queue of at most
/// [`HubLimits::inbox_messages_max`](crate::settings::HubLimits::inbox_messages_max), and are carried out
/// in the server's next turn.
#[derive(Clone)]
pub struct Remote {
    sender: InboxSender<Command>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    pub(super) fn new(sender: InboxSender<Command>) -> Self {
        Self { sender }
    }

    /// Publishes into a room. [`Notice::Published`](crate::Notice::Published) tells the outcome if the host
    /// wants notices. A publication that is out of bounds is logged and dropped.
    ///
    /// # Errors
    /// [`Error::Inbox`] if the queue is full or the server was dropped.
    pub fn publish(&self, publication: HostPublication) -> Result<(), Error> {
        self.send(Command::Publish(publication))
    }

    /// Closes all connections of a user on all nodes, as
    /// [`Server::disconnect_user`](super::Server::disconnect_user) does. The outcome is told as for
    /// [`Remote::publish`].
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn disconnect_user(&self, user: UserId, reason: CloseReason) -> Result<(), Error> {
        self.send(Command::Moderate(Moderation::Disconnect { user, reason }))
    }

    /// Takes all connections of a user out of a room on all nodes, as [`Server::kick`](super::Server::kick)
    /// does. The outcome is told as for [`Remote::publish`].
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn kick(&self, room: RoomName, user: UserId) -> Result<(), Error> {
        self.send(Command::Moderate(Moderation::Kick { room, user }))
    }

    /// Bans or mutes on all nodes, as [`Server::restrict`](super::Server::restrict) does. The outcome is told
    /// as for [`Remote::publish`].
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn restrict(&self, restriction: Restriction) -> Result<(), Error> {
        self.send(Command::Moderate(Moderation::Restrict(restriction)))
    }

    /// Lifts a ban or a mute on all nodes, as [`Server::lift`](super::Server::lift) does.
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn lift(&self, target: RestrictionTarget) -> Result<(), Error> {
        self.send(Command::Moderate(Moderation::Lift(target)))
    }

    /// Deletes a message on all nodes, as [`Server::delete`](super::Server::delete) does. The outcome is told as for
    /// [`Remote::publish`].
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn delete(&self, message: MessageRef) -> Result<(), Error> {
        self.send(Command::Delete(message))
    }

    /// Closes a connection, as [`Server::close`](super::Server::close) does.
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) -> Result<(), Error> {
        self.send(Command::Close(connection, reason))
    }

    /// Decides about a handshake, as [`Server::admit`](super::Server::admit) does. A ticket that is out of
    /// date has no effect.
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn admit(&self, ticket: AdmissionTicket, decision: Result<Identity, Refusal>) -> Result<(), Error> {
        self.send(Command::Admit(ticket, decision))
    }

    /// Replaces the keys of the HTTP API, as [`Server::set_api_keys`](super::Server::set_api_keys) does.
    ///
    /// # Errors
    /// [`Error::Config`] if a key cannot be used; all keys stay then. Else as [`Remote::publish`].
    pub fn set_api_keys(&self, keys: Vec<ApiKey>) -> Result<(), Error> {
        check_keys(&keys)?;
        self.send(Command::ApiKeys(keys))
    }

    /// Has the server call `tell` with its counts, on its own thread.
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn stats(&self, tell: impl FnOnce(Stats) + Send + 'static) -> Result<(), Error> {
        self.send(Command::Stats(Box::new(tell)))
    }

    /// Begins the shutdown, as [`Server::shutdown`](super::Server::shutdown).
    ///
    /// # Errors
    /// As [`Remote::publish`].
    pub fn shutdown(&self) -> Result<(), Error> {
        self.send(Command::Shutdown)
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        Ok(self.sender.push(command)?)
    }
}
