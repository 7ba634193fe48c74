//! Between the threads, who is present, and the hub.

use std::sync::atomic::Ordering::Relaxed;

use super::super::presence::{Action, Answer};
use super::super::script::{Call, Done, PresenceCall, PresenceDone};
use super::super::{Pending, RedisBus};
use crate::id::RoomName;
use crate::publication::BusEvent;

impl RedisBus {
    /// Carries out what follows for presence; says whether there was anything.
    pub(in super::super) fn take_action(&mut self) -> bool {
        let Some(action) = self.presence.poll() else { return false };
        match action {
            Action::Ask { room, opening, wish } => {
                let call = Call::Presence(PresenceCall::Room(room.clone(), wish));
                self.order(call, Pending::Roster { room, opening });
            }
            Action::Beat(beat) => self.order(Call::Presence(PresenceCall::Beat(beat)), Pending::Beat),
            Action::Tell(room, change) => self.events.push_back(BusEvent::Presence { room, change }),
            Action::Loaded(room) => self.release_reads(&room),
        }
        true
    }

    pub(super) fn take_roster(&mut self, name: &RoomName, opening: u32, result: Result<Done, &'static str>) {
        let answer = match result {
            Ok(Done::Presence(PresenceDone::Shared(is_done))) => Answer::Shared(is_done),
            Ok(Done::Presence(PresenceDone::Records(records))) => Answer::Records(records),
            _ => Answer::Refused,
        };
        self.presence.answer(self.now.uptime, (name, opening), answer);
    }

    pub(super) fn take_beat(&mut self, result: Result<Done, &'static str>) {
        let heard = match result {
            Ok(Done::Presence(PresenceDone::Heard(heard))) => Some(heard),
            _ => None,
        };
        self.presence.answer_beat(self.now.uptime, heard);
    }

    pub(in super::super) fn count_presence(&self) {
        let counts = self.presence.counts();
        let stats = &self.counters;
        for (counter, count) in [
            (&stats.nodes_alive, counts.nodes_alive),
            (&stats.users_elsewhere, counts.users_elsewhere),
            (&stats.shares_sent_total, counts.shares_sent),
            (&stats.shares_received_total, counts.shares_taken),
            (&stats.repairs_total, counts.repairs),
        ] {
            counter.store(count, Relaxed);
        }
    }
}
