//! Control messages as entries of a reserved room, so that they share order, numbers and gap recovery with messages.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::message::{
    BusEvent, BusRefusal, BusRequest, Numbered, Outcome, Publication, ReadFrom, RestrictionChange, RestrictionsPage,
    Ticket,
};
use crate::id::{RoomName, UserId};
use crate::owner::Owner;
use crate::time::Now;

/// How long until the room's position is read again after that was refused.
const RETRY: Duration = Duration::from_secs(1);

/// Carries the control messages of a bus through a room that no client can name.
///
/// A bus that has one submits to itself what [`ControlRoom::poll_request`] gives, and tells the hub no event that has not
/// passed through [`ControlRoom::translate`]. The room is opened at once and stays open.
///
/// A control message that is published before deliveries begin here would never come back. So this node's own wait until the
/// room's position has been read; if that is refused, they are refused.
///
/// **Bounds:** no more control messages wait than [`HubLimits::publications_pending_max`], among which the hub counts them.
///
/// [`HubLimits::publications_pending_max`]: crate::settings::HubLimits::publications_pending_max
#[derive(Debug)]
pub struct ControlRoom {
    name: RoomName,
    phase: Phase,
    requests: VecDeque<BusRequest>,
    events: VecDeque<BusEvent>,
    /// The number of the last control message that was delivered.
    delivered: Option<u64>,
}

#[derive(Debug)]
enum Phase {
    /// The position is being read, or will be at that time. Control messages wait.
    Opening {
        held: Vec<ControlMessage>,
        read_at: Option<Duration>,
    },
    Open,
}

/// A control message of this node, with the change of the restrictions that it is about.
#[derive(Debug)]
struct ControlMessage {
    ticket: Ticket,
    body: Bytes,
    restriction: Option<Box<RestrictionChange>>,
}

/// The room of a bus that keeps no restrictions from before its start: it has the hub told so.
impl Default for ControlRoom {
    fn default() -> Self {
        let mut room = Self::with_stored_restrictions();
        room.events.push_back(BusEvent::Restrictions(RestrictionsPage::NONE));
        room
    }
}

impl ControlRoom {
    /// The room of a bus that stores restrictions, and tells of them by [`BusEvent::Restrictions`] itself.
    pub fn with_stored_restrictions() -> Self {
        let name = RoomName::control();
        let requests = [BusRequest::Open(name.clone()), read_position(&name)].into();
        let phase = Phase::Opening { held: Vec::new(), read_at: None };
        Self { name, phase, requests, events: VecDeque::new(), delivered: None }
    }
}

fn read_position(name: &RoomName) -> BusRequest {
    BusRequest::Read { ticket: Ticket::CONTROL, room: name.clone(), from: ReadFrom::Newest(0), bytes_max: 0 }
}

impl ControlRoom {
    /// The reserved room.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// Takes [`BusRequest::Control`].
    pub fn submit(&mut self, ticket: Ticket, body: Bytes) {
        self.take(ControlMessage { ticket, body, restriction: None });
    }

    /// Takes [`BusRequest::Restrict`]. The [publication](Publication::restriction) that it becomes has the change.
    pub fn submit_restriction(&mut self, ticket: Ticket, change: Box<RestrictionChange>, body: Bytes) {
        self.take(ControlMessage { ticket, body, restriction: Some(change) });
    }

    /// The next request that the bus submits to itself.
    pub fn poll_request(&mut self, now: Now) -> Option<BusRequest> {
        if let Phase::Opening { read_at, .. } = &mut self.phase
            && read_at.is_some_and(|at| at <= now.uptime)
        {
            *read_at = None;
            return Some(read_position(&self.name));
        }
        self.requests.pop_front()
    }

    /// The next event that the room itself has for the hub.
    pub fn poll_event(&mut self) -> Option<BusEvent> {
        self.events.pop_front()
    }

    /// What the hub is told of an event of the bus: nothing, if it concerns only this room.
    pub fn translate(&mut self, now: Now, event: BusEvent) -> Option<BusEvent> {
        match event {
            BusEvent::Delivered { room, message, .. } if room.is_control() => self.take_message(message),
            BusEvent::EpochChanged { room, top, .. } if room.is_control() => {
                self.delivered = Some(top);
                Some(BusEvent::ControlLost { top })
            }
            BusEvent::Page { ticket: Ticket::CONTROL, page } => {
                self.take_position(now, page.err());
                None
            }
            other => Some(other),
        }
    }

    /// Whether the position is known, so that every later control message is delivered.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// How long until [`ControlRoom::poll_request`] or [`ControlRoom::poll_event`] has something.
    pub fn timeout(&self, now: Now) -> Option<Duration> {
        if !self.requests.is_empty() || !self.events.is_empty() {
            return Some(Duration::ZERO);
        }
        match self.phase {
            Phase::Opening { read_at, .. } => read_at.map(|at| at.saturating_sub(now.uptime)),
            Phase::Open => None,
        }
    }

    fn take(&mut self, message: ControlMessage) {
        match &mut self.phase {
            Phase::Opening { held, .. } => held.push(message),
            Phase::Open => self.publish(message),
        }
    }

    fn publish(&mut self, ControlMessage { ticket, body, restriction }: ControlMessage) {
        let (room, user, owner) = (self.name.clone(), UserId::control(), Owner::HOST);
        let publication = Publication { room, user, owner, id: None, body, restriction };
        self.requests.push_back(BusRequest::Publish { ticket, publication });
    }

    fn take_message(&mut self, message: Numbered) -> Option<BusEvent> {
        if self.delivered.is_some_and(|delivered| message.seq <= delivered) {
            return None;
        }
        self.delivered = Some(message.seq);
        Some(BusEvent::Control(message))
    }

    fn take_position(&mut self, now: Now, refusal: Option<BusRefusal>) {
        let Phase::Opening { held, read_at } = &mut self.phase else { return };
        let held = std::mem::take(held);
        let Some(refusal) = refusal else {
            self.phase = Phase::Open;
            return held.into_iter().for_each(|message| self.publish(message));
        };
        *read_at = Some(now.uptime + RETRY);
        let outcome = Outcome::Refused(refusal);
        let refused =
            |message: ControlMessage| BusEvent::Published { ticket: message.ticket, outcome: outcome.clone() };
        self.events.extend(held.into_iter().map(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::message::{Page, RestrictionAction};
    use crate::id::Epoch;

    fn at(seconds: u64) -> Now {
        Now { uptime: Duration::from_secs(seconds), unix_ms: 0 }
    }

    fn page(top: u64) -> BusEvent {
        let page = Page { epoch: Epoch::new("e"), top, messages: Vec::new(), complete: true };
        BusEvent::Page { ticket: Ticket::CONTROL, page: Ok(page) }
    }

    fn delivered(room: &ControlRoom, seq: u64) -> BusEvent {
        BusEvent::Delivered {
            room: room.name().clone(),
            message: Numbered { seq, body: Bytes::from_static(b"{") },
            owner: None,
        }
    }

    /// The tickets that are published.
    fn published(room: &mut ControlRoom, now: Now) -> Vec<u64> {
        let requests = std::iter::from_fn(|| room.poll_request(now));
        let ticket = |request| match request {
            BusRequest::Publish { ticket, publication } if publication.room.is_control() => Some(ticket.0),
            _ => None,
        };
        requests.filter_map(ticket).collect()
    }

    #[test]
    fn messages_wait_until_the_position_is_known() {
        let mut room = ControlRoom::with_stored_restrictions();
        assert!(matches!(room.poll_request(at(1)), Some(BusRequest::Open(name)) if name.is_control()));
        assert!(matches!(room.poll_request(at(1)), Some(BusRequest::Read { ticket: Ticket::CONTROL, .. })));
        room.submit(Ticket(1), Bytes::new());
        assert_eq!((published(&mut room, at(1)), room.timeout(at(1))), (vec![], None));
        assert!(room.translate(at(1), page(7)).is_none());
        room.submit(Ticket(2), Bytes::new());
        assert_eq!(room.timeout(at(1)), Some(Duration::ZERO));
        assert_eq!(published(&mut room, at(1)), [1, 2]);
        room.submit(Ticket(3), Bytes::new());
        assert_eq!((published(&mut room, at(1)), room.timeout(at(1))), (vec![3], None));
    }

    #[test]
    fn messages_are_refused_with_the_position_which_is_read_again_later() {
        let mut room = ControlRoom::with_stored_restrictions();
        room.submit(Ticket(1), Bytes::new());
        assert!(published(&mut room, at(1)).is_empty());
        let refusal = BusRefusal::unavailable("no");
        assert!(room.translate(at(1), BusEvent::Page { ticket: Ticket::CONTROL, page: Err(refusal) }).is_none());
        let Some(BusEvent::Published { ticket: Ticket(1), outcome }) = room.poll_event() else { panic!("no answer") };
        assert_eq!(outcome, Outcome::Refused(refusal));
        // The next one waits for the next answer.
        room.submit(Ticket(2), Bytes::new());
        assert_eq!((room.timeout(at(1)), room.poll_request(at(1)).is_none()), (Some(RETRY), true));
        assert!(matches!(room.poll_request(at(2)), Some(BusRequest::Read { .. })));
        assert_eq!((room.timeout(at(2)), room.poll_request(at(9)).is_none()), (None, true), "once");
        room.translate(at(2), page(0));
        assert_eq!(published(&mut room, at(2)), [2]);
    }

    #[test]
    fn only_the_reserved_room_is_translated_and_each_of_its_messages_is_told_once() {
        let mut room = ControlRoom::with_stored_restrictions();
        let mut seq = |event| match room.translate(at(1), event) {
            Some(BusEvent::Control(message)) => Some(message.seq),
            Some(BusEvent::ControlLost { top }) => Some(1000 + top),
            Some(BusEvent::Delivered { message, .. }) => Some(2000 + message.seq),
            _ => None,
        };
        let reserved = ControlRoom::with_stored_restrictions();
        let lobby = RoomName::new("lobby").unwrap();
        let lost = |room: &RoomName| BusEvent::EpochChanged { room: room.clone(), epoch: Epoch::new("f"), top: 2 };
        let message = Numbered { seq: 1, body: Bytes::new() };
        let said = BusEvent::Delivered { room: lobby.clone(), message, owner: None };
        assert_eq!([7, 7, 6, 8].map(|number| seq(delivered(&reserved, number))), [Some(7), None, None, Some(8)]);
        assert_eq!((seq(said), seq(lost(&lobby))), (Some(2001), None));
        assert_eq!(seq(lost(reserved.name())), Some(1002));
        assert_eq!([2, 3].map(|number| seq(delivered(&reserved, number))), [None, Some(3)]);
    }

    #[test]
    fn a_restriction_goes_with_its_message_and_a_bus_without_a_store_has_none_at_first() {
        let mut room = ControlRoom::default();
        assert!(matches!(room.poll_event(), Some(BusEvent::Restrictions(page)) if page == RestrictionsPage::NONE));
        assert!(room.poll_event().is_none());
        let change = RestrictionChange { key: "ban user ann".into(), action: RestrictionAction::Lift };
        room.submit_restriction(Ticket(1), Box::new(change.clone()), Bytes::new());
        room.translate(at(1), page(7));
        let requests: Vec<_> = std::iter::from_fn(|| room.poll_request(at(1))).collect();
        let Some(BusRequest::Publish { publication, .. }) = requests.last() else { panic!("no publication") };
        assert_eq!(publication.restriction.as_deref(), Some(&change));
    }
}
