//! What the presence of this node wants done, and the responses to it.

use std::sync::atomic::Ordering::Relaxed;

use super::super::{Departure, PendingRequest, RedisBus};
use crate::bus::message::{BusEvent, BusRefusal};
use crate::bus::redis::commands::call::{ScriptCall, ScriptResult};
use crate::bus::redis::commands::presence::{PresenceCall, PresenceResult};
use crate::bus::redis::presence::{PresenceAction, PresenceAnswer};
use crate::id::RoomName;

impl RedisBus {
    /// Carries out the next action. Returns whether there was one.
    pub(crate) fn take_action(&mut self) -> bool {
        if self.departure != Departure::None {
            // Another heartbeat would take back that this node has left.
            return false;
        }
        let Some(action) = self.presence.poll() else { return false };
        match action {
            PresenceAction::Ask { room, opening, request } => {
                let call = ScriptCall::Presence(PresenceCall::Room(room.clone(), request));
                self.send(call, PendingRequest::Presence { room, opening });
            }
            PresenceAction::Heartbeat(heartbeat) => {
                self.send(ScriptCall::Presence(PresenceCall::Heartbeat(heartbeat)), PendingRequest::Heartbeat);
            }
            PresenceAction::Tell(room, change) => self.events.push_back(BusEvent::Presence { room, change }),
            PresenceAction::Loaded(room) => self.release_reads(&room),
        }
        true
    }

    pub(crate) fn take_presence(&mut self, name: &RoomName, opening: u32, result: Result<ScriptResult, BusRefusal>) {
        let answer = match result {
            Ok(ScriptResult::Presence(PresenceResult::Updated(is_done))) => PresenceAnswer::Updated(is_done),
            Ok(ScriptResult::Presence(PresenceResult::Sets(records))) => PresenceAnswer::Sets(records),
            _ => PresenceAnswer::Refused,
        };
        self.presence.answer(self.now.uptime, (name, opening), answer);
    }

    pub(crate) fn take_heartbeat(&mut self, result: Result<ScriptResult, BusRefusal>) {
        let heard = match result {
            Ok(ScriptResult::Presence(PresenceResult::Heartbeat(heard))) => Some(heard),
            _ => None,
        };
        self.presence.answer_heartbeat(self.now.uptime, heard);
    }

    pub(crate) fn count_presence(&self) {
        let counts = self.presence.counts();
        let stats = &self.counters;
        for (counter, count) in [
            (&stats.nodes_alive, counts.nodes_alive),
            (&stats.users_elsewhere, counts.users_elsewhere),
            (&stats.shares_sent_total, counts.updates_sent),
            (&stats.shares_received_total, counts.deltas_received),
            (&stats.repairs_total, counts.repairs),
        ] {
            counter.store(count, Relaxed);
        }
    }
}
