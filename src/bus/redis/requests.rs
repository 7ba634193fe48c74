//! The requests of the hub.

use std::time::Duration;

use super::commands::{PendingPublication, PendingRead, Request, RestrictionsRead, RestrictionsSlice};
use super::room::Room;
use super::subscribe::SubscriptionChange;
use super::{CLOSE_GRACE, RedisBus, RoomDeadline, TOUCH_INTERVAL};
use crate::bus::Bus;
use crate::bus::message::{BusEvent, BusRefusal, DeletionTargets, Outcome, Publication, ReadFrom, Signal, Ticket};
use crate::id::RoomName;
use crate::timer_wheel::Tick;

impl RedisBus {
    /// Takes what the room of control messages asks.
    pub(super) fn submit_control(&mut self) {
        while let Some(request) = self.control.poll_request(self.now) {
            self.submit(request);
        }
    }

    /// Sends the next read of the restrictions, if it is time for one.
    pub(super) fn read_restrictions(&mut self) {
        if let Some(read) = self.restrictions.poll(self.now.uptime) {
            self.send(Request::Restrictions(read));
        }
    }

    /// Takes the answer to a read of the restrictions.
    pub(super) fn take_restrictions(&mut self, read: RestrictionsRead, result: Result<RestrictionsSlice, BusRefusal>) {
        let page = self.restrictions.answer(self.now.uptime, read, result);
        self.events.extend(page.map(BusEvent::Restrictions));
        self.read_restrictions();
    }

    pub(super) fn open(&mut self, name: &RoomName) {
        let now = self.now;
        if let Some(room) = self.rooms.get_mut(name) {
            room.closed_at = None;
            self.presence.open(now.uptime, name, room.opening);
            return;
        }
        self.openings = self.openings.wrapping_add(1);
        let opening = self.openings;
        let room = Room::new(opening, self.limits.find(name));
        self.subscriber.push(SubscriptionChange { room: name.clone(), opening: Some(opening) });
        self.rooms.insert(name.clone(), room);
        self.presence.open(now.uptime, name, opening);
        // Comparisons are spread over time, so that rooms that were opened together are not
        // compared together.
        let spread = Duration::from_millis(u64::from(opening.wrapping_mul(0x9e37_79b9)) % 30_000);
        let at = Tick::of(now).after(TOUCH_INTERVAL / 2 + spread);
        self.insert_deadline(at, name.clone(), opening, RoomDeadline::Touch { at });
    }

    pub(super) fn close(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.closed_at = Some(now.uptime);
        self.presence.close(name);
        let opening = room.opening;
        self.insert_deadline(Tick::of(now).after(CLOSE_GRACE), name.clone(), opening, RoomDeadline::Close);
    }

    /// Publishes a message, which may announce that others are deleted in the same step.
    pub(super) fn publish(&mut self, ticket: Ticket, publication: Publication, deletes: Option<DeletionTargets>) {
        if self.is_full() {
            let outcome = Outcome::Refused(BusRefusal::busy("too many messages wait for redis; try again later"));
            return self.events.push_back(BusEvent::Published { ticket, outcome });
        }
        self.serial += 1;
        let (serial, at) = (self.serial, self.now.uptime);
        let room = self.rooms.get(&publication.room);
        let rule = room.map_or_else(|| self.limits.find(&publication.room), |room| room.rule);
        let pending = PendingPublication { ticket, publication, deletes: deletes.map(Box::new), rule, serial, at };
        self.own_bodies.note(&pending);
        self.send_publication(pending);
    }

    pub(super) fn read(&mut self, ticket: Ticket, name: &RoomName, from: ReadFrom, bytes_max: usize) {
        if self.is_full() {
            let page = Err(BusRefusal::busy("too many requests wait for redis; try again later"));
            return self.events.push_back(BusEvent::Page { ticket, page });
        }
        let (room, since) = (name.clone(), self.now.uptime);
        let read = PendingRead { ticket, room, from, bytes_max, since, opening: None, reached: None };
        let is_loaded = self.presence.is_loaded(name);
        match self.rooms.get_mut(name) {
            Some(room) if !room.may_be_read(self.subscription) || !is_loaded => {
                room.reads.push(read);
                self.watch_room(name);
            }
            // In a room that is not open, nothing can be missed.
            _ => self.send_read(read),
        }
    }

    pub(super) fn pass_signal(&mut self, signal: Signal) {
        // A signal that cannot be sent at once would be out of date later.
        if self.is_ready() && self.requests < self.pending_max / 4 {
            self.send(Request::Signal(signal));
        }
    }
}
