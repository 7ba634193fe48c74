//! What passes between the hub and a bus: publications, reads of history, and their answers.
//!
//! The hub asks with [`BusRequest`]s and is answered by [`BusEvent`]s, in the same turn or much later; neither knows the
//! other's code.

use std::borrow::Cow;

use bytes::Bytes;

use crate::id::{Epoch, RoomName, UserId};
use crate::owner::Owner;
use crate::protocol::{self, ErrorCode, PresenceStatus, SignalKind};

/// Names one request until it is answered. Every publication and every read is answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Never one of the hub's: a bus reads the position of its control messages under it.
    pub const CONTROL: Self = Self(0);
}

/// A chat message on its way to the bus.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The room it is said in.
    pub room: RoomName,
    /// Who says it; ids are unique per user and room.
    pub user: UserId,
    /// What the memory and the sends that it takes are charged to.
    pub owner: Owner,
    /// The sender's id for it, by which a repetition is recognised.
    pub id: Option<Box<str>>,
    /// The message as JSON without its end: the bus appends `,"seq":N}` and knows nothing else of it.
    pub body: Bytes,
    /// A change of the restrictions that is made in the same step, with `body` for its content; only of control messages.
    pub restriction: Option<Box<RestrictionChange>>,
}

/// Messages of a room that are to be deleted: a tombstone takes the place of each that history holds, under the same number, and an
/// announcement gets a number of its own.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// The announcement. It is numbered, kept and delivered as every publication is. It has no id.
    pub announcement: Publication,
    /// Which messages.
    pub targets: DeletionTargets,
}

/// Which messages a [`Deletion`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionTargets {
    /// The life of the history that the numbers belong to; the present one if there is none.
    pub epoch: Option<Epoch>,
    /// Their numbers: 1 to 64.
    pub seqs: Box<[u64]>,
}

/// A change of the restrictions that a bus keeps: bans and mutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestrictionChange {
    /// Names the restriction: at most 512 bytes of UTF-8. There is one of each key at most.
    pub key: Box<str>,
    /// What becomes of it.
    pub action: RestrictionAction,
}

/// What becomes of a restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestrictionAction {
    /// It is kept, in place of an earlier one.
    Keep {
        /// When it expires, in Unix milliseconds. It need not be kept for longer.
        expires_at: Option<u64>,
    },
    /// It goes.
    Lift,
}

/// A part of all restrictions that a bus keeps. A load has one part at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestrictionsPage {
    /// Whether a load begins with it: nothing of the load was read before, and every change that is made from now on is told by a
    /// control message. What such a message has told, no part of the load changes. A load that was under way is void.
    pub is_first: bool,
    /// Whether the load ends with it.
    pub is_last: bool,
    /// The bodies with which the restrictions were [kept](BusRequest::Restrict), in any order.
    pub bodies: Vec<Bytes>,
}

impl RestrictionsPage {
    /// A whole load, of a bus that keeps no restrictions from before its start.
    pub const NONE: Self = Self { is_first: true, is_last: true, bodies: Vec::new() };

    /// The beginning of a load that reads later.
    pub const BEGIN: Self = Self { is_first: true, is_last: false, bodies: Vec::new() };
}

/// A message that a bus has given a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// 1, 2, 3 … within the room's epoch.
    pub seq: u64,
    /// As in [`Publication::body`].
    pub body: Bytes,
}

/// The entry of history in place of a message of this room that was deleted.
pub(crate) fn tombstone(room: &RoomName) -> Bytes {
    Bytes::from(protocol::tombstone_body(room.as_str()))
}

/// Which part of a room's history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Everything behind this number.
    After(u64),
    /// The newest so many.
    Newest(u32),
    /// The newest so many of those before a number. If these are too many bytes, the oldest are left out.
    Before {
        /// The number; without one, the newest of all.
        seq: Option<u64>,
        /// How many messages at most.
        count: u32,
    },
}

#[cfg(feature = "redis")]
impl ReadFrom {
    /// Whether a page is read from its newest message to its oldest.
    pub(crate) fn is_backwards(self) -> bool {
        matches!(self, Self::Before { .. })
    }
}

/// That a user has come into a room or is not there any more: on this node for the others, or on any of the others for this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Who.
    pub user: UserId,
    /// A name to show beside the user's.
    pub name: Option<Box<str>>,
    /// Whether it is there now.
    pub status: PresenceStatus,
}

/// Something momentary that a user shows to a room. It is passed on to those who are there, and neither numbered nor kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The room whose members see it.
    pub room: RoomName,
    /// The user that shows it.
    pub user: UserId,
    /// The kind, which says how `body` is read.
    pub kind: SignalKind,
    /// The content as text. A bus passes it on and does not read it.
    pub body: Cow<'static, str>,
}

/// What the hub wants of a bus.
#[derive(Debug)]
pub enum BusRequest {
    /// The room has members here: from now on its messages are to be delivered.
    Open(RoomName),
    /// The room has no members here any more.
    Close(RoomName),
    /// Number it, keep it, deliver it.
    Publish {
        /// To be repeated in [`BusEvent::Published`].
        ticket: Ticket,
        /// What to publish.
        publication: Publication,
    },
    /// Delete messages, and announce that, both in one step. It is answered as a publication is, with the number of the announcement.
    ///
    /// Nothing of the messages stays but their numbers and their remembered ids. The body of a tombstone is
    /// `{"type":"deleted","room":"…"`. A message that is said to exist, and that history does not hold, is announced all the same.
    /// [`Outcome::Duplicate`], with the number of the first message, says that all of them were deleted before.
    /// [`RefusalKind::NotFound`] says that the epoch is another one, or that a number is not a message's.
    Delete {
        /// To be repeated in [`BusEvent::Published`].
        ticket: Ticket,
        /// Which messages, and the announcement.
        deletion: Box<Deletion>,
    },
    /// Pass a control message on to all nodes, this one included, in one order. [`ControlRoom`](crate::bus::ControlRoom) does
    /// it for a bus that has rooms.
    Control {
        /// To be repeated in [`BusEvent::Published`].
        ticket: Ticket,
        /// The message as JSON without its end, of at most 2 KiB.
        body: Bytes,
    },
    /// Change the restrictions that the bus keeps, and pass the change on as a control message, both in one step. It is answered as a
    /// control message is; [`RefusalKind::StorageFull`] says that there are as many as may be.
    Restrict {
        /// To be repeated in [`BusEvent::Published`].
        ticket: Ticket,
        /// Which one, and what becomes of it.
        change: Box<RestrictionChange>,
        /// The control message, and what is kept: JSON without its end, of at most 2 KiB.
        body: Bytes,
    },
    /// Read a page of history.
    Read {
        /// To be repeated in [`BusEvent::Page`].
        ticket: Ticket,
        /// Whose history.
        room: RoomName,
        /// Which part.
        from: ReadFrom,
        /// The most that the bodies of the page may add up to; a first message is given even if it alone is larger.
        /// With 0 no messages are wanted, only the position.
        bytes_max: usize,
    },
    /// A user has come into a room here with its first connection, or its last is gone for good; only for a bus that
    /// shares presence. It is not answered.
    Presence {
        /// Where.
        room: RoomName,
        /// Who, and which way.
        change: PresenceChange,
    },
    /// Find out who is in an open room on other nodes now; only for a bus that shares presence. It is answered by
    /// [`BusEvent::PresenceChecked`], however long that takes, unless the room is closed before. The hub has one under way for a
    /// room.
    CheckPresence(RoomName),
    /// A signal of a user here, for the other nodes; only for a bus that shares presence. It is the first thing that a bus may
    /// drop, and it is not answered.
    Signal(Signal),
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was given this number. If its room is open here, its delivery was told before, in the epoch that still holds: no
    /// [`BusEvent::EpochChanged`] of the room stands between the two.
    Accepted(u64),
    /// It was given this number. Its copy has not been delivered here, or nobody can tell whether it was; it may come later.
    AcceptedUnseen(u64),
    /// Its id was accepted before, with this number.
    Duplicate(u64),
    /// It was not taken; the sender may try again, unless there is no such message.
    Refused(BusRefusal),
}

/// Why a bus has not done what it was asked. All of these pass but [`RefusalKind::NotFound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRefusal {
    /// The reason, for a person to read.
    pub kind: RefusalKind,
    /// The same in a sentence, for the sender.
    pub message: &'static str,
}

/// The kind of obstacle that a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The bus has as much under way as it may.
    Busy,
    /// Its storage holds as much as it may.
    StorageFull,
    /// Its storage does not answer, or cannot do it now.
    Unavailable,
    /// There is no such message.
    NotFound,
}

impl BusRefusal {
    /// The bus has as much under way as it may.
    pub const fn busy(message: &'static str) -> Self {
        Self { kind: RefusalKind::Busy, message }
    }

    /// Its storage holds as much as it may.
    pub const fn storage_full(message: &'static str) -> Self {
        Self { kind: RefusalKind::StorageFull, message }
    }

    /// Its storage does not answer, or cannot do it now.
    pub const fn unavailable(message: &'static str) -> Self {
        Self { kind: RefusalKind::Unavailable, message }
    }

    /// A message that is to be deleted was never there, or belongs to another epoch.
    pub const NO_MESSAGE: Self =
        Self { kind: RefusalKind::NotFound, message: "the room has no such message in this epoch" };

    /// The error code for the sender.
    pub fn code(&self) -> ErrorCode {
        match self.kind {
            RefusalKind::Busy => ErrorCode::ServerBusy,
            RefusalKind::StorageFull => ErrorCode::StorageFull,
            RefusalKind::Unavailable => ErrorCode::Unavailable,
            RefusalKind::NotFound => ErrorCode::NotFound,
        }
    }
}

/// A page of history.
#[derive(Clone, Debug)]
pub struct Page {
    /// The life of the history that the numbers belong to.
    pub epoch: Epoch,
    /// The number of the newest message of the room, 0 if there was none.
    pub top: u64,
    /// Consecutive messages, oldest first. After a [`ReadFrom::After`] the first is the oldest still held behind it;
    /// whether that leaves a hole is for the reader to see.
    pub messages: Vec<Numbered>,
    /// Whether the page reaches up to `top`; after a [`ReadFrom::Before`], whether no older message is held.
    pub complete: bool,
}

impl Page {
    /// The bodies of the messages, with their numbers.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.messages.iter().map(|message| (&*message.body, message.seq))
    }
}

/// What a bus tells the hub.
///
/// For one room that is open, a bus keeps this order: every [`BusEvent::Delivered`] has the number after the one
/// before it, and a [`Page`] read after [`BusRequest::Open`] knows at least what was delivered before the page.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// The answer to [`BusRequest::Publish`], [`BusRequest::Delete`], [`BusRequest::Control`] or [`BusRequest::Restrict`].
    Published {
        /// The request's.
        ticket: Ticket,
        /// What became of it.
        outcome: Outcome,
    },
    /// The answer to [`BusRequest::Read`].
    Page {
        /// The request's.
        ticket: Ticket,
        /// The page, or why there is none; the reader may try again.
        page: Result<Page, BusRefusal>,
    },
    /// A message of an open room, here or from another node.
    Delivered {
        /// The room.
        room: RoomName,
        /// The message with its number.
        message: Numbered,
        /// The owner of the publication, if it was made on this node and the bus knows it: the sends are charged to it.
        owner: Option<Owner>,
    },
    /// A control message of this node or another. Each that is accepted after the bus was started is told once, in the order of
    /// its number.
    Control(Numbered),
    /// Control messages may have been lost. The next one has the number after `top`.
    ControlLost {
        /// The number of the newest one.
        top: u64,
    },
    /// Restrictions that the bus keeps. A bus tells all of them as soon as it can, in one part or several, and again after
    /// [`BusEvent::ControlLost`]. Changes come as control messages, before, between and after the parts. Until the last part of the first
    /// load, the server admits nobody.
    Restrictions(RestrictionsPage),
    /// The history of an open room began a new life: what its members hold is not continued.
    EpochChanged {
        /// The room.
        room: RoomName,
        /// The new life.
        epoch: Epoch,
        /// The number of its newest message.
        top: u64,
    },
    /// In an open room, a user is on another node too, or on no other any more. Who was there before the room was opened
    /// is told before the answer to the first read; what is told twice changes nothing.
    Presence {
        /// The room.
        room: RoomName,
        /// Who, and which way.
        change: PresenceChange,
    },
    /// The answer to [`BusRequest::CheckPresence`]: whatever other nodes had said of their users in the room when it was asked has
    /// been told by now. Silence is no answer: a bus that does not hear the other nodes waits until it does.
    PresenceChecked(RoomName),
    /// A signal of a user on another node, in an open room.
    Signal(Signal),
}
