//! Commands about a user, carried out on all nodes.

use crate::bus::message::Ticket;
use crate::error::Error;
use crate::hub::{MessageRef, Moderation};
use crate::id::{RoomName, UserId};
use crate::protocol::CloseReason;

use super::Server;
use crate::restrictions::{Restriction, RestrictionTarget};

impl Server {
    /// Closes all connections of a user on all nodes. [`Notice::Published`](crate::Notice::Published) tells
    /// whether the bus has taken the command.
    ///
    /// The code of `reason` is one of 4000 to 4999; [`CloseReason::EXPELLED`] tells clients not to reconnect
    /// by themselves. The command forbids nothing: an [`Authenticator`](crate::Authenticator) decides whether
    /// the user may come back. A node whose link to the others is cut carries the command out when the
    /// link is back, up to ten minutes later. It then closes only connections that were there at the time
    /// of the command.
    ///
    /// # Errors
    /// [`Error::Command`] if the code is another one, or the server is busy or shutting down.
    pub fn disconnect_user(&mut self, user: &UserId, reason: CloseReason) -> Result<Ticket, Error> {
        self.moderate(&Moderation::Disconnect { user: user.clone(), reason })
    }

    /// Takes all connections of a user out of a room on all nodes. They stay in their other rooms.
    ///
    /// Each connection is sent an `error` with the code `removed`, and `left`. Everything else is as for
    /// [`Server::disconnect_user`]. [`Policy::allow_join`](crate::Policy::allow_join) decides whether the
    /// user may join again.
    ///
    /// # Errors
    /// [`Error::Command`] if the server is busy or shutting down.
    pub fn kick(&mut self, room: &RoomName, user: &UserId) -> Result<Ticket, Error> {
        self.moderate(&Moderation::Kick { room: room.clone(), user: user.clone() })
    }

    /// Bans or mutes, on all nodes, until it expires or is [lifted](Server::lift). It takes the place of an earlier restriction of the
    /// same target. [`Notice::Published`](crate::Notice::Published) tells whether the bus has taken it.
    ///
    /// A ban closes the connections of the user or the network with
    /// [`CloseReason::BANNED`](crate::CloseReason::BANNED), and refuses their handshakes with 403. A mute refuses the chat messages of
    /// the user with `muted`, and drops what it types. Publications of the host are not refused.
    ///
    /// # Errors
    /// [`Error::Command`] if the reason is too long, if there are as many restrictions as are
    /// [allowed](crate::settings::HubLimits::restrictions_max), or the server is busy or shutting down.
    pub fn restrict(&mut self, restriction: Restriction) -> Result<Ticket, Error> {
        self.moderate(&Moderation::Restrict(restriction))
    }

    /// Lifts a ban or a mute on all nodes, if there is one.
    ///
    /// # Errors
    /// [`Error::Command`] if the server is busy or shutting down.
    pub fn lift(&mut self, target: RestrictionTarget) -> Result<Ticket, Error> {
        self.moderate(&Moderation::Lift(target))
    }

    /// Deletes a message on all nodes: its text, data and name go, and a tombstone stays in the history under its number. Members are
    /// told by an announcement that has a number of its own, which [`Notice::Published`](crate::Notice::Published) tells, too.
    ///
    /// [`Outcome::Duplicate`](crate::Outcome::Duplicate) says that it was deleted before, and
    /// [`RefusalKind::NotFound`](crate::RefusalKind::NotFound) that the room has no such message.
    ///
    /// # Errors
    /// [`Error::Command`] if the server is busy or shutting down.
    pub fn delete(&mut self, message: &MessageRef) -> Result<Ticket, Error> {
        self.hub.delete_for_host(self.clock.resume(), message)
    }

    fn moderate(&mut self, moderation: &Moderation) -> Result<Ticket, Error> {
        self.hub.moderate_for_host(self.clock.resume(), moderation)
    }
}
