//! The form of a command of the API: its name, what it acts on, its description, and the function that carries it out.

use std::fmt;
use std::sync::Arc;

use log::Level;
use serde::{Deserialize, Serialize};

use super::broadcast_parts::BroadcastParts;
use super::keys::KnownKey;
use super::schema::Operation;
use crate::bus::message::{Page, Ticket};
use crate::bus::{Bus, BusStatus};
use crate::hub::{Hub, Purged, Refused, RoomAnswer, RoomQuestion};
use crate::id::{ConnectionId, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, ErrorCode, Text};
use crate::server::report::ServerReport;
use crate::time::Now;

/// A command of the API.
#[derive(Debug)]
pub(in crate::server) struct ApiCommand {
    /// The name, which is the last part of its path. Keys may be limited to commands by it.
    pub(super) name: &'static str,
    /// What it acts on, as a key must allow that is limited to rooms.
    pub(super) reach: Reach,
    /// At which level a line of the log says that it was carried out.
    pub(super) audit: Level,
    /// How many bytes a body may have beside the message.
    pub(super) body_bytes_extra: usize,
    pub(super) operation: fn() -> Operation,
    pub(super) run: fn(&mut CommandContext<'_>, body: &str) -> Result<Begun, Refused>,
}

/// What a command acts on. A key that is limited to rooms may use it if it allows all of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The one that the body names as `room`.
    Room,
    /// The one that the body names as `room`, or everything if it names none.
    RoomOrEverything,
    /// The command asks for each room whether the [key allows it](CommandContext::allows_room).
    EachRoom,
    /// More than rooms.
    Everything,
}

/// A command whose request has a right head, until its body has come.
#[derive(Clone, Debug)]
pub(in crate::server) struct ApiRoute {
    pub(super) command: &'static ApiCommand,
    pub(super) key: Arc<KnownKey>,
    /// The key's.
    pub(in crate::server) owner: Owner,
}

/// The parts of the server that a command works on.
pub(in crate::server) struct CommandContext<'a> {
    pub(in crate::server) now: Now,
    pub(in crate::server) hub: &'a mut Hub,
    pub(in crate::server) scope: ListScope,
    pub(in crate::server) bus: &'a dyn Bus,
    /// None in the turn in which the first key was set.
    pub(in crate::server) report: Option<&'a ServerReport<'a>>,
    pub(in crate::server) route: &'a ApiRoute,
    /// The act that the log tells; the name of the command if it is empty.
    pub(in crate::server) act: String,
}

impl CommandContext<'_> {
    pub(super) fn owner(&self) -> Owner {
        self.route.owner
    }

    /// Asks about a room; `view` makes the body of the answer.
    pub(super) fn ask_about_room(
        &mut self,
        room: RoomName,
        question: RoomQuestion,
        view: ViewRoom,
    ) -> Result<Begun, Refused> {
        let is_bus_ready = self.bus.status().is_ready;
        let ticket = self.hub.ask_about_room(self.owner(), (room, question), is_bus_ready)?;
        Ok(Begun::AskedAboutRoom { ticket, view })
    }

    /// Checks that the key allows commands about a room. Most commands have [`Reach`] do so.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`].
    pub(super) fn allows_room(&self, room: &RoomName) -> Result<(), Refused> {
        if self.route.key.limits.allow_room(room) {
            return Ok(());
        }
        Err((ErrorCode::Forbidden, format!("the key does not allow room {room}")))
    }

    /// Has the log tell the act in these words in place of the name of the command.
    pub(super) fn tell(&mut self, act: impl fmt::Display) {
        if log::log_enabled!(self.route.command.audit) {
            self.act = act.to_string();
        }
    }

    /// Checks that the key allows what a command acts on.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], or what is wrong with the body.
    pub(super) fn check_reach(&self, body: &str) -> Result<(), Refused> {
        let ApiRoute { command: ApiCommand { name, reach, .. }, key, .. } = self.route;
        if !key.limits.are_of_rooms() || *reach == Reach::EachRoom {
            return Ok(());
        }
        let RoomBody { room } = protocol::parse_object(body)?;
        match (reach, room) {
            (Reach::Everything, _) | (Reach::RoomOrEverything, None) => Err(too_far(name)),
            (_, room) => self.allows_room(&room_of(name, room.as_deref())?),
        }
    }
}

/// The refusal of a command that acts on more than rooms.
pub(super) fn too_far(name: &str) -> Refused {
    (ErrorCode::Forbidden, format!("the key is limited to rooms, and {name} acts on more than those"))
}

/// The room in the body of any command.
#[derive(Deserialize)]
struct RoomBody<'a> {
    #[serde(borrow)]
    room: Option<Text<'a>>,
}

/// What a list covers that is shared between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum ListScope {
    /// All nodes, as of now.
    #[serde(rename = "all")]
    AllNodes,
    /// There is only this node, or it has lost the others and knows what it knew before.
    #[serde(rename = "this")]
    ThisNode,
}

impl ListScope {
    /// What is covered by a list of what the bus shares between nodes.
    pub(in crate::server) fn of(BusStatus { is_ready, shares_presence }: BusStatus) -> Self {
        if shares_presence && is_ready { Self::AllNodes } else { Self::ThisNode }
    }
}

/// A command that was understood.
pub(super) enum Begun {
    /// The bus has yet to answer.
    Asked { ticket: Ticket, done: Done },
    /// The hub has yet to answer a question about a room.
    AskedAboutRoom { ticket: Ticket, view: ViewRoom },
    /// A purge, which asks the bus for many things.
    Purging { ticket: Ticket, done: PurgeDone },
    /// The bus has yet to give a page of history.
    Reading { ticket: Ticket, done: PageDone },
    /// The bus has yet to answer for each of several rooms.
    AskedForRooms(BroadcastParts),
    /// It is done, and answered with this JSON.
    Done(Vec<u8>),
}

/// Makes the body of the answer to a command that the bus has accepted.
pub(super) type Done = Box<dyn FnOnce(Accepted) -> Vec<u8>>;

/// Makes the body of the answer to a question about a room.
pub(super) type ViewRoom = fn(&RoomAnswer, ListScope) -> Vec<u8>;

/// Makes the body of the answer to a purge.
pub(super) type PurgeDone = Box<dyn FnOnce(Purged) -> Vec<u8>>;

/// Makes the body of the answer to a command that reads history.
pub(super) type PageDone = Box<dyn FnOnce(&Page) -> Vec<u8>>;

/// A request that waits for the bus.
pub(super) struct PendingCommand {
    pub(super) connection: ConnectionId,
    pub(super) done: Done,
}

/// A request that waits for an answer about a room.
pub(super) struct PendingQuestion {
    pub(super) connection: ConnectionId,
    pub(super) view: ViewRoom,
}

/// A request that waits for a page of history.
pub(super) struct PendingPage {
    pub(super) connection: ConnectionId,
    pub(super) done: PageDone,
}

/// The number that the bus gave a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) seq: u64,
    pub(super) duplicate: bool,
}

pub(super) fn room_of(command: &str, room: Option<&str>) -> Result<RoomName, Refused> {
    let room = room.ok_or_else(|| (ErrorCode::BadMessage, format!("{command} without room")))?;
    RoomName::new(room).map_err(|error| (ErrorCode::BadMessage, format!("room: {error}")))
}

pub(super) fn user_of(command: &str, user: Option<&str>) -> Result<UserId, Refused> {
    let user = user.ok_or_else(|| (ErrorCode::BadMessage, format!("{command} without userId")))?;
    UserId::new(user).map_err(|error| (ErrorCode::BadMessage, format!("userId: {error}")))
}
