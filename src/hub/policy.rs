//! Who may join a room and say something in it: the seam at which an embedder decides.

use crate::id::{ConnectionId, RoomName, UserId};

/// The connection that asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// Its user, who may have others.
    pub user: &'a UserId,
}

/// Decides what users may do in rooms. Every method has the answer of an open server as its default.
///
/// The methods run on the loop and must not block. An [`Authenticator`](crate::Authenticator) decides whose a connection is.
pub trait Policy {
    /// Whether a connection may join a room; also one that was [taken out](crate::Server::kick) of it.
    ///
    /// # Errors
    /// The sentence of the `forbidden` error.
    fn allow_join(&mut self, caller: &Caller<'_>, room: &RoomName) -> Result<(), String> {
        let _ = (caller, room);
        Ok(())
    }

    /// Whether a connection may say something in a room that it has joined.
    ///
    /// # Errors
    /// The sentence of the `forbidden` error.
    fn allow_message(
        &mut self,
        caller: &Caller<'_>,
        room: &RoomName,
        text: &str,
        data: Option<&str>,
    ) -> Result<(), String> {
        let _ = (caller, room, text, data);
        Ok(())
    }
}

/// Allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenPolicy;

impl Policy for OpenPolicy {}
