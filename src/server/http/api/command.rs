//! The form of a command of the API: its path, and the function that carries it out.

use serde::Serialize;

use crate::bus::message::{Page, Ticket};
use crate::bus::{Bus, BusStatus};
use crate::hub::{Hub, Purged, Refused, RoomAnswer, RoomQuestion};
use crate::id::{RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::ErrorCode;
use crate::server::report::ServerReport;
use crate::time::Now;

/// A command of the API.
#[derive(Debug)]
pub(in crate::server) struct ApiCommand {
    pub(super) path: &'static str,
    pub(super) run: fn(&mut CommandContext<'_>, body: &str) -> Result<Begun, Refused>,
}

/// A command whose request has a right head, until its body has come.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct ApiRoute {
    pub(in crate::server) command: &'static ApiCommand,
    /// The key's.
    pub(in crate::server) owner: Owner,
}

/// The parts of the server that a command works on.
pub(in crate::server) struct CommandContext<'a> {
    pub(in crate::server) now: Now,
    pub(in crate::server) hub: &'a mut Hub,
    pub(in crate::server) owner: Owner,
    pub(in crate::server) scope: ListScope,
    pub(in crate::server) bus: &'a dyn Bus,
    /// None in the turn in which the first key was set.
    pub(in crate::server) report: Option<&'a ServerReport<'a>>,
}

impl CommandContext<'_> {
    /// Asks about a room; `view` makes the body of the answer.
    pub(super) fn ask_about_room(
        &mut self,
        room: RoomName,
        question: RoomQuestion,
        view: ViewRoom,
    ) -> Result<Begun, Refused> {
        let is_bus_ready = self.bus.status().is_ready;
        let ticket = self.hub.ask_about_room(self.owner, (room, question), is_bus_ready)?;
        Ok(Begun::AskedAboutRoom { ticket, view })
    }
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
