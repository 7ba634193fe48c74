//! Work that is due in rooms: comparing, closing, and checking where something waits.

use super::subscribe::SubscriptionChange;
use super::{CLOSE_GRACE, Deadline, RedisBus, RoomDeadline, TOUCH_INTERVAL};
use crate::bus::message::{BusEvent, BusRefusal, Outcome};
use crate::id::RoomName;
use crate::time::Now;
use crate::timer_wheel::Tick;

impl RedisBus {
    pub(super) fn handle_deadline(&mut self, now: Now, tick: Tick, deadline: Deadline) {
        let Deadline::Room { name, opening, due } = deadline else { return self.log_epochs() };
        let Some(room) = self.rooms.get_mut(&name).filter(|room| room.opening == opening) else { return };
        match due {
            RoomDeadline::Touch { at } if tick < at => self.insert_deadline(at, name, opening, due),
            RoomDeadline::Touch { .. } => {
                self.with_reassembler(&name, |reassembler, _| reassembler.check_position());
                self.presence.query_soon(now.uptime, &name);
                let at = Tick::of(now).after(TOUCH_INTERVAL);
                self.insert_deadline(at, name, opening, RoomDeadline::Touch { at });
            }
            RoomDeadline::Close => match room.closed_at {
                Some(at) if now.uptime < at + CLOSE_GRACE => {}
                Some(_) if room.is_compared(self.subscription) && self.presence.may_forget(&name) => self.forget(&name),
                // Redis may have lost what only this node has delivered, or the other nodes still
                // count users of this node.
                Some(_) => self.insert_deadline(tick.after(CLOSE_GRACE), name, opening, due),
                None => {}
            },
            RoomDeadline::Watch => {
                (room.is_watched, room.is_resting) = (false, false);
                self.check_room(&name);
            }
        }
    }

    pub(super) fn insert_deadline(&mut self, at: Tick, name: RoomName, opening: u32, due: RoomDeadline) {
        self.wheel.insert(at, Deadline::Room { name, opening, due });
    }

    pub(super) fn forget(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.remove(name) else { return };
        self.presence.forget(name);
        self.subscriber.push(SubscriptionChange { room: name.clone(), opening: None });
        for copy in room.awaited_copies {
            self.own_bodies.forget(&copy.pending);
            let (ticket, outcome) = (copy.pending.ticket, Outcome::AcceptedUnseen(copy.numbering.seq));
            self.events.push_back(BusEvent::Published { ticket, outcome });
        }
        for read in room.reads {
            self.events.push_back(BusEvent::Page {
                ticket: read.ticket,
                page: Err(BusRefusal::unavailable("the room was closed")),
            });
        }
    }
}
