//! What the bus is asked: requests that it has not been given, and those that it has not answered, with where each answer
//! goes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::bus::message::{
    BusRefusal, BusRequest, Deletion, Outcome, Page, Publication, ReadFrom, RestrictionChange, Ticket,
};
use crate::fair_queue::FairQueue;
use crate::id::{ConnectionId, RoomName, name_heap_bytes};
use crate::owner::Owner;
use crate::protocol::ErrorCode;
use crate::quota::Quota;
use crate::sharded_map::ShardedMap;

use super::error_reply::Refused;
use super::index::{PurgeKey, RoomRef};
use super::reads::{HistoryQuestion, HistoryReader, ReadKind, Reads};

/// The source of a publication or a command, which is told what became of it.
#[derive(Debug)]
pub(super) enum Requester {
    /// A member, by an error or an acknowledgement.
    Member {
        connection: ConnectionId,
        room: RoomName,
        /// The id of its message.
        id: Option<Box<str>>,
        /// Where space in a log is promised, and how much.
        reserved: (RoomRef, usize),
    },
    /// The embedding program, by a notice.
    Host,
    /// A request of the HTTP API, which is answered by itself.
    Api,
}

/// A request to the bus.
#[derive(Debug)]
pub(super) enum Asked {
    /// That a message is published, or a control message passed on.
    Publication(Requester),
    /// That a restriction is written or lifted.
    Restriction(Requester),
    /// A page for a member that catches up.
    Page(AskedPage),
    /// The position of a room, for a question about it.
    Position,
    /// A page of older messages.
    History(HistoryReader),
    /// A page for a purge.
    PurgePage(PurgeKey),
    /// That messages are deleted for a purge, or that it is announced to all nodes.
    PurgeStep(PurgeKey),
}

impl Asked {
    /// Whether it counts among the publications.
    fn is_publication(&self) -> bool {
        matches!(self, Self::Publication(_) | Self::Restriction(_) | Self::PurgeStep(_))
    }
}

/// A page of history for a member that catches up.
#[derive(Debug)]
pub(super) struct AskedPage {
    pub(super) connection: ConnectionId,
    pub(super) owner: Owner,
    pub(super) room: RoomRef,
    pub(super) bytes_max: usize,
}

/// What an owner is charged until a request is answered. The bus holds it so long, too, in queues of its own.
#[derive(Clone, Copy, Debug)]
struct Charge {
    owner: Owner,
    bytes: u32,
}

impl Charge {
    /// Of a publication of a member, whose names are those of the room and of the user. Its id is kept for the answer, too.
    fn of_publication(Publication { owner, id, body, .. }: &Publication) -> Self {
        Self::new(*owner, body.len() + 2 * id.as_ref().map_or(0, |id| id.len()))
    }

    /// Of a publication that has brought its names along.
    fn with_names(Publication { owner, room, user, id, body, .. }: &Publication) -> Self {
        let names = name_heap_bytes(room.as_str()) + name_heap_bytes(user.as_str());
        Self::new(*owner, body.len() + id.as_ref().map_or(0, |id| id.len()) + names)
    }

    fn new(owner: Owner, bytes: usize) -> Self {
        Self { owner, bytes: (REQUEST_BYTES + bytes) as u32 }
    }
}

/// What a request takes here and in a bus besides what it carries: entries of queues and tables, with their spare room.
const REQUEST_BYTES: usize = 352;

/// So many requests to the bus wait for a turn or two.
const BACKLOG: usize = 256;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pending {
    /// Requests that the bus has not been given, but for those below.
    requests: VecDeque<BusRequest>,
    /// Publications, and reads without messages, that it has not been given. Owners take turns. A room was opened before anybody
    /// reads or publishes there, and is not closed while a member's publication is under way, so these may come after all other
    /// requests.
    of_owners: FairQueue<BusRequest>,
    /// Reads of pages with messages.
    reads: Reads,
    /// Requests that it has not answered.
    asked: ShardedMap<Ticket, (Asked, Charge)>,
    newest: u64,
    publications: usize,
    /// Changes of restrictions among them.
    restrictions: usize,
    publications_max: usize,
    /// What the owners of unanswered requests are charged.
    quota: Quota,
    /// Answers for the HTTP API. They count among the publications, which bounds them.
    api_answers: VecDeque<(Ticket, Outcome)>,
    /// Pages for the HTTP API. The server takes them in the turn in which they come.
    api_pages: VecDeque<(Ticket, Result<Page, BusRefusal>)>,
    /// Whether the bus is told which users come and go here, and which signals they give.
    shares_presence: bool,
    is_draining: bool,
}

impl Pending {
    pub(super) fn new(publications_max: usize, bytes_max: usize) -> Self {
        Self {
            requests: VecDeque::new(),
            of_owners: FairQueue::default(),
            reads: Reads::new(),
            asked: ShardedMap::default(),
            newest: 0,
            publications: 0,
            restrictions: 0,
            publications_max,
            quota: Quota::new(bytes_max),
            api_answers: VecDeque::new(),
            api_pages: VecDeque::new(),
            shares_presence: false,
            is_draining: false,
        }
    }

    /// Whether all publications are answered and the bus has been given everything.
    pub(super) fn is_settled(&self) -> bool {
        self.publications == 0 && self.requests.is_empty() && self.of_owners.is_empty() && self.reads.is_empty()
    }

    /// Whether there is a request to be given to the bus.
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty() || !self.of_owners.is_empty() || self.reads.has_next()
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.requests.len() + self.of_owners.len() >= BACKLOG
    }

    pub(super) fn poll_request(&mut self) -> Option<BusRequest> {
        if let Some(request) = self.requests.pop_front() {
            return Some(request);
        }
        if let Some((request, _)) = self.of_owners.pop() {
            self.of_owners.charge(1);
            return Some(request);
        }
        self.reads.poll()
    }

    /// From now on joins and publications are refused.
    pub(super) fn start_draining(&mut self) {
        self.is_draining = true;
    }

    /// Refuses what would ask more of the bus in a shutdown.
    pub(super) fn check_running(&self) -> Result<(), Refused> {
        match self.is_draining {
            true => Err((ErrorCode::ShuttingDown, "the server is shutting down".to_owned())),
            false => Ok(()),
        }
    }

    /// What all unanswered requests are charged together.
    pub(super) fn bytes(&self) -> usize {
        self.quota.held()
    }

    /// Whether another publication of a member may wait for the bus.
    pub(super) fn check_publication(&self, publication: &Publication) -> Result<(), Refused> {
        self.check_running()?;
        self.check_count()?;
        self.check_space(Charge::of_publication(publication))
    }

    /// Whether another publication may wait for the bus that is no member's.
    pub(super) fn check_publication_from_outside(&self, publication: &Publication) -> Result<(), Refused> {
        self.check_running()?;
        self.check_count()?;
        self.check_space(Charge::with_names(publication))
    }

    /// Whether another command for all nodes may wait for the bus.
    pub(super) fn check_control(&self, owner: Owner, body: &[u8]) -> Result<(), Refused> {
        self.check_running()?;
        self.check_count()?;
        self.check_space(Charge::new(owner, body.len()))
    }

    /// Whether another read of history may wait for the bus.
    pub(super) fn check_read(&self, owner: Owner) -> Result<(), Refused> {
        self.check_space(Charge::new(owner, 0))
    }

    /// Whether another read of older messages may wait for the bus.
    pub(super) fn check_look_back(&self, owner: Owner) -> Result<(), Refused> {
        self.check_running()?;
        self.check_read(owner)
    }

    fn check_count(&self) -> Result<(), Refused> {
        let waiting = self.publications;
        if waiting < self.publications_max {
            return Ok(());
        }
        Err((ErrorCode::ServerBusy, format!("{waiting} messages wait already; try again later")))
    }

    fn check_space(&self, Charge { owner, bytes }: Charge) -> Result<(), Refused> {
        if self.quota.has_space(owner, bytes as usize) {
            return Ok(());
        }
        let held = self.quota.held_by(owner);
        let message =
            format!("what waits of the user or address takes {held} bytes; there is no space for {bytes} more");
        Err((ErrorCode::ServerBusy, message))
    }

    pub(super) fn request(&mut self, request: BusRequest) {
        self.requests.push_back(request);
    }

    /// From now on the bus is told which users come and go here, and which signals they give.
    pub(super) fn share_presence(&mut self) {
        self.shares_presence = true;
    }

    /// Whether there may be other nodes.
    pub(super) fn shares_presence(&self) -> bool {
        self.shares_presence
    }

    /// Tells the bus, if it shares presence.
    pub(super) fn share(&mut self, make: impl FnOnce() -> BusRequest) {
        if self.shares_presence {
            self.requests.push_back(make());
        }
    }

    pub(super) fn publish(&mut self, requester: Requester, publication: Publication) -> Ticket {
        let charge = match requester {
            Requester::Member { .. } => Charge::of_publication(&publication),
            Requester::Host | Requester::Api => Charge::with_names(&publication),
        };
        let ticket = self.ask(Asked::Publication(requester), charge);
        self.of_owners.push(publication.owner, BusRequest::Publish { ticket, publication });
        ticket
    }

    /// Passes a command of an owner on to all nodes.
    pub(super) fn control(&mut self, (requester, owner): (Requester, Owner), body: Bytes) -> Ticket {
        self.ask_to_control(Asked::Publication(requester), owner, body)
    }

    /// The same for a purge.
    pub(super) fn control_for_purge(&mut self, (purge, owner): (PurgeKey, Owner), body: Bytes) {
        self.ask_to_control(Asked::PurgeStep(purge), owner, body);
    }

    fn ask_to_control(&mut self, asked: Asked, owner: Owner, body: Bytes) -> Ticket {
        let ticket = self.ask(asked, Charge::new(owner, body.len()));
        self.request(BusRequest::Control { ticket, body });
        ticket
    }

    /// Has a restriction written or lifted for an owner, with the command that says so.
    pub(super) fn restrict(
        &mut self,
        (requester, owner): (Requester, Owner),
        (change, body): (RestrictionChange, Bytes),
    ) -> Ticket {
        let charge = Charge::new(owner, body.len() + change.key.len());
        let ticket = self.ask(Asked::Restriction(requester), charge);
        self.request(BusRequest::Restrict { ticket, change: Box::new(change), body });
        ticket
    }

    /// How many changes of restrictions are under way.
    pub(super) fn restrictions(&self) -> usize {
        self.restrictions
    }

    /// Has messages deleted. The requester is told the outcome.
    pub(super) fn delete(&mut self, requester: Requester, deletion: Deletion) -> Ticket {
        self.ask_to_delete(Asked::Publication(requester), deletion)
    }

    /// The same for a purge.
    pub(super) fn delete_for_purge(&mut self, purge: PurgeKey, deletion: Deletion) {
        self.ask_to_delete(Asked::PurgeStep(purge), deletion);
    }

    fn ask_to_delete(&mut self, asked: Asked, deletion: Deletion) -> Ticket {
        let ticket = self.ask(asked, Charge::of_publication(&deletion.announcement));
        let owner = deletion.announcement.owner;
        self.of_owners.push(owner, BusRequest::Delete { ticket, deletion: Box::new(deletion) });
        ticket
    }

    /// Asks for a page of messages for a purge of an owner.
    pub(super) fn read_for_purge(
        &mut self,
        (purge, owner): (PurgeKey, Owner),
        room: RoomName,
        from: ReadFrom,
        bytes_max: usize,
    ) {
        let ticket = self.ask(Asked::PurgePage(purge), Charge::new(owner, 0));
        self.reads.push(ReadKind::LookBack, owner, BusRequest::Read { ticket, room, from, bytes_max });
    }

    /// Asks for a page. One without messages costs little, so it is not limited.
    pub(super) fn read(&mut self, page: AskedPage, room: RoomName, from: ReadFrom) -> Ticket {
        let (bytes_max, owner) = (page.bytes_max, page.owner);
        let ticket = self.ask(Asked::Page(page), Charge::new(owner, 0));
        let read = BusRequest::Read { ticket, room, from, bytes_max };
        if bytes_max > 0 {
            self.reads.push(ReadKind::CatchUp, owner, read);
        } else {
            self.of_owners.push(owner, read);
        }
        ticket
    }

    /// Asks for the position of a room, for a question of an owner.
    pub(super) fn read_position(&mut self, owner: Owner, room: RoomName) -> Ticket {
        let ticket = self.ask(Asked::Position, Charge::new(owner, 0));
        self.request(BusRequest::Read { ticket, room, from: ReadFrom::Newest(0), bytes_max: 0 });
        ticket
    }

    /// Asks for older messages.
    pub(super) fn look_back(
        &mut self,
        (reader, owner): (HistoryReader, Owner),
        question: HistoryQuestion,
        bytes_max: usize,
    ) -> Ticket {
        let ticket = self.ask(Asked::History(reader), Charge::new(owner, 0));
        let from = question.read_from();
        let read = BusRequest::Read { ticket, room: question.room, from, bytes_max };
        self.reads.push(ReadKind::LookBack, owner, read);
        ticket
    }

    /// A ticket that no other request has.
    pub(super) fn new_ticket(&mut self) -> Ticket {
        self.newest += 1;
        Ticket(self.newest)
    }

    /// A new ticket, under which something is asked.
    fn ask(&mut self, asked: Asked, charge: Charge) -> Ticket {
        self.quota.charge(charge.owner, charge.bytes as usize);
        self.publications += usize::from(asked.is_publication());
        self.restrictions += usize::from(matches!(asked, Asked::Restriction(_)));
        let ticket = self.new_ticket();
        self.asked.insert(ticket, (asked, charge));
        ticket
    }

    /// What was asked under a ticket, which is answered now.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Asked> {
        let (asked, charge) = self.asked.remove(&ticket)?;
        self.quota.release(charge.owner, charge.bytes as usize);
        self.publications -= usize::from(asked.is_publication());
        match &asked {
            Asked::Restriction(_) => self.restrictions -= 1,
            Asked::Page(AskedPage { bytes_max: 1.., .. }) => self.reads.end(ReadKind::CatchUp),
            Asked::History(_) | Asked::PurgePage(_) => self.reads.end(ReadKind::LookBack),
            Asked::Page(_) | Asked::Publication(_) | Asked::PurgeStep(_) | Asked::Position => {}
        }
        Some(asked)
    }

    pub(super) fn answer_api(&mut self, ticket: Ticket, outcome: Outcome) {
        self.api_answers.push_back((ticket, outcome));
    }

    pub(super) fn poll_api_answer(&mut self) -> Option<(Ticket, Outcome)> {
        self.api_answers.pop_front()
    }

    pub(super) fn answer_api_page(&mut self, ticket: Ticket, page: Result<Page, BusRefusal>) {
        self.api_pages.push_back((ticket, page));
    }

    pub(super) fn poll_api_page(&mut self) -> Option<(Ticket, Result<Page, BusRefusal>)> {
        self.api_pages.pop_front()
    }
}
