//! Encodes the requests of presence.

use super::Packer;
use crate::bus::redis::commands::presence::{USERS_MAX, changes_json};
use crate::bus::redis::presence::{CHANGES_MAX, Heartbeat, PresenceRequest};
use crate::id::RoomName;

impl Packer {
    pub(super) fn pack_presence(&mut self, room: &RoomName, request: &PresenceRequest) {
        self.command.arg(2);
        self.arg_key(room, "nodes");
        self.names.write_key(&mut self.text, room, "on:");
        self.text.push_str(&self.node);
        self.command.arg(&self.text).arg(self.ttl).arg(&self.node);
        match request {
            PresenceRequest::Update { base, version, changes } => {
                let is_told = changes.len() <= CHANGES_MAX;
                let base = base.map(|base| base.to_string()).unwrap_or_default();
                self.command.arg(base).arg(*version).arg(changes_json(changes)).arg(u8::from(is_told));
            }
            PresenceRequest::Query { known, tombstones } => {
                self.command.arg(USERS_MAX).arg(known.len());
                for (node, version) in known.iter().chain(tombstones) {
                    self.command.arg(node.as_str()).arg(*version);
                }
            }
        }
    }

    pub(super) fn pack_heartbeat(&mut self, heartbeat: &Heartbeat) {
        self.names.write_nodes_key(&mut self.text);
        self.command.arg(1).arg(&self.text).arg(self.ttl).arg(&self.node);
        self.command.arg(heartbeat.text.as_deref().unwrap_or_default()).arg(heartbeat.last_text.as_str());
        for (node, text) in &heartbeat.remove {
            self.command.arg(node.as_str()).arg(text.as_str());
        }
    }
}
